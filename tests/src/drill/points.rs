//! The crash-point drill: a real process dies of SIGKILL at every crash point that it names, under cases that go every way; the next
//! start recovers, and dies at the next point. In the end every invariant is judged.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use runtime::Context;
use runtime::crash::Plan;
use tokio::time::Instant;

use super::lives::{LONG, PAID, WAYS, Way, ways_to};
use super::people::People;
use super::process::{Death, crash_points};
use super::site::Site;
use crate::Topology;
use crate::invariants::Call;

/// What every process of this drill is told: everything that waits waits briefly, so that many lives fit into a minute.
const SETTINGS: &str = r#"
[gateway]
cores = 1
[payments.worker]
interval = "100ms"
lease = "2s"
first_look = "300ms"
longest_pause = "1s"
quiet = "1s"
[payments.channels.wechatpay]
connect_timeout = "500ms"
call_timeout = "500ms"
[cases.times]
pay_within = "40s"
settle_within = "30s"
pay_min = "1s"
retry_first = "50ms"
retry_max = "500ms"
refresh_first = "300ms"
refresh_max = "1s"
settle_rest = "300ms"
clerk_recheck = "500ms"
[cases.worker]
poll = "50ms"
[cases.calls]
events_wait = "1s"
[sandbox.systems.wechatpay]
refund_after = "100ms"
notify_second = "10ms"
"#;
/// For one case, over all deaths that it meets.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a case.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a point may let the process live that is armed for it.
const DEATH_WITHIN: Duration = Duration::from_secs(60);
/// Cases that go the ways to the armed point at once, and cases under way in all.
const LEADING: usize = 2;
const UNDER_WAY_MAX: usize = 10;
const GLANCE: Duration = Duration::from_millis(20);
/// Passings of a point, at most, of which one is chosen to die at.
const HIT_MAX: u32 = 3;

/// What a drill is to do.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The binary under test.
    pub binary: PathBuf,
    /// How often the process dies at every point.
    pub rounds: u32,
    /// Clusters that run side by side.
    pub lanes: usize,
    /// Draws the orders and the hits.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How often the process died at each point that it names.
    pub deaths: BTreeMap<String, u32>,
    /// Cases that were led to an end, by state.
    pub ends: BTreeMap<String, u32>,
    /// Cases in which clerks decided.
    pub by_clerks: u32,
    /// What was wrong; empty for a drill that passed.
    pub failures: Vec<String>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        for (point, count) in other.deaths {
            *self.deaths.entry(point).or_default() += count;
        }
        for (end, count) in other.ends {
            *self.ends.entry(end).or_default() += count;
        }
        self.by_clerks += other.by_clerks;
        self.failures.extend(other.failures);
    }
}

/// Runs the drill; `tell` hears how it goes.
pub fn run(plot: &Plot, tell: &(dyn Fn(String) + Sync)) -> anyhow::Result<Outcome> {
    let points = crash_points(&plot.binary)?;
    let next = std::sync::atomic::AtomicU32::new(0);
    let lane = || -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        loop {
            let round = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if round >= plot.rounds {
                return Ok(outcome);
            }
            // A lane's processes end with its thread, so that one thread starts them all.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let seed = plot.seed.wrapping_add(u64::from(round));
            let began = Instant::now();
            let done = runtime.block_on(Box::pin(play_round(&plot.binary, &points, seed)));
            match &done {
                Ok(done) => {
                    let deaths: u32 = done.deaths.values().sum();
                    tell(format!("round {round} (seed {seed}): {deaths} deaths in {:.0?}", began.elapsed()));
                }
                Err(error) => tell(format!("round {round} (seed {seed}): {error:?}")),
            }
            outcome.add(done?);
        }
    };
    let lanes = std::thread::scope(|scope| {
        let running: Vec<_> = (0..plot.lanes).map(|_| scope.spawn(lane)).collect();
        running
            .into_iter()
            .map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Vec<_>>()
    });
    let mut all = Outcome::default();
    for point in &points {
        all.deaths.insert(point.clone(), 0);
    }
    for lane in lanes {
        all.add(lane?);
    }
    for (point, deaths) in &all.deaths {
        if *deaths < plot.rounds {
            all.failures.push(format!("{point}: died {deaths} times of {}", plot.rounds));
        }
    }
    Ok(all)
}

/// The points in an order of this round's own, with the passing at which each kills. Neighbours stay together: the cases that survive
/// one death are on their way to the next.
fn deaths(points: &[String], seed: u64) -> VecDeque<Plan> {
    let mut random = StdRng::seed_from_u64(seed);
    let group = |point: &String| point.rsplit_once('.').map_or(String::new(), |(group, _)| group.to_owned());
    let mut groups: Vec<&[String]> = points.chunk_by(|one, next| group(one) == group(next)).collect();
    groups.shuffle(&mut random);
    let hits =
        groups.into_iter().flatten().map(|point| Plan { point: point.clone(), hit: random.random_range(1..=HIT_MAX) });
    hits.collect()
}

/// One cluster, which dies once at every point.
async fn play_round(binary: &Path, points: &[String], seed: u64) -> anyhow::Result<Outcome> {
    let mut place = tempfile::Builder::new().prefix("lastmile-drill-").tempdir()?;
    place.disable_cleanup(true);
    let context = Context::system();
    let mut site = Site::new(&context, binary, place.path(), Topology::Single, SETTINGS)?;
    site.start(None).await?;
    let people = People::new(&context, site.doors(), PATIENCE, PAUSE)?;
    let mut outcome = Outcome::default();
    let calls = Box::pin(die_everywhere(&mut site, &people, deaths(points, seed), &mut outcome)).await?;
    for call in &calls {
        *outcome.ends.entry(call.ended_as.clone().unwrap_or_default()).or_default() += 1;
    }
    let (report, evidence) = Box::pin(site.judge(calls)).await?;
    for fact in &evidence.cases.facts {
        outcome.by_clerks += u32::from(fact.clerk_decided);
    }
    if !report.broken().is_empty() {
        outcome.failures.push(format!("seed {seed}, {}: {report}", place.path().display()));
    }
    drop(site);
    if outcome.failures.is_empty() {
        // What cannot be removed is in the way of nobody.
        let _ = std::fs::remove_dir_all(place.path());
    }
    Ok(outcome)
}

/// Leads cases while the process dies at one point after the other; returns what the citizens saw once all cases have ended.
async fn die_everywhere(
    site: &mut Site,
    people: &People,
    mut queue: VecDeque<Plan>,
    outcome: &mut Outcome,
) -> anyhow::Result<Vec<Call>> {
    let mut numbers = 0_u32..;
    let mut lives = FuturesUnordered::new();
    let mut calls = Vec::new();
    for way in &LONG {
        lives.push(lead(people, usize::MAX, way, numbers.next().unwrap_or(0)));
    }
    let mut clerks = Box::pin(clerks(people));
    let mut armed_at = restart(site, queue.front()).await?;
    let mut serial = 0_usize;
    let (mut leading, mut passing) = (0_usize, 0_usize);
    loop {
        if let Some(plan) = queue.front() {
            let ways = ways_to(&plan.point);
            while leading < LEADING && lives.len() < UNDER_WAY_MAX {
                leading += 1;
                let way = ways.get(lives.len() % ways.len()).copied().unwrap_or(&PAID);
                lives.push(lead(people, serial, way, numbers.next().unwrap_or(0)));
            }
            // Every death meets one case that goes another way.
            if passing <= serial && lives.len() < UNDER_WAY_MAX {
                passing = serial + 1;
                let way = WAYS.get(serial % WAYS.len()).unwrap_or(&PAID);
                lives.push(lead(people, usize::MAX, way, numbers.next().unwrap_or(0)));
            }
        } else if lives.is_empty() {
            return Ok(calls);
        }
        tokio::select! {
            biased;
            failed = &mut clerks => failed?,
            Some((of, call)) = lives.next(), if !lives.is_empty() => {
                calls.push(call?);
                leading -= usize::from(of == serial && leading > 0);
            }
            () = tokio::time::sleep(GLANCE) => {}
        }
        let death = site.inside.first_mut().map(super::process::Process::died).transpose()?.flatten();
        let over = armed_at.elapsed() > DEATH_WITHIN;
        match (death, queue.pop_front()) {
            (None, None) => {}
            (None, Some(plan)) if !over => queue.push_front(plan),
            (death, plan) => {
                serial += 1;
                leading = 0;
                count(outcome, death, plan.as_ref(), site)?;
                armed_at = restart(site, queue.front()).await?;
            }
        }
    }
}

/// Counts a death by what the process said and how it ended, never by what was hoped for.
fn count(outcome: &mut Outcome, death: Option<Death>, plan: Option<&Plan>, site: &mut Site) -> anyhow::Result<()> {
    match (death, plan) {
        (Some(Death::AtPoint(point)), Some(plan)) if plan.point == point => {
            *outcome.deaths.entry(point).or_default() += 1
        }
        (None, Some(plan)) => {
            outcome.failures.push(format!("{}:{} was not reached in {DEATH_WITHIN:?}", plan.point, plan.hit));
            site.inside.iter_mut().try_for_each(super::process::Process::kill)?;
        }
        (death, plan) => outcome.failures.push(format!("an unexpected death, armed {plan:?}: {death:?}")),
    }
    Ok(())
}

/// Starts the process again, armed for its next death; one that dies before it is ready has died all the same.
async fn restart(site: &mut Site, armed: Option<&Plan>) -> anyhow::Result<Instant> {
    for process in &mut site.inside {
        // The first start is unarmed and still runs.
        process.kill()?;
        process.spawn(armed)?;
    }
    Ok(Instant::now())
}

async fn lead(people: &People, serial: usize, way: &Way, number: u32) -> (usize, anyhow::Result<Call>) {
    (serial, Box::pin(way.live(people, number)).await)
}

/// Both clerks look again and again; ends only with an error.
pub(super) async fn clerks(people: &People) -> anyhow::Result<()> {
    loop {
        people.decide().await?;
        for _ in 0..4 {
            people.pause().await;
        }
    }
}

impl Outcome {
    /// Fails unless everything was as promised.
    pub fn assert_passed(&self) -> anyhow::Result<()> {
        ensure!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        Ok(())
    }
}
