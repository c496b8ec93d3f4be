//! Fifty nodes on one fleet in this process. A test program of its own, so that nothing else takes the processor from
//! them.

use eagle::demo::image::ImageSpec;
use eagle_kind_tests::fleet::Fleet as _;
use eagle_kind_tests::fleet::local::{Local, Size};
use futures::future::try_join_all;

/// What leaves the registry for fifty nodes is one image.
#[tokio::test]
async fn fifty_nodes_take_one_image_from_the_registry() -> anyhow::Result<()> {
    let fleet = Local::sized(Size { nodes: 50, seeders: 1, ..Size::default() }).await?;
    let image = fleet.publish(&ImageSpec::layers(3, 3 << 20, 50), "scenario/fifty").await?;
    let before = fleet.traffic().await?;
    try_join_all((0..50).map(|node| fleet.pull(node, &image))).await?;
    let left = fleet.traffic().await?.since(before);
    assert_eq!((left.gets, left.bytes), (image.blobs(), image.made.bytes));
    Ok(())
}
