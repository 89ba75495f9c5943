//! `lastmile ledger verify`: the books recomputed from their transfers.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context as _, bail};
use runtime::Context;
use runtime::config::Duration;
use store::Db;

use crate::{Config, Role};

/// A command has more time than a call: a server that is busy is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the store of payments, where there is one.
///
/// Errors: a store that is not there, or that a running process holds.
pub(crate) async fn open(config: &Config, context: &Context) -> anyhow::Result<Db> {
    let store = config.stores().into_iter().find_map(|(role, store)| (role == Role::Payments).then_some(store));
    let store = store.context("the configuration names no store for payments: set store.payments")?;
    if let Some(path) = store.url.strip_prefix("sqlite:")
        && !Path::new(path.strip_prefix("//").unwrap_or(path)).exists()
    {
        bail!("there is no ledger at {path}: name the data directory with --data");
    }
    let store = store::Config { acquire_timeout: PATIENCE, ..store };
    store::open(&store, context.clone()).await.context("store.payments")
}

/// Recomputes every balance and rule of the ledger from its transfers, up to the first break; false when there is one.
///
/// Shape: progress goes to `progress`, a line after every `tell_every` orders or so; the verdict to `out`.
/// Errors: a store that is not there, or that a running process holds.
pub(crate) async fn verify(
    config: &Config,
    context: &Context,
    tell_every: u64,
    out: &mut impl Write,
    progress: &mut impl Write,
) -> anyhow::Result<bool> {
    let db = open(config, context).await?;
    let mut next = tell_every;
    let told = |report: &payments::audit::Report| {
        if !report.is_sound() {
            return ControlFlow::Break(());
        }
        if report.orders >= next {
            next = report.orders.saturating_add(tell_every);
            // Nobody may be reading.
            let _ = writeln!(progress, "{} orders, {} transfers: sound so far", report.orders, report.transfers);
        }
        ControlFlow::Continue(())
    };
    let report = payments::audit::verify(&db, told).await.context("reading the ledger")?;
    for problem in &report.problems {
        writeln!(out, "broken: {}: {}", problem.subject, problem.what)?;
    }
    if !report.is_sound() {
        return Ok(false);
    }
    let payments::audit::Report { orders, refunds, transfers, receipts, open, .. } = report;
    writeln!(
        out,
        "sound: {orders} orders, {refunds} refunds ({open} of them open), {transfers} transfers, {receipts} receipts; every balance is the sum of its transfers, and debits equal credits"
    )?;
    Ok(true)
}
