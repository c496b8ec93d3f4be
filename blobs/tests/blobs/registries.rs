//! The origin client against the fake registry and a real one, by one suite; then what only a fake can be made to do.

use std::sync::Arc;

use base64::Engine as _;
use eagle_blobs::origin::fake::{FakeAccess, FakeRegistry, Fault, Options};
use eagle_blobs::origin::{Auth, Origin, OriginError};
use eagle_core::config::period::Period;
use eagle_core::config::section;
use eagle_core::digest::Digest;
use eagle_core::name::{Repository, Target};
use eagle_core::size::Rate;
use futures::StreamExt as _;
use futures::future::join_all;
use http::HeaderValue;

use crate::real_registry::{Login, RealRegistry};
use crate::world::{DEADLINE, Sample, drain};

/// The registry's name in references; where it is, the configuration says.
pub(crate) const HOST: &str = "registry.test";
const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "s3cret:with:colons";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(crate) fn config(registry: section::Registry) -> section::Origin {
    section::Origin {
        connect_timeout: Period::secs(2),
        read_timeout: Period::secs(5),
        registries: vec![registry],
        ..section::Origin::default()
    }
}

pub(crate) fn with_login(mut registry: section::Registry, password: &str) -> section::Registry {
    registry.username = USER.into();
    registry.password = password.into();
    registry
}

pub(crate) fn repository(name: &str) -> Repository {
    Repository::new(HOST, name).unwrap()
}

pub(crate) fn index() -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[]}}"#)
}

/// A registry that has one blob and one index, tagged `v1`, in `some/image`.
struct Served {
    registry: section::Registry,
    blob: Sample,
    /// What it asks for.
    login: Option<Login>,
}

impl Served {
    fn new(registry: section::Registry, login: Option<Login>) -> Self {
        Self { registry, blob: Sample::new(7, 700_001), login }
    }

    fn origin(&self, password: &str) -> Origin {
        let registry = self.registry.clone();
        let registry = if self.login.is_some() { with_login(registry, password) } else { registry };
        Origin::new(&config(registry)).unwrap()
    }

    /// What every registry must be read like.
    async fn conforms(&self) {
        let origin = self.origin(PASSWORD);
        let auth = if self.login.is_some() { Auth::Configured } else { Auth::Anonymous };
        self.manifests(&origin, &auth).await;
        self.blobs(&origin, &auth).await;
        self.logins().await;
    }

    async fn manifests(&self, origin: &Origin, auth: &Auth) {
        let (image, digest) = (repository("some/image"), Digest::of(index().as_bytes()));
        for target in [Target::Tag("v1".into()), Target::Digest(digest)] {
            let head = origin.head_manifest(&image, &target, auth).await.unwrap();
            assert_eq!(
                (head.digest, head.size, head.media_type.as_str()),
                (digest, index().len() as u64, INDEX)
            );
            let manifest = origin.manifest(&image, &target, auth).await.unwrap();
            assert_eq!((manifest.digest, manifest.media_type.as_str()), (digest, INDEX));
            assert_eq!(manifest.bytes, index());
        }
        for target in [Target::Tag("v2".into()), Target::Digest(Digest::of(b"nothing"))] {
            let error = origin.head_manifest(&image, &target, auth).await.unwrap_err();
            assert!(matches!(error, OriginError::NotFound), "{error:?}");
            let error = origin.manifest(&image, &target, auth).await.unwrap_err();
            assert!(matches!(error, OriginError::NotFound), "{error:?}");
        }
        let nowhere = origin.head_manifest(&repository("no/image"), &Target::Tag("v1".into()), auth).await;
        assert!(matches!(nowhere, Err(OriginError::NotFound)), "{nowhere:?}");
    }

    async fn blobs(&self, origin: &Origin, auth: &Auth) {
        let image = repository("some/image");
        let size = self.blob.bytes.len();
        assert_eq!(origin.head_blob(&image, &self.blob.digest, auth).await.unwrap(), size as u64);
        for from in [0, 1, size / 2, size - 1] {
            let body = origin.blob(&image, &self.blob.digest, from as u64, auth).await.unwrap();
            assert_eq!((body.size, body.from), (size as u64, from as u64));
            let (read, error) = drain(body.stream).await;
            assert!(error.is_none() && read == self.blob.bytes[from..], "from {from}: {error:?}");
        }
        let behind = origin.blob(&image, &self.blob.digest, size as u64 + 1, auth).await;
        assert!(behind.is_err_and(|error| error.is_outage()));
        let unknown = Digest::of(b"nothing");
        assert!(matches!(origin.head_blob(&image, &unknown, auth).await, Err(OriginError::NotFound)));
        assert!(matches!(origin.blob(&image, &unknown, 0, auth).await, Err(OriginError::NotFound)));
    }

    async fn logins(&self) {
        let Some(login) = self.login else { return };
        let (image, blob) = (repository("some/image"), self.blob.digest);
        let tag = Target::Tag("v1".into());
        let right = self.origin(PASSWORD);
        let error = right.head_blob(&image, &blob, &Auth::Anonymous).await.unwrap_err();
        assert!(error.is_denied() && !error.is_outage(), "{error:?}");
        let wrong = self.origin("guess");
        for auth in [Auth::Anonymous, Auth::Configured] {
            assert!(wrong.head_manifest(&image, &tag, &auth).await.is_err_and(|error| error.is_denied()));
            assert!(wrong.manifest(&image, &tag, &auth).await.is_err_and(|error| error.is_denied()));
            assert!(wrong.blob(&image, &blob, 0, &auth).await.is_err_and(|error| error.is_denied()));
        }
        let basic = |password: &str| {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
            Auth::Forwarded(HeaderValue::try_from(format!("Basic {pair}")).unwrap())
        };
        assert!(right.head_blob(&image, &blob, &basic("guess")).await.is_err_and(|error| error.is_denied()));
        if login == Login::Basic {
            assert!(right.head_blob(&image, &blob, &basic(PASSWORD)).await.is_ok());
        }
    }
}

pub(crate) async fn fake(access: FakeAccess) -> (FakeRegistry, Sample) {
    let fake = FakeRegistry::start(Options { access, ..Options::default() }).await.unwrap();
    let sample = Sample::new(7, 700_001);
    fake.add_blob("some/image", sample.bytes.clone());
    fake.add_manifest("some/image", Some("v1"), INDEX, index());
    (fake, sample)
}

pub(crate) fn basic() -> FakeAccess {
    FakeAccess::Basic { username: USER.into(), password: PASSWORD.into() }
}

pub(crate) fn bearer(anonymous: bool) -> FakeAccess {
    FakeAccess::Bearer { username: USER.into(), password: PASSWORD.into(), anonymous }
}

#[tokio::test]
async fn the_fake_is_read_like_a_registry() {
    for (access, login) in
        [(FakeAccess::Open, None), (basic(), Some(Login::Basic)), (bearer(false), Some(Login::Bearer))]
    {
        let (fake, _) = fake(access).await;
        Served::new(fake.registry(HOST), login).conforms().await;
    }
}

#[tokio::test]
async fn a_real_registry_is_read_so_too() {
    for login in [None, Some(Login::Basic), Some(Login::Bearer)] {
        let Some(real) = RealRegistry::start(login, false, (USER, PASSWORD)).await else { return };
        let served = Served::new(real.registry(HOST), login);
        real.push_blob("some/image", &served.blob.bytes).await;
        real.push_manifest("some/image", "v1", INDEX, index()).await;
        served.conforms().await;
    }
}

#[tokio::test]
async fn certificates_are_verified() {
    let Some(real) = RealRegistry::start(None, true, (USER, PASSWORD)).await else { return };
    let served = Served::new(real.registry(HOST), None);
    real.push_blob("some/image", &served.blob.bytes).await;
    real.push_manifest("some/image", "v1", INDEX, index()).await;
    served.conforms().await;
    let mut untrusting = real.registry(HOST);
    untrusting.ca_file = None;
    let origin = Origin::new(&config(untrusting)).unwrap();
    let refused = origin.head_blob(&repository("some/image"), &served.blob.digest, &Auth::Anonymous).await;
    assert!(matches!(refused, Err(OriginError::Unreachable(_))), "{refused:?}");
}

#[test]
fn certificate_files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let try_new = || {
        let ca_file = Some(file.clone());
        Origin::new(&config(section::Registry { host: HOST.into(), ca_file, ..section::Registry::default() }))
    };
    assert!(try_new().unwrap_err().to_string().contains("ca.pem"));
    std::fs::write(&file, "no certificate").unwrap();
    assert!(try_new().unwrap_err().to_string().contains("no PEM file"));
}

#[tokio::test]
async fn tokens_for_anybody_are_fetched_once() {
    let (fake, sample) = fake(bearer(true)).await;
    let origin = Origin::new(&config(fake.registry(HOST))).unwrap();
    let image = repository("some/image");
    let all = (0..20).map(|_| origin.head_blob(&image, &sample.digest, &Auth::Anonymous));
    assert!(join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(fake.counts().tokens, 1, "any number of requests, one token");
    let before = fake.counts();
    origin.head_blob(&image, &sample.digest, &Auth::Anonymous).await.unwrap();
    assert_eq!(fake.counts().requests, before.requests + 1, "a held token is sent at once");
    fake.revoke_tokens();
    let all = (0..20).map(|_| origin.head_blob(&image, &sample.digest, &Auth::Anonymous));
    assert!(join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(fake.counts().tokens, 2, "a token that is refused is replaced, once");
}

#[tokio::test]
async fn a_login_is_not_used_unless_it_is_asked_for() {
    let (fake, sample) = fake(bearer(true)).await;
    fake.set_access("some/private", bearer(false));
    let private = fake.add_blob("some/private", sample.bytes.clone());
    let origin = Origin::new(&config(with_login(fake.registry(HOST), PASSWORD))).unwrap();
    let hidden = repository("some/private");
    assert!(origin.head_blob(&hidden, &private, &Auth::Configured).await.is_ok());
    let anonymous = origin.head_blob(&hidden, &private, &Auth::Anonymous).await;
    assert!(anonymous.is_err_and(|error| error.is_denied()), "somebody else's token was used");
}

#[tokio::test]
async fn redirects_are_followed_without_the_login() {
    let (fake, sample) = fake(basic()).await;
    let (storage, _) = self::fake(FakeAccess::Open).await;
    fake.set_fault(&sample.digest, Fault::RedirectTo(storage.endpoint()));
    let origin = Origin::new(&config(with_login(fake.registry(HOST), PASSWORD))).unwrap();
    let image = repository("some/image");
    assert_eq!(origin.head_blob(&image, &sample.digest, &Auth::Configured).await.unwrap(), 700_001);
    let body = origin.blob(&image, &sample.digest, 600_000, &Auth::Configured).await.unwrap();
    let (read, error) = drain(body.stream).await;
    assert!(error.is_none() && read == sample.bytes[600_000..]);
    assert_eq!(storage.counts().leaked_logins, 0);
    assert_eq!(storage.counts().blob_gets[&sample.digest], 1);
    storage.stop().await;
    let gone = origin.blob(&image, &sample.digest, 0, &Auth::Configured).await;
    assert!(gone.is_err_and(|error| error.is_outage()));
}

#[tokio::test]
async fn what_cannot_be_believed_is_an_error() {
    let (fake, sample) = fake(FakeAccess::Open).await;
    let origin = Origin::new(&config(fake.registry(HOST))).unwrap();
    let (image, auth) = (repository("some/image"), Auth::Anonymous);
    let manifest = Digest::of(index().as_bytes());
    let get = async || origin.blob(&image, &sample.digest, 100, &auth).await;
    for fault in [Fault::Status(500), Fault::Status(204), Fault::Status(503), Fault::Page] {
        fake.set_fault(&sample.digest, fault.clone());
        fake.set_fault(&manifest, fault.clone());
        let errors = [
            get().await.map(drop),
            origin.head_blob(&image, &sample.digest, &auth).await.map(drop),
            origin.manifest(&image, &Target::Digest(manifest), &auth).await.map(drop),
            origin.head_manifest(&image, &Target::Tag("v1".into()), &auth).await.map(drop),
        ];
        for error in errors.map(Result::unwrap_err) {
            assert!(error.is_outage(), "{fault:?}: {error:?}");
        }
    }
    fake.set_fault(&sample.digest, Fault::IgnoreRange);
    let (read, error) = drain(get().await.unwrap().stream).await;
    assert!(error.is_none() && read == sample.bytes[100..], "a 200 is read up to the offset");
    fake.set_fault(&sample.digest, Fault::TruncateAt(300_000));
    let (read, error) = drain(get().await.unwrap().stream).await;
    assert!(error.is_some_and(|error| error.is_outage()));
    assert!(!read.is_empty() && read.len() <= 299_900 && sample.bytes[100..].starts_with(&read));
    fake.set_fault(&manifest, Fault::WrongByteAt(5));
    for target in [Target::Digest(manifest), Target::Tag("v1".into())] {
        let wrong = origin.manifest(&image, &target, &auth).await;
        assert!(matches!(wrong, Err(OriginError::WrongDigest { .. })), "{wrong:?}");
    }
    fake.set_fault(&manifest, Fault::HideDigest);
    let head = origin.head_manifest(&image, &Target::Tag("v1".into()), &auth).await.unwrap();
    assert_eq!(head.digest, manifest, "a GET makes up for a HEAD without digest");
    let huge = vec![b' '; eagle_core::oci::MAX_MANIFEST + 1];
    fake.add_manifest("some/image", Some("huge"), INDEX, huge);
    assert!(origin.manifest(&image, &Target::Tag("huge".into()), &auth).await.is_err());
    fake.add_manifest("some/image", Some("page"), INDEX, "<html>");
    assert!(origin.manifest(&image, &Target::Tag("page".into()), &auth).await.is_err());
}

#[tokio::test]
async fn a_silent_registry_is_given_up() {
    let (fake, sample) = fake(FakeAccess::Open).await;
    let mut config = config(fake.registry(HOST));
    config.read_timeout = Period::millis(200);
    let origin = Origin::new(&config).unwrap();
    let image = repository("some/image");
    fake.set_fault(&sample.digest, Fault::Hang);
    let silent = origin.blob(&image, &sample.digest, 0, &Auth::Anonymous);
    let silent = tokio::time::timeout(DEADLINE, silent).await.expect("no read timeout before the headers");
    assert!(matches!(silent, Err(OriginError::Unreachable(_))));
    fake.set_fault(&sample.digest, Fault::StallAt(100_000));
    let body = origin.blob(&image, &sample.digest, 0, &Auth::Anonymous).await.unwrap();
    let (read, error) = drain(body.stream).await;
    assert!(read == sample.bytes[..100_000], "all before the stall is given");
    assert!(matches!(error, Some(OriginError::Unreachable(_))), "{error:?}");
    fake.release(&sample.digest);
    let body = origin.blob(&image, &sample.digest, 100_000, &Auth::Anonymous).await.unwrap();
    assert!(drain(body.stream).await.0 == sample.bytes[100_000..]);
}

#[tokio::test]
async fn a_stalled_body_goes_on_when_it_is_released() {
    let (fake, sample) = fake(FakeAccess::Open).await;
    let origin = Origin::new(&config(fake.registry(HOST))).unwrap();
    fake.set_fault(&sample.digest, Fault::StallAt(300_000));
    let mut body = origin.blob(&repository("some/image"), &sample.digest, 0, &Auth::Anonymous).await.unwrap();
    let mut read = Vec::new();
    while read.len() < 300_000 {
        read.extend_from_slice(&body.stream.next().await.unwrap().unwrap());
    }
    assert_eq!(read.len(), 300_000);
    assert_eq!(fake.counts().blob_bytes, 300_000);
    fake.release(&sample.digest);
    read.extend(drain(body.stream).await.0);
    assert!(read == sample.bytes);
}

#[tokio::test]
async fn a_registry_that_is_down_comes_back() {
    let (fake, sample) = fake(FakeAccess::Open).await;
    let origin = Origin::new(&config(fake.registry(HOST))).unwrap();
    let ask = async || origin.head_blob(&repository("some/image"), &sample.digest, &Auth::Anonymous).await;
    ask().await.unwrap();
    fake.stop().await;
    assert!(matches!(ask().await, Err(OriginError::Unreachable(_))));
    fake.resume().await;
    ask().await.unwrap();
}

#[tokio::test]
async fn requests_under_way_are_bounded() {
    let (fake, sample) = fake(FakeAccess::Open).await;
    let mut config = config(fake.registry(HOST));
    config.concurrent_requests = 4;
    config.read_timeout = Period::millis(300);
    let origin = Origin::new(&config).unwrap();
    let image = repository("some/image");
    fake.set_fault(&sample.digest, Fault::StallAt(1000));
    let open = (0..3).map(|_| origin.blob(&image, &sample.digest, 0, &Auth::Anonymous));
    let mut bodies: Vec<_> = join_all(open).await.into_iter().map(Result::unwrap).collect();
    let fourth = origin.blob(&image, &sample.digest, 0, &Auth::Anonymous).await;
    assert!(matches!(fourth, Err(OriginError::Busy)));
    let short = origin.head_blob(&image, &sample.digest, &Auth::Anonymous).await;
    assert!(short.is_ok(), "bodies leave room for short questions");
    bodies.pop();
    assert!(origin.blob(&image, &sample.digest, 0, &Auth::Anonymous).await.is_ok());
}

#[tokio::test]
async fn the_fake_s_link_has_its_rate() {
    let (fake, sample) = fake(FakeAccess::Open).await;
    let fake = Arc::new(fake);
    fake.set_link(Rate::per_second(2_000_000));
    let origin = Origin::new(&config(fake.registry(HOST))).unwrap();
    let started = tokio::time::Instant::now();
    let all = (0..2).map(async |_| {
        let body = origin.blob(&repository("some/image"), &sample.digest, 0, &Auth::Anonymous).await.unwrap();
        drain(body.stream).await.0.len()
    });
    assert_eq!(join_all(all).await, [700_001; 2]);
    let took = started.elapsed().as_secs_f64();
    assert!((0.65..3.0).contains(&took), "1.4 MB at 2 MB/s took {took} s");
    assert_eq!(fake.counts().most_at_once, 2);
}

#[tokio::test]
async fn the_fake_serves_an_image_layout() {
    let directory = tempfile::tempdir().unwrap();
    let blobs = directory.path().join("blobs").join("sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let digest = Digest::of(index().as_bytes());
    std::fs::write(blobs.join(digest.hex()), index()).unwrap();
    let layer = Sample::new(3, 1000);
    std::fs::write(blobs.join(layer.digest.hex()), &layer.bytes).unwrap();
    let entry = serde_json::json!({ "manifests": [{
        "mediaType": INDEX,
        "digest": digest,
        "size": index().len(),
        "annotations": { "org.opencontainers.image.ref.name": "v1" },
    }]});
    std::fs::write(directory.path().join("index.json"), entry.to_string()).unwrap();
    let fake = FakeRegistry::start(Options::default()).await.unwrap();
    fake.add_layout("some/image", directory.path()).unwrap();
    let origin = Origin::new(&config(fake.registry(HOST))).unwrap();
    let image = repository("some/image");
    let head = origin.head_manifest(&image, &Target::Tag("v1".into()), &Auth::Anonymous).await.unwrap();
    assert_eq!(head.digest, digest);
    let body = origin.blob(&image, &layer.digest, 10, &Auth::Anonymous).await.unwrap();
    assert!(drain(body.stream).await.0 == layer.bytes[10..]);
}
