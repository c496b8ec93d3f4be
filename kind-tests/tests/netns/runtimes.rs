//! Other runtimes than containerd, each with the mirror that its own configuration knows.

use eagle::demo::image::ImageSpec;
use eagle_core::size::Rate;
use eagle_kind_tests::netns::docker::Docker;
use eagle_kind_tests::netns::podman::Podman;
use eagle_kind_tests::netns::site::{Settings, Site};

/// A site without containerd nodes.
async fn site(directory: &std::path::Path) -> Site {
    let (link, directory) = (Rate::NONE, directory.to_owned());
    Site::start(&Settings { nodes: 0, link, origin_link: link, directory, keep: false }).await.unwrap()
}

/// The registry itself stands for the mirror, so that a failure here is none of Eagle's.
#[tokio::test]
#[ignore = "needs root"]
async fn docker_takes_docker_hub_from_its_mirror() {
    let parent = tempfile::tempdir().unwrap();
    let site = site(parent.path()).await;
    let namespace = site.attach("docker", [2, 1]).unwrap();
    let docker = Docker::start(&site.place, &namespace, &site.registry.endpoint()).await.unwrap();
    let image = site.publish(&ImageSpec::layers(2, 100_000, 1), "library/two").await.unwrap();
    docker.pull("library/two", "v1").await.unwrap();
    docker.ensure_has("library/two", "v1", &image.made.digest).await.unwrap();
    assert!(docker.pull("library/none", "v1").await.is_err(), "Docker Hub itself is out of reach");
}

/// As above.
#[tokio::test]
#[ignore = "needs root"]
async fn podman_takes_a_registry_from_its_mirror() {
    let parent = tempfile::tempdir().unwrap();
    let site = site(parent.path()).await;
    let namespace = site.attach("podman", [2, 1]).unwrap();
    let mirror = site.registry.endpoint().replace("http://", "");
    let podman = Podman::new(&site.place, &namespace, "docker.io", &mirror).unwrap();
    let image = site.publish(&ImageSpec::layers(2, 100_000, 2), "docker.io/library/two").await.unwrap();
    podman.pull("docker.io/library/two:v1").await.unwrap();
    podman.ensure_has("docker.io/library/two:v1", &image.made.digest).await.unwrap();
    assert!(podman.pull("docker.io/library/none:v1").await.is_err(), "the registry itself is out of reach");
}
