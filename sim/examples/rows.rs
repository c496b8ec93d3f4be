//! The rollouts of the table in the documentation: one line each, as `cargo xtask bench sim` prints them.
//!
//! `cargo xtask bench sim [--nodes N] [--rounds N] [--plain] [WORD …]`: with words, only the rows in whose names they all are; each
//! row is played with the seeds 1 … `rounds`. Constants of the policy can be changed: `--uploads`, `--ahead`,
//! `--ahead-most`, `--seconds`; and the network's delay: `--delay-us`.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a measurement prints and ends at the first thing wrong"
)]

use std::time::{Duration, Instant};

use eagle_sim::Scenario;
use eagle_swarm::mesh::Tuning;

const MIB: u64 = 1 << 20;

/// A blob of `pieces` times 1 MiB in four zones, one seeder of twice a node's link in each.
fn base(nodes: u32, pieces: u32) -> Scenario {
    let link = 300 * MIB;
    Scenario {
        nodes,
        pieces,
        size: u64::from(pieces) * MIB,
        node_link: link,
        seeder_link: 2 * link,
        origin_link: link,
        // 16 slots of 3.3 ms at 256 pieces, 32 at 512.
        arrivals: Duration::from_micros(208) * pieces,
        ..Scenario::default()
    }
}

fn rows(nodes: u32) -> Vec<(String, Scenario)> {
    let warm = base(nodes, 512);
    let cold = Scenario { cold: true, ..warm.clone() };
    let all_four = |scenario: &Scenario| Scenario {
        dying: 0.1,
        slow: 0.1,
        uneven: true,
        late: scenario.slot() * (scenario.pieces / 4),
        ..scenario.clone()
    };
    let one_zone = Scenario { seeder_zones: 1, seeders: 2, ..warm.clone() };
    let one_of_all = |scenario: &Scenario| {
        vec![
            ("dying", Scenario { dying: 0.1, ..scenario.clone() }),
            ("slow", Scenario { slow: 0.1, ..scenario.clone() }),
            ("uneven", Scenario { uneven: true, ..scenario.clone() }),
            ("reading", Scenario { reading: true, ..scenario.clone() }),
            ("all-four", all_four(scenario)),
        ]
    };
    let mut rows = vec![
        ("warm m512 plainly".to_owned(), warm.clone()),
        ("cold m512 plainly".to_owned(), cold.clone()),
        ("one-zone m512 plainly".to_owned(), one_zone.clone()),
        ("one-zone m512 all-four".to_owned(), all_four(&one_zone)),
        ("warm m256 plainly".to_owned(), base(nodes, 256)),
        ("cold m256 plainly".to_owned(), Scenario { cold: true, ..base(nodes, 256) }),
        ("cold m1024 plainly".to_owned(), Scenario { cold: true, ..base(nodes, 1024) }),
        ("one-zone m256 plainly".to_owned(), Scenario { seeder_zones: 1, seeders: 2, ..base(nodes, 256) }),
        ("single cold m512 zone".to_owned(), Scenario { zones: 1, seeder_zones: 1, ..cold.clone() }),
        ("warm m512 seeder-dies".to_owned(), Scenario { seeder_dies: Some(0.3), ..warm.clone() }),
        ("cold m512 seeder-dies".to_owned(), Scenario { seeder_dies: Some(0.3), ..cold.clone() }),
    ];
    for (name, scenario) in [("warm", &warm), ("cold", &cold)] {
        rows.extend(one_of_all(scenario).into_iter().map(|(what, row)| (format!("{name} m512 {what}"), row)));
    }
    rows
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (mut nodes, mut rounds, mut grants, mut delay, mut words) = (10_000, 1, true, None, Vec::new());
    let mut tuning = Tuning::default();
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).expect("a number");
        match arg.as_str() {
            "--nodes" => nodes = number(),
            "--rounds" => rounds = number(),
            "--plain" => grants = false,
            "--uploads" => tuning.uploads = number() as usize,
            "--ahead" => tuning.ahead = number() as usize,
            "--ahead-most" => tuning.ahead_most = number() as usize,
            "--seconds" => tuning.seconds = number() as usize,
            "--delay-us" => delay = Some(Duration::from_micros(number().into())),
            _ => words.push(arg),
        }
    }
    println!(
        "{:28} {:>6} | T50   T99   max   slow T50 max | cross copies chain | waste degree left | s",
        "row", "nodes"
    );
    for (name, scenario) in rows(nodes) {
        if !words.iter().all(|word| name.split(' ').any(|part| part == word)) {
            continue;
        }
        for seed in 1..=u64::from(rounds) {
            let delay = delay.unwrap_or(scenario.delay);
            play(&name, &Scenario { seed, grants, delay, tuning: tuning.clone(), ..scenario.clone() });
        }
    }
}

fn play(name: &str, scenario: &Scenario) {
    let begun = Instant::now();
    let outcome = eagle_sim::run(scenario).expect("a scenario that can be played");
    let [fewest, half, most] = outcome.degree;
    println!(
        "{name:28} {:6} | {:.3} {:.3} {:.3} {:4.2} {:4.2} | {:.3} {:5.2} {:4.2} | {:.2}% {fewest}/{half}/{most} {} | {:.0}",
        scenario.nodes,
        outcome.t50,
        outcome.t99,
        outcome.tmax,
        outcome.slow.t50,
        outcome.slow.tmax,
        outcome.cross_ratio,
        outcome.seeder_copies,
        outcome.seeder_chain,
        100.0 * outcome.waste,
        outcome.unfinished,
        begun.elapsed().as_secs_f64(),
    );
}
