use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use super::*;

/// What distinguishes two cases for the machine, times and ids apart.
fn signature(case: &Case, now: Timestamp) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} hold={} rules={:?} order={} paid={} sent={} sends={} refusals={} round={:?} proposal={:?} \
         tries={} over={}",
        case.kind,
        case.state,
        case.step,
        case.next.map(|next| next.action),
        case.ending,
        match case.hold {
            Hold::None => 0,
            Hold::Possible => 1,
            Hold::Until(_) => 2,
        },
        case.rules.map(|rules| rules.idempotency),
        case.order.is_some(),
        case.payment.is_some(),
        case.sent_at.is_some(),
        case.sends.min(3),
        case.refusals.min(1),
        (case.refund.round.min(1), case.refund.id.is_some(), case.refund.failed),
        case.task.as_ref().and_then(|task| task.proposal.as_ref()).map(|proposal| proposal.decision),
        case.tries.min(1),
        case.deliver_by.is_some_and(|by| by <= now),
    )
}

/// Every event there is, each with every kind of content.
fn events(now: Timestamp) -> Vec<(String, Event)> {
    let orders = [
        OrderState::Creating,
        OrderState::Waiting,
        OrderState::Paid,
        OrderState::Posted,
        OrderState::Closed,
        OrderState::Refunding,
        OrderState::Refunded,
        OrderState::Refused,
    ];
    let mut answers: Vec<(String, OrderAnswer)> =
        orders.into_iter().map(|state| (format!("{state:?}"), view(state, now))).collect();
    answers.extend([
        ("NotFound".to_owned(), OrderAnswer::NotFound),
        ("Refused".to_owned(), OrderAnswer::Refused("PAYEE_UNKNOWN".to_owned())),
        ("Unknown".to_owned(), OrderAnswer::Unknown("PEER_UNAVAILABLE".to_owned())),
        ("NotSent".to_owned(), OrderAnswer::NotSent(not_sent(false))),
        ("NotSentFinal".to_owned(), OrderAnswer::NotSent(not_sent(true))),
    ]);
    let mut all = vec![
        ("Begin".to_owned(), Event::Begin),
        ("Tick".to_owned(), Event::Tick),
        ("Cancel".to_owned(), Event::Cancel),
        ("Money(Paid)".to_owned(), money(MoneyEvent::Paid)),
        ("Money(Late)".to_owned(), money(MoneyEvent::Late)),
        ("Money(Moved)".to_owned(), money(MoneyEvent::Moved)),
        ("Refund(Processing)".to_owned(), refund(RefundState::Processing)),
        ("Refund(Succeeded)".to_owned(), refund(RefundState::Succeeded)),
        ("Refund(Failed)".to_owned(), refund(RefundState::Failed)),
        ("Refund(NotFound)".to_owned(), Event::Refunded(RefundAnswer::NotFound)),
        ("Refund(Refused)".to_owned(), Event::Refunded(RefundAnswer::Refused("ORDER_POSTED".to_owned()))),
        ("Refund(Unknown)".to_owned(), Event::Refunded(RefundAnswer::Unknown("PEER_UNAVAILABLE".to_owned()))),
        ("Refund(NotSent)".to_owned(), Event::Refunded(RefundAnswer::NotSent(not_sent(false)))),
    ];
    for idempotency in [Idempotency::Key, Idempotency::None] {
        all.push((format!("Lock(Done {idempotency:?})"), held(now, idempotency)));
    }
    for (name, answer) in answers {
        all.push((format!("Order({name})"), Event::Ordered(answer.clone())));
        all.push((format!("Read({name})"), Event::PaymentRead(answer.clone())));
        all.push((format!("Post({name})"), Event::Posted(answer)));
    }
    let department: [(&str, Answer<Proof>); 6] = [
        ("Rejected", Answer::Rejected(refused("ALREADY_PAID"))),
        ("NeverHappened", Answer::Rejected(refused("NEVER_HAPPENED"))),
        ("Pending", Answer::Pending),
        ("Unknown", Answer::Unknown("DEPARTMENT_TIMEOUT".to_owned())),
        ("NotSent", Answer::NotSent(not_sent(false))),
        ("NotSentFinal", Answer::NotSent(not_sent(true))),
    ];
    all.push(("Settle(Done)".to_owned(), Event::Settled(Answer::Done(proof()))));
    all.push(("Inquire(Done)".to_owned(), Event::Inquired(Answer::Done(proof()))));
    all.push(("Release(Done)".to_owned(), Event::Released(Answer::Done(()))));
    for (name, answer) in department {
        all.push((format!("Lock({name})"), Event::Locked(without(&answer))));
        all.push((format!("Release({name})"), Event::Released(without(&answer))));
        all.push((format!("Inquire({name})"), Event::Inquired(answer.clone())));
        all.push((format!("Settle({name})"), Event::Settled(answer)));
    }
    for decision in [Decision::DepartmentDidIt, Decision::SendAgain, Decision::Refund] {
        for clerk in ["a", "b"] {
            all.push((format!("Decide({decision:?})"), decide(decision, clerk, "S-9")));
        }
    }
    all
}

fn without<T>(answer: &Answer<Proof>) -> Answer<T> {
    match answer {
        Answer::Done(_) | Answer::Pending => Answer::Pending,
        Answer::Rejected(rejection) => Answer::Rejected(rejection.clone()),
        Answer::Unknown(reason) => Answer::Unknown(reason.clone()),
        Answer::NotSent(not_sent) => Answer::NotSent(not_sent.clone()),
    }
}

fn place(case: &Case) -> String {
    let step = case.step.map(|step| format!("/{step:?}")).unwrap_or_default();
    let ending = case.ending.filter(|_| !case.state.is_terminal()).map(|ending| format!(" ({ending:?})"));
    format!("{:?}{step}{}", case.state, ending.unwrap_or_default())
}

/// Walks from an opened case over every event to every case that can come of it, at once, after a minute, and after each deadline.
/// The edges that move a case are the golden table; those that are missing from it are as much a part of it.
#[test]
fn every_reachable_case_takes_every_event() {
    let policy = Policy::default();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut queue = VecDeque::new();
    let first = open(CaseId::new(1), amount(), &policy, START).case;
    queue.push_back((first, START));
    while let Some((case, now)) = queue.pop_front() {
        if !seen.insert(signature(&case, now)) {
            continue;
        }
        assert!(seen.len() < 50_000, "the machine has no end");
        for later in [now, now.plus(secs(61)), case.resolve_by.unwrap_or(now).max(now)] {
            for (name, event) in events(later) {
                let Ok(moved) = apply(&case, &event, &policy, later) else { continue };
                check(Some(&case), &moved);
                let (from, to) = (place(&case), place(&moved.case));
                if from != to {
                    edges.entry(from).or_default().insert(format!("{name} -> {to}"));
                } else if moved.late_money {
                    edges.entry(from).or_default().insert(format!("{name} => late money"));
                }
                queue.push_back((moved.case, later));
            }
        }
    }
    let mut table = String::new();
    for (from, events) in edges {
        let _ = writeln!(table, "{from}");
        for event in events {
            let _ = writeln!(table, "    {event}");
        }
    }
    insta::assert_snapshot!("every_edge", table);
}
