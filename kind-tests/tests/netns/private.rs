//! Private registries: what a runtime with a login, and one without, gets of them, alone and through Eagle.

use std::net::{Ipv4Addr, SocketAddr};

use eagle::demo::image::{self, ImageSpec, Made};
use eagle_core::config::section::{self, Origin};
use eagle_core::size::Rate;
use eagle_kind_tests::http::nothing;
use eagle_kind_tests::netns::containerd::Way;
use eagle_kind_tests::netns::eagle::{Eagle, MIRROR, Options};
use eagle_kind_tests::netns::gate::{Gate, login};
use eagle_kind_tests::netns::registry::Registry;
use eagle_kind_tests::netns::server::Server;
use eagle_kind_tests::netns::site::{Settings, Site};

/// A site, and a registry behind `gate` beside its own.
async fn private(directory: &std::path::Path, gate: Gate) -> (Site, Registry) {
    let (link, directory) = (Rate::NONE, directory.to_owned());
    let site =
        Site::start(&Settings { nodes: 1, link, origin_link: link, directory, keep: false }).await.unwrap();
    let namespace = site.attach("private", [3, 1]).unwrap();
    let registry = Registry::start_behind(gate, &site.place, namespace).await.unwrap();
    (site, registry)
}

/// Pushes the image of `spec` to `registry` as team/app:v1.
async fn push(site: &Site, registry: &Registry, spec: &ImageSpec) -> Made {
    let layout = tempfile::tempdir_in(site.place.directory()).unwrap();
    let made = image::make(spec, layout.path(), "v1").unwrap();
    registry.push(layout.path(), &made, "team/app", "v1").await.unwrap();
    made
}

const PRIVATE: &str = "private.test/team/app:v1";

async fn opens_to_its_login_only(gate: Gate) {
    let parent = tempfile::tempdir().unwrap();
    let (site, registry) = private(parent.path(), gate).await;
    let made = push(&site, &registry, &ImageSpec::layers(2, 100_000, 1)).await;
    let node = &site.nodes[0];
    node.set_hosts(&[registry.endpoint()]).unwrap();
    let mark = registry.mark().unwrap();
    assert!(node.pull(PRIVATE, &made, Way::Cri, None).await.is_err(), "let in somebody without a login");
    assert_eq!(registry.traffic(mark).await.unwrap().gets, 0);
    node.pull(PRIVATE, &made, Way::Cri, Some(login())).await.unwrap();
    assert_eq!(registry.traffic(mark).await.unwrap().gets, 3);
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_password_gate_opens_to_its_login_only() {
    opens_to_its_login_only(Gate::Password).await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_token_gate_opens_to_its_login_only() {
    opens_to_its_login_only(Gate::Token).await;
}

/// The worst case: every blob of the private image is in the agent's cache already, because a public repository has the
/// same. Still nobody without a login gets a byte of it by its private name, and whoever has one gets it from the
/// registry.
async fn stays_private_behind_eagle(gate: Gate) {
    let parent = tempfile::tempdir().unwrap();
    let (site, registry) = private(parent.path(), gate).await;
    let host = section::Registry {
        host: "private.test".into(),
        endpoint: registry.endpoint(),
        ..section::Registry::default()
    };
    let origin = Origin { registries: vec![host], ..Origin::default() };
    let eagle = Eagle::start(&site, &Options { origin, ..Options::default() }).await.unwrap();
    let spec = ImageSpec::layers(2, 2 << 20, 7);
    let (made, public) =
        (push(&site, &registry, &spec).await, site.publish(&spec, "public/app").await.unwrap());
    assert_eq!(made.digest, public.made.digest);
    let node = &site.nodes[0];
    node.pull(&public.reference, &public.made, Way::Cri, None).await.unwrap();
    node.remove(&public.reference, &public.made).await.unwrap();

    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
    let mirror = Server { from: node.namespace().clone(), address };
    let blobs = made.layers.iter().map(|layer| format!("blobs/{layer}"));
    for what in blobs.chain([format!("manifests/{}", made.digest), "manifests/v1".to_owned()]) {
        for (repository, status) in [("team/app?ns=private.test", 404), ("public/app?ns=registry.test", 200)]
        {
            let (name, ns) = repository.split_once('?').unwrap();
            for method in ["HEAD", "GET"] {
                let request = http::Request::builder().method(method).uri(format!("/v2/{name}/{what}?{ns}"));
                let answer = mirror.send(request.body(nothing()).unwrap()).await.unwrap();
                assert_eq!(answer.status, status, "{method} {repository} {what}");
            }
        }
    }

    node.set_hosts(&[MIRROR.to_owned(), registry.endpoint()]).unwrap();
    let before = eagle.agents[0].bytes().await.unwrap();
    assert!(node.pull(PRIVATE, &made, Way::Cri, None).await.is_err(), "let in somebody without a login");
    let mark = registry.mark().unwrap();
    node.pull(PRIVATE, &made, Way::Cri, Some(login())).await.unwrap();
    assert_eq!(registry.traffic(mark).await.unwrap().gets, 3, "all from the registry");
    assert_eq!(eagle.agents[0].bytes().await.unwrap(), before);
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_password_gate_stays_shut_behind_eagle() {
    stays_private_behind_eagle(Gate::Password).await;
}

#[tokio::test]
#[ignore = "needs root"]
async fn a_token_gate_stays_shut_behind_eagle() {
    stays_private_behind_eagle(Gate::Token).await;
}

/// The explicit exception: the cluster's own login opens the repository to all of its nodes.
#[tokio::test]
#[ignore = "needs root"]
async fn open_access_serves_what_the_seeders_login_can_read() {
    let parent = tempfile::tempdir().unwrap();
    let (site, registry) = private(parent.path(), Gate::Token).await;
    let login = login();
    let host = section::Registry {
        host: "private.test".into(),
        endpoint: registry.endpoint(),
        username: login.username,
        password: login.password,
        ..section::Registry::default()
    };
    let origin = Origin { registries: vec![host], access: section::Access::Open, ..Origin::default() };
    let _eagle = Eagle::start(&site, &Options { origin, ..Options::default() }).await.unwrap();
    let made = push(&site, &registry, &ImageSpec::layers(2, 2 << 20, 8)).await;
    let (node, mark) = (&site.nodes[0], registry.mark().unwrap());
    node.set_hosts(&[MIRROR.to_owned(), registry.endpoint()]).unwrap();
    node.pull(PRIVATE, &made, Way::Cri, None).await.unwrap();
    assert_eq!(registry.traffic(mark).await.unwrap().gets, 3, "each blob once");
}
