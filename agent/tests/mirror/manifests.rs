//! Tags and manifests.

use eagle_blobs::origin::fake::{FakeAccess, Fault};
use eagle_core::digest::Digest;

use super::raw::{Answer, End};
use super::world::{World, content};

const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn assert_exact(answer: &Answer, digest: &Digest, size: &str) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(answer.header("content-length"), Some(size));
    assert_eq!(answer.header("content-type"), Some(TYPE));
    assert_eq!(answer.header("content-encoding"), None);
}

#[tokio::test]
async fn head_and_get_have_exact_headers_and_cost_no_blob_bytes() {
    let world = World::new().await;
    let (digest, encodings) = (world.image.manifest, ("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8"));
    let manifest = world.ask("GET", &format!("manifests/{digest}"), &[encodings]).await;
    let size = manifest.body.len().to_string();
    assert_exact(&manifest, &digest, &size);
    assert_eq!(Digest::of(&manifest.body), digest);
    for what in ["manifests/v1".to_owned(), format!("manifests/{digest}")] {
        let head = world.ask("HEAD", &what, &[encodings]).await;
        assert_exact(&head, &digest, &size);
        // A chunked fetch asks for manifests in this way, too, and takes a whole answer.
        let ranged = world.ask("GET", &what, &[("Range", "bytes=0-")]).await;
        assert_exact(&ranged, &digest, &size);
        assert_eq!(ranged.body, manifest.body);
    }
}

#[tokio::test]
async fn head_of_a_manifest_begins_no_blob() {
    let world = World::new().await;
    let what = format!("manifests/{}", world.image.manifest);
    assert_eq!(world.ask("HEAD", "manifests/v1", &[]).await.status, 200);
    assert_eq!(world.ask("HEAD", &what, &[]).await.status, 200);
    assert_eq!(world.blob_gets(), 0);
}

#[tokio::test]
async fn a_tag_is_what_the_registry_says_now_and_its_last_good_answer_while_that_is_down() {
    let world = World::new().await;
    let digest = |answer: &Answer| answer.header("docker-content-digest").unwrap().to_owned();
    let first = world.ask("HEAD", "manifests/v1", &[]).await;
    assert_eq!(digest(&first), world.image.manifest.to_string());
    let moved = world.registry.add_image("app", "v1", &[content(3, 10)]);
    let second = world.ask("HEAD", "manifests/v1", &[]).await;
    assert_eq!(digest(&second), moved.manifest.to_string());
    world.registry.stop().await;
    let third = world.ask("HEAD", "manifests/v1", &[]).await;
    assert_eq!((third.status, digest(&third)), (200, moved.manifest.to_string()));
    // Nobody knows this one: the runtime must not be told that it does not exist.
    let unknown = world.ask("GET", "manifests/v2", &[]).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (503, "UNAVAILABLE"));
}

#[tokio::test]
async fn what_the_registry_does_not_have_is_an_honest_404() {
    let world = World::new().await;
    let unknown = Digest::of(b"nobody has this");
    for (what, code) in [
        ("manifests/v2".to_owned(), "MANIFEST_UNKNOWN"),
        (format!("manifests/{unknown}"), "MANIFEST_UNKNOWN"),
        (format!("blobs/{unknown}"), "BLOB_UNKNOWN"),
        // containerd asks for a manifest as a blob when all hosts have said 404 to it as a manifest.
        (format!("blobs/{}", world.image.manifest), "BLOB_UNKNOWN"),
    ] {
        let answer = world.ask("GET", &what, &[]).await;
        assert_eq!((answer.status, answer.code().as_str(), answer.end), (404, code, End::Whole), "{what}");
        assert_eq!(world.ask("HEAD", &what, &[]).await.status, 404, "{what}");
    }
    let answer = world.ask_path("GET", "/v2/UPPER/manifests/v1?ns=r.test").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "NAME_UNKNOWN"));
}

#[tokio::test]
async fn a_request_without_ns_is_docker_hubs() {
    let world = World::new().await;
    world.registry.add_image("library/two", "v1", &[content(4, 10)]);
    assert_eq!(world.ask_path("HEAD", "/v2/library/two/manifests/v1").await.status, 200);
    assert_eq!(world.ask_path("HEAD", "/v2/library/none/manifests/v1").await.status, 404);
    // Others must name their registry: this one would be shown under its own name.
    let world = World::with(|config| config.origin.registries.truncate(1)).await;
    let answer = world.ask_path("HEAD", "/v2/app/manifests/v1").await;
    assert!([404, 503].contains(&answer.status), "{}", answer.status);
}

#[tokio::test]
async fn a_private_repository_is_a_404_so_that_the_runtime_goes_there_with_its_login() {
    let world = World::new().await;
    let (username, password) = ("me".to_owned(), "secret".to_owned());
    world.registry.set_access("app", FakeAccess::Basic { username, password });
    for what in ["manifests/v1".to_owned(), format!("blobs/{}", world.layer())] {
        let answer = world.ask("GET", &what, &[]).await;
        assert_eq!(answer.status, 404, "{what}");
        assert_eq!(answer.header("www-authenticate"), None);
        answer.code();
    }
}

#[tokio::test]
async fn a_registry_that_throttles_or_fails_is_never_passed_on_as_it_is() {
    let world = World::new().await;
    let what = format!("manifests/{}", world.image.manifest);
    for fault in [Fault::Throttle(5), Fault::Status(408), Fault::Status(500), Fault::Status(304), Fault::Page]
    {
        world.registry.set_fault(&world.image.manifest, fault.clone());
        world.registry.set_fault(&world.layer(), fault.clone());
        for what in ["manifests/v1", &what, &format!("blobs/{}", world.layer())] {
            for method in ["HEAD", "GET"] {
                let answer = world.ask(method, what, &[]).await;
                assert!(
                    [404, 503].contains(&answer.status),
                    "{fault:?}: {method} {what} is {}",
                    answer.status
                );
            }
        }
    }
}

#[tokio::test]
async fn other_requests_are_refused_by_name() {
    let world = World::new().await;
    let base = world.ask_path("GET", "/v2/").await;
    assert_eq!((base.status, base.body.as_slice()), (200, &b"{}"[..]));
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = world.ask_path(method, "/v2/app/blobs/uploads/?ns=r.test").await;
        assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"), "{method}");
    }
    for path in ["/", "/v1/search", "/v2/app/tags/list?ns=r.test", "/v2/app/referrers/x?ns=r.test"] {
        assert_eq!(world.ask_path("GET", path).await.status, 404, "{path}");
    }
}
