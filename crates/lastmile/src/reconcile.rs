//! `lastmile reconcile` and `lastmile ledger export`: the day's money, offline.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use jiff::civil::Date;
use payments::reconcile::{Break, BreakKind, Options, Side, Told, Totals, ledger, run, write_json};
use store::Db;

/// Reconciles files; false when there are breaks. Breaks go to `out`, progress and the sums to `progress`.
///
/// Errors: a file that cannot be used; nothing is decided then.
pub(crate) fn reconcile(
    options: &Options,
    as_json: bool,
    out: impl Write,
    progress: &mut impl Write,
) -> anyhow::Result<bool> {
    let mut out = BufWriter::new(out);
    let mut has_head = false;
    let told = |read| {
        // Nobody may be reading.
        let _ = writeln!(io::stderr(), "{read} movements read");
    };
    let found = |one: &Break| {
        if as_json {
            return write_json(&mut out, one);
        }
        if !has_head {
            has_head = true;
            let head = ["side", "what", "number", "ours", "theirs", "at", "days"];
            let [side, what, number, ours, theirs, at, days] = head;
            writeln!(out, "break   {side:<28} {what:<10} {number:<32} {ours:>22} {theirs:>22}  {at:<19} {days}")?;
        }
        line(&mut out, one)
    };
    let (day, totals) = run(options, found, told)?;
    out.flush()?;
    drop(out);
    sums(progress, day, &totals)?;
    Ok(totals.breaks_total() == 0)
}

fn line(out: &mut impl Write, one: &Break) -> io::Result<()> {
    let told = |told: &Option<Told>| match told {
        None => "-".to_owned(),
        Some(told) => format!("{} {}", told.state, told.amount()),
    };
    let at = one.theirs.as_ref().or(one.ours.as_ref()).map(|told| told.at.to_string()).unwrap_or_default();
    writeln!(
        out,
        "{:<7} {:<28} {:<10} {:<32} {:>22} {:>22}  {at:<19} {}",
        one.kind.name(),
        format!("{}/{}", one.side, one.party),
        one.what,
        one.number,
        told(&one.ours),
        told(&one.theirs),
        one.age_days,
    )
}

fn sums(out: &mut impl Write, day: Date, totals: &Totals) -> io::Result<()> {
    writeln!(out, "{day}, in Beijing's time")?;
    for ((side, party, what), sums) in &totals.told {
        let name = if *side == Side::Ledger { format!("{side} ({party})") } else { format!("{side}/{party}") };
        write!(out, "  {name:<32} {what:<10} {:>12}", sums.count)?;
        for (currency, minor) in &sums.minor {
            let minor = minor.unsigned_abs();
            let (whole, rest) = (minor / 100, minor % 100);
            write!(out, "  {whole:>16}.{rest:02} {}", String::from_utf8_lossy(currency))?;
        }
        writeln!(out)?;
    }
    for ((side, party), count) in &totals.unheard {
        writeln!(out, "  not compared: {count} of the ledger; no file of {side}/{party} was given")?;
    }
    let breaks: Vec<_> = BreakKind::ALL
        .iter()
        .map(|kind| format!("{} {}", totals.breaks.get(kind).copied().unwrap_or(0), kind.name()))
        .collect();
    let (agreed, carried, total) = (totals.agreed, totals.carried, totals.breaks_total());
    writeln!(out, "{agreed} agree, {carried} wait for the next day, {total} breaks: {}", breaks.join(", "))
}

/// Writes what the ledger tells of a day into a file.
pub(crate) async fn export(db: &Db, day: Date, scope: &ledger::Scope, path: &Path) -> anyhow::Result<()> {
    let told = |count| {
        // Nobody may be reading.
        let _ = writeln!(io::stderr(), "{count} movements written");
    };
    let count = ledger::export(db, day, scope, path, told).await.context("exporting the ledger")?;
    writeln!(io::stderr(), "{count} movements of {day} in {}", path.display())?;
    Ok(())
}
