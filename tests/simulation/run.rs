//! One run: a mesh, its citizens and a storm from one seed, until everything has come to rest; then it is judged.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use cases::domain::State;
use invariants::{Found, Journals, Leaks, World, check_all};
use lastmile_tests::simulation::EPOCH;
use runtime::Timestamp;

use crate::citizens::{self, Times};
use crate::clerks;
use crate::hosts::{Ground, Host, Machine};
use crate::record::Record;
use crate::trace;
use crate::weather::{CALM, LATENCY_MAX, STORM, Weather};

const CITIZENS: u32 = 10;
/// Everything must have come to rest by then.
const END: Duration = Duration::from_secs(20 * 60);
/// Between two looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Looks in a row that must find nothing new.
const QUIET_LOOKS: u32 = 4;
const TICK: Duration = Duration::from_millis(10);
/// What every run must have been judged by. I9 is of processes, and here all hosts share one: drills judge it.
const JUDGED: [&str; 8] = ["I1", "I2", "I3", "I4", "I5", "I6", "I8", "I10"];
/// What cases logs when an adapter's word is too early to be true. It does no harm, since two have to fail for that; it is a fault.
const NOT_BELIEVED: &str = "it is not believed";
const SYSTEMS: [&str; 3] = ["wechatpay", "police-430100", "police-140100"];

/// What a run leaves.
pub(crate) struct Run {
    /// Every event with its time, in the order of time.
    pub(crate) trace: Vec<String>,
    /// What there was to see, in one line.
    pub(crate) told: String,
    /// What went wrong; empty when everything held.
    pub(crate) problems: String,
}

/// Runs a seed to its end.
pub(crate) fn run(seed: u64, place: &Path, wechat_keys: &Path, log: &dyn Fn() -> String) -> anyhow::Result<Run> {
    let ground = Ground::new(seed, place, wechat_keys)?;
    let record = Record::default();
    let (healed, until) = (EPOCH.plus(CALM + STORM), EPOCH.plus(END - Duration::from_secs(60)));
    let times = Times { begin_within: STORM * 3 / 4, healed, until };
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(LATENCY_MAX)
        .repair_rate(0.2)
        .tick_duration(TICK)
        .tcp_capacity(1_024)
        .simulation_duration(END * 2)
        .build();
    let machines = Host::ALL.map(|host| {
        let heard = record.clone();
        Machine::start(&mut sim, host, &ground, move |point| {
            let now = EPOCH.plus(turmoil::sim_elapsed().unwrap_or_default());
            heard.note(now, format!("{} dies at {point}", host.name()));
        })
    });
    sim.client("citizens", citizens::live(ground.clone(), CITIZENS, times, record.clone()));
    let (of_watcher, seen_there) = (ground.clone(), record.clone());
    sim.host("office", move || citizens::watch(of_watcher.clone(), times, seen_there.clone()));
    let (of_clerks, decided_there) = (ground.clone(), record.clone());
    sim.host("desks", move || clerks::work(of_clerks.clone(), times, decided_there.clone()));
    let mut weather = Weather::drawn(seed, &record);
    let outcome = until_rest(&mut sim, &mut weather, &machines, &ground, &record);
    let now = EPOCH.plus(sim.elapsed());
    let lives: u64 = machines.iter().map(Machine::lives).sum();
    drop(sim);
    let mut run = judged(&ground, &record, now, log)?;
    let Weather { crashes, cuts, faults, .. } = weather;
    write!(
        run.told,
        ", {crashes} crashes, {lives} lives, {cuts} cuts, {faults} faults staged, {} s",
        now.since(EPOCH).as_secs()
    )?;
    if let Err(error) = outcome {
        writeln!(run.problems, "{error:?}")?;
    }
    Ok(run)
}

/// Steps until citizens, stores and journals have nothing more to do.
fn until_rest(
    sim: &mut turmoil::Sim<'_>,
    weather: &mut Weather,
    machines: &[Machine],
    ground: &Ground,
    record: &Record,
) -> anyhow::Result<()> {
    let (mut looked, mut before, mut quiet) = (Duration::ZERO, String::new(), 0);
    while quiet < QUIET_LOOKS {
        weather.blow(sim, machines, ground);
        sim.step().map_err(|error| anyhow::anyhow!("at {:?}: {error}", sim.elapsed()))?;
        if !weather.is_healed() || sim.elapsed() < looked + LOOK_EVERY {
            continue;
        }
        looked = sim.elapsed();
        let (state, rests) = stands(ground, record, EPOCH.plus(looked))?;
        quiet = if rests && state == before { quiet + 1 } else { 0 };
        before = state;
        anyhow::ensure!(looked < END, "it does not come to rest within {} s:\n{before}", END.as_secs());
    }
    Ok(())
}

/// How everything stands, and whether nobody waits for anything.
fn stands(ground: &Ground, record: &Record, now: Timestamp) -> anyhow::Result<(String, bool)> {
    block_on(async {
        let cases = cases::audit::check(&ground.cases, now).await?;
        let events = store::outbox::head(&mut ground.payments.read().await?, "payments").await?;
        let seen = record.seen();
        let open: Vec<_> = cases.facts.iter().filter(|fact| !fact.state.is_terminal()).collect();
        let streamed = i64::try_from(cases.streamed)?;
        let rests = seen.busy == 0 && open.is_empty() && cases.cursor == events && seen.watched == streamed;
        let journals = SYSTEMS.map(|system| ground.journals.text(system).len());
        let open: Vec<_> = open.iter().map(|fact| format!("{} {:?}", fact.request_id, fact.state)).collect();
        let state = format!(
            "{} citizens busy, {} lines, {streamed} streamed, {} watched, {events} events, {} applied, journals of {journals:?} bytes, \
             open: {open:?}",
            seen.busy, cases.lines, seen.watched, cases.cursor
        );
        Ok((state, rests))
    })
}

/// Compares what everybody knows.
fn judged(ground: &Ground, record: &Record, now: Timestamp, log: &dyn Fn() -> String) -> anyhow::Result<Run> {
    let written = ground.place.join("journals");
    std::fs::create_dir_all(&written)?;
    for system in SYSTEMS {
        std::fs::write(written.join(format!("{system}.journal")), ground.journals.text(system))?;
    }
    let trace = block_on(trace::gather(ground, record)).context("the trace")?;
    let (seen, log) = (record.seen(), log());
    let world = World {
        payments: Some(ground.payments.clone()),
        cases: Some(ground.cases.clone()),
        journals: Some(Journals::read(&written)?),
        calls: Some(seen.calls.clone()),
        probes: Some(seen.probes.clone()),
        leaks: Some(Leaks {
            canaries: seen.canaries.clone(),
            texts: vec![("the log".to_owned(), log.clone().into_bytes())],
            files: Vec::new(),
        }),
        ..World::at(now)
    };
    let report = block_on(check_all(&world))?;
    let facts = &report.evidence.cases.facts;
    let mut problems = String::new();
    for breach in &seen.breaches {
        writeln!(problems, "{breach}")?;
    }
    for line in log.lines().filter(|line| line.contains(NOT_BELIEVED)) {
        writeln!(problems, "a peer broke its contract: {line}")?;
    }
    let opened = seen.calls.iter().filter(|call| !call.answers.is_empty()).count();
    if let Err(error) = report.require(&JUDGED) {
        writeln!(problems, "{error}")?;
    }
    let count = |state| facts.iter().filter(|fact| fact.state == state).count();
    let ends = [State::Done, State::Refunded, State::Expired, State::Cancelled, State::Rejected, State::NeedsClerk];
    let ends: Vec<_> = ends.iter().map(|state| format!("{state:?} {}", count(*state))).collect();
    let by_clerks = facts.iter().filter(|fact| fact.clerk_decided).count();
    let late = facts.iter().filter(|fact| fact.is_late_money).count();
    let lost = seen.calls.iter().filter(|call| call.lost > 0).count();
    let never = seen.calls.iter().filter(|call| call.found == Some(Found::Never)).count();
    let told = format!(
        "{opened} cases ({}), {by_clerks} by clerks, {late} with late money, {lost} lost answers of which {never} were of nothing",
        ends.join(", ")
    );
    Ok(Run { trace, told, problems })
}

/// The simulated stores answer inside the poll that asks, so this waits for nothing.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(work)
}
