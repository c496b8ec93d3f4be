//! `eagle sim`: how a rollout will behave, played with the decisions of the tracker and of the swarm engine over a model of the network.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use eagle_core::size::{ByteSize, Rate};
use eagle_sim::{Outcome, Scenario};

/// What the simulation takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Nodes that want the blob
    #[arg(long, default_value_t = 1000)]
    nodes: u32,
    /// Zones that they are spread over
    #[arg(long, default_value_t = 4)]
    zones: u16,
    /// The blob's size
    #[arg(long, default_value = "1GiB")]
    size: ByteSize,
    /// Pieces it is cut into [default: as the seeder cuts it]
    #[arg(long)]
    pieces: Option<u32>,
    /// The link of every node, each way
    #[arg(long, default_value = "300MiB/s")]
    node_link: Rate,
    /// Seeders in each zone that has some
    #[arg(long, default_value_t = 1)]
    seeders: u16,
    /// Zones that have seeders [default: all]
    #[arg(long)]
    seeder_zones: Option<u16>,
    /// The link of every seeder, each way [default: twice a node's]
    #[arg(long)]
    seeder_link: Option<Rate>,
    /// How fast the registry is [default: as a node's link]
    #[arg(long)]
    origin_link: Option<Rate>,
    /// No seeder has the blob yet
    #[arg(long)]
    cold: bool,
    /// One-way delay of the network, in microseconds
    #[arg(long, default_value_t = 2000)]
    delay_us: u64,
    /// Nodes begin within this time, in milliseconds
    #[arg(long, default_value_t = 50)]
    arrivals_ms: u64,
    /// All zones but the first begin this much later, in milliseconds
    #[arg(long, default_value_t = 0)]
    late_ms: u64,
    /// Share of the nodes that die half-way
    #[arg(long, default_value_t = 0.0)]
    dying: f64,
    /// Share of the nodes whose link is a quarter of the others'
    #[arg(long, default_value_t = 0.0)]
    slow: f64,
    /// Connections get unequal shares of a link, up to a factor of two each way
    #[arg(long)]
    uneven: bool,
    /// The last seeder dies at this time, in units of one pull on a free link
    #[arg(long)]
    seeder_dies: Option<f64>,
    /// Every node's runtime reads the blob from its beginning while it arrives
    #[arg(long)]
    reading: bool,
    /// For every random choice: equal seeds give equal outcomes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the outcome as JSON (`-`: to standard output)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the completion curve as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Plays one rollout and prints what came of it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let scenario = scenario(args)?;
    let outcome = eagle_sim::run(&scenario)?;
    if let Some(path) = &args.svg {
        let svg = eagle_sim::curve::svg(&title(&scenario), &outcome);
        std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    match &args.json {
        Some(path) if path == Path::new("-") => say(&serde_json::to_string_pretty(&outcome)?),
        Some(path) => {
            let json = serde_json::to_vec_pretty(&outcome)?;
            std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
            say(&report(&scenario, &outcome));
        }
        None => say(&report(&scenario, &outcome)),
    }
    Ok(())
}

fn scenario(args: &Args) -> anyhow::Result<Scenario> {
    let link = |rate: Rate| anyhow::Ok(rate.0.context("the simulation needs a limit for every link")?.get());
    let node_link = link(args.node_link)?;
    let pieces = match args.pieces {
        Some(pieces) => pieces,
        None => eagle_core::piece::PieceLayout::for_size(args.size.0)
            .context("the size has no piece layout")?
            .pieces(),
    };
    Ok(Scenario {
        nodes: args.nodes,
        zones: args.zones,
        size: args.size.0,
        pieces,
        node_link,
        seeders: args.seeders,
        seeder_zones: args.seeder_zones.unwrap_or(args.zones),
        seeder_link: args.seeder_link.map_or(Ok(2 * node_link), link)?,
        origin_link: args.origin_link.map_or(Ok(node_link), link)?,
        cold: args.cold,
        delay: Duration::from_micros(args.delay_us),
        arrivals: Duration::from_millis(args.arrivals_ms),
        late: Duration::from_millis(args.late_ms),
        dying: args.dying,
        slow: args.slow,
        uneven: args.uneven,
        seeder_dies: args.seeder_dies,
        reading: args.reading,
        seed: args.seed,
        ..Scenario::default()
    })
}

fn title(scenario: &Scenario) -> String {
    format!(
        "{} nodes, {} zones, {} seeders, {}, {} pieces",
        scenario.nodes,
        scenario.zones,
        u32::from(scenario.seeders) * u32::from(scenario.seeder_zones),
        if scenario.cold { "cold" } else { "warm" },
        scenario.pieces,
    )
}

fn report(scenario: &Scenario, outcome: &Outcome) -> String {
    let [fewest, half, most] = outcome.degree;
    let mut lines = vec![
        title(scenario),
        format!("one pull on a free link   {:.2} s = 1.0", scenario.unit().as_secs_f64()),
        format!("half of the nodes         {:.3}", outcome.t50),
        format!("99 % of the nodes         {:.3}", outcome.t99),
        format!("the slowest node          {:.3}", outcome.tmax),
        format!("between zones ÷ the least {:.3}", outcome.cross_ratio),
        format!(
            "copies from the seeders   {:.2}, to each other {:.2}",
            outcome.seeder_copies, outcome.seeder_chain
        ),
        format!("moved in vain             {:.2} %", 100.0 * outcome.waste),
        format!("links of a node           {fewest} to {most}, half of them up to {half}"),
        format!("unfinished                {}", outcome.unfinished),
    ];
    if outcome.slow.nodes > 0 {
        lines.push(format!(
            "nodes on a quarter link   {:.2}, the slowest {:.2}",
            outcome.slow.t50, outcome.slow.tmax
        ));
    }
    lines.join("\n")
}

#[expect(clippy::print_stdout, reason = "the answer of a command-line tool")]
fn say(text: &str) {
    println!("{text}");
}
