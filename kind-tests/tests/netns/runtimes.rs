//! Other runtimes than containerd, each with the mirror that its own configuration knows.

use eagle::demo::image::ImageSpec;
use eagle_core::config::section::{Origin, Registry};
use eagle_core::size::Rate;
use eagle_kind_tests::netns::docker::Docker;
use eagle_kind_tests::netns::eagle::{Eagle, MIRROR, Options};
use eagle_kind_tests::netns::podman::Podman;
use eagle_kind_tests::netns::site::{Settings, Site};

async fn site(directory: &std::path::Path, nodes: u8) -> Site {
    let (link, directory) = (Rate::NONE, directory.to_owned());
    Site::start(&Settings { nodes, link, origin_link: link, directory, keep: false }).await.unwrap()
}

/// The registry itself stands for the mirror, so that a failure here is none of Eagle's.
#[tokio::test]
#[ignore = "needs root"]
async fn docker_takes_docker_hub_from_its_mirror() {
    let parent = tempfile::tempdir().unwrap();
    let site = site(parent.path(), 0).await;
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
    let site = site(parent.path(), 0).await;
    let namespace = site.attach("podman", [2, 1]).unwrap();
    let podman = Podman::new(&site.place, &namespace, "docker.io", &site.registry.endpoint()).unwrap();
    let image = site.publish(&ImageSpec::layers(2, 100_000, 2), "docker.io/library/two").await.unwrap();
    podman.pull("docker.io/library/two:v1").await.unwrap();
    podman.ensure_has("docker.io/library/two:v1", &image.made.digest).await.unwrap();
    assert!(podman.pull("docker.io/library/none:v1").await.is_err(), "the registry itself is out of reach");
}

/// Docker names no registry, Podman names it in the path: both reach what Docker Hub is configured to be here, and the
/// second finds what the first has brought into the cluster.
#[tokio::test]
#[ignore = "needs root"]
async fn docker_and_podman_pull_a_docker_hub_image_through_their_agents() {
    let parent = tempfile::tempdir().unwrap();
    let site = site(parent.path(), 2).await;
    let hub =
        Registry { host: "docker.io".into(), endpoint: site.registry.endpoint(), ..Registry::default() };
    let origin = Origin { registries: vec![hub], ..Origin::default() };
    let eagle = Eagle::start(&site, &Options { origin, ..Options::default() }).await.unwrap();
    // Three layers that a swarm is worth, one that is not.
    let spec = ImageSpec { layers: vec![3 << 20, 3 << 20, 3 << 20, 100_000], ..ImageSpec::layers(0, 0, 3) };
    let image = site.publish(&spec, "library/two").await.unwrap();
    let mark = site.registry.mark().unwrap();

    let docker = Docker::start(&site.place, site.nodes[0].namespace(), MIRROR).await.unwrap();
    docker.pull("library/two", "v1").await.unwrap();
    docker.ensure_has("library/two", "v1", &image.made.digest).await.unwrap();

    let podman = Podman::new(&site.place, site.nodes[1].namespace(), "docker.io", MIRROR).unwrap();
    podman.pull("docker.io/library/two:v1").await.unwrap();
    podman.ensure_has("docker.io/library/two:v1", &image.made.digest).await.unwrap();

    for agent in &eagle.agents {
        let bytes = agent.bytes().await.unwrap();
        assert_eq!(bytes.peers + bytes.seeder, image.made.bytes, "{bytes:?}");
        assert_eq!(bytes.origin, 0, "{bytes:?}");
    }
    let left = site.registry.traffic(mark).await.unwrap();
    assert_eq!((left.gets, left.bytes), (5, image.made.bytes), "each blob once, for both");
    assert!(docker.pull("library/none", "v1").await.is_err());
}
