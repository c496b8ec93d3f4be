//! A seeder with a bucket behind it loses its disk.

use eagle::demo::image::ImageSpec;
use eagle_core::size::Rate;
use eagle_kind_tests::netns::bucket::Bucket;
use eagle_kind_tests::netns::containerd::Way;
use eagle_kind_tests::netns::eagle::{Eagle, Options};
use eagle_kind_tests::netns::site::{Settings, Site};
use eagle_kind_tests::wait::wait;

use std::time::Duration;

#[tokio::test]
#[ignore = "needs root"]
async fn a_seeder_that_lost_its_disk_costs_the_registry_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let (link, directory) = (Rate::NONE, parent.path().to_owned());
    let settings = Settings { nodes: 1, link, origin_link: link, directory, keep: false };
    let site = Site::start(&settings).await.unwrap();
    let bucket = Bucket::start(&site.place, &site.attach("bucket", [0, 5]).unwrap()).await.unwrap();
    let options = Options { store: bucket.config(), ..Options::default() };
    let eagle = Eagle::start(&site, &options).await.unwrap();
    let image = site.publish(&ImageSpec::layers(3, 9 << 20, 1), "team/app").await.unwrap();
    let node = &site.nodes[0];
    node.pull(&image.reference, &image.made, Way::Cri, None).await.unwrap();
    // The blobs and the manifest.
    wait(Duration::from_mins(1), "the image to be in the bucket", async || {
        let written = eagle.seeders[0].metric("eagle_seeder_store_written_total").await?;
        Ok((written > image.blobs()).then_some(()))
    })
    .await
    .unwrap();
    node.remove(&image.reference, &image.made).await.unwrap();
    eagle.seeders[0].forget(&site.place).await.unwrap();
    eagle.agents[0].forget(&site.place).await.unwrap();
    let mark = site.registry.mark().unwrap();
    node.pull(&image.reference, &image.made, Way::Cri, None).await.unwrap();
    let traffic = site.registry.traffic(mark).await.unwrap();
    assert_eq!((traffic.gets, traffic.bytes), (0, 0));
    let read = eagle.seeders[0].metric("eagle_seeder_store_bytes_read_total").await.unwrap();
    assert!(read >= image.made.bytes, "{read} of {} bytes came from the bucket", image.made.bytes);
}
