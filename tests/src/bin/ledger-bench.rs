//! Orders and captures of payments alone, on one store: what `bench/ledger.sh` measures.

use std::io::Write as _;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use payments::bench::Phase;
use runtime::Context;

/// The allocator of the binary that operators run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "ledger-bench")]
struct Cli {
    /// sqlite:FILE or postgres://USER@HOST:PORT/DATABASE
    #[arg(long)]
    store: String,
    /// Who calls at once
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// How many orders are made, and then paid
    #[arg(long, default_value_t = 40_000)]
    orders: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let context = Context::system();
    let place = tempfile::tempdir()?;
    let mut config = store::Config::new(&cli.store);
    if cli.store.starts_with("postgres") {
        config.schema = Some("ledger_bench".to_owned());
    }
    let db = store::open(&config, context.clone()).await?;
    let before = db.meter().counts();
    let measured = payments::bench::run(&db, &context, place.path(), cli.clients, cli.orders).await?;
    let commits = db.meter().counts().commits - before.commits;
    let report = payments::audit::check(&db).await?;
    ensure!(report.is_sound(), "the books do not balance: {:?}", report.problems.first());
    let mut out = std::io::stdout();
    for (name, Phase { span, calls }) in [("orders", measured.orders), ("captures", measured.captures)] {
        let rate = calls.len() as f64 / span.as_secs_f64();
        let at = |share: usize| millis(calls.get(calls.len() * share / 1_000).copied().unwrap_or_default());
        writeln!(out, "{name}\t{rate:.0}\t{:.2}\t{:.2}", at(500), at(990))?;
    }
    writeln!(out, "commits\t{commits}\ttransfers\t{}", report.transfers)?;
    context.tasks.abort();
    Ok(())
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}
