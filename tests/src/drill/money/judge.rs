//! What callers wrote down, what the channel wrote down and what the ledger says, held against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use contracts::payments::v1 as pb;
use invariants::{Call, Deed, Evidence, Journals, Report, World, check_all, inquire};
use pb::EventKind;
use rpc::RemoteFault;
use serde_json::{Value, json};
use store::{Db, params};
use tokio::time::Instant;

use super::book::Line;
use super::payers::Payers;
use super::site::Site;

/// How long what is open may take to come to its end when nothing is killed any more.
const REST_WITHIN: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);
/// Who asked, to payments.
const CALLER: &str = "cases";
/// What this drill brings evidence for. Events are judged here: there are no cases to apply them.
const REQUIRED: [&str; 5] = ["I1", "I2", "I3", "I4", "I5"];
const EVENTS_PAGE: u32 = 1_000;
const STREAM: &str = "payments";
const POSTED: &str = "SELECT order_id FROM transfers WHERE transfer_id LIKE '%/post' AND order_id > $1
    ORDER BY order_id LIMIT $2";

pub(super) struct Judged {
    pub(super) summary: Value,
    pub(super) report: Report,
    pub(super) failures: Vec<String>,
}

/// Lets everything come to rest, and judges it.
pub(super) async fn judge(site: &mut Site, payers: &Payers, tell: &dyn Fn(String)) -> anyhow::Result<Judged> {
    let mut failures = Vec::new();
    let context = &payers.context;
    rest(site, payers, &mut failures).await?;
    site.hand_over().await?;
    let (is_sound, said) = site.verify().await?;
    site.take_back().await?;
    tell(format!("ledger verify: {}", said.trim()));
    if !is_sound {
        failures.push(format!("ledger verify: {said}"));
    }
    let book = read(payers)?;
    let calls = inquired(payers, calls(&book)).await;
    site.outside_lives()?;
    // What was acknowledged outlives one more death.
    site.last_death().await?;
    let db = store::open(&site.store, context.clone()).await?;
    let journals = Journals::fetch(&site.control, context).await?;
    let world = World {
        payments: Some(db.clone()),
        journals: Some(journals),
        calls: Some(calls),
        ..World::at(context.clock.now())
    };
    let report = Box::pin(check_all(&world)).await?;
    failures.extend(report.require(&REQUIRED).err().map(|error| error.to_string()));
    let events = events(&db, payers, &mut failures).await?;
    let posted = posted(&db, &book, &mut failures).await?;
    answers(&book, &mut failures);
    let mut summary = count(&report.evidence);
    for what in ["lost", "doubled", "open"] {
        if summary.get(what).and_then(Value::as_u64) != Some(0) {
            failures.push(format!("{what} is {:?}, not 0", summary.get(what)));
        }
    }
    let calls = report.evidence.calls.as_deref().unwrap_or_default();
    let found = |is_it: fn(&Call) -> bool| calls.iter().filter(|call| is_it(call)).count();
    let own = json!({
        "acknowledged": book.iter().filter(|line| !line.id.is_empty()).count(),
        "answers_lost": book.iter().filter(|line| line.id.is_empty()).count(),
        "asked_and_found_done": found(|call| matches!(call.found, Some(invariants::Found::Done(_)))),
        "asked_and_never_happened": found(|call| matches!(call.found, Some(invariants::Found::Never))),
        "events": events,
        "posted": posted,
    });
    if let (Some(summary), Value::Object(own)) = (summary.as_object_mut(), own) {
        summary.extend(own);
    }
    Ok(Judged { summary, report, failures })
}

/// Waits until nothing is open and every event was heard.
async fn rest(site: &mut Site, payers: &Payers, failures: &mut Vec<String>) -> anyhow::Result<()> {
    let deadline = Instant::now() + REST_WITHIN;
    let resting = async {
        loop {
            site.hand_over().await?;
            let db = store::open(&site.store, payers.context.clone()).await?;
            let open = payments::audit::check(&db).await?.open;
            let head = store::outbox::head(&mut db.read().await?, STREAM).await?;
            drop(db);
            site.take_back().await?;
            let heard = payers.heard().last().map_or(0, |event| event.sequence);
            if open == 0 && head == heard {
                return anyhow::Ok(());
            }
            if Instant::now() > deadline {
                failures.push(format!("{open} are still open, {heard} of {head} events were heard"));
                return Ok(());
            }
            payers.context.clock.sleep(PAUSE).await;
        }
    };
    tokio::select! {
        rested = resting => rested,
        failed = payers.listen() => failed,
    }
}

/// What callers wrote down.
fn read(payers: &Payers) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(&payers.book_at)?;
    text.lines().map(|line| serde_json::from_str(line).context("a line of the callers' book")).collect()
}

fn calls(book: &[Line]) -> Vec<Call> {
    let mut calls: BTreeMap<(Deed, &str), Call> = BTreeMap::new();
    for line in book {
        let Some(deed) = line.deed() else { continue };
        let call = calls.entry((deed, &line.request_id)).or_insert_with(|| Call {
            deed,
            caller: CALLER.to_owned(),
            request_id: line.request_id.clone(),
            ..Call::default()
        });
        match line.id.as_str() {
            "" => call.lost += 1,
            id => call.answers.push(id.to_owned()),
        }
    }
    calls.into_values().collect()
}

/// Asks by the request id what became of every call that ended without an answer.
async fn inquired(payers: &Payers, mut calls: Vec<Call>) -> Vec<Call> {
    let (client, clock) = (&payers.client, &payers.context.clock);
    for call in calls.iter_mut().filter(|call| call.lost > 0) {
        let request_id = call.request_id.clone();
        call.found = match call.deed {
            Deed::Refund => {
                let asked = pb::GetRefundRequest { refund_id: String::new(), request_id };
                let ask = async || {
                    let got = client.clone().get_refund(asked.clone()).await.map_err(RemoteFault::from)?;
                    Ok(got.into_inner().refund.unwrap_or_default().refund_id)
                };
                inquire(clock, ask).await
            }
            _ => {
                let asked = pb::GetOrderRequest { order_id: String::new(), request_id };
                let ask = async || {
                    let got = client.clone().get_order(asked.clone()).await.map_err(RemoteFault::from)?;
                    Ok(got.into_inner().order.unwrap_or_default().order_id)
                };
                inquire(clock, ask).await
            }
        };
    }
    calls
}

/// One request, one answer, to the last byte.
fn answers(book: &[Line], failures: &mut Vec<String>) {
    let mut first: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for line in book.iter().filter(|line| !line.id.is_empty()) {
        let known = first.entry((&line.deed, &line.request_id)).or_insert(&line.digest);
        if *known != line.digest {
            failures.push(format!("{} {} was answered in two ways", line.deed, line.request_id));
        }
    }
}

/// What was heard while everything died is what is kept, event by event; of each order in the order of its life, each once.
async fn events(db: &Db, payers: &Payers, failures: &mut Vec<String>) -> anyhow::Result<usize> {
    let heard = payers.heard();
    let mut kept = Vec::new();
    let mut reader = db.read().await?;
    loop {
        let after = kept.last().map_or(0, |event: &store::outbox::Event| event.seq);
        let page = store::outbox::read_after(&mut reader, STREAM, after, EVENTS_PAGE).await?;
        if page.is_empty() {
            break;
        }
        kept.extend(page);
    }
    let same = heard.iter().map(|event| event.sequence).eq(kept.iter().map(|event| event.seq));
    let same =
        same && heard.iter().zip(&kept).all(|(heard, kept)| heard.order_id == kept.key || heard.refund_id == kept.key);
    if !same {
        failures.push(format!(
            "I6: {} events were heard, {} are kept, and they are not the same",
            heard.len(),
            kept.len()
        ));
    }
    let mut told = BTreeSet::new();
    for event in &heard {
        if !told.insert((event.order_id.as_str(), event.kind, event.refund_id.as_str())) {
            failures.push(format!("I6: {:?} of {} was told twice", event.kind(), event.order_id));
        }
        let first = match event.kind() {
            EventKind::OrderPosted => Some(EventKind::OrderPaid),
            EventKind::LateMoney => Some(EventKind::OrderClosed),
            _ => None,
        };
        if first.is_some_and(|first| !told.contains(&(event.order_id.as_str(), first.into(), ""))) {
            failures.push(format!("I6: {:?} of {} came first", event.kind(), event.order_id));
        }
    }
    Ok(heard.len())
}

/// Every posting that was acknowledged is in the ledger, once, and no other is.
async fn posted(db: &Db, book: &[Line], failures: &mut Vec<String>) -> anyhow::Result<usize> {
    let (mut kept, mut after) = (Vec::<String>::new(), String::new());
    let mut reader = db.read().await?;
    loop {
        let rows = reader.fetch_all(POSTED, params![after, EVENTS_PAGE]).await?;
        let Some(last) = rows.last() else { break };
        after = last.get("order_id")?;
        for row in &rows {
            kept.push(row.get("order_id")?);
        }
    }
    let acknowledged: BTreeSet<_> =
        book.iter().filter(|line| line.deed == "Post" && !line.id.is_empty()).map(|line| line.id.as_str()).collect();
    let once: BTreeSet<_> = kept.iter().map(String::as_str).collect();
    if once.len() != kept.len() {
        failures.push(format!("{} postings of {} orders", kept.len(), once.len()));
    }
    for order in acknowledged.difference(&once) {
        failures.push(format!("{order}: its posting was acknowledged, and is not there"));
    }
    Ok(kept.len())
}

/// What the channels wrote down: of each order and refund how often.
#[derive(Default)]
struct Told<'a> {
    made: BTreeMap<&'a str, u64>,
    paid: BTreeMap<&'a str, u64>,
    refunds: BTreeMap<&'a str, u64>,
    paid_minor: i64,
    refunded_minor: i64,
}

impl<'a> Told<'a> {
    fn of(journal: &'a [Value]) -> Self {
        let mut told = Self::default();
        for line in journal {
            // Orders that are paid together stand in one line, as its parts.
            let parts = line.get("parts").and_then(Value::as_array).map_or(std::slice::from_ref(line), Vec::as_slice);
            match word(line, "event") {
                "order_created" | "combine_created" | "offered" => {
                    parts.iter().for_each(|part| add(&mut told.made, word(part, "out_trade_no")));
                }
                "order_paid" | "combine_paid" | "paid" => {
                    for part in parts {
                        add(&mut told.paid, word(part, "out_trade_no"));
                        told.paid_minor += minor(part);
                    }
                }
                "refund_created" => add(&mut told.refunds, word(line, "out_refund_no")),
                "refund_taken" => add(&mut told.refunds, word(line, "out_request_no")),
                "refund_ended" if word(line, "status") != "CLOSED" => told.refunded_minor += minor(line),
                "refund_done" => told.refunded_minor += minor(line),
                _ => {}
            }
        }
        told
    }
}

fn add<'a>(counts: &mut BTreeMap<&'a str, u64>, number: &'a str) {
    *counts.entry(number).or_default() += 1;
}

/// Counts by the channels' journals against the ledger. It shares nothing with the judge but the evidence.
fn count(evidence: &Evidence) -> Value {
    let journal = evidence.journals.as_ref().map(|journals| journals.channel.as_slice()).unwrap_or_default();
    let Told { made, paid, refunds, paid_minor, refunded_minor } = Told::of(journal);
    let twice = |counts: &BTreeMap<&str, u64>| counts.values().filter(|count| **count > 1).count();
    let captured: BTreeMap<&str, i64> =
        evidence.orders.iter().map(|order| (order.channel_order_no.as_str(), order.captured_minor)).collect();
    let lost = paid.keys().filter(|number| captured.get(**number).is_none_or(|minor| *minor == 0)).count();
    let unpaid = evidence.orders.iter().filter(|order| order.captured_minor > 0);
    let unpaid = unpaid.filter(|order| !paid.contains_key(order.channel_order_no.as_str())).count();
    let there: BTreeSet<_> = evidence.orders.iter().map(|order| order.order_id.as_str()).collect();
    let refunded: BTreeSet<_> = evidence.refunds.iter().map(|refund| refund.refund_id.as_str()).collect();
    let calls = evidence.calls.iter().flatten();
    let forgotten = calls
        .flat_map(|call| &call.answers)
        .filter(|id| !there.contains(id.as_str()) && !refunded.contains(id.as_str()));
    let forgotten = forgotten.count();
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for order in &evidence.orders {
        *states.entry(&order.state).or_default() += 1;
    }
    let all = |of: fn(&invariants::OrderFact) -> i64| evidence.orders.iter().map(of).sum::<i64>();
    json!({
        "orders": evidence.orders.len(),
        "refunds": evidence.refunds.len(),
        "states": states,
        "channel_orders_paid": paid.len(),
        "channel_refunds": refunds.len(),
        "channel_paid_minor": paid_minor,
        "channel_refunded_minor": refunded_minor,
        "ledger_captured_minor": all(|order| order.captured_minor),
        "ledger_refunded_minor": all(|order| order.refunded_minor),
        "ledger_posted_minor": all(|order| order.posted_minor),
        "transfers": evidence.ledger.transfers,
        "ledger_problems": evidence.ledger.problems_total,
        "open": evidence.ledger.open,
        "lost": lost + unpaid + forgotten,
        "doubled": twice(&made) + twice(&paid) + twice(&refunds),
    })
}

fn word<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn minor(line: &Value) -> i64 {
    line.get("amount_minor").and_then(Value::as_i64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use invariants::{OrderFact, RefundFact};

    use super::*;

    fn line(digest: &str) -> Line {
        Line { deed: "Post".into(), request_id: "s-1".into(), id: "ord_1".into(), digest: digest.into() }
    }

    #[test]
    fn two_answers_to_one_request_are_seen() {
        let mut failures = Vec::new();
        answers(&[line("a"), Line { id: String::new(), digest: String::new(), ..line("") }, line("a")], &mut failures);
        assert_eq!(failures, [""; 0]);
        answers(&[line("a"), line("b")], &mut failures);
        assert_eq!(failures, ["Post s-1 was answered in two ways"]);
    }

    /// One order that is paid and of which a part went back, as a channel has it.
    fn in_words_of(channel: &str) -> Vec<Value> {
        let refund = [
            json!({ "event": "refund_created", "out_refund_no": "r", "out_trade_no": "1" }),
            json!({ "event": "refund_ended", "out_refund_no": "r", "amount_minor": 40, "status": "SUCCESS" }),
        ];
        match channel {
            "alipay" => vec![
                json!({ "event": "offered", "out_trade_no": "1" }),
                json!({ "event": "paid", "out_trade_no": "1", "amount_minor": 100 }),
                json!({ "event": "refund_taken", "out_request_no": "r", "out_trade_no": "1", "amount_minor": 40 }),
                json!({ "event": "refund_done", "out_request_no": "r", "out_trade_no": "1", "amount_minor": 40 }),
            ],
            "combined" => {
                let parts = json!([{ "out_trade_no": "1", "amount_minor": 100 }]);
                let made = json!({ "event": "combine_created", "out_trade_no": "w", "parts": parts });
                let paid = json!({ "event": "combine_paid", "out_trade_no": "w", "parts": parts });
                [made, paid].into_iter().chain(refund).collect()
            }
            _ => {
                let made = json!({ "event": "order_created", "out_trade_no": "1" });
                let paid = json!({ "event": "order_paid", "out_trade_no": "1", "amount_minor": 100 });
                [made, paid].into_iter().chain(refund).collect()
            }
        }
    }

    /// The same as channel, ledger and callers have it.
    fn evidence() -> Evidence {
        let order = OrderFact {
            order_id: "ord_1".into(),
            channel_order_no: "1".into(),
            captured_minor: 100,
            ..OrderFact::default()
        };
        let refund = RefundFact { refund_id: "rfd_1".into(), ..RefundFact::default() };
        let call = Call { answers: vec!["ord_1".into(), "rfd_1".into()], ..Call::default() };
        Evidence {
            orders: vec![order],
            refunds: vec![refund],
            journals: Some(Journals { channel: in_words_of("order"), ..Journals::default() }),
            calls: Some(vec![call]),
            ..Evidence::default()
        }
    }

    fn counted(change: impl FnOnce(&mut Evidence)) -> [u64; 2] {
        let mut evidence = evidence();
        change(&mut evidence);
        let counted = count(&evidence);
        ["lost", "doubled"].map(|what| counted.get(what).and_then(Value::as_u64).expect("is counted"))
    }

    #[test]
    fn what_is_lost_or_doubled_is_counted() {
        fn journal(evidence: &mut Evidence) -> &mut Vec<Value> {
            &mut evidence.journals.as_mut().expect("is there").channel
        }
        assert_eq!(counted(|_| {}), [0, 0]);
        assert_eq!(counted(|evidence| evidence.orders.clear()), [2, 0], "paid at the channel, and acknowledged");
        assert_eq!(counted(|evidence| evidence.refunds.clear()), [1, 0]);
        assert_eq!(counted(|evidence| evidence.orders[0].captured_minor = 0), [1, 0]);
        assert_eq!(counted(|evidence| drop(journal(evidence).remove(1))), [1, 0], "captured, and not paid");
        for other in ["order", "combined", "alipay"] {
            assert_eq!(counted(|evidence| *journal(evidence) = in_words_of(other)), [0, 0], "{other}");
            for doubled in 0..3 {
                let twice = |evidence: &mut Evidence| {
                    *journal(evidence) = in_words_of(other);
                    let line = journal(evidence)[doubled].clone();
                    journal(evidence).push(line);
                };
                assert_eq!(counted(twice), [0, 1], "{other}");
            }
        }
    }
}
