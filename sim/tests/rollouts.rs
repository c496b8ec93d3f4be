//! Rollouts of some hundred to two thousand nodes: their times, that they all end, and that they can be repeated.

use std::time::Duration;

use eagle_sim::{Outcome, Scenario, run};
use proptest::prelude::*;

/// 256 pieces of 1 MiB at 300 MiB/s: bounds below are those of the policy's simulated figures and a few hundredths.
fn scenario(nodes: u32) -> Scenario {
    let pieces = 256;
    Scenario { nodes, pieces, size: u64::from(pieces) << 20, ..Scenario::default() }
}

fn played(scenario: &Scenario) -> Outcome {
    run(scenario).expect("a scenario that can be played")
}

#[test]
fn two_thousand_nodes_finish_a_cold_rollout_near_the_bound() {
    let outcome = played(&Scenario { cold: true, ..scenario(2000) });
    assert_eq!(outcome.unfinished, 0);
    assert!(outcome.t50 <= 1.22 && outcome.t99 <= 1.27, "{outcome:?}");
    assert!(outcome.cross_ratio <= 1.02, "{outcome:?}");
    assert!(outcome.seeder_copies <= 6.0, "{outcome:?}");
}

#[test]
fn warm_seeders_help_and_asking_instead_of_granting_does_not() {
    let granted = played(&scenario(500));
    let asked = played(&Scenario { grants: false, ..scenario(500) });
    assert!(granted.t99 <= 1.17, "{granted:?}");
    assert!(granted.t99 < asked.t99, "{granted:?} {asked:?}");
    assert_eq!((granted.unfinished, asked.unfinished), (0, 0));
}

#[test]
fn zones_without_seeders_get_one_copy_each() {
    let outcome = played(&Scenario { seeder_zones: 1, seeders: 2, ..scenario(500) });
    assert_eq!(outcome.unfinished, 0);
    assert!(outcome.cross_ratio <= 1.08 && outcome.t99 <= 1.35, "{outcome:?}");
}

#[test]
fn deaths_slow_nodes_and_late_zones_hold_nobody_up() {
    let trouble = Scenario {
        dying: 0.1,
        slow: 0.1,
        uneven: true,
        late: Duration::from_millis(200),
        cold: true,
        ..scenario(500)
    };
    let outcome = played(&trouble);
    assert_eq!(outcome.unfinished, 0);
    assert!(outcome.t99 <= 1.4, "{outcome:?}");
    assert!(outcome.slow.nodes > 20 && outcome.slow.tmax < 5.0, "{outcome:?}");
}

#[test]
fn a_gateway_that_dies_starves_no_zone() {
    let outcome = played(&Scenario { seeder_zones: 1, seeders: 2, dying: 0.1, ..scenario(400) });
    assert_eq!(outcome.unfinished, 0);
    assert!(outcome.cross_ratio <= 1.3, "{outcome:?}");
}

/// A slow node is not told of its zone's seeder as long as it has somebody else, who here is dead when it comes.
#[test]
fn whoever_dials_the_dead_looks_for_others() {
    let small = Scenario { pieces: 10, size: 10 << 20, grants: false, seeder_zones: 1, ..scenario(5) };
    for seed in 0..200 {
        let outcome = played(&Scenario { zones: 3, dying: 0.26, slow: 0.2, seed, ..small.clone() });
        assert_eq!(outcome.unfinished, 0, "seed {seed}");
    }
}

#[test]
fn equal_seeds_give_equal_outcomes_and_others_do_not() {
    let seeded = |seed| played(&Scenario { seed, pieces: 64, size: 64 << 20, ..scenario(60) });
    assert_eq!(seeded(5), seeded(5));
    assert_ne!(seeded(5), seeded(6));
}

#[test]
fn what_cannot_be_played_is_refused() {
    let wrong = [
        Scenario { nodes: 0, ..scenario(1) },
        Scenario { seeder_zones: 5, ..scenario(1) },
        Scenario { dying: 1.5, ..scenario(1) },
        Scenario { node_link: 0, ..scenario(1) },
    ];
    for scenario in wrong {
        assert!(run(&scenario).is_err(), "{scenario:?}");
    }
}

#[test]
fn the_curve_is_drawn() {
    let outcome = played(&Scenario { pieces: 32, size: 32 << 20, ..scenario(20) });
    let svg = eagle_sim::curve::svg("20 nodes <&>", &outcome);
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("20 nodes &lt;&amp;&gt;") && svg.contains("polyline"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever goes wrong, every living node finishes, as long as one seeder has everything and lives.
    #[test]
    fn every_run_ends(
        nodes in 1_u32..60, zones in 1_u16..4, pieces in 1_u32..100, grants in any::<bool>(), seed in any::<u64>(),
        trouble in (any::<bool>(), 0.0..0.3_f64, 0.0..0.3_f64, any::<bool>(), 1_u16..4),
    ) {
        let (cold, dying, slow, reading, seeder_zones) = trouble;
        let scenario = Scenario {
            nodes, zones, pieces, size: u64::from(pieces) << 20, grants, seed, cold, dying, slow, reading,
            seeder_zones: seeder_zones.min(zones),
            ..Scenario::default()
        };
        let outcome = played(&scenario);
        prop_assert_eq!(outcome.unfinished, 0);
    }
}
