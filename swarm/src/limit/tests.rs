//! Budgets under load, in the time of a paused clock.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn taker(swarm: u8, priority: Priority) -> Taker {
    Taker::new(SwarmId([swarm; 20]), priority)
}

fn front(swarm: u8) -> Taker {
    taker(swarm, Priority::Foreground)
}

async fn seconds_for(limits: &HostLimits, bytes: usize) -> f64 {
    let start = Instant::now();
    limits.take_up(front(0), bytes).await;
    start.elapsed().as_secs_f64()
}

/// Bytes that each of `takers` receives in `time`, taking a portion again and again, a timer's tick apart.
async fn received(limits: &Arc<HostLimits>, takers: &[Taker], time: Duration) -> Vec<usize> {
    let end = Instant::now() + time;
    let tasks: Vec<_> = takers
        .iter()
        .map(|&taker| {
            let limits = limits.clone();
            tokio::spawn(async move {
                let mut taken = 0;
                let mut tick = tokio::time::interval(Duration::from_millis(1));
                while Instant::now() < end {
                    limits.take_down(taker, PORTION).await;
                    taken += PORTION;
                    tick.reset();
                    tick.tick().await;
                }
                taken
            })
        })
        .collect();
    let mut received = Vec::new();
    for task in tasks {
        received.push(task.await.unwrap());
    }
    received
}

#[tokio::test(start_paused = true)]
async fn rates_are_kept_within_two_percent() {
    for rate in [50_000_u32, 3_000_000, 25_000_000, 333_333_333, 2_500_000_000] {
        let limits = HostLimits::new(Rate::per_second(rate.into()), Rate::NONE);
        for _ in 0..3 {
            let took = seconds_for(&limits, rate as usize).await;
            assert!((0.98..1.02).contains(&took), "{rate} bytes took {took} s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn blobs_share_evenly_however_many_connections_they_have() {
    let limits = Arc::new(HostLimits::new(Rate::NONE, Rate::per_second(8 << 20)));
    let mut takers = vec![front(1); 8];
    takers.extend([front(2), front(2), front(3)]);
    let received = received(&limits, &takers, Duration::from_secs(3)).await;
    let of = |range: std::ops::Range<usize>| received[range].iter().sum::<usize>();
    for blob in [of(0..8), of(8..10), of(10..11)] {
        assert!(blob.abs_diff(8 << 20) < 1 << 20, "{blob} of 8 MiB");
    }
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_leaves_a_limited_link_to_the_pull_that_waits() {
    let limits = Arc::new(HostLimits::new(Rate::NONE, Rate::per_second(16 << 20)));
    let mut takers = vec![taker(1, Priority::Background); 20];
    takers.extend([front(2), front(2)]);
    let both = received(&limits, &takers, Duration::from_secs(2)).await;
    let (back, ahead) = (both[..20].iter().sum::<usize>(), both[20..].iter().sum::<usize>());
    assert!(ahead > 29 << 20 && back > 1 << 20, "{ahead} ahead of {back}");
    tokio::time::advance(RECENT).await;
    let alone = received(&limits, &takers[..20], Duration::from_secs(2)).await;
    assert!(alone.iter().sum::<usize>() > 31 << 20, "alone it has all");
}

/// It does not wait while it reads, and the turn is then nobody's in the foreground.
#[tokio::test(start_paused = true)]
async fn a_pull_over_a_single_connection_goes_first_too() {
    let limits = Arc::new(HostLimits::new(Rate::NONE, Rate::per_second(16 << 20)));
    let mut takers = vec![taker(1, Priority::Background); 20];
    takers.push(front(2));
    let both = received(&limits, &takers, Duration::from_secs(2)).await;
    assert!(both[20] > 24 << 20, "{} of 32 MiB", both[20]);
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_goes_on_at_full_speed_as_soon_as_the_pull_is_over() {
    let limits = Arc::new(HostLimits::new(Rate::NONE, Rate::per_second(1 << 20)));
    limits.take_down(front(2), PORTION).await;
    let began = Instant::now();
    let all = received(&limits, &[taker(1, Priority::Background); 20], Duration::from_secs(4)).await;
    let (bytes, took) = (all.iter().sum::<usize>(), began.elapsed());
    // What was held back until then is not owed afterwards.
    assert!(bytes > 3 << 20 && took < Duration::from_secs(6), "{bytes} bytes in {took:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_prefetch_trickles_while_a_pull_receives() {
    let limits = Arc::new(HostLimits::unlimited());
    let back = taker(1, Priority::Background);
    let first = received(&limits, &[back; 4], Duration::from_secs(1)).await;
    assert!(first.iter().sum::<usize>() > 100 << 20, "nobody waits");
    let both = received(&limits, &[back, back, front(2)], Duration::from_secs(2)).await;
    let trickle = usize::try_from(TRICKLE).unwrap();
    assert!((both[0] + both[1]).abs_diff(2 * trickle) < trickle / 4, "{both:?}");
    assert!(both[2] > 48 << 20, "{both:?}");
    tokio::time::advance(RECENT).await;
    assert!(!limits.holds_down(back), "the pull is over");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_no_burst_and_reaches_those_who_wait() {
    let limits = Arc::new(HostLimits::new(Rate::per_second(1_000), Rate::NONE));
    let waiter = tokio::spawn({
        let limits = limits.clone();
        async move { seconds_for(&limits, 40_000_000).await }
    });
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    limits.set(Rate::per_second(40_000_000), Rate::NONE);
    let took = waiter.await.unwrap();
    assert!((1.98..3.1).contains(&took), "{took}");
    limits.set(Rate::per_second(10_000_000), Rate::NONE);
    assert!(seconds_for(&limits, 1_000_000).await > 0.098);
    limits.set(Rate::NONE, Rate::NONE);
    assert!(seconds_for(&limits, usize::MAX).await < 0.001);
}

/// A taker that gives up, while it waits or while it has the turn, stops nobody.
#[tokio::test(start_paused = true)]
async fn whoever_gives_up_gives_its_turn_on() {
    let limits = Arc::new(HostLimits::new(Rate::per_second(1 << 20), Rate::NONE));
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let limits = limits.clone();
            tokio::spawn(async move { limits.take_up(front(number), 1 << 20).await })
        })
        .collect();
    // One has the turn by now, the others wait for it.
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_millis(100)).await;
    for task in &tasks {
        task.abort();
    }
    let took = seconds_for(&limits, 1 << 20).await;
    assert!((0.9..1.2).contains(&took), "{took}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// In every window of one second at most 2 % more than the rate passes, and in none of 100 ms more than a tenth and the
    /// burst, whatever portions are taken; the average is the rate.
    #[test]
    fn every_window_keeps_the_rate(
        rate in 500_000_u64..300_000_000,
        portions in prop::collection::vec(1_usize..400_000, 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let passed: VecDeque<(Duration, u64)> = runtime.block_on(async {
            let limits = HostLimits::new(Rate::per_second(rate), Rate::NONE);
            let (started, mut passed) = (Instant::now(), VecDeque::new());
            for portion in portions.iter().cycle() {
                // As the engine takes: a portion, and then it is sent.
                for part in (0..*portion).step_by(PORTION) {
                    let bytes = PORTION.min(portion - part);
                    limits.take_up(front(0), bytes).await;
                    passed.push_back((started.elapsed(), bytes as u64));
                }
                if started.elapsed() > Duration::from_secs(4) {
                    break;
                }
            }
            passed
        });
        let total: u64 = passed.iter().map(|(_, bytes)| bytes).sum();
        let (last, _) = passed[passed.len() - 1];
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let mean = total as f64 / last.as_secs_f64() / rate as f64;
        prop_assert!((0.98..1.02).contains(&mean), "mean {}", mean);
        for (window, slack) in [(Duration::from_secs(1), rate / 50), (Duration::from_millis(100), rate / 10)] {
            let share = rate * u64::try_from(window.as_millis()).unwrap() / 1000;
            let (mut inside, mut sum): (VecDeque<(Duration, u64)>, u64) = (VecDeque::new(), 0);
            for &(at, bytes) in &passed {
                inside.push_back((at, bytes));
                sum += bytes;
                while inside.front().is_some_and(|(first, _)| at.saturating_sub(*first) >= window) {
                    sum -= inside.pop_front().unwrap().1;
                }
                // What stands at the window's end passes at once: one portion.
                prop_assert!(sum <= share + slack + 2 * PORTION as u64, "{} in {:?}", sum, window);
            }
        }
    }
}
