use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use runtime::{Context, Timestamp, http};
use serde_json::Value;
use store::{Db, params};

use super::leaks::{Leaks, Searched};

const PAGE: u32 = 1_000;
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(30);
const JOURNAL_BYTES_MAX: usize = 512 * 1024 * 1024;
/// The payments stream of the outbox.
const STREAM: &str = "payments";

/// Where the evidence is, and what the test saw itself.
pub struct World {
    /// By which time deadlines are judged.
    pub now: Timestamp,
    /// Payments' database; none where the test runs without payments, and what it would tell is not judged.
    pub payments: Option<Db>,
    /// Cases' database; the same.
    pub cases: Option<Db>,
    /// What channel and departments wrote down.
    pub journals: Option<Journals>,
    /// What clients asked and were answered.
    pub calls: Option<Vec<Call>>,
    /// Attempts to reach what belongs to somebody else.
    pub probes: Option<Vec<Probe>>,
    /// What must stay small.
    pub bounds: Option<Vec<Bound>>,
    /// Where personal data must not be.
    pub leaks: Option<Leaks>,
}

/// What a client did under one request id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Its entry point.
    pub entry_point: String,
    /// The request id of OpenCase.
    pub request_id: String,
    /// The case ids of all answers that it got, in order.
    pub answers: Vec<String>,
    /// A terminal state that it saw, by the contract's name without prefix.
    pub ended_as: Option<String>,
    /// It never learned what became of the call, though it asked by the request id.
    pub unresolved: bool,
}

/// An attempt to reach what belongs to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Who tried what.
    pub what: String,
    /// Whether it yielded anything.
    pub leaked: bool,
}

/// Something that must stay small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What, with its unit.
    pub what: String,
    /// The most that was seen.
    pub seen: u64,
    /// The most that is allowed.
    pub most: u64,
}

/// An order as the ledger has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrderFact {
    /// Its id.
    pub order_id: String,
    /// Its case.
    pub case_id: String,
    /// What the channel knows it by.
    pub channel_order_no: String,
    /// Where it stands.
    pub state: String,
    /// The money came after it was closed.
    pub is_late: bool,
    /// What the channel took, minor units.
    pub captured_minor: i64,
    /// What went back, minor units.
    pub refunded_minor: i64,
    /// What the payee has, minor units.
    pub posted_minor: i64,
}

/// What the simulated systems wrote down before they answered.
#[derive(Clone, Debug, Default)]
pub struct Journals {
    /// WeChat Pay's lines.
    pub channel: Vec<Value>,
    /// The lines of each department, by its profile.
    pub departments: BTreeMap<String, Vec<Value>>,
}

/// Everything that is compared.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The ledger's own recount.
    pub ledger: payments::audit::Report,
    /// The orders.
    pub orders: Vec<OrderFact>,
    /// The newest event that payments told.
    pub events: i64,
    /// The cases' own recount.
    pub cases: cases::audit::Report,
    /// There is no payments, and so nothing of it to judge.
    pub without_payments: bool,
    /// There is no cases, and so nothing of it to judge.
    pub without_cases: bool,
    /// See [`World`].
    pub journals: Option<Journals>,
    /// See [`World`].
    pub calls: Option<Vec<Call>>,
    /// See [`World`].
    pub probes: Option<Vec<Probe>>,
    /// See [`World`].
    pub bounds: Option<Vec<Bound>>,
    /// Where canaries were found, and where was looked; None when nobody said where to look.
    pub leaks: Option<Searched>,
}

impl Journals {
    const SYSTEMS: [(&str, &str); 2] = [("police-430100", "traffic/430100"), ("police-140100", "traffic/140100")];

    /// Asks the sandbox's control port, "ip:port", for every journal.
    pub async fn fetch(control: &str, context: &Context) -> anyhow::Result<Self> {
        let client = http::Client::new(context.net.clone(), context.clock.clone(), http::Options::default());
        let mut all = BTreeMap::new();
        for system in ["wechatpay"].into_iter().chain(Self::SYSTEMS.map(|(system, _)| system)) {
            let request = ::http::Request::get(format!("http://{control}/journal/{system}")).body(Bytes::new())?;
            let answer = client.send(request, JOURNAL_TIMEOUT, JOURNAL_BYTES_MAX).await.context("the control port")?;
            anyhow::ensure!(answer.status().is_success(), "journal of {system}: {}", answer.status());
            all.insert(system, lines(answer.body())?);
        }
        Ok(Self::of(all))
    }

    /// Reads the journal files of a sandbox that has stopped.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let mut all = BTreeMap::new();
        for system in ["wechatpay"].into_iter().chain(Self::SYSTEMS.map(|(system, _)| system)) {
            let path = directory.join(format!("{system}.journal"));
            let bytes = if path.exists() { std::fs::read(&path)? } else { Vec::new() };
            all.insert(system, lines(&bytes)?);
        }
        Ok(Self::of(all))
    }

    fn of(mut all: BTreeMap<&str, Vec<Value>>) -> Self {
        let channel = all.remove("wechatpay").unwrap_or_default();
        let department = |(system, profile): (&str, &str)| (profile.to_owned(), all.remove(system).unwrap_or_default());
        Self { channel, departments: Self::SYSTEMS.map(department).into() }
    }
}

/// Reads NDJSON. A last line without its end was never answered.
fn lines(bytes: &[u8]) -> anyhow::Result<Vec<Value>> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a journal line")).collect()
}

impl Evidence {
    /// Reads everything.
    pub async fn gather(world: &World) -> anyhow::Result<Self> {
        let leaks = match &world.leaks {
            Some(leaks) => Some(leaks.search()?),
            None => None,
        };
        let mut evidence = Self {
            without_payments: world.payments.is_none(),
            without_cases: world.cases.is_none(),
            ..Self::default()
        };
        if let Some(payments) = &world.payments {
            evidence.ledger = payments::audit::check(payments).await?;
            evidence.orders = orders(payments).await?;
            evidence.events = store::outbox::head(&mut payments.read().await?, STREAM).await?;
        }
        if let Some(cases) = &world.cases {
            evidence.cases = cases::audit::check(cases, world.now).await?;
        }
        Ok(Self {
            journals: world.journals.clone(),
            calls: world.calls.clone(),
            probes: world.probes.clone(),
            bounds: world.bounds.clone(),
            leaks,
            ..evidence
        })
    }
}

async fn orders(db: &Db) -> anyhow::Result<Vec<OrderFact>> {
    const SQL: &str =
        "SELECT order_id, case_id, channel_order_no, state, is_late, captured_minor, refunded_minor, posted_minor
        FROM orders WHERE order_id > $1 ORDER BY order_id LIMIT $2";
    let mut reader = db.read().await?;
    let (mut orders, mut after) = (Vec::<OrderFact>::new(), String::new());
    loop {
        let rows = reader.fetch_all(SQL, params![after, PAGE]).await?;
        for row in &rows {
            orders.push(OrderFact {
                order_id: row.get("order_id")?,
                case_id: row.get("case_id")?,
                channel_order_no: row.get("channel_order_no")?,
                state: row.get("state")?,
                is_late: row.get("is_late")?,
                captured_minor: row.get("captured_minor")?,
                refunded_minor: row.get("refunded_minor")?,
                posted_minor: row.get("posted_minor")?,
            });
        }
        match orders.last() {
            Some(last) if !rows.is_empty() => after.clone_from(&last.order_id),
            _ => return Ok(orders),
        }
    }
}
