//! What the API server demands of a schema, and what its users do: structural, bounded, documented; and the CEL rules,
//! evaluated as the API server would.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use eagle_crds::eagle_cluster::EagleClusterSpec;
use eagle_crds::image_prefetch::ImagePrefetchSpec;
use eagle_crds::{EagleCluster, ImagePrefetch, definitions};
use kube::CustomResourceExt;
use kube::core::cel::{Validator, apply_defaults};
use serde_json::{Value, json};

fn schema(definition: &impl serde::Serialize) -> Value {
    let value = serde_json::to_value(definition).unwrap();
    value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `visit` with the path and schema of every field below `node`.
fn walk(path: &str, node: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, node);
    for (name, field) in node["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), field, visit);
    }
    if node["items"].is_object() {
        walk(&format!("{path}[]"), &node["items"], visit);
    }
}

#[test]
fn every_field_is_typed_documented_and_bounded() {
    for (_, definition) in definitions() {
        let mut faults = Vec::new();
        let mut visit = |path: &str, node: &Value| {
            let foreign = path.contains("tolerations[]") || path.contains("conditions[]");
            let typed = node["type"].is_string() || node["x-kubernetes-int-or-string"] == true;
            if !typed && !path.is_empty() {
                faults.push(format!("{path}: no type"));
            }
            if node["format"].as_str().is_some_and(|format| format.starts_with("uint")) {
                faults.push(format!("{path}: a format the API server does not know"));
            }
            let own = !path.is_empty() && !path.ends_with("[]") && path != ".metadata";
            if own && !foreign && node["description"].as_str().is_none_or(|text| text.len() < 8) {
                faults.push(format!("{path}: no description"));
            }
            if node["type"] == "array" && !foreign {
                if node["maxItems"].is_null() {
                    faults.push(format!("{path}: list without bound"));
                }
                if node["x-kubernetes-list-type"].is_null() {
                    faults.push(format!("{path}: list without a type"));
                }
            }
        };
        walk("", &schema(&definition), &mut visit);
        assert_eq!(faults, Vec::<String>::new(), "{:?}", definition.metadata.name);
    }
}

#[test]
fn names_and_subresources() {
    for (_, definition) in definitions() {
        let version = &definition.spec.versions[0];
        assert!(version.subresources.as_ref().is_some_and(|sub| sub.status.is_some()));
        assert_eq!(definition.spec.names.categories, Some(vec!["eagle".to_owned()]));
    }
    assert_eq!(EagleCluster::crd().spec.scope, "Cluster");
    assert_eq!(ImagePrefetch::crd().spec.scope, "Namespaced");
}

/// What the API server says to the object: defaults filled in from the schema, then its rules.
fn refusals_named(kind: &str, name: &str, spec: &Value) -> Vec<String> {
    let definitions = definitions();
    let (_, definition) = definitions.iter().find(|(_, known)| known.spec.names.kind == kind).unwrap();
    let schema = schema(definition);
    let object = apply_defaults(&schema, &json!({ "metadata": { "name": name }, "spec": spec }));
    match Validator::new().validate(&schema, &object, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "every caller makes the value for this call")]
fn refusals(kind: &str, spec: Value) -> Vec<String> {
    refusals_named(kind, "main", &spec)
}

#[test]
fn the_schema_has_the_defaults_of_the_types() {
    for (_, definition) in definitions() {
        let schema = schema(&definition);
        let filled = apply_defaults(&schema, &json!({ "spec": {} }))["spec"].clone();
        let types = match definition.spec.names.kind.as_str() {
            "EagleCluster" => serde_json::to_value(EagleClusterSpec::default()),
            _ => serde_json::to_value(ImagePrefetchSpec::default()),
        };
        assert_eq!(filled, types.unwrap());
    }
}

#[test]
fn a_name_that_cannot_be_part_of_a_service_name_is_refused() {
    for name in ["a.b", "1a", "a-", &"a".repeat(41)] {
        let messages = refusals_named("EagleCluster", name, &json!({}));
        assert!(messages.len() == 1 && messages[0].contains("metadata.name"), "{name}: {messages:?}");
    }
    assert_eq!(refusals_named("EagleCluster", "main-2", &json!({})), Vec::<String>::new());
}

#[test]
fn rules_refuse_with_the_remedy() {
    let refused = |kind, spec, word: &str| {
        let messages = refusals(kind, spec);
        assert!(messages.len() == 1 && messages[0].contains(word), "{word}: {messages:?}");
    };
    let login = json!([{ "host": "reg.example.com", "credentialsRef": { "name": "login" } }]);
    refused("EagleCluster", json!({ "registries": login }), "access: Open");
    refused("EagleCluster", json!({ "mirror": { "port": 7060 } }), "must differ");
    let bucket = |storage: Value| json!({ "seeder": { "storage": storage } });
    refused("EagleCluster", bucket(json!({ "s3": { "bucket": "images" } })), "kind: Ephemeral");
    let key = json!({ "bucket": "images", "kmsKeyID": "key", "serverSideEncryption": "AES256" });
    refused("EagleCluster", bucket(json!({ "kind": "Ephemeral", "s3": key })), "aws:kms");
    refused("ImagePrefetch", json!({}), "at least one image");
    let image = json!([{ "image": "nginx:1" }]);
    refused("ImagePrefetch", json!({ "images": image, "ttlSecondsAfterFinished": 5 }), "newNodes: false");
    refused("ImagePrefetch", json!({ "images": image, "activeDeadlineSeconds": 5 }), "no attempt could end");
    let secrets = json!([{ "name": "login" }]);
    refused(
        "ImagePrefetch",
        json!({ "images": image, "depth": "Seeder", "pullSecrets": secrets }),
        "depth: Seeder",
    );
}

#[test]
fn rules_accept_what_is_right() {
    assert_eq!(refusals("EagleCluster", json!({})), Vec::<String>::new());
    let login = json!([{ "host": "reg.example.com", "credentialsRef": { "name": "login" } }]);
    assert_eq!(
        refusals("EagleCluster", json!({ "registries": login, "access": "Open" })),
        Vec::<String>::new()
    );
    let bucket = json!({ "bucket": "images", "kmsKeyID": "key", "serverSideEncryption": "aws:kms" });
    let storage = json!({ "storage": { "kind": "Ephemeral", "s3": bucket } });
    assert_eq!(refusals("EagleCluster", json!({ "seeder": storage })), Vec::<String>::new());
    let spec = json!({
        "imagesFrom": [{ "workloadRef": { "kind": "Deployment", "name": "web" } }],
        "newNodes": false, "onRollout": false, "ttlSecondsAfterFinished": 60,
    });
    assert_eq!(refusals("ImagePrefetch", spec), Vec::<String>::new());
}
