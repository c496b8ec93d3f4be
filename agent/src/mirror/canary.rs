//! An image that only this mirror has: a runtime that pulls it uses the mirror, and one that does not cannot have it.
//!
//! It is there in every registry under one name, so that the proof can be made for a registry that has an entry of its
//! own. It is built here, weighs some hundred bytes and never changes; each pull has a tag of its own, by which the
//! mirror knows that it was asked.

use axum::body::Body;
use axum::http::{Method, header};
use axum::response::Response;
use bytes::Bytes;
use eagle_core::digest::Digest;
use eagle_core::name::{NameError, Reference, Repository, Target};
use eagle_core::route::Route;
use parking_lot::Mutex;

use crate::platform::Platform;

/// Its name in every registry.
const NAME: &str = "eagle-canary/mirror";
/// A registry that cannot exist (RFC 6761): who asks it really, and not the mirror, gets no answer.
const NOWHERE: &str = "eagle.invalid";
/// An archive without entries: two blocks of zeros (POSIX ustar).
const EMPTY_TAR: [u8; 1024] = [0; 1024];

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The image, and which tag of it is being waited for.
#[derive(Debug)]
pub struct Canary {
    manifest: Bytes,
    config: Bytes,
    layer: Bytes,
    waiting: Mutex<Option<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    tag: String,
    asked: bool,
}

impl Default for Canary {
    fn default() -> Self {
        let layer = Bytes::from_static(&EMPTY_TAR);
        let (platform, diff) = (Platform::own(), Digest::of(&layer));
        let config = Bytes::from(format!(
            r#"{{"architecture":"{}","os":"{}","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#,
            platform.architecture(),
            platform.os(),
        ));
        let descriptor = |media_type: &str, bytes: &Bytes| {
            let (digest, size) = (Digest::of(bytes), bytes.len());
            format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
        };
        let manifest = Bytes::from(format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
            descriptor(CONFIG, &config),
            descriptor(LAYER, &layer),
        ));
        Self { manifest, config, layer, waiting: Mutex::default() }
    }
}

impl Canary {
    /// The image in `registry`, or nowhere, by a tag that nobody has asked for yet; from now on the mirror waits for it.
    pub fn call(&self, registry: Option<&str>, nonce: u64) -> Result<Reference, NameError> {
        let repository = Repository::new(registry.unwrap_or(NOWHERE), NAME)?;
        let tag = format!("{nonce:016x}");
        *self.waiting.lock() = Some(Waiting { tag: tag.clone(), asked: false });
        Ok(Reference { repository, target: Target::Tag(tag) })
    }

    /// Whether somebody asked for the tag of the last [`Canary::call`].
    pub fn answered(&self) -> bool {
        self.waiting.lock().as_ref().is_some_and(|waiting| waiting.asked)
    }

    /// The answer, if `route` is about this image.
    pub(crate) fn answer(&self, method: &Method, route: &Route) -> Option<Response> {
        let (repository, media_type, bytes) = match route {
            Route::Base => return None,
            Route::Manifest(repository, Target::Tag(tag)) => {
                if repository.name() == NAME {
                    self.asked(tag);
                }
                (repository, MANIFEST, &self.manifest)
            }
            Route::Manifest(repository, Target::Digest(digest)) => {
                (repository, MANIFEST, Some(&self.manifest).filter(|bytes| Digest::of(bytes) == *digest)?)
            }
            Route::Blob(repository, digest) => {
                let mut blobs = [&self.config, &self.layer].into_iter();
                (repository, "application/octet-stream", blobs.find(|blob| Digest::of(blob) == *digest)?)
            }
        };
        if repository.name() != NAME {
            return None;
        }
        let body = if method == Method::HEAD { Body::empty() } else { Body::from(bytes.clone()) };
        let answer = Response::builder()
            .header(header::CONTENT_TYPE, media_type)
            .header(header::CONTENT_LENGTH, bytes.len())
            .header("docker-content-digest", Digest::of(bytes).to_string());
        answer.body(body).ok()
    }

    fn asked(&self, tag: &str) {
        if let Some(waiting) = self.waiting.lock().as_mut().filter(|waiting| waiting.tag == tag) {
            waiting.asked = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use eagle_core::oci::Document;

    use super::*;

    async fn get(canary: &Canary, path: &str) -> Option<Bytes> {
        let route = Route::parse(path, Some("ns=eagle.invalid"), None).unwrap();
        let answer = canary.answer(&Method::GET, &route)?;
        let head = canary.answer(&Method::HEAD, &route)?;
        assert_eq!(head.headers(), answer.headers());
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        assert_eq!(head.headers()["content-length"], bytes.len().to_string());
        assert_eq!(head.headers()["docker-content-digest"], Digest::of(&bytes).to_string());
        Some(bytes)
    }

    #[tokio::test]
    async fn it_can_be_pulled_as_a_whole_and_only_by_its_name() {
        let canary = Canary::default();
        let reference = canary.call(None, 7).unwrap();
        assert_eq!(reference.to_string(), "eagle.invalid/eagle-canary/mirror:0000000000000007");
        let manifest = get(&canary, "/v2/eagle-canary/mirror/manifests/0000000000000007").await.unwrap();
        let by_digest = format!("/v2/eagle-canary/mirror/manifests/{}", Digest::of(&manifest));
        assert_eq!(get(&canary, &by_digest).await.unwrap(), manifest);
        let Document::Manifest { config, layers } = Document::parse(&manifest) else {
            panic!("{manifest:?}")
        };
        for blob in std::iter::once(config).chain(layers) {
            let path = format!("/v2/eagle-canary/mirror/blobs/{}", blob.digest);
            assert_eq!(get(&canary, &path).await.unwrap().len() as u64, blob.size);
            assert!(get(&canary, &path.replace("canary", "other")).await.is_none());
        }
        assert!(get(&canary, "/v2/team/app/manifests/0000000000000007").await.is_none());
    }

    #[tokio::test]
    async fn only_the_tag_that_is_waited_for_is_a_proof() {
        let canary = Canary::default();
        assert!(!canary.answered());
        canary.call(None, 1).unwrap();
        get(&canary, "/v2/eagle-canary/mirror/manifests/0000000000000002").await.unwrap();
        assert!(!canary.answered());
        get(&canary, "/v2/eagle-canary/mirror/manifests/0000000000000001").await.unwrap();
        assert!(canary.answered());
        canary.call(Some("quay.io"), 2).unwrap();
        assert!(!canary.answered());
    }
}
