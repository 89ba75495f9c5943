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
    let (is_sound, said) = site.verify().await?;
    tell(format!("ledger verify: {}", said.trim()));
    if !is_sound {
        failures.push(format!("ledger verify: {said}"));
    }
    let book = read(payers)?;
    let calls = inquired(payers, calls(&book)).await;
    site.outside_lives()?;
    site.payments.stop().await?;
    // What was acknowledged outlives one more death of the database.
    site.kill_postgres().await?;
    site.restart_postgres().await?;
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
async fn rest(site: &Site, payers: &Payers, failures: &mut Vec<String>) -> anyhow::Result<()> {
    let db = store::open(&site.store, payers.context.clone()).await?;
    let deadline = Instant::now() + REST_WITHIN;
    let resting = async {
        loop {
            let open = payments::audit::check(&db).await?.open;
            let head = store::outbox::head(&mut db.read().await?, STREAM).await?;
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

/// Counts by the channel's journal against the ledger. It shares nothing with the judge but the evidence.
fn count(evidence: &Evidence) -> Value {
    let journal = evidence.journals.as_ref().map(|journals| journals.channel.as_slice()).unwrap_or_default();
    let counted = |event: &str, key: &str| {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for line in journal.iter().filter(|line| word(line, "event") == event) {
            *counts.entry(word(line, key).to_owned()).or_default() += 1;
        }
        counts
    };
    let sum = |event: &str| -> i64 {
        let lines = journal.iter().filter(|line| word(line, "event") == event && word(line, "status") != "CLOSED");
        lines.filter_map(|line| line.get("amount_minor")?.as_i64()).sum()
    };
    let created = counted("order_created", "out_trade_no");
    let paid = counted("order_paid", "out_trade_no");
    let refunds = counted("refund_created", "out_refund_no");
    let twice = |counts: &BTreeMap<String, u64>| counts.values().filter(|count| **count > 1).count();
    let captured: BTreeMap<&str, i64> =
        evidence.orders.iter().map(|order| (order.channel_order_no.as_str(), order.captured_minor)).collect();
    let lost = paid.keys().filter(|number| captured.get(number.as_str()).is_none_or(|minor| *minor == 0)).count();
    let unpaid = evidence.orders.iter().filter(|order| order.captured_minor > 0);
    let unpaid = unpaid.filter(|order| !paid.contains_key(&order.channel_order_no)).count();
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
        "channel_paid_minor": sum("order_paid"),
        "channel_refunded_minor": sum("refund_ended"),
        "ledger_captured_minor": all(|order| order.captured_minor),
        "ledger_refunded_minor": all(|order| order.refunded_minor),
        "ledger_posted_minor": all(|order| order.posted_minor),
        "transfers": evidence.ledger.transfers,
        "ledger_problems": evidence.ledger.problems_total,
        "open": evidence.ledger.open,
        "lost": lost + unpaid + forgotten,
        "doubled": twice(&created) + twice(&paid) + twice(&refunds),
    })
}

fn word<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
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

    /// One order that is paid and of which a part went back, as channel, ledger and callers have it.
    fn evidence() -> Evidence {
        let channel = vec![
            json!({ "event": "order_created", "out_trade_no": "1" }),
            json!({ "event": "order_paid", "out_trade_no": "1", "amount_minor": 100 }),
            json!({ "event": "refund_created", "out_refund_no": "r", "out_trade_no": "1" }),
            json!({ "event": "refund_ended", "out_refund_no": "r", "amount_minor": 40, "status": "SUCCESS" }),
        ];
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
            journals: Some(Journals { channel, ..Journals::default() }),
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
        for doubled in 0..3 {
            let twice = |evidence: &mut Evidence| {
                let line = journal(evidence)[doubled].clone();
                journal(evidence).push(line);
            };
            assert_eq!(counted(twice), [0, 1]);
        }
    }
}
