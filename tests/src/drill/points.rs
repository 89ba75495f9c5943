//! The crash-point drill: a real process dies of SIGKILL at every crash point that it names, under cases that go every way; the next
//! start recovers, and dies at the next point. In the end every invariant is judged.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use invariants::{Call, Report, SERVED};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use runtime::Context;
use runtime::crash::Plan;
use tokio::time::Instant;

use super::lives::{LONG, PAID, WAYS, Way, place_of, ways_to};
use super::people::{Heard, People};
use super::process::{Death, crash_points};
use super::site::Site;
use crate::Topology;

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
/// Cases under way at once.
const UNDER_WAY_MAX: usize = 8;
/// How long an armed process is left to the cases under way before another one joins them.
const HELP_AFTER: Duration = Duration::from_millis(600);
/// After so many deaths a case begins that goes another way.
const OTHERS_EVERY: usize = 8;
const GLANCE: Duration = Duration::from_millis(20);
/// The end of a call whose answer was lost, and of which nothing came.
const NEVER_HAPPENED: &str = "NEVER_HAPPENED";
/// Passings of a point, at most, of which one is chosen to die at.
const HIT_MAX: u32 = 2;

/// What a drill is to do.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The binary under test.
    pub binary: PathBuf,
    /// How often the process dies at every point.
    pub rounds: u32,
    /// Clusters that run side by side and share the rounds.
    pub lanes: u32,
    /// Draws the orders and the hits.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How often the process died at each point that it names.
    pub deaths: BTreeMap<String, u32>,
    /// How long it lived in all that was to die at a point.
    pub lived: BTreeMap<String, Duration>,
    /// Calls that were led to an end, by the state of their case, or as never happened.
    pub ends: BTreeMap<String, u32>,
    /// Cases in which clerks decided.
    pub by_clerks: u32,
    /// The invariants of each cluster, as they were judged at its end.
    pub reports: Vec<Report>,
    /// What was wrong; empty for a drill that passed.
    pub failures: Vec<String>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        for (point, count) in other.deaths {
            *self.deaths.entry(point).or_default() += count;
        }
        for (point, time) in other.lived {
            *self.lived.entry(point).or_default() += time;
        }
        for (end, count) in other.ends {
            *self.ends.entry(end).or_default() += count;
        }
        self.by_clerks += other.by_clerks;
        self.reports.extend(other.reports);
        self.failures.extend(other.failures);
    }

    /// The points that took the longest to die at, with their seconds per death.
    pub fn slowest(&self, most: usize) -> Vec<(String, f64)> {
        let per_death = |(point, lived): (&String, &Duration)| {
            (point.clone(), lived.as_secs_f64() / f64::from(self.deaths.get(point).copied().unwrap_or(0).max(1)))
        };
        let mut all: Vec<_> = self.lived.iter().map(per_death).collect();
        all.sort_by(|one, other| other.1.total_cmp(&one.1));
        all.truncate(most);
        all
    }
}

/// Runs the drill; `tell` hears how it goes.
pub fn run(plot: &Plot, tell: &(dyn Fn(String) + Sync)) -> anyhow::Result<Outcome> {
    let points = crash_points(&plot.binary)?;
    let lane = |number: u32| -> anyhow::Result<Outcome> {
        // A lane's processes end with its thread, so that one thread starts them all.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let rounds: Vec<u32> = (0..plot.rounds).filter(|round| round % plot.lanes == number).collect();
        let lane = Lane { plot, points: &points, rounds: &rounds, tell };
        let outcome = runtime.block_on(Box::pin(lane.play()));
        outcome.inspect_err(|error| tell(format!("lane {number} (seed {}): {error:?}", plot.seed)))
    };
    let lanes = std::thread::scope(|scope| {
        let running: Vec<_> = (0..plot.lanes).map(|number| scope.spawn(move || lane(number))).collect();
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

/// The points in an order of this round's own, with the passing at which each kills. The points of one way stay together, in the order
/// in which a case comes by: what survives one death is on its way to the next.
fn deaths(points: &[String], seed: u64) -> VecDeque<Plan> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut ways: Vec<usize> = (0..WAYS.len()).collect();
    ways.shuffle(&mut random);
    let mut course: Vec<&String> = points.iter().collect();
    course.sort_by_key(|point| place_of(point).map(|(way, place)| (ways.get(way).copied(), place)));
    let hits = course.into_iter().map(|point| Plan { point: point.clone(), hit: random.random_range(1..=HIT_MAX) });
    hits.collect()
}

/// One cluster, which dies at every point once in each of its rounds.
struct Lane<'a> {
    plot: &'a Plot,
    points: &'a [String],
    rounds: &'a [u32],
    tell: &'a (dyn Fn(String) + Sync),
}

impl Lane<'_> {
    async fn play(&self) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        if self.rounds.is_empty() {
            return Ok(outcome);
        }
        let mut place = tempfile::Builder::new().prefix("lastmile-drill-").tempdir()?;
        place.disable_cleanup(true);
        let context = Context::system();
        let mut site = Site::new(&context, &self.plot.binary, place.path(), Topology::Single, SETTINGS)?;
        site.start(None).await?;
        let heard = Heard::default();
        let people = People::new(&context, site.doors(), &heard, PATIENCE, PAUSE)?;
        let queue = self.rounds.iter().flat_map(|round| deaths(self.points, self.seed(*round))).collect();
        let mut calls = Box::pin(self.die_everywhere(&mut site, &people, queue, &mut outcome)).await?;
        people.inquire(&mut calls).await?;
        let wrong = people.operators_were_wrong().await?;
        outcome.failures.extend(wrong.into_iter().map(|wrong| format!("seed {}: {wrong}", self.plot.seed)));
        for call in &calls {
            let end = call.ended_as.clone().unwrap_or_else(|| NEVER_HAPPENED.to_owned());
            *outcome.ends.entry(end).or_default() += 1;
        }
        let report = Box::pin(site.judge(calls, &heard)).await?;
        for fact in &report.evidence.cases.facts {
            outcome.by_clerks += u32::from(fact.clerk_decided);
        }
        for refund_id in people.given_back() {
            if !report.evidence.refunds.iter().any(|refund| refund.refund_id == refund_id) {
                outcome.failures.push(format!("seed {}: {refund_id} was agreed on, and is not there", self.plot.seed));
            }
        }
        if let Err(error) = report.require(&SERVED) {
            outcome.failures.push(format!("seed {}, {}: {error}", self.plot.seed, place.path().display()));
        }
        outcome.reports.push(report);
        if let Some(said) = site.unsound().await? {
            outcome.failures.push(format!("seed {}, {}: {said}", self.plot.seed, place.path().display()));
        }
        drop(site);
        if outcome.failures.is_empty() {
            // What cannot be removed is in the way of nobody.
            let _ = std::fs::remove_dir_all(place.path());
        }
        Ok(outcome)
    }

    fn seed(&self, round: u32) -> u64 {
        self.plot.seed.wrapping_add(u64::from(round))
    }

    /// Leads cases while the process dies at one point after the other; returns what the citizens saw once all cases have ended.
    async fn die_everywhere(
        &self,
        site: &mut Site,
        people: &People,
        mut queue: VecDeque<Plan>,
        outcome: &mut Outcome,
    ) -> anyhow::Result<Vec<Call>> {
        let began = Instant::now();
        let mut lives = Lives { people, under_way: FuturesUnordered::new(), ways: BTreeMap::new(), begun: 0 };
        let mut calls = Vec::new();
        LONG.iter().for_each(|way| lives.begin(way));
        let mut clerks = Box::pin(clerks(people));
        let mut operators = Box::pin(operators(people));
        let mut armed_at = restart(site, queue.front()).await?;
        let (mut serial, mut helped_at) = (0_usize, armed_at);
        loop {
            if let Some(plan) = queue.front() {
                let ways = ways_to(&plan.point);
                // Those on their way have the first go; a new case comes where there is none, or where they do not pass in time.
                let missing = if lives.have(&ways) { u32::from(helped_at.elapsed() > HELP_AFTER) } else { plan.hit };
                for _ in 0..missing {
                    helped_at = Instant::now();
                    if lives.ways.len() < UNDER_WAY_MAX {
                        lives.begin(ways.get(lives.ways.len() % ways.len()).copied().unwrap_or(&PAID));
                    }
                }
            } else if lives.ways.is_empty() {
                return Ok(calls);
            }
            tokio::select! {
                biased;
                failed = &mut clerks => failed?,
                failed = &mut operators => failed?,
                Some((number, call)) = lives.under_way.next(), if !lives.ways.is_empty() => {
                    calls.push(call?);
                    lives.ways.remove(&number);
                }
                () = tokio::time::sleep(GLANCE) => {}
            }
            site.outside_lives()?;
            let death = site.inside.first_mut().map(super::process::Process::died).transpose()?.flatten();
            let over = armed_at.elapsed() > DEATH_WITHIN;
            match (death, queue.pop_front()) {
                (None, None) => {}
                (None, Some(plan)) if !over => queue.push_front(plan),
                (death, plan) => {
                    serial += 1;
                    if let Some(plan) = &plan {
                        *outcome.lived.entry(plan.point.clone()).or_default() += armed_at.elapsed();
                    }
                    count(outcome, death, plan.as_ref(), site)?;
                    if serial.is_multiple_of(self.points.len()) {
                        (self.tell)(format!("{serial} deaths in {:.0?}, {} cases ended", began.elapsed(), calls.len()));
                    }
                    if serial.is_multiple_of(OTHERS_EVERY) && !queue.is_empty() {
                        lives.begin(WAYS.get(serial / OTHERS_EVERY % WAYS.len()).unwrap_or(&PAID));
                    }
                    armed_at = restart(site, queue.front()).await?;
                    helped_at = armed_at;
                }
            }
        }
    }
}

/// The cases under way.
struct Lives<'a> {
    people: &'a People,
    under_way: FuturesUnordered<LocalBoxFuture<'a, (u32, anyhow::Result<Call>)>>,
    /// The way of each that is under way, by its number.
    ways: BTreeMap<u32, &'static Way>,
    begun: u32,
}

impl Lives<'_> {
    fn begin(&mut self, way: &'static Way) {
        let (people, number) = (self.people, self.begun);
        self.begun += 1;
        self.ways.insert(number, way);
        self.under_way.push(Box::pin(async move { (number, way.live(people, number).await) }));
    }

    /// Whether one is under way on one of these ways.
    fn have(&self, ways: &[&Way]) -> bool {
        self.ways.values().any(|way| ways.iter().any(|of| of.name == way.name))
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

/// Both clerks look again and again; ends only with an error.
pub(super) async fn clerks(people: &People) -> anyhow::Result<()> {
    loop {
        people.decide().await?;
        for _ in 0..4 {
            people.pause().await;
        }
    }
}

/// Both operators see to the day again and again; ends only with an error.
async fn operators(people: &People) -> anyhow::Result<()> {
    for round in 0_u32.. {
        people.see_to_the_day(round).await?;
        for _ in 0..4 {
            people.pause().await;
        }
    }
    Ok(())
}

impl Outcome {
    /// Fails unless everything was as promised.
    pub fn assert_passed(&self) -> anyhow::Result<()> {
        ensure!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        Ok(())
    }
}
