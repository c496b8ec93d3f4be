//! Many changes become few looks.

use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// One item for all changes within `gather` after the first of them; the next item no sooner than `rest` after the last.
/// Ends with the sender.
pub fn gathered(
    changed: watch::Receiver<()>,
    gather: Duration,
    rest: Duration,
) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold((changed, None), move |(mut changed, last)| async move {
        changed.changed().await.ok()?;
        sleep(gather).await;
        if let Some(last) = last {
            sleep_until(last + rest).await;
        }
        changed.mark_unchanged();
        Some(((), (changed, Some(Instant::now()))))
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_soon_and_a_storm_is_few() {
        let (change, changed) = watch::channel(());
        let started = Instant::now();
        let mut items = Box::pin(gathered(changed, Duration::from_millis(500), Duration::from_secs(5)));
        let storm = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            for _ in 0..200 {
                ticks.tick().await;
                change.send_replace(());
            }
            // The sender goes with the storm's last moment.
            ticks.tick().await;
        });
        let mut seen = Vec::new();
        while items.next().await.is_some() {
            seen.push(started.elapsed().as_millis() / 100);
        }
        storm.await.unwrap();
        assert_eq!(seen, [5, 55, 105, 155, 205], "tenths of a second");
    }
}
