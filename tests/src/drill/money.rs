//! The money drill: payments as a process of its own on PostgreSQL or SQLite, thousands of payments over WeChat Pay, alone and combined, and
//! over Alipay, from callers that write down every answer, and kill -9 of payments, or of PostgreSQL, at every crash point of payments and
//! at random moments.
//!
//! Nothing here goes through cases: the callers are what cases is to payments, and hear its events. In the end three accounts are held
//! against each other that know nothing of one another: what callers were answered, what the channel wrote down, and the ledger.

mod book;
mod judge;
mod payers;
mod site;
mod ways;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use invariants::Report;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use runtime::Context;
use runtime::crash::Plan;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::process::{Death, crash_points};
use payers::Payers;
use site::Site;

const GLANCE: Duration = Duration::from_millis(10);
const TELL_EVERY: Duration = Duration::from_secs(10);
/// A kill comes up to this long after the payment that it was drawn for has ended.
const KILL_WITHIN_MS: u64 = 300;
/// How long a point may let a process live that is armed for it.
const DEATH_WITHIN: Duration = Duration::from_secs(60);
/// How soon after a recovery somebody must be answered.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Passings of a point, at most, of which one is chosen to die at.
const HIT_MAX: u32 = 8;
/// The same where the database dies, and payments lives on: of so many payments one.
const HIT_OF_PAYMENTS: u32 = 40;
/// What operators see to: here is none.
const OF_OPERATORS: [&str; 4] = ["payments.settle.", "payments.day.", "payments.resolve.", "payments.proposal."];

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// Payments, which is started again.
    Payments,
    /// PostgreSQL, which is started again; payments has to live through it.
    Postgres,
}

/// Where payments keeps everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Store {
    /// A PostgreSQL of its own.
    Postgres,
    /// A file.
    Sqlite,
}

/// What a drill is to do.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The binary under test.
    pub binary: PathBuf,
    /// What is killed.
    pub target: Target,
    /// Where payments keeps everything.
    pub store: Store,
    /// Payments in all; more when not everything was killed by then.
    pub payments: u32,
    /// Callers, each with one payment at a time.
    pub clients: u32,
    /// Kills at random moments.
    pub kills: u32,
    /// Kills at every crash point of payments.
    pub rounds: u32,
    /// Draws moments, orders and hits.
    pub seed: u64,
}

/// What came of it.
pub struct Outcome {
    /// The figures.
    pub summary: Value,
    /// The invariants.
    pub report: Report,
    /// What was wrong; empty for a drill that passed.
    pub failures: Vec<String>,
}

/// How far it is.
#[derive(Default)]
struct Progress {
    begun: Cell<u32>,
    ended: Cell<u32>,
    kills: Cell<u32>,
    /// How often something died at each point.
    deaths: RefCell<BTreeMap<String, u32>>,
    /// Nothing is left to kill.
    is_calm: Cell<bool>,
    /// The last recovery after which nobody was answered yet: when it was, and the answers until then.
    recovered: Cell<Option<(Instant, u64)>>,
    /// The longest that everybody waited for an answer after a recovery.
    silence: Cell<Duration>,
}

/// Runs the drill; `tell` hears how it goes.
pub fn run(plot: &Plot, tell: &dyn Fn(String)) -> anyhow::Result<Outcome> {
    // One thread: the kernel ends what a thread has started when the thread ends.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(play(plot, tell)))
}

async fn play(plot: &Plot, tell: &dyn Fn(String)) -> anyhow::Result<Outcome> {
    ensure!(
        plot.target == Target::Payments || plot.store == Store::Postgres,
        "there is no database to kill beside a file: drill it with --target payments"
    );
    let mut place = tempfile::Builder::new().prefix("lastmile-drill-").tempdir()?;
    place.disable_cleanup(true);
    let context = Context::system();
    let points = crash_points(&plot.binary)?;
    let of_payers =
        |point: &String| point.starts_with("payments.") && !OF_OPERATORS.iter().any(|prefix| point.starts_with(prefix));
    let points: Vec<String> = points.into_iter().filter(of_payers).collect();
    let mut random = StdRng::seed_from_u64(plot.seed);
    let mut armed = plans(plot, &points, &mut random);
    let stops: Vec<Plan> = match plot.target {
        Target::Payments => Vec::new(),
        Target::Postgres => armed.drain(..).collect(),
    };
    let mut site = Site::new(&context, plot, place.path(), &stops).await?;
    site.start(armed.front()).await?;
    let progress = Progress {
        deaths: points.iter().map(|point| (point.clone(), 0)).collect::<BTreeMap<_, _>>().into(),
        ..Progress::default()
    };
    let payers = Payers::new(&context, &site, place.path())?;
    let began = Instant::now();
    let load = payers.load(plot, &progress, tell);
    let telling = async {
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            let at_points: u32 = progress.deaths.borrow().values().sum();
            tell(format!(
                "{:>5.0?} {} payments ended, {} kills at random, {at_points} at points",
                began.elapsed(),
                progress.ended.get(),
                progress.kills.get(),
            ));
        }
    };
    let killing = async {
        match plot.target {
            Target::Payments => kill_payments(plot, &mut site, &payers, armed, random, &progress).await,
            Target::Postgres => kill_postgres(plot, &mut site, &payers, stops, random, &progress).await,
        }
    };
    let mut failures = tokio::select! {
        failures = load => failures,
        failed = killing => { failed?; bail!("the killing ended before the load") }
        () = telling => bail!("nobody ends telling"),
        failed = payers.listen() => { failed?; bail!("the listening ended") }
    };
    let seconds = began.elapsed().as_secs_f64();
    tell(format!("judging {} payments after {seconds:.0} s", progress.ended.get()));
    let mut judged = Box::pin(judge::judge(&mut site, &payers, tell)).await?;
    failures.append(&mut judged.failures);
    drop(site);
    for (point, deaths) in progress.deaths.borrow().iter().filter(|(_, deaths)| **deaths < plot.rounds) {
        failures.push(format!("{point}: {deaths} deaths of {}", plot.rounds));
    }
    for (by, [_, paid]) in payers.tally.borrow().iter() {
        if *paid == 0 {
            failures.push(format!("nobody paid with {}: give it more payments", by.name()));
        }
    }
    if progress.kills.get() != plot.kills {
        failures.push(format!("{} kills of {}", progress.kills.get(), plot.kills));
    }
    if failures.is_empty() {
        // What cannot be removed is in the way of nobody.
        let _ = std::fs::remove_dir_all(place.path());
    } else {
        failures.push(format!("what it left is in {}", place.path().display()));
    }
    let mut tally = serde_json::Map::new();
    for (by, [ended, paid]) in payers.tally.borrow().iter() {
        tally.insert(by.name().to_owned(), json!({ "payments": ended, "paid": paid }));
    }
    let own = json!({
        "drill": "payments", "target": format!("{:?}", plot.target), "store": format!("{:?}", plot.store), "seed": plot.seed, "clients": plot.clients,
        "payments": progress.ended.get(), "paid_with": tally, "kills_at_random": progress.kills.get(), "points": points.len(),
        "kills_at_points": progress.deaths.borrow().values().sum::<u32>(),
        "seconds": seconds.round(), "longest_silence_ms": progress.silence.get().as_millis(), "failures": failures.len(),
    });
    let mut summary = judged.summary;
    if let (Some(summary), Value::Object(own)) = (summary.as_object_mut(), own) {
        summary.extend(own);
    }
    Ok(Outcome { summary, report: judged.report, failures })
}

/// Every point as often as it is to be died at, in a drawn order, each with the passing that it happens at.
fn plans(plot: &Plot, points: &[String], random: &mut StdRng) -> VecDeque<Plan> {
    let hits = match plot.target {
        Target::Payments => HIT_MAX,
        Target::Postgres => (plot.payments / HIT_OF_PAYMENTS).max(2),
    };
    let mut plans = Vec::new();
    for point in points {
        let mut drawn: Vec<u32> = (1..=hits).collect();
        drawn.shuffle(random);
        let rounds = (0..plot.rounds).map(|round| drawn.get(round as usize % drawn.len()).copied().unwrap_or(1));
        plans.extend(rounds.map(|hit| Plan { point: point.clone(), hit }));
    }
    plans.shuffle(random);
    plans.into()
}

/// The moments at random, by how many payments have ended: while there is load.
fn moments(plot: &Plot, random: &mut StdRng) -> VecDeque<u32> {
    let last = (plot.payments / 10 * 9).max(1);
    let mut moments: Vec<u32> = (0..plot.kills).map(|_| random.random_range(0..last)).collect();
    moments.sort_unstable();
    moments.into()
}

/// Kills payments whenever a drawn moment has come, and lets it die at the points in between. Ends with an error only.
async fn kill_payments(
    plot: &Plot,
    site: &mut Site,
    payers: &Payers,
    mut armed: VecDeque<Plan>,
    mut random: StdRng,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut moments = moments(plot, &mut random);
    let mut armed_at = Instant::now();
    loop {
        site.outside_lives()?;
        let is_heard = progress.is_heard(payers)?;
        if let Some(plan) = armed.front() {
            match site.payments.died()? {
                Some(Death::AtPoint(point)) if point == plan.point => {
                    *progress.deaths.borrow_mut().entry(point).or_default() += 1;
                    armed.pop_front();
                    site.start_payments(armed.front()).await?;
                    progress.recovered(payers);
                    armed_at = Instant::now();
                }
                Some(death) => bail!("an unexpected death, armed {plan:?}: {death:?}"),
                None => ensure!(armed_at.elapsed() < DEATH_WITHIN, "{}:{} was not reached", plan.point, plan.hit),
            }
        } else if let Some(moment) = moments.front().copied() {
            let death = site.payments.died()?;
            ensure!(death.is_none(), "an unexpected death: {death:?}");
            if progress.ended.get() >= moment && is_heard {
                moments.pop_front();
                tokio::time::sleep(Duration::from_millis(random.random_range(0..KILL_WITHIN_MS))).await;
                site.payments.kill()?;
                progress.kills.set(progress.kills.get() + 1);
                site.start_payments(None).await?;
                progress.recovered(payers);
            }
        } else {
            progress.is_calm.set(true);
            let death = site.payments.died()?;
            ensure!(death.is_none(), "an unexpected death: {death:?}");
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// Kills PostgreSQL whenever payments stands still at a point, and whenever a drawn moment has come. Ends with an error only.
async fn kill_postgres(
    plot: &Plot,
    site: &mut Site,
    payers: &Payers,
    stops: Vec<Plan>,
    mut random: StdRng,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut moments = moments(plot, &mut random);
    loop {
        site.outside_lives()?;
        let is_heard = progress.is_heard(payers)?;
        let death = site.payments.died()?;
        ensure!(death.is_none(), "payments has to live through it: {death:?}");
        if site.stands_still() {
            site.kill_postgres().await?;
            for point in site.stopped_at()? {
                *progress.deaths.borrow_mut().entry(point).or_default() += 1;
            }
            // Payments finds it gone, or back.
            if random.random_bool(0.5) {
                site.go_on()?;
                site.restart_postgres().await?;
            } else {
                site.restart_postgres().await?;
                site.go_on()?;
            }
            progress.recovered(payers);
        } else if is_heard && moments.front().is_some_and(|moment| progress.ended.get() >= *moment) {
            moments.pop_front();
            tokio::time::sleep(Duration::from_millis(random.random_range(0..KILL_WITHIN_MS))).await;
            site.kill_postgres().await?;
            progress.kills.set(progress.kills.get() + 1);
            site.restart_postgres().await?;
            progress.recovered(payers);
        }
        let done: u32 = progress.deaths.borrow().values().sum();
        progress.is_calm.set(moments.is_empty() && done as usize >= stops.len());
        tokio::time::sleep(GLANCE).await;
    }
}

impl Progress {
    /// Everything runs again.
    fn recovered(&self, payers: &Payers) {
        self.recovered.set(Some((Instant::now(), payers.answers())));
    }

    /// Whether somebody was answered since the last recovery; if not, it must come soon.
    fn is_heard(&self, payers: &Payers) -> anyhow::Result<bool> {
        let Some((at, before)) = self.recovered.get() else { return Ok(true) };
        if payers.answers() == before {
            ensure!(at.elapsed() < ANSWER_WITHIN, "nobody was answered within {ANSWER_WITHIN:?} of a recovery");
            return Ok(false);
        }
        self.silence.set(self.silence.get().max(at.elapsed()));
        self.recovered.set(None);
        Ok(true)
    }
}
