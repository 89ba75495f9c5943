use std::collections::{BTreeMap, BTreeSet};

use cases::audit::Fact;
use cases::domain::State;
use serde_json::Value;

use super::evidence::{Evidence, Journals, OrderFact};
use super::report::{Line, Report, Verdict};

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

    fn line(self, id: &'static str, what: &'static str) -> Line {
        let verdict = match self.breaches.is_empty() {
            false => Verdict::Broken(self.breaches),
            true if self.over == 0 => Verdict::NotJudged,
            true => Verdict::Held,
        };
        Line { id, what, verdict, counts: self.counts }
    }
}

/// Judges every invariant by the evidence that there is.
pub fn judge(evidence: &Evidence) -> Report {
    let unjudged = |id, what, verdict| Line { id, what, verdict, counts: Vec::new() };
    let either = |finding: Option<Finding>, id, what| match finding {
        Some(finding) => finding.line(id, what),
        None => unjudged(id, what, Verdict::NotJudged),
    };
    let (payments, cases) = (!evidence.without_payments, !evidence.without_cases);
    Report {
        lines: vec![
            either(payments.then(|| balanced(evidence)), "I1", "debits equal credits, per currency and per transfer"),
            either(durable(evidence).filter(|_| cases), "I2", "what was acknowledged is there"),
            once(evidence).line("I3", "one key, one effect, one answer"),
            either(cases.then(|| resolvable(evidence)), "I4", "what had no answer was resolved"),
            either(mirrored(evidence), "I5", "channel and departments have what we have"),
            either((payments && cases).then(|| delivered(evidence)), "I6", "every event took effect once, in order"),
            unjudged("I7", "the audit log only grows", Verdict::NotServed),
            either(isolated(evidence), "I8", "nobody reaches what is somebody else's"),
            either(bounded(evidence), "I9", "nothing grows without bound"),
            either(private(evidence), "I10", "personal data is nowhere in clear"),
        ],
    }
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

fn durable(evidence: &Evidence) -> Option<Finding> {
    let calls = evidence.calls.as_ref()?;
    let by_request: BTreeMap<_, _> = own(evidence).map(|fact| (request(fact), fact)).collect();
    let mut finding = Finding::default();
    let mut acknowledged = 0_u64;
    for call in calls {
        let fact = by_request.get(&(call.entry_point.as_str(), call.request_id.as_str()));
        for answer in &call.answers {
            acknowledged += 1;
            let kept = fact.is_some_and(|fact| fact.case_id == *answer);
            finding.expect(kept, || format!("{} was answered with {answer}, which is not there", call.request_id));
        }
        if let Some(ended_as) = &call.ended_as {
            let stands = fact.is_some_and(|fact| name(fact.state) == ended_as);
            finding.expect(stands, || format!("{} was seen to end as {ended_as}, and did not", call.request_id));
        }
    }
    finding.count_over("acknowledged", acknowledged);
    finding.count("cases", evidence.cases.facts.len());
    Some(finding)
}

fn once(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    let mut requests = BTreeSet::new();
    for fact in own(evidence) {
        finding.expect(requests.insert(request(fact)), || format!("two cases under {}", fact.request_id));
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
    finding.count_over("request ids", requests.len() as u64);
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
        let mut posted = BTreeMap::<&str, u32>::new();
        for line in lines.iter().filter(|line| text(line, "event") == "payment" && text(line, "state") == "posted") {
            *posted.entry(text(line, "order")).or_default() += 1;
        }
        for (order, times) in posted.into_iter().filter(|(_, times)| *times > 1) {
            finding.breaches.push(format!("{profile}: {order} was posted {times} times"));
        }
    }
    count
}

fn resolvable(evidence: &Evidence) -> Finding {
    let mut finding = Finding::default();
    for call in evidence.calls.iter().flatten().filter(|call| call.unresolved) {
        finding.breaches.push(format!("nobody knows what became of {}", call.request_id));
    }
    for fact in evidence.cases.facts.iter().filter(|fact| fact.state == State::Unknown) {
        finding.breaches.push(format!("{} is still without an answer", fact.case_id));
    }
    finding.expect(evidence.cases.silent == 0, || format!("{} cases are silent", evidence.cases.silent));
    finding.count("calls", evidence.calls.as_ref().map_or(0, Vec::len));
    finding.count_over("cases", evidence.cases.facts.len() as u64);
    finding.counts.push(("open cases", evidence.cases.open));
    finding.counts.push(("with a clerk", evidence.cases.with_clerk));
    finding
}

fn mirrored(evidence: &Evidence) -> Option<Finding> {
    let journals = evidence.journals.as_ref()?;
    let (payments, cases) = (!evidence.without_payments, !evidence.without_cases);
    let mut finding = Finding::default();
    if payments {
        channel(&mut finding, journals, &evidence.orders);
    }
    if cases {
        departments(&mut finding, journals, evidence);
    }
    if payments && cases {
        money(&mut finding, evidence);
    }
    (payments || cases).then_some(finding)
}

/// The channel's captures and refunds are the ledger's, order by order.
fn channel(finding: &mut Finding, journals: &Journals, orders: &[OrderFact]) {
    let (mut paid, mut refunds, mut back) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::<&str, i64>::new());
    for line in &journals.channel {
        match text(line, "event") {
            "order_paid" => {
                let twice = paid.insert(text(line, "out_trade_no"), minor(line));
                finding.expect(twice.is_none(), || format!("{} was paid twice", text(line, "out_trade_no")));
            }
            "refund_created" => drop(refunds.insert(text(line, "out_refund_no"), text(line, "out_trade_no"))),
            "refund_ended" if text(line, "status") == "SUCCESS" => {
                let order = refunds.get(text(line, "out_refund_no")).copied().unwrap_or_default();
                *back.entry(order).or_default() += minor(line);
            }
            _ => {}
        }
    }
    finding.count_over("captures", paid.len() as u64);
    finding.count("orders refunded", back.len());
    for order in orders {
        let number = order.channel_order_no.as_str();
        let (took, gave) = (paid.remove(number).unwrap_or(0), back.remove(number).unwrap_or(0));
        finding.expect(took == order.captured_minor, || {
            format!("{}: the channel took {took}, the ledger has {}", order.order_id, order.captured_minor)
        });
        finding.expect(gave == order.refunded_minor, || {
            format!("{}: the channel gave back {gave}, the ledger has {}", order.order_id, order.refunded_minor)
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

/// Cases and ledger agree on every order: done is posted, refunded went back, everything else holds nothing.
fn money(finding: &mut Finding, evidence: &Evidence) {
    let orders: BTreeMap<_, _> = evidence.orders.iter().map(|order| (order.order_id.as_str(), order)).collect();
    for fact in &evidence.cases.facts {
        let order = fact.order_id.as_deref().and_then(|id| orders.get(id));
        let agree = match (fact.state, order) {
            (State::Done, Some(order)) => order.posted_minor == fact.amount_minor && order.refunded_minor == 0,
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
    finding.expect(cases.cursor == evidence.events, || {
        format!("payments told {} events, cases applied {}", evidence.events, cases.cursor)
    });
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
    finding.count_over("events", u64::try_from(evidence.events).unwrap_or(0));
    finding.counts.extend([("lines", cases.lines), ("streamed", cases.streamed)]);
    finding
}

fn isolated(evidence: &Evidence) -> Option<Finding> {
    let probes = evidence.probes.as_ref()?;
    let mut finding = Finding::default();
    for probe in probes {
        finding.expect(!probe.leaked, || probe.what.clone());
    }
    finding.count_over("probes", probes.len() as u64);
    Some(finding)
}

fn bounded(evidence: &Evidence) -> Option<Finding> {
    let bounds = evidence.bounds.as_ref()?;
    let mut finding = Finding::default();
    for bound in bounds {
        finding.expect(bound.seen <= bound.most, || format!("{}: {}, at most {}", bound.what, bound.seen, bound.most));
    }
    finding.count_over("bounds", bounds.len() as u64);
    Some(finding)
}

fn private(evidence: &Evidence) -> Option<Finding> {
    let searched = evidence.leaks.as_ref()?;
    let mut finding = Finding { breaches: searched.found.clone(), ..Finding::default() };
    finding.counts.extend([("canaries", searched.canaries), ("texts", searched.texts)]);
    finding.count_over("bytes", if searched.canaries == 0 { 0 } else { searched.bytes });
    Some(finding)
}

/// The cases that citizens opened; the others return late money.
fn own(evidence: &Evidence) -> impl Iterator<Item = &Fact> {
    evidence.cases.facts.iter().filter(|fact| !fact.is_late_money)
}

fn request(fact: &Fact) -> (&str, &str) {
    (fact.entry_point.as_str(), fact.request_id.as_str())
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
            posted: text(line, "state") == "posted",
        };
        payments.insert(text(line, "order").to_owned(), payment);
    }
    payments
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
