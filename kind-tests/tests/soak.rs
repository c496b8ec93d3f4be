//! Three minutes of what `cargo xtask soak` plays for as long as one likes. A test program of its own, because it looks at
//! the memory of the whole process.

use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "takes minutes: the step `soak` of `cargo xtask test`"]
async fn three_minutes_of_trouble() -> anyhow::Result<()> {
    Box::pin(eagle_kind_tests::soak::soak(Duration::from_mins(3), rand::random())).await
}
