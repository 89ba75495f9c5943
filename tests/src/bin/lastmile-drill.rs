//! Drills by hand: `lastmile-drill points --rounds 20`. Prints its progress to standard error and its figures, as JSON, to standard output.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lastmile_tests::Topology;
use lastmile_tests::drill::{load, money, points, process};
use runtime::Context;
use serde_json::json;
use tokio::time::Instant;

/// Seeds that are drawn are below this.
const SEEDS: u64 = 1_000_000;

#[derive(Debug, Parser)]
#[command(name = "lastmile-drill")]
struct Cli {
    /// The binary under test; by default the one beside this one
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Draws everything that is random; printed, and drawn itself when it is not given
    #[arg(long, global = true)]
    seed: Option<u64>,
    #[command(subcommand)]
    drill: Drill,
}

#[derive(Debug, Subcommand)]
enum Drill {
    /// Dies at every crash point that the binary lists
    Points {
        /// How often at each
        #[arg(long, default_value_t = 20)]
        rounds: u32,
        /// Clusters side by side
        #[arg(long, default_value_t = 3)]
        lanes: u32,
    },
    /// Kills at random moments under load
    Load {
        /// Cases in all
        #[arg(long, default_value_t = 10_000)]
        cases: u32,
        /// Clients, each with one case at a time
        #[arg(long, default_value_t = 64)]
        clients: u32,
        /// Kills
        #[arg(long, default_value_t = 50)]
        kills: u32,
        /// A process per role on PostgreSQL and Redis, of which cases, payments and adapter are killed one at a time
        #[arg(long)]
        split: bool,
    },
    /// Kills payments, or its database, at every crash point of payments and at random moments, under payments
    Payments {
        /// What is killed
        #[arg(long, value_enum, default_value = "payments")]
        target: money::Target,
        /// Where payments keeps everything
        #[arg(long, value_enum, default_value = "postgres")]
        store: money::Store,
        /// Payments in all; more when not everything was killed by then
        #[arg(long, default_value_t = 20_000)]
        payments: u32,
        /// Callers, each with one payment at a time
        #[arg(long, default_value_t = 64)]
        clients: u32,
        /// Kills at random moments
        #[arg(long, default_value_t = 200)]
        kills: u32,
        /// Kills at each crash point
        #[arg(long, default_value_t = 2)]
        rounds: u32,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(format!("lastmile-drill: {error:?}"));
            ExitCode::FAILURE
        }
    }
}

fn tell(line: String) {
    // Nobody may be reading.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn run(cli: Cli) -> anyhow::Result<bool> {
    let binary = process::binary(cli.binary)?;
    let seed = cli.seed.unwrap_or_else(|| Context::system().ids.below(SEEDS));
    tell(format!("seed {seed}"));
    let began = Instant::now();
    match cli.drill {
        Drill::Points { rounds, lanes } => {
            let outcome = points::run(&points::Plot { binary, rounds, lanes, seed }, &tell)?;
            outcome.failures.iter().for_each(|failure| tell(failure.clone()));
            let summary = json!({
                "drill": "points",
                "seed": seed,
                "seconds": began.elapsed().as_secs(),
                "points": outcome.deaths.len(),
                "deaths": outcome.deaths.values().sum::<u32>(),
                "deaths_per_point_min": outcome.deaths.values().min(),
                "slowest_seconds_per_death": outcome.slowest(8),
                "cases": outcome.ends.values().sum::<u32>(),
                "ends": outcome.ends,
                "cases_decided_by_clerks": outcome.by_clerks,
                "failures": outcome.failures.len(),
            });
            writeln!(std::io::stdout(), "{summary:#}")?;
            Ok(outcome.failures.is_empty())
        }
        Drill::Load { cases, clients, kills, split } => {
            let topology = if split { Topology::Split } else { Topology::Single };
            let plot = load::Plot { binary, topology, cases, clients, kills, seed };
            let outcome = load::run(&plot, &tell)?;
            tell(outcome.report.to_string());
            outcome.failures.iter().for_each(|failure| tell(failure.clone()));
            writeln!(std::io::stdout(), "{:#}", outcome.summary)?;
            Ok(outcome.failures.is_empty())
        }
        Drill::Payments { target, store, payments, clients, kills, rounds } => {
            let plot = money::Plot { binary, target, store, payments, clients, kills, rounds, seed };
            let outcome = money::run(&plot, &tell)?;
            tell(outcome.report.to_string());
            outcome.failures.iter().for_each(|failure| tell(failure.clone()));
            writeln!(std::io::stdout(), "{:#}", outcome.summary)?;
            Ok(outcome.failures.is_empty())
        }
    }
}
