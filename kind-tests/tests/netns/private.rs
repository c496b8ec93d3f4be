//! Private registries without Eagle: what a runtime with a login, and one without, gets of them.

use eagle::demo::image::{self, ImageSpec};
use eagle_core::size::Rate;
use eagle_kind_tests::netns::containerd::Way;
use eagle_kind_tests::netns::gate::{Gate, login};
use eagle_kind_tests::netns::registry::Registry;
use eagle_kind_tests::netns::site::{Settings, Site};

#[tokio::test]
#[ignore = "needs root"]
async fn a_gate_opens_to_its_login_only() {
    let parent = tempfile::tempdir().unwrap();
    let (link, directory) = (Rate::NONE, parent.path().to_owned());
    let site =
        Site::start(&Settings { nodes: 1, link, origin_link: link, directory, keep: false }).await.unwrap();
    for (number, gate) in [(1, Gate::Password), (2, Gate::Token)] {
        let namespace = site.attach(&format!("private{number}"), [3, number]).unwrap();
        let registry = Registry::start_behind(gate, &site.place, namespace).await.unwrap();
        let layout = tempfile::tempdir_in(site.place.directory()).unwrap();
        let made =
            image::make(&ImageSpec::layers(2, 100_000, u64::from(number)), layout.path(), "v1").unwrap();
        registry.push(layout.path(), &made, "team/app", "v1").await.unwrap();
        let node = &site.nodes[0];
        node.set_hosts(&[registry.endpoint()]).unwrap();
        let reference = format!("private{number}.test/team/app:v1");
        let mark = registry.mark().unwrap();
        let refused = node.pull(&reference, &made, Way::Cri, None).await;
        assert!(refused.is_err(), "{gate:?} let in somebody without a login");
        assert_eq!(registry.traffic(mark).await.unwrap().gets, 0);
        node.pull(&reference, &made, Way::Cri, Some(login())).await.unwrap();
        assert_eq!(registry.traffic(mark).await.unwrap().gets, 3);
    }
}
