//! Every object that is made for an EagleCluster, as it is sent to the API server. A change of any shows in review.
//! `UPDATE_EXPECT=1 cargo test -p eagle-operator --test golden` writes them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fmt::Write;

use eagle_crds::EagleCluster;
use eagle_operator::cluster::build::build;
use eagle_operator::cluster::validate::{Invalid, Settings, ValidatedCluster, validate};
use eagle_operator::cluster::{Dereferenced, Prepared, Resources};
use expect_test::expect_file;

// Not called `eagle`, so that a name in the wrong place shows.
const MINIMAL: &str = "
apiVersion: eagle-p2p.io/v1alpha1
kind: EagleCluster
metadata: {name: north, uid: 5d1c}
spec: {}
";

const FULL: &str = r#"
apiVersion: eagle-p2p.io/v1alpha1
kind: EagleCluster
metadata: {name: north, uid: 5d1c}
spec:
  image: reg.example.com/eagle:1.2.3
  imagePullSecrets: [{name: pull}]
  access: Open
  registries:
    - {host: docker.io, mirrors: ["http://10.0.0.8:5000"], maxRequests: 16, download: 50M, credentialsRef: {name: hub}}
    - {host: "reg.example.com:5000", endpoint: "https://10.0.0.7:5000", caRef: {name: authority}}
  mirror: {port: 5001, firstByteTimeout: 500ms, stallTimeout: 3s}
  runtime: {hosts: "Off", socket: /run/crio/crio.sock}
  seeder:
    replicas: 3
    minCopies: 3
    storage:
      kind: Ephemeral
      size: 50Gi
      s3:
        bucket: images
        endpoint: "https://minio.example.com:9000"
        region: north
        prefix: eagle/north/
        pathStyle: true
        quota: 2Ti
        serverSideEncryption: aws:kms
        kmsKeyID: a-key
        credentialsRef: {name: bucket}
        caRef: {name: authority}
        serviceAccountAnnotations: {eks.amazonaws.com/role-arn: "arn:aws:iam::1:role/eagle"}
    upload: 500Mi
    placement:
      zoneKey: example.com/room
      nodeSelector: {disk: fast}
      tolerations: [{key: dedicated, operator: Exists}]
      priorityClassName: important
    resources: {requests: {cpu: 2}, limits: {}}
  tracker: {replicas: 1}
  agent:
    nodeSelector: {pool: general}
    tolerations: []
    cache: {hostPath: /data/eagle, size: 5Gi, minFree: 500Mi}
    upload: 200Mbit
    download: 50M
    maxUnavailable: 3
  networkPolicies: false
  log: debug
"#;

fn secret(data: &serde_json::Value) -> k8s_openapi::api::core::v1::Secret {
    let text = data
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()));
    let data = text.map(|(key, value)| (key, k8s_openapi::ByteString(value.into_bytes()))).collect();
    k8s_openapi::api::core::v1::Secret { data: Some(data), ..Default::default() }
}

/// The Secret with the bucket's login.
fn login(secret_key: &str) -> k8s_openapi::api::core::v1::Secret {
    secret(&serde_json::json!({ "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": secret_key }))
}

fn references() -> Dereferenced {
    Dereferenced {
        fresh_key: "not-so-secret".into(),
        secrets: [
            ("hub".to_owned(), Some(secret(&serde_json::json!({ "username": "u", "password": "p" })))),
            ("bucket".to_owned(), Some(login("bucket-secret"))),
            ("authority".to_owned(), Some(secret(&serde_json::json!({ "ca.crt": "PEM" })))),
        ]
        .into(),
        ..Dereferenced::default()
    }
}

fn validated(yaml: &str) -> ValidatedCluster {
    validated_with(yaml, &references()).unwrap()
}

fn validated_with(yaml: &str, references: &Dereferenced) -> Result<ValidatedCluster, Invalid> {
    let cluster: EagleCluster = serde_saphyr::from_str(yaml).unwrap();
    let settings = Settings {
        namespace: "eagle-system".into(),
        image: "example.com/eagle:test".into(),
        control_url: "https://eagle-operator.eagle-system.svc:7090".into(),
        control_authorities: "AUTHORITIES".into(),
    };
    validate(&cluster, references, &settings)
}

/// One document an object; bytes of Secrets as text, so that configurations can be read.
fn text(resources: &Resources<Prepared>) -> String {
    let mut documents = String::new();
    let mut add = |object: &dyn erased::Json| {
        let mut value = object.json();
        if value["kind"] == "Secret" {
            let data = value.get_mut("data").unwrap();
            for (_, value) in data.as_object_mut().unwrap() {
                *value = String::from_utf8(base64(value.as_str().unwrap())).unwrap().into();
            }
        }
        write!(documents, "---\n{}", serde_saphyr::to_string(&value).unwrap()).unwrap();
    };
    resources.service_accounts.iter().for_each(|object| add(object));
    resources.secrets.iter().for_each(|object| add(object));
    resources.config_maps.iter().for_each(|object| add(object));
    resources.services.iter().for_each(|object| add(object));
    resources.network_policies.iter().for_each(|object| add(object));
    resources.disruption_budgets.iter().for_each(|object| add(object));
    add(&resources.trackers);
    add(&resources.seeders);
    add(&resources.agents);
    documents
}

mod erased {
    /// Anything that can be shown.
    pub(crate) trait Json {
        fn json(&self) -> serde_json::Value;
    }
    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap()
        }
    }
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

#[test]
fn what_is_made_of_the_smallest_spec() {
    expect_file!["golden/minimal.yaml"].assert_eq(&text(&build(&validated(MINIMAL)).unwrap()));
}

#[test]
fn what_is_made_when_everything_is_said() {
    expect_file!["golden/full.yaml"].assert_eq(&text(&build(&validated(FULL)).unwrap()));
}

#[test]
fn exactly_these_objects() {
    let text = text(&build(&validated(MINIMAL)).unwrap());
    let mut names = Vec::new();
    for document in text.split("---\n").skip(1) {
        let value: serde_json::Value = serde_saphyr::from_str(document).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        assert_eq!(text(&value["metadata"]["namespace"]), "eagle-system");
        assert_eq!(text(&value["metadata"]["ownerReferences"][0]["uid"]), "5d1c");
        names.push(format!("{}/{}", text(&value["kind"]), text(&value["metadata"]["name"])));
    }
    let expected = [
        "ServiceAccount/north-agent",
        "ServiceAccount/north-seeder",
        "ServiceAccount/north-tracker",
        "Secret/north-key",
        "Secret/north-agent",
        "Secret/north-seeder",
        "ConfigMap/north-control",
        "ConfigMap/north-tracker",
        "Service/north-seeder",
        "Service/north-tracker",
        "NetworkPolicy/north-seeder",
        "NetworkPolicy/north-tracker",
        "PodDisruptionBudget/north-seeder",
        "PodDisruptionBudget/north-tracker",
        "StatefulSet/north-tracker",
        "StatefulSet/north-seeder",
        "DaemonSet/north-agent",
    ];
    assert_eq!(names, expected);
}

/// A spec with a bucket whose login is in the Secret `bucket`.
const BUCKET: &str = "
apiVersion: eagle-p2p.io/v1alpha1
kind: EagleCluster
metadata: {name: north, uid: 5d1c}
spec: {seeder: {storage: {kind: Ephemeral, s3: {bucket: images, credentialsRef: {name: bucket}}}}}
";

#[test]
fn a_bucket_whose_login_is_missing_is_said() {
    let refused = |secret| {
        let mut references = references();
        references.secrets.insert("bucket".into(), secret);
        validated_with(BUCKET, &references).unwrap_err()
    };
    let gone = refused(None);
    assert_eq!(gone.reason, "SecretNotFound");
    assert!(gone.message.starts_with("spec.seeder.storage.s3.credentialsRef: there is no Secret bucket"));
    let half = refused(Some(secret(&serde_json::json!({ "AWS_ACCESS_KEY_ID": "id" }))));
    assert_eq!(half.reason, "SecretIncomplete");
    assert!(half.message.contains("AWS_SECRET_ACCESS_KEY"), "{}", half.message);
}

#[test]
fn another_login_for_the_bucket_rolls_the_seeders_and_is_in_no_object() {
    let built = |secret_key: &str| {
        let mut references = references();
        references.secrets.insert("bucket".into(), Some(login(secret_key)));
        build(&validated_with(BUCKET, &references).unwrap()).unwrap()
    };
    let (before, after) = (built("first-secret"), built("second-secret"));
    assert_ne!(before.seeders.spec, after.seeders.spec);
    assert_eq!(before.agents.spec, after.agents.spec);
    assert!(!text(&before).contains("first-secret"));
}

/// The hash in a part's Pods, by part.
fn hashes(yaml: &str) -> [String; 3] {
    let made = build(&validated(yaml)).unwrap();
    let hash = |template: k8s_openapi::api::core::v1::PodTemplateSpec| {
        template.metadata.unwrap().annotations.unwrap()["eagle-p2p.io/config-hash"].clone()
    };
    [
        hash(made.agents.spec.unwrap().template),
        hash(made.seeders.spec.unwrap().template),
        hash(made.trackers.spec.unwrap().template),
    ]
}

#[test]
fn a_change_rolls_those_it_is_for() {
    let changed = |spec: &str| {
        let (before, after) =
            (hashes(MINIMAL), hashes(&MINIMAL.replace("spec: {}", &format!("spec: {spec}"))));
        [before[0] != after[0], before[1] != after[1], before[2] != after[2]]
    };
    assert_eq!(changed("{}"), [false, false, false]);
    assert_eq!(changed("{agent: {upload: 1Mi}}"), [true, false, false]);
    assert_eq!(changed("{seeder: {upload: 1Mi}}"), [false, true, false]);
    assert_eq!(changed("{tracker: {replicas: 3}}"), [true, true, false], "they ask other trackers");
    assert_eq!(changed("{log: debug}"), [true, true, true]);
    assert_eq!(changed("{access: Open}"), [false, true, false]);
}
