use std::collections::{BTreeMap, BTreeSet};

use cases::audit::Fact;
use cases::domain::State;
use serde_json::Value;

use super::calls::{Call, Deed, Found};
use super::evidence::{Evidence, OrderFact, RefundFact};
use super::journals::Journals;
use super::report::{Line, Report, Verdict};

/// Under whose name the refunds are asked for that two operators agreed on, after a case has ended.
const OPERATORS: &str = "operators";
/// Why an invariant is not judged that the test brought evidence for.
const NOTHING_HAPPENED: &str = "nothing happened that it speaks of";

/// What an invariant came to.
#[derive(Default)]
struct Finding {
    breaches: Vec<String>,
    counts: Vec<(&'static str, u64)>,
    /// Of how many things it was judged: what nothing was judged of has not held.
    over: u64,
}

impl Finding {
    fn expect(&mut self, holds: bool, breach: impl FnOnce() -> String) {
        if !holds {
            self.breaches.push(breach());
        }
    }

    fn count(&mut self, name: &'static str, count: usize) {
        self.counts.push((name, count as u64));
    }

    /// Counts what the invariant speaks of.
    fn count_over(&mut self, name: &'static str, count: u64) {
        self.counts.push((name, count));
        self.over += count;
    }
}

/// Judges every invariant by the evidence that there is.
pub(crate) fn judge(evidence: Evidence) -> Report {
    let (payments, cases) = (!evidence.without_payments, !evidence.without_cases);
    let done = effects(&evidence);
    let line = |id, what, finding: Result<Finding, &'static str>| {
        let (verdict, counts) = match finding {
            Err(why) => (Verdict::NotJudged(why), Vec::new()),
            Ok(Finding { breaches, counts, .. }) if !breaches.is_empty() => (Verdict::Broken(breaches), counts),
            Ok(Finding { counts, over: 0, .. }) => (Verdict::NotJudged(NOTHING_HAPPENED), counts),
            Ok(Finding { counts, .. }) => (Verdict::Held, counts),
        };
        Line { id, what, verdict, counts }
    };
    let balanced = payments.then(|| balanced(&evidence)).ok_or("there is no ledger here");
    let delivered = cases.then(|| delivered(&evidence)).ok_or("nobody here consumes events");
    let audit = Line { id: "I7", what: "the audit log only grows", verdict: Verdict::NotServed, counts: Vec::new() };
    let lines = vec![
        line("I1", "debits equal credits, per currency and per transfer", balanced),
        line("I2", "what was acknowledged is there", durable(&evidence, &done)),
        line("I3", "one key, one effect, one answer", Ok(once(&evidence, &done))),
        line("I4", "what had no answer was done or never happened", Ok(resolvable(&evidence, &done))),
        line("I5", "channel and departments have what we have", mirrored(&evidence)),
        line("I6", "every event took effect once, in order", delivered),
        audit,
        line("I8", "nobody reaches what is somebody else's", isolated(&evidence)),
        line("I9", "nothing grows without bound", bounded(&evidence)),
        line("I10", "personal data is nowhere in clear", private(&evidence)),
    ];
    Report { lines, evidence }
}

/// Who asked for what, under which request id.
type Key<'a> = (Deed, &'a str, &'a str);

/// Everything that was done, by the books of whoever did it.
fn effects(evidence: &Evidence) -> BTreeMap<Key<'_>, Vec<&str>> {
    let cases = own(evidence)
        .map(|fact| ((Deed::Case, fact.entry_point.as_str(), fact.request_id.as_str()), fact.case_id.as_str()));
    let orders = evidence
        .orders
        .iter()
        .map(|order| ((Deed::Order, order.caller.as_str(), order.request_id.as_str()), order.order_id.as_str()));
    let refunds = evidence
        .refunds
        .iter()
        .map(|refund| ((Deed::Refund, refund.caller.as_str(), refund.request_id.as_str()), refund.refund_id.as_str()));
    let departments = evidence.journals.iter().flat_map(|journals| &journals.departments);
    let settlements = departments.flat_map(|(profile, lines)| {
        lines
            .iter()
            .filter(|line| is_posted(line))
            .map(move |line| ((Deed::Settlement, profile.as_str(), text(line, "order")), text(line, "serial")))
    });
    let others = evidence
        .effects
        .iter()
        .flatten()
        .map(|effect| ((effect.deed, effect.caller.as_str(), effect.request_id.as_str()), effect.id.as_str()));
    let mut done = BTreeMap::<_, Vec<_>>::new();
    for (key, id) in cases.chain(orders).chain(refunds).chain(settlements).chain(others) {
        done.entry(key).or_default().push(id);
    }
    done
}

fn key(call: &Call) -> Key<'_> {
    (call.deed, &call.caller, &call.request_id)
}

fn balanced(evidence: &Evidence) -> Finding {
    let ledger = &evidence.ledger;
    let mut finding = Finding::default();
    for problem in &ledger.problems {
        finding.breaches.push(format!("{}: {}", problem.subject, problem.what));
    }
    finding.expect(ledger.is_sound() || !ledger.problems.is_empty(), || "problems that are not listed".to_owned());
    finding.counts.extend([("orders", ledger.orders), ("refunds", ledger.refunds)]);
    finding.count_over("transfers", ledger.transfers);
    finding
}

fn durable(evidence: &Evidence, done: &BTreeMap<Key<'_>, Vec<&str>>) -> Result<Finding, &'static str> {
    let states: BTreeMap<_, _> = own(evidence).map(|fact| (fact.case_id.as_str(), name(fact.state))).collect();
    let mut finding = Finding::default();
    let mut acknowledged = 0;
    for call in evidence.calls.iter().flatten() {
        let made = done.get(&key(call));
        for answer in &call.answers {
            acknowledged += 1;
            let kept = made.is_some_and(|made| made.contains(&answer.as_str()));
            finding.expect(kept, || format!("{} was answered with {answer}, which is not there", call.request_id));
        }
        if let Some(ended_as) = &call.ended_as {
            let made = made.into_iter().flatten();
            let stands = made.filter_map(|id| states.get(id)).any(|state| state == ended_as);
            finding.expect(stands, || format!("{} was seen to end as {ended_as}, and did not", call.request_id));
        }
    }
    finding.count_over("acknowledged", acknowledged);
    if !evidence.without_payments && !evidence.without_cases {
        answered_to_cases(&mut finding, evidence);
    }
    match evidence.calls.is_none() && finding.breaches.is_empty() {
        true => Err("no client wrote down what it was answered"),
        false => Ok(finding),
    }
}

/// Cases is a client too: what payments answered it with stands in the ledger.
fn answered_to_cases(finding: &mut Finding, evidence: &Evidence) {
    let orders: BTreeSet<_> = evidence.orders.iter().map(|order| order.order_id.as_str()).collect();
    let refunds: BTreeMap<_, _> =
        evidence.refunds.iter().map(|refund| (refund.refund_id.as_str(), refund.order_id.as_str())).collect();
    let (mut of_orders, mut of_refunds) = (0, 0);
    for fact in &evidence.cases.facts {
        if let Some(order) = &fact.order_id {
            of_orders += 1;
            let kept = orders.contains(order.as_str());
            finding.expect(kept, || format!("{} was answered with {order}, which is not there", fact.case_id));
        }
        if let Some(refund) = &fact.refund_id {
            of_refunds += 1;
            let kept = refunds.get(refund.as_str()).copied() == fact.order_id.as_deref();
            finding.expect(kept, || format!("{} was answered with {refund}, which is not there", fact.case_id));
        }
    }
    finding.count_over("orders", of_orders);
    finding.count_over("refunds", of_refunds);
}

fn once(evidence: &Evidence, done: &BTreeMap<Key<'_>, Vec<&str>>) -> Finding {
    let mut finding = Finding::default();
    for ((deed, _, request), made) in done {
        finding.expect(made.len() == 1, || format!("{deed:?} {request} was done {} times", made.len()));
    }
    for fact in own(evidence) {
        finding.expect(fact.payments_received <= 1, || format!("{} was paid twice", fact.case_id));
    }
    for call in evidence.calls.iter().flatten() {
        let answers: BTreeSet<_> = call.answers.iter().collect();
        finding.expect(answers.len() <= 1, || format!("{} was answered in two ways", call.request_id));
    }
    let mut orders = BTreeSet::new();
    for order in &evidence.orders {
        finding.expect(orders.insert(&order.case_id), || format!("two orders of {}", order.case_id));
    }
    if let Some(journals) = &evidence.journals {
        let posted = posted_once(&mut finding, journals);
        finding.count("settlements posted", posted);
    }
    finding.count_over("request ids", done.len() as u64);
    finding
}

/// No record is posted twice, and no order number twice, at any department.
fn posted_once(finding: &mut Finding, journals: &Journals) -> usize {
    let mut count = 0;
    for (profile, lines) in &journals.departments {
        let mut records = BTreeSet::new();
        for (order, payment) in payments(lines) {
            if payment.posted {
                count += 1;
                finding.expect(records.insert(payment.record.clone()), || {
                    format!("{profile}: record of {order} was posted under another order too")
                });
            }
        }
    }
    count
}

fn resolvable(evidence: &Evidence, done: &BTreeMap<Key<'_>, Vec<&str>>) -> Finding {
    let mut finding = Finding::default();
    let (mut lost, mut found_done, mut found_never) = (0, 0, 0);
    for call in evidence.calls.iter().flatten() {
        lost += u64::from(call.lost > 0);
        let made = done.get(&key(call));
        match &call.found {
            Some(Found::Done(id)) => {
                found_done += 1;
                let is_there = made.is_some_and(|made| made.contains(&id.as_str()));
                finding.expect(is_there, || format!("{} was found done as {id}, which is not there", call.request_id));
            }
            Some(Found::Never) => {
                found_never += 1;
                let answered = made.is_some() || !call.answers.is_empty();
                finding.expect(!answered, || format!("{} never happened, it was said, and did", call.request_id));
            }
            None if call.lost > 0 => {
                finding.breaches.push(format!("nobody knows what became of {}", call.request_id));
            }
            None => {}
        }
    }
    for fact in evidence.cases.facts.iter().filter(|fact| fact.state == State::Unknown) {
        finding.breaches.push(format!("{} is still without an answer", fact.case_id));
    }
    finding.expect(evidence.cases.silent == 0, || format!("{} cases are silent", evidence.cases.silent));
    if !evidence.without_payments && !evidence.without_cases {
        known_to_cases(&mut finding, evidence);
    }
    finding.count("calls", evidence.calls.as_ref().map_or(0, Vec::len));
    finding.count_over("lost", lost);
    finding.count_over("found done", found_done);
    finding.count_over("found never", found_never);
    finding.count_over("cases", evidence.cases.facts.len() as u64);
    finding.counts.extend([("open cases", evidence.cases.open), ("with a clerk", evidence.cases.with_clerk)]);
    finding
}

/// Cases lost answers of payments as well: what payments made for a case is known there by the time that it has ended.
fn known_to_cases(finding: &mut Finding, evidence: &Evidence) {
    let facts = &evidence.cases.facts;
    let open = || facts.iter().filter(|fact| !fact.state.is_terminal());
    let waiting: BTreeSet<_> = open().map(|fact| fact.case_id.as_str()).collect();
    let refunding: BTreeSet<_> = open().filter_map(|fact| fact.order_id.as_deref()).collect();
    let orders: BTreeSet<_> = facts.iter().filter_map(|fact| fact.order_id.as_deref()).collect();
    let refunds: BTreeSet<_> = facts.iter().filter_map(|fact| fact.refund_id.as_deref()).collect();
    for order in &evidence.orders {
        let known = orders.contains(order.order_id.as_str()) || waiting.contains(order.case_id.as_str());
        finding.expect(known, || format!("{} never learned of {}", order.case_id, order.order_id));
    }
    let of_cases = |refund: &&RefundFact| refund.state == "succeeded" && refund.caller != OPERATORS;
    for refund in evidence.refunds.iter().filter(of_cases) {
        let known = refunds.contains(refund.refund_id.as_str()) || refunding.contains(refund.order_id.as_str());
        finding.expect(known, || format!("nobody learned of {}, which returned {}", refund.refund_id, refund.order_id));
    }
}

fn mirrored(evidence: &Evidence) -> Result<Finding, &'static str> {
    let journals = evidence.journals.as_ref().ok_or("neither channel nor department keeps a journal here")?;
    let (payments, cases) = (!evidence.without_payments, !evidence.without_cases);
    let settlers: Vec<_> = evidence.calls.iter().flatten().filter(|call| call.deed == Deed::Settlement).collect();
    let mut finding = Finding::default();
    if payments {
        channel(&mut finding, journals, &evidence.orders);
    }
    if cases {
        departments(&mut finding, journals, evidence);
    } else if !settlers.is_empty() {
        settled(&mut finding, journals, &settlers);
    }
    if payments && cases {
        money(&mut finding, evidence);
    }
    match payments || cases || !settlers.is_empty() {
        true => Ok(finding),
        false => Err("nobody here has books to compare with the journals"),
    }
}

/// What departments posted is what those who asked them were told, order by order.
fn settled(finding: &mut Finding, journals: &Journals, calls: &[&Call]) {
    let told: BTreeMap<_, _> =
        calls.iter().map(|call| ((call.caller.as_str(), call.request_id.as_str()), *call)).collect();
    let mut posted = 0;
    for (profile, lines) in &journals.departments {
        for (order, payment) in payments(lines).into_iter().filter(|(_, payment)| payment.posted) {
            posted += 1;
            let known = told.get(&(profile.as_str(), order.as_str())).is_some_and(|call| {
                call.answers.contains(&payment.serial) || call.found == Some(Found::Done(payment.serial.clone()))
            });
            finding.expect(known, || format!("{profile} posted {order}, and whoever asked does not know"));
        }
    }
    finding.count_over("settlements", posted);
}

/// The captures and refunds of WeChat Pay and Alipay, each in its own words, are the ledger's, order by order.
fn channel(finding: &mut Finding, journals: &Journals, orders: &[OrderFact]) {
    let (mut paid, mut refunds, mut back) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::<&str, i64>::new());
    let known: BTreeSet<_> = orders.iter().map(|order| order.channel_order_no.as_str()).collect();
    for line in &journals.channel {
        // Orders that are paid together stand in one line, as its parts.
        let parts = line.get("parts").and_then(Value::as_array).map_or(std::slice::from_ref(line), Vec::as_slice);
        match text(line, "event") {
            "order_created" | "combine_created" | "offered" => {
                for number in parts.iter().map(|part| text(part, "out_trade_no")) {
                    let stray = || format!("the channel has {number}, which nobody here knows");
                    finding.expect(known.contains(number), stray);
                }
            }
            "order_paid" | "combine_paid" | "paid" => {
                for part in parts {
                    let twice = paid.insert(text(part, "out_trade_no"), minor(part));
                    finding.expect(twice.is_none(), || format!("{} was paid twice", text(part, "out_trade_no")));
                }
            }
            "refund_created" => drop(refunds.insert(text(line, "out_refund_no"), text(line, "out_trade_no"))),
            "refund_ended" if text(line, "status") == "SUCCESS" => {
                let order = refunds.get(text(line, "out_refund_no")).copied().unwrap_or_default();
                *back.entry(order).or_default() += minor(line);
            }
            "refund_done" => *back.entry(text(line, "out_trade_no")).or_default() += minor(line),
            _ => {}
        }
    }
    finding.count_over("captures", paid.len() as u64);
    finding.count("orders refunded", back.len());
    for order in orders {
        let number = order.channel_order_no.as_str();
        let (took, gave) = (paid.remove(number).unwrap_or(0), back.remove(number).unwrap_or(0));
        // What insurance pays and gets back never is at the channel.
        let captured = order.captured_minor.saturating_sub(order.insured_minor);
        let refunded = order.refunded_minor.saturating_sub(order.insured_refunded_minor);
        finding.expect(took == captured, || {
            format!("{}: the channel took {took}, the ledger has {captured}", order.order_id)
        });
        finding.expect(gave == refunded, || {
            format!("{}: the channel gave back {gave}, the ledger has {refunded}", order.order_id)
        });
    }
    for number in paid.keys().chain(back.keys()) {
        finding.breaches.push(format!("the channel moved money for {number}, which nobody here knows"));
    }
}

/// What departments posted is what cases have as done, key by key.
fn departments(finding: &mut Finding, journals: &Journals, evidence: &Evidence) {
    let mut posted = BTreeMap::new();
    for (profile, lines) in &journals.departments {
        for (order, payment) in payments(lines).into_iter().filter(|(_, payment)| payment.posted) {
            posted.insert((profile.as_str(), order), payment);
        }
    }
    finding.count_over("settlements", posted.len() as u64);
    let mut done = 0;
    for fact in own(evidence) {
        let payment = posted.remove(&(fact.profile.as_str(), fact.settle_key.clone()));
        match (fact.state, payment) {
            (State::Done, Some(payment)) => {
                done += 1;
                let same = fact.clerk_decided || fact.proof_serial.as_deref() == Some(payment.serial.as_str());
                finding.expect(same, || format!("{} proves another serial than the department's", fact.case_id));
                finding.expect(payment.amount_minor == fact.amount_minor, || {
                    format!("{}: the department posted another amount", fact.case_id)
                });
            }
            (State::Done, None) => {
                done += 1;
                finding
                    .expect(fact.clerk_decided, || format!("{} is done, and the department has nothing", fact.case_id));
            }
            (state, Some(_)) if state.is_terminal() => {
                finding.breaches.push(format!(
                    "{} ended {}, and the department has posted it",
                    fact.case_id,
                    name(state)
                ));
            }
            // Still under way: its inquiry, or its clerk, will find it.
            (_, Some(_) | None) => {}
        }
    }
    for ((profile, order), _) in posted {
        finding.breaches.push(format!("{profile} posted {order}, which no case knows"));
    }
    finding.count("cases done", done);
}

/// Cases and ledger agree on every order: done is posted but for what operators had the payee give back, refunded went back, everything
/// else holds nothing.
fn money(finding: &mut Finding, evidence: &Evidence) {
    let mut given_back = BTreeMap::<&str, i64>::new();
    for refund in evidence.refunds.iter().filter(|refund| refund.caller == OPERATORS && refund.state != "failed") {
        *given_back.entry(&refund.order_id).or_default() += refund.amount_minor;
    }
    let orders: BTreeMap<_, _> = evidence.orders.iter().map(|order| (order.order_id.as_str(), order)).collect();
    for fact in &evidence.cases.facts {
        let order = fact.order_id.as_deref().and_then(|id| orders.get(id));
        let agree = match (fact.state, order) {
            (State::Done, Some(order)) => {
                let back = given_back.get(order.order_id.as_str()).copied().unwrap_or(0);
                order.posted_minor == fact.amount_minor.saturating_sub(back) && order.refunded_minor == back
            }
            (State::Refunded, Some(order)) => order.refunded_minor == fact.amount_minor && order.posted_minor == 0,
            (State::Done | State::Refunded, None) => false,
            (State::Rejected | State::Expired | State::Cancelled, Some(order)) => {
                order.posted_minor == 0 && (order.captured_minor == 0 || order.is_late)
            }
            _ => true,
        };
        finding
            .expect(agree, || format!("{} ended {}, and the ledger has {:?}", fact.case_id, name(fact.state), order));
    }
}

fn delivered(evidence: &Evidence) -> Finding {
    let cases = &evidence.cases;
    let mut finding = Finding::default();
    for (subject, what) in &cases.problems {
        finding.breaches.push(format!("{subject}: {what}"));
    }
    finding.expect(cases.is_sound() || !cases.problems.is_empty(), || "problems that are not listed".to_owned());
    if let Some(events) = evidence.events {
        finding.expect(cases.cursor == events, || {
            format!("payments told {events} events, cases applied {}", cases.cursor)
        });
    }
    let received: BTreeMap<_, _> = own(evidence).map(|fact| (fact.case_id.as_str(), fact.payments_received)).collect();
    let late: BTreeSet<_> =
        cases.facts.iter().filter(|fact| fact.is_late_money).filter_map(|fact| fact.order_id.as_deref()).collect();
    for order in evidence.orders.iter().filter(|order| order.captured_minor > 0) {
        let heard = match order.is_late {
            true => late.contains(order.order_id.as_str()),
            false => received.get(order.case_id.as_str()) == Some(&1),
        };
        finding.expect(heard, || format!("the money of {} never reached its case", order.order_id));
    }
    finding.count_over("events", evidence.events.and_then(|events| u64::try_from(events).ok()).unwrap_or(0));
    finding.counts.extend([("lines", cases.lines), ("streamed", cases.streamed)]);
    finding
}

fn isolated(evidence: &Evidence) -> Result<Finding, &'static str> {
    let probes = evidence.probes.as_ref().ok_or("nobody tried")?;
    let mut finding = Finding::default();
    for probe in probes {
        finding.expect(!probe.leaked, || probe.what.clone());
    }
    finding.count_over("probes", probes.len() as u64);
    Ok(finding)
}

fn bounded(evidence: &Evidence) -> Result<Finding, &'static str> {
    let bounds = evidence.bounds.as_ref().ok_or("no process was watched")?;
    let mut finding = Finding::default();
    for bound in bounds {
        finding.expect(bound.seen <= bound.most, || format!("{}: {}, at most {}", bound.what, bound.seen, bound.most));
    }
    finding.count_over("bounds", bounds.len() as u64);
    Ok(finding)
}

fn private(evidence: &Evidence) -> Result<Finding, &'static str> {
    let searched = evidence.leaks.as_ref().ok_or("nobody said where to search for what")?;
    let mut finding = Finding { breaches: searched.found.clone(), ..Finding::default() };
    finding.counts.extend([("canaries", searched.canaries), ("texts", searched.texts)]);
    finding.count_over("bytes", if searched.canaries == 0 { 0 } else { searched.bytes });
    Ok(finding)
}

/// The cases that citizens opened; the others return late money.
fn own(evidence: &Evidence) -> impl Iterator<Item = &Fact> {
    evidence.cases.facts.iter().filter(|fact| !fact.is_late_money)
}

/// A payment at a department as its last line tells it.
struct Payment {
    record: String,
    serial: String,
    amount_minor: i64,
    posted: bool,
}

fn payments(lines: &[Value]) -> BTreeMap<String, Payment> {
    let mut payments = BTreeMap::new();
    for line in lines.iter().filter(|line| text(line, "event") == "payment") {
        let payment = Payment {
            record: text(line, "record").to_owned(),
            serial: text(line, "serial").to_owned(),
            amount_minor: minor(line),
            posted: is_posted(line),
        };
        payments.insert(text(line, "order").to_owned(), payment);
    }
    payments
}

fn is_posted(line: &Value) -> bool {
    text(line, "event") == "payment" && text(line, "state") == "posted"
}

fn text<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn minor(line: &Value) -> i64 {
    line.get("amount_minor").and_then(Value::as_i64).unwrap_or_default()
}

/// A state as the contract names it, without its prefix.
fn name(state: State) -> &'static str {
    match state {
        State::Accepted => "ACCEPTED",
        State::Confirming => "CONFIRMING",
        State::WaitingPayment => "WAITING_PAYMENT",
        State::Paid => "PAID",
        State::Sent => "SENT",
        State::Done => "DONE",
        State::Rejected => "REJECTED",
        State::Expired => "EXPIRED",
        State::Cancelled => "CANCELLED",
        State::Refunding => "REFUNDING",
        State::Refunded => "REFUNDED",
        State::Unknown => "UNKNOWN",
        State::NeedsClerk => "NEEDS_CLERK",
    }
}
