//! The load drill: thousands of cases from clients that retry, while a process is killed at random moments; then everything is counted
//! by what channel and departments have written down.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use cases::domain::State;
use invariants::{Call, Evidence, OrderFact, Report, SERVED};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use runtime::Context;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::lives::{CANCELLED, PAID, REFUSED};
use super::people::{CHANGSHA, Heard, People, TAIYUAN};
use super::site::Site;
use crate::Topology;

/// As by default, but for what a case waits for after a kill.
const SETTINGS: &str = r#"
[payments.worker]
lease = "8s"
[payments.reconcile]
days_back = 0
[payments.channels.wechatpay]
call_timeout = "2s"
[cases.times]
retry_first = "200ms"
retry_max = "5s"
refresh_first = "2s"
clerk_recheck = "5s"
[telemetry.log]
filter = "warn"
[sandbox.systems.wechatpay]
refund_after = "300ms"
"#;
/// For one case, over all kills that it meets.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two looks at a case.
const PAUSE: Duration = Duration::from_millis(250);
const GLANCE: Duration = Duration::from_millis(20);
const TELL_EVERY: Duration = Duration::from_secs(10);
/// A kill comes up to this long after the case that it was drawn for has ended.
const KILL_WITHIN_MS: u64 = 500;
/// One case in so many is cancelled, one in so many refused by the department after the payment.
const UNUSUAL_EVERY: u32 = 20;
/// The roles that are killed where each is a process.
const KILLED: [&str; 3] = ["cases", "payments", "adapter"];

/// What a drill is to do.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The binary under test.
    pub binary: PathBuf,
    /// One process on SQLite, or one per role on PostgreSQL and Redis.
    pub topology: Topology,
    /// Cases in all.
    pub cases: u32,
    /// Clients that open them, each one case at a time.
    pub clients: u32,
    /// Kills, spread at random over the cases.
    pub kills: u32,
    /// Draws the moments.
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

/// Runs the drill; `tell` hears how it goes.
pub fn run(plot: &Plot, tell: &dyn Fn(String)) -> anyhow::Result<Outcome> {
    // One thread: the kernel ends what a thread has started when the thread ends.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Box::pin(play(plot, tell)))
}

async fn play(plot: &Plot, tell: &dyn Fn(String)) -> anyhow::Result<Outcome> {
    let mut place = tempfile::Builder::new().prefix("lastmile-drill-").tempdir()?;
    place.disable_cleanup(true);
    let context = Context::system();
    let mut site = Site::new(&context, &plot.binary, place.path(), plot.topology, SETTINGS)?;
    site.start(None).await?;
    let began = Instant::now();
    let (next, ended) = (AtomicU32::new(0), AtomicU32::new(0));
    let (doors, heard) = (site.doors().clone(), Heard::default());
    let stuck = RefCell::new(Vec::new());
    let clients = (0..plot.clients).map(async |_| -> anyhow::Result<Vec<Call>> {
        let people = People::new(&context, &doors, &heard, PATIENCE, PAUSE)?;
        let mut calls = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plot.cases {
                return Ok(calls);
            }
            let call = Box::pin(one(&people, number)).await;
            ended.fetch_add(1, Ordering::Relaxed);
            match call {
                Ok(call) => calls.push(call),
                Err(error) => {
                    tell(format!("r-{number}: {error:?}"));
                    stuck.borrow_mut().push(format!("r-{number} was not led to its end: {error}"));
                }
            }
        }
    });
    let clients = futures::future::try_join_all(clients);
    let people = People::new(&context, &doors, &heard, PATIENCE, PAUSE)?;
    let kills = AtomicU64::new(0);
    let mut calls = {
        let killing = kill(plot, &mut site, &ended, &kills);
        let telling = async {
            loop {
                tokio::time::sleep(TELL_EVERY).await;
                let (ended, kills) = (ended.load(Ordering::Relaxed), kills.load(Ordering::Relaxed));
                tell(format!("{:>5.0?} {ended} of {} cases ended, {kills} kills", began.elapsed(), plot.cases));
            }
        };
        let disturbed = futures::future::try_join(killing, super::points::clerks(&people));
        tokio::select! {
            calls = clients => calls?.into_iter().flatten().collect::<Vec<_>>(),
            () = telling => Vec::new(),
            failed = disturbed => failed.map(|_| Vec::new())?,
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    tell(format!("judging {} cases after {seconds:.0} s", calls.len()));
    people.inquire(&mut calls).await?;
    let report = Box::pin(site.judge(calls, &heard)).await?;
    drop(site);
    let mut counted = count(&report.evidence);
    let mut failures = stuck.into_inner();
    failures.extend(report.require(&SERVED).err().map(|error| error.to_string()));
    for (what, number) in [("accepted", u64::from(plot.cases)), ("lost", 0), ("doubled", 0), ("silent", 0)] {
        if counted.get(what).and_then(Value::as_u64) != Some(number) {
            failures.push(format!("{what} is {:?}, not {number}", counted.get(what)));
        }
    }
    let kills = kills.load(Ordering::Relaxed);
    if kills != u64::from(plot.kills) {
        failures.push(format!("{kills} kills of {}", plot.kills));
    }
    if failures.is_empty() {
        // What cannot be removed is in the way of nobody.
        let _ = std::fs::remove_dir_all(place.path());
    } else {
        failures.push(format!("what it left is in {}", place.path().display()));
    }
    let own = json!({
        "drill": "load", "topology": format!("{:?}", plot.topology), "seed": plot.seed, "clients": plot.clients,
        "kills": kills, "seconds": seconds.round(), "failures": failures.len(),
    });
    if let (Some(counted), Value::Object(own)) = (counted.as_object_mut(), own) {
        counted.extend(own);
    }
    Ok(Outcome { summary: counted, report, failures })
}

/// One citizen's case.
async fn one(people: &People, number: u32) -> anyhow::Result<Call> {
    let city = if number.is_multiple_of(2) { CHANGSHA } else { TAIYUAN };
    let way = match number % UNUSUAL_EVERY {
        3 => CANCELLED,
        4 => REFUSED,
        _ => PAID,
    };
    let debtor = people.debtor(number / 2, city).await?;
    way.lead(people, &debtor, &format!("r-{number}")).await
}

/// Kills a process whenever the cases have come to one of the drawn moments, and starts it again; then looks on. Ends with an error only.
async fn kill(plot: &Plot, site: &mut Site, ended: &AtomicU32, kills: &AtomicU64) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(plot.seed);
    // While there is load: the last cases are left to end in peace.
    let last = (plot.cases / 10 * 9).max(1);
    let mut moments: Vec<u32> = (0..plot.kills).map(|_| random.random_range(0..last)).collect();
    moments.sort_unstable();
    for moment in moments {
        while ended.load(Ordering::Relaxed) < moment {
            alive(site)?;
            tokio::time::sleep(GLANCE).await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..KILL_WITHIN_MS))).await;
        let name = KILLED.get(random.random_range(0..KILLED.len())).copied().unwrap_or_default();
        let victim = site.inside.iter_mut().find(|process| plot.topology == Topology::Single || process.name() == name);
        let Some(victim) = victim else { continue };
        victim.kill()?;
        victim.spawn(None)?;
        let death = victim.ready().await?;
        ensure!(death.is_none(), "{}: {death:?}", victim.name());
        kills.fetch_add(1, Ordering::Relaxed);
    }
    loop {
        alive(site)?;
        tokio::time::sleep(GLANCE).await;
    }
}

/// Nobody dies but by our hand.
fn alive(site: &mut Site) -> anyhow::Result<()> {
    site.outside_lives()?;
    for process in &mut site.inside {
        let death = process.died()?;
        ensure!(death.is_none(), "{}: {death:?}", process.name());
    }
    Ok(())
}

/// Counts by the journals of channel and departments, against ledger and cases. It shares nothing with the judge but the evidence.
fn count(evidence: &Evidence) -> Value {
    let facts = &evidence.cases.facts;
    let calls = evidence.calls.as_deref().unwrap_or_default();
    let accepted: BTreeSet<&String> = calls.iter().flat_map(|call| &call.answers).collect();
    let known: BTreeMap<&String, State> = facts.iter().map(|fact| (&fact.case_id, fact.state)).collect();
    let journals = evidence.journals.clone().unwrap_or_default();
    let channel = Lines(&journals.channel);
    let paid = channel.counted("out_trade_no", |line| word(line, "event") == "order_paid");
    let departments: Vec<Value> = journals.departments.values().flatten().cloned().collect();
    let is_posted = |line: &Value| word(line, "event") == "payment" && word(line, "state") == "posted";
    let posted = Lines(&departments).counted("order", is_posted);
    let records = Lines(&departments).counted("record", is_posted);
    let captured: BTreeMap<&str, i64> =
        evidence.orders.iter().map(|order| (order.channel_order_no.as_str(), order.captured_minor)).collect();
    let lost_cases = accepted.iter().filter(|case| !known.contains_key(*case)).count();
    let lost_money = paid.keys().filter(|number| captured.get(number.as_str()).is_none_or(|minor| *minor == 0)).count();
    let is_done = |case: &str| facts.iter().any(|fact| fact.settle_key == case && fact.state == State::Done);
    let lost_settlements = posted.keys().filter(|order| !is_done(order)).count();
    let unproven = facts
        .iter()
        .filter(|fact| fact.state == State::Done && !posted.contains_key(&fact.settle_key) && !fact.clerk_decided)
        .count();
    let twice = |counts: &BTreeMap<String, u64>| counts.values().filter(|count| **count > 1).count();
    let silent = facts.iter().filter(|fact| !fact.state.is_terminal() && fact.state != State::NeedsClerk).count();
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    for fact in facts {
        *states.entry(format!("{:?}", fact.state)).or_default() += 1;
    }
    let sum = |of: fn(&OrderFact) -> i64| evidence.orders.iter().map(of).sum::<i64>();
    json!({
        "accepted": accepted.len(),
        "cases": facts.len(),
        "states": states,
        "channel_paid_orders": paid.len(),
        "channel_paid_minor": channel.sum("order_paid"),
        "ledger_captured_minor": sum(|order| order.captured_minor),
        "ledger_refunded_minor": sum(|order| order.refunded_minor),
        "ledger_posted_minor": sum(|order| order.posted_minor),
        "departments_posted": posted.len(),
        "departments_posted_minor": Lines(&departments.iter().filter(|line| is_posted(line)).cloned().collect::<Vec<_>>()).sum("payment"),
        "ledger_problems": evidence.ledger.problems_total,
        "lost": lost_cases + lost_money + lost_settlements + unproven,
        "doubled": twice(&paid) + twice(&posted) + twice(&records),
        "silent": silent,
    })
}

/// Lines of a journal.
struct Lines<'a>(&'a [Value]);

impl Lines<'_> {
    /// How often each value of a field occurs in the chosen lines.
    fn counted(&self, key: &str, chosen: impl Fn(&Value) -> bool) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for line in self.0.iter().filter(|line| chosen(line)) {
            *counts.entry(word(line, key).to_owned()).or_default() += 1;
        }
        counts
    }

    /// The sum of the amounts of an event.
    fn sum(&self, event: &str) -> i64 {
        let lines = self.0.iter().filter(|line| word(line, "event") == event);
        lines.filter_map(|line| line.get("amount_minor")?.as_i64()).sum()
    }
}

fn word<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}
