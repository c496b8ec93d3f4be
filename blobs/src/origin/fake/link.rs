//! One link that all answers share: so many bytes a second together, first come first served.

use std::time::Duration;

use eagle_core::size::Rate;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// How far the link may fall behind and make up for it: the timer's grain is a millisecond.
const BURST: Duration = Duration::from_millis(10);

/// The link.
#[derive(Debug)]
pub(super) struct Link {
    state: Mutex<(Rate, Instant)>,
}

impl Link {
    pub(super) fn new(rate: Rate) -> Self {
        Self { state: Mutex::new((rate, Instant::now())) }
    }

    pub(super) fn set_rate(&self, rate: Rate) {
        self.state.lock().0 = rate;
    }

    /// Waits until `bytes` have passed.
    pub(super) async fn pass(&self, bytes: usize) {
        let until = {
            let mut state = self.state.lock();
            let Some(rate) = state.0.0 else { return };
            let nanos = (bytes as u128 * 1_000_000_000) / u128::from(rate.get());
            let earliest = Instant::now().checked_sub(BURST).unwrap_or(state.1);
            state.1 = state.1.max(earliest) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            state.1
        };
        if until > Instant::now() {
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everybody_together_gets_the_rate() {
        let link = Link::new(Rate::per_second(1_000_000));
        let start = Instant::now();
        let pass = async || {
            for _ in 0..100 {
                link.pass(10_000).await;
            }
        };
        tokio::join!(pass(), pass());
        let took = start.elapsed().as_secs_f64();
        assert!((1.95..2.05).contains(&took), "{took}");
    }
}
