//! Recounts the cases from their histories.
//!
//! Read-only. For the end of every test that breaks something, and for operators. It trusts no column: where a case stands is compared
//! with what its history says, locks and tasks with the states that call for them, the entry points' streams with the histories.

use std::collections::BTreeMap;

use contracts::ids::CaseId;
use runtime::Timestamp;
use store::{Db, Read, Reader, outbox, params};

use crate::domain::{Kind, State, Step};
use crate::error::Error;
use crate::repo::{self, Code as _, File, Told};

/// Cases that are looked at together.
const PAGE: u32 = 200;
/// Lines and events that are read at once.
const LINES_MAX: u32 = 1_000;
/// Problems that are listed; more are counted.
const LISTED_MAX: usize = 1_000;

const CASES: &str = "SELECT * FROM cases WHERE case_id > $1 ORDER BY case_id LIMIT $2";
const LOCK: &str = "SELECT profile, bill_no FROM bill_locks WHERE case_id = $1";
const LOCKS: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS locks FROM bill_locks";
const TASKS: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS tasks FROM tasks WHERE case_id = $1 AND resolved = $2";
const LINKED: &str = "SELECT linked_case_id, CAST(COUNT(*) AS BIGINT) AS linked FROM cases
    WHERE linked_case_id IS NOT NULL GROUP BY linked_case_id";
const STREAMS: &str = "SELECT DISTINCT entry_point FROM cases ORDER BY entry_point LIMIT 1000";

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every case, by id.
    pub facts: Vec<Fact>,
    /// Lines of all histories.
    pub lines: u64,
    /// Lines in the entry points' streams.
    pub streamed: u64,
    /// How far payments' events were applied.
    pub cursor: i64,
    /// Cases that have not ended.
    pub open: u64,
    /// Of those, with a clerk.
    pub with_clerk: u64,
    /// Of those, past their deadline and with nobody.
    pub silent: u64,
    /// What is wrong, at most 1,000 entries: (case or stream, what).
    pub problems: Vec<(String, String)>,
    /// How much is wrong.
    pub problems_total: u64,
}

/// What others can compare with their own books. No personal data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The case.
    pub case_id: String,
    /// The entry point that opened it.
    pub entry_point: String,
    /// The request id that opened it.
    pub request_id: String,
    /// Whether it returns late money.
    pub is_late_money: bool,
    /// Where it stands.
    pub state: State,
    /// The department.
    pub profile: String,
    /// The bill.
    pub bill_no: String,
    /// What is paid, in minor units.
    pub amount_minor: i64,
    /// The order at payments.
    pub order_id: Option<String>,
    /// The refund at payments.
    pub refund_id: Option<String>,
    /// What the department knows the payment by.
    pub settle_key: String,
    /// The serial of the proof.
    pub proof_serial: Option<String>,
    /// How often the history says that money was received.
    pub payments_received: u32,
    /// Whether a clerk decided something.
    pub clerk_decided: bool,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems_total == 0
    }

    fn note(&mut self, subject: &impl ToString, what: impl Into<String>) {
        self.problems_total = self.problems_total.saturating_add(1);
        if self.problems.len() < LISTED_MAX {
            self.problems.push((subject.to_string(), what.into()));
        }
    }
}

/// Checks everything.
///
/// Shape: page by page; while others write, what is in motion may be reported as wrong, so run it when it is quiet. `now` decides which
/// open cases are past their deadline.
/// Errors: only the store's; what is wrong with the cases is in the report.
pub async fn check(db: &Db, now: Timestamp) -> Result<Report, Error> {
    let mut reader = db.read().await?;
    let mut report = Report { cursor: repo::cursor(&mut reader).await?, ..Report::default() };
    let mut after = String::new();
    let mut locks = 0_i64;
    let mut told: BTreeMap<(String, i64), u32> = BTreeMap::new();
    let linked = linked(&mut reader).await?;
    loop {
        let rows = reader.fetch_all(CASES, params![after, PAGE]).await?;
        let files = rows.iter().map(File::read).collect::<Result<Vec<_>, _>>()?;
        let Some(last) = files.last().map(|file| file.case.id.to_string()) else { break };
        for file in files {
            let lines = history(&mut reader, file.case.id).await?;
            for line in &lines {
                told.insert((file.case.id.to_string(), line.sequence), 0);
            }
            let linked = linked.get(&file.case.id.to_string()).copied().unwrap_or(0);
            if linked != i64::from(file.case.late_money) {
                report.note(&file.case.id, format!("{linked} cases return its late money"));
            }
            locks += one(&mut reader, &mut report, &file, &lines, now).await?;
        }
        after = last;
    }
    let held: i64 = count(&mut reader, LOCKS, &[], "locks").await?;
    if held != locks {
        report.note(&"bill_locks", format!("{held} locks for {locks} open cases"));
    }
    streams(&mut reader, &mut report, &mut told).await?;
    Ok(report)
}

/// How many cases return the late money of another, by that other.
async fn linked(reader: &mut Reader) -> Result<BTreeMap<String, i64>, Error> {
    let rows = reader.fetch_all(LINKED, &[]).await?;
    rows.iter().map(|row| Ok((row.get("linked_case_id")?, row.get("linked")?))).collect()
}

/// Checks one case; returns how many locks it holds.
async fn one(
    reader: &mut Reader,
    report: &mut Report,
    file: &File,
    lines: &[Told],
    now: Timestamp,
) -> Result<i64, Error> {
    let case = &file.case;
    let open = !case.state.is_terminal();
    report.lines = report.lines.saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
    chain(report, file, lines);
    if open {
        report.open += 1;
        report.with_clerk += u64::from(case.state == State::NeedsClerk);
        let late = case.resolve_by.is_none_or(|by| by < now) && case.state != State::NeedsClerk;
        report.silent += u64::from(late);
    } else if file.about.input_sealed.is_some() || file.about.payer_sealed.is_some() || file.about.grant.is_some() {
        report.note(&case.id, "has ended and still holds sealed columns");
    }
    let lock = reader.fetch_opt(LOCK, params![case.id.to_string()]).await?;
    if lock.is_some() != (open && case.kind == Kind::Pay) {
        report.note(&case.id, "holds a lock on its bill exactly while it is open: it does not");
    }
    let tasks = count(reader, TASKS, params![case.id.to_string(), false], "tasks").await?;
    if tasks != i64::from(case.state == State::NeedsClerk) {
        report.note(&case.id, format!("has {tasks} open tasks in {}", case.state.code()));
    }
    if case.state == State::Done && case.proof.is_none() {
        report.note(&case.id, "is done without a proof");
    }
    if case.state == State::Refunded && case.refund.id.is_none() {
        report.note(&case.id, "is refunded without a refund");
    }
    report.facts.push(fact(file, lines));
    Ok(i64::from(lock.is_some()))
}

/// Compares where a case stands with what its history says.
fn chain(report: &mut Report, file: &File, lines: &[Told]) {
    let case = &file.case;
    let mut state = None;
    for (line, sequence) in lines.iter().zip(1_i64..) {
        if line.sequence != sequence {
            report.note(&case.id, format!("line {sequence} is missing from its history"));
            return;
        }
        if line.from != state {
            report.note(&case.id, format!("line {sequence} does not begin where the one before ended"));
        }
        if state.is_some_and(State::is_terminal) && line.to != line.from.unwrap_or(line.to) {
            report.note(&case.id, format!("line {sequence} opens it again"));
        }
        state = Some(line.to);
    }
    if state != Some(case.state) {
        report.note(&case.id, "does not stand where its history ends");
    }
    if lines.last().map(|line| line.sequence) != Some(case.sequence) {
        report.note(&case.id, "does not know the length of its history");
    }
}

fn fact(file: &File, lines: &[Told]) -> Fact {
    let (case, about) = (&file.case, &file.about);
    let times = |reason: &str| lines.iter().filter(|line| line.reason == reason).count();
    Fact {
        case_id: case.id.to_string(),
        entry_point: about.entry_point.clone(),
        request_id: about.request_id.clone(),
        is_late_money: case.kind == Kind::LateMoney,
        state: case.state,
        profile: about.profile.clone(),
        bill_no: about.bill_no.clone(),
        amount_minor: case.amount.amount_minor(),
        order_id: case.order.as_ref().map(|order| order.id.clone()),
        refund_id: case.refund.id.clone(),
        settle_key: case.key(Step::Settle),
        proof_serial: case.proof.as_ref().map(|proof| proof.serial.clone()),
        payments_received: u32::try_from(times("PAYMENT_RECEIVED")).unwrap_or(u32::MAX),
        clerk_decided: times("CLERK_DECIDED") > 0,
    }
}

/// Compares the streams with the histories: every line once, in the order of its case, without a gap.
async fn streams(
    reader: &mut Reader,
    report: &mut Report,
    told: &mut BTreeMap<(String, i64), u32>,
) -> Result<(), Error> {
    for row in reader.fetch_all(STREAMS, &[]).await? {
        let entry_point: String = row.get("entry_point")?;
        let stream = repo::stream(&entry_point);
        let mut newest: BTreeMap<String, i64> = BTreeMap::new();
        let mut after = 0;
        loop {
            let events = outbox::read_after(reader, &stream, after, LINES_MAX).await?;
            let Some(last) = events.last().map(|event| event.seq) else { break };
            for event in events {
                after += 1;
                if event.seq != after {
                    report.note(&stream, format!("number {after} is missing"));
                    after = event.seq;
                }
                let Ok(payload) = <[u8; 8]>::try_from(event.payload.as_slice()) else {
                    report.note(&stream, format!("number {after} cannot be read"));
                    continue;
                };
                let sequence = i64::from_be_bytes(payload);
                let before = newest.insert(event.key.clone(), sequence).unwrap_or(0);
                if sequence != before + 1 {
                    report.note(&event.key, format!("line {sequence} comes after line {before} in the stream"));
                }
                match told.get_mut(&(event.key.clone(), sequence)) {
                    Some(times) => *times += 1,
                    None => report.note(&event.key, format!("line {sequence} is in the stream and not in the history")),
                }
                report.streamed += 1;
            }
            after = last;
        }
    }
    for ((case, sequence), times) in told.iter().filter(|(_, times)| **times != 1) {
        report.note(case, format!("line {sequence} is {times} times in the stream"));
    }
    Ok(())
}

async fn history(reader: &mut Reader, case: CaseId) -> Result<Vec<Told>, Error> {
    let mut lines: Vec<Told> = Vec::new();
    loop {
        let after = lines.last().map_or(0, |line| line.sequence);
        let page = repo::events_after(reader, case, after, LINES_MAX).await?;
        if page.is_empty() {
            return Ok(lines);
        }
        lines.extend(page);
    }
}

async fn count(
    reader: &mut impl Read,
    sql: &'static str,
    values: &[store::Value],
    column: &'static str,
) -> Result<i64, Error> {
    let row = reader.fetch_opt(sql, values).await?;
    Ok(row.map(|row| row.get(column)).transpose()?.unwrap_or(0))
}
