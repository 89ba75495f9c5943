//! The judge is judged: sound evidence holds, and every planted breach is found by the invariant that it breaks.

use cases::audit::Fact;
use cases::domain::State;
use runtime::{Clock, Timestamp};
use serde_json::json;

use super::*;
use crate::judge::judge;

fn fact(number: u32, state: State) -> Fact {
    Fact {
        case_id: format!("case_{number}"),
        entry_point: "wechat".to_owned(),
        request_id: format!("r-{number}"),
        is_late_money: false,
        state,
        profile: "traffic/430100".to_owned(),
        bill_no: format!("B-{number}"),
        amount_minor: 20_000,
        order_id: Some(format!("ord_{number}")),
        refund_id: (state == State::Refunded).then(|| format!("rfd_{number}")),
        settle_key: format!("case_{number}-settle"),
        proof_serial: (state == State::Done).then(|| format!("S-{number}")),
        payments_received: u32::from(matches!(state, State::Done | State::Refunded)),
        clerk_decided: false,
    }
}

fn order(number: u32, captured_minor: i64, refunded_minor: i64, posted_minor: i64) -> OrderFact {
    OrderFact {
        order_id: format!("ord_{number}"),
        caller: "cases".to_owned(),
        request_id: format!("case_{number}-order"),
        case_id: format!("case_{number}"),
        channel_order_no: format!("n{number}"),
        state: String::new(),
        is_late: false,
        captured_minor,
        refunded_minor,
        posted_minor,
        insured_minor: 0,
        insured_refunded_minor: 0,
    }
}

fn refund(number: u32) -> RefundFact {
    RefundFact {
        refund_id: format!("rfd_{number}"),
        order_id: format!("ord_{number}"),
        caller: "cases".to_owned(),
        request_id: format!("case_{number}-refund-0"),
        state: "succeeded".to_owned(),
        amount_minor: 20_000,
    }
}

/// One case done, one refunded, one cancelled with late money that went back; one that its client knows by an inquiry alone, and one that
/// never happened.
fn sound() -> Evidence {
    let mut late = fact(3, State::Refunded);
    late.case_id = "case_4".to_owned();
    late.is_late_money = true;
    late.payments_received = 0;
    let mut late_order = order(3, 20_000, 20_000, 0);
    late_order.is_late = true;
    let facts = vec![fact(1, State::Done), fact(2, State::Refunded), fact(3, State::Cancelled), late];
    let paid =
        |number: u32| json!({"event": "order_paid", "out_trade_no": format!("n{number}"), "amount_minor": 20_000});
    let back = |number: u32| {
        let refund = format!("f{number}");
        [
            json!({"event": "refund_created", "out_refund_no": refund, "out_trade_no": format!("n{number}")}),
            json!({"event": "refund_ended", "out_refund_no": refund, "amount_minor": 20_000, "status": "SUCCESS"}),
        ]
    };
    // The third was paid and given back with Alipay.
    let alipay = |event: &str| json!({"event": event, "out_trade_no": "n3", "amount_minor": 20_000});
    let mut channel = vec![paid(1), paid(2), alipay("offered"), alipay("paid"), alipay("refund_done")];
    channel.extend(back(2));
    let posted = json!({"event": "payment", "order": "case_1-settle", "record": "R1", "serial": "S-1",
        "amount_minor": 20_000, "state": "posted"});
    let refused = json!({"event": "payment", "order": "case_2-settle", "record": "R2", "serial": "S-2",
        "amount_minor": 20_000, "state": "refused"});
    let call = |number: u32, ended_as: &str| Call {
        caller: "wechat".to_owned(),
        request_id: format!("r-{number}"),
        answers: vec![format!("case_{number}"); 2],
        ended_as: Some(ended_as.to_owned()),
        ..Call::default()
    };
    let never = Call { found: Some(Found::Never), lost: 1, ..call(9, "") };
    let calls = vec![
        call(1, "DONE"),
        Call { answers: Vec::new(), lost: 1, found: Some(Found::Done("case_2".to_owned())), ..call(2, "REFUNDED") },
        call(3, "CANCELLED"),
        Call { answers: Vec::new(), ended_as: None, ..never },
    ];
    Evidence {
        orders: vec![order(1, 20_000, 0, 20_000), order(2, 20_000, 20_000, 0), late_order],
        refunds: vec![refund(2), refund(3)],
        events: Some(9),
        cases: cases::audit::Report { facts, cursor: 9, ..Default::default() },
        journals: Some(Journals {
            channel,
            departments: [("traffic/430100".to_owned(), vec![posted, refused])].into(),
        }),
        calls: Some(calls),
        probes: Some(vec![Probe { what: "li reads wang's case".to_owned(), leaked: false }]),
        bounds: Some(vec![Bound { what: "resident memory, MiB".to_owned(), seen: 100, most: 250 }]),
        leaks: Some(Searched { found: Vec::new(), canaries: 4, texts: 3, bytes: 1_000 }),
        ledger: payments::audit::Report { transfers: 6, ..Default::default() },
        ..Evidence::default()
    }
}

fn department(evidence: &mut Evidence) -> &mut Vec<serde_json::Value> {
    let journals = evidence.journals.as_mut().expect("journals");
    journals.departments.get_mut("traffic/430100").expect("lines")
}

fn calls(evidence: &mut Evidence) -> &mut Vec<Call> {
    evidence.calls.as_mut().expect("calls")
}

fn own(deed: Deed, request_id: &str, answer: &str) -> Call {
    let (caller, request_id, answers) = ("cases".to_owned(), request_id.to_owned(), vec![answer.to_owned()]);
    Call { deed, caller, request_id, answers, ..Call::default() }
}

#[test]
fn sound_evidence_holds_and_what_nobody_serves_is_not_called_held() {
    let report = judge(sound());
    report.require(&SERVED).expect("all of it held");
    assert_eq!(report.verdict("I7"), Some(&Verdict::NotServed));
    let held = report.lines.iter().filter(|line| line.verdict == Verdict::Held).count();
    assert_eq!((report.lines.len(), held), (10, 9), "{report}");
    let text = report.to_string();
    assert!(text.contains("I7  not served") && text.contains("· captures 3"), "{text}");
    assert!(text.contains("· lost 2 · found done 1 · found never 1"), "{text}");

    let bare = judge(Evidence { calls: None, journals: None, probes: None, bounds: None, leaks: None, ..sound() });
    for (id, why) in [
        ("I2", "no client wrote down what it was answered"),
        ("I5", "neither channel nor department keeps a journal here"),
        ("I8", "nobody tried"),
        ("I9", "no process was watched"),
        ("I10", "nobody said where to search for what"),
    ] {
        assert_eq!(bare.verdict(id), Some(&Verdict::NotJudged(why)));
    }
    // What a test runs without is not judged, and the rest still is.
    let without_cases = || Evidence { without_cases: true, cases: Default::default(), calls: None, ..sound() };
    let without_both = Evidence {
        without_payments: true,
        ledger: Default::default(),
        orders: Vec::new(),
        refunds: Vec::new(),
        ..without_cases()
    };
    let (payments, departments) = (judge(without_cases()), judge(without_both));
    for (report, unjudged) in [(&payments, &["I2", "I4", "I6"][..]), (&departments, &["I1", "I2", "I4", "I5", "I6"])] {
        let found: Vec<_> = report.lines.iter().filter(|line| matches!(line.verdict, Verdict::NotJudged(_))).collect();
        assert_eq!(found.iter().map(|line| line.id).collect::<Vec<_>>(), unjudged, "{report}");
        report.require(&[]).expect("nothing broke");
    }
    let mut lost = without_cases();
    lost.orders[0].captured_minor = 0;
    assert_eq!(judge(lost).broken(), ["I5"]);
}

#[test]
fn what_was_required_and_not_judged_has_not_passed() {
    let report = judge(Evidence { bounds: None, ..sound() });
    report.require(&["I1", "I10"]).expect("these held");
    let missing = report.require(&SERVED).expect_err("I9 was not judged").to_string();
    assert!(missing.contains("required and not judged [\"I9\"]"), "{missing}");
    assert!(report.require(&["I7"]).is_err(), "what nobody serves cannot be required");

    let nothing = judge(Evidence {
        calls: Some(Vec::new()),
        probes: Some(Vec::new()),
        bounds: Some(Vec::new()),
        journals: Some(Journals::default()),
        leaks: Some(Searched { texts: 3, bytes: 1_000, ..Searched::default() }),
        ..Evidence::default()
    });
    for id in SERVED {
        let verdict = nothing.verdict(id);
        assert!(matches!(verdict, Some(Verdict::NotJudged(_))), "nothing happened, and {id} is {verdict:?}");
    }

    let mut broken = sound();
    broken.events = Some(10);
    assert!(judge(broken).require(&["I1"]).is_err(), "what broke fails whoever required something else");
}

#[test]
fn every_planted_breach_is_found() {
    type Plant = fn(&mut Evidence);
    let plants: [(&str, &str, Plant); 42] = [
        ("I1", "a problem of the ledger", |it| {
            it.ledger.problems_total = 1;
            it.ledger.problems.push(payments::audit::Problem { subject: "ord_1".into(), what: "x".into() });
        }),
        ("I2", "an acknowledged case is gone", |it| drop(it.cases.facts.remove(0))),
        ("I2", "the second answer of a call is of no case", |it| calls(it)[2].answers[1] = "case_9".into()),
        ("I2", "an order that cases was answered with is gone", |it| drop(it.orders.remove(1))),
        ("I2", "a refund that cases was answered with is gone", |it| drop(it.refunds.remove(0))),
        ("I2", "a refund that cases was answered with is of another order", |it| {
            it.refunds[0].order_id = "ord_1".into();
        }),
        ("I2", "an order that a client was answered with is gone", |it| {
            calls(it).push(own(Deed::Order, "case_7-order", "ord_7"));
        }),
        ("I2", "what the test's own peer acknowledged is gone", |it| calls(it).push(own(Deed::Own, "w-1", "1"))),
        ("I2", "an ended case stands elsewhere", |it| it.cases.facts[2].state = State::Expired),
        ("I3", "two cases of one request", |it| it.cases.facts[1].request_id = "r-1".into()),
        ("I3", "a case paid twice", |it| it.cases.facts[0].payments_received = 2),
        ("I3", "two answers to one request", |it| calls(it)[0].answers.push("case_9".into())),
        ("I3", "two refunds of one request", |it| {
            it.refunds.push(RefundFact { refund_id: "rfd_9".into(), ..refund(2) });
        }),
        ("I3", "the test's own peer did it twice", |it| {
            let effect = Effect { deed: Deed::Own, caller: "wechat".into(), request_id: "w-1".into(), id: "1".into() };
            it.effects = Some(vec![effect.clone(), effect]);
        }),
        ("I3", "two orders of one case", |it| it.orders[1].case_id = "case_1".into()),
        ("I3", "a record posted twice", |it| {
            let mut again = department(it)[0].clone();
            again["order"] = json!("case_9-settle");
            department(it).push(again);
        }),
        ("I3", "an order posted twice", |it| {
            let again = department(it)[0].clone();
            department(it).push(again);
        }),
        ("I4", "a call that nobody resolved", |it| calls(it)[1].found = None),
        ("I4", "found done, and it is not there", |it| calls(it)[1].found = Some(Found::Done("case_9".into()))),
        ("I4", "never happened, and is there", |it| calls(it)[1].found = Some(Found::Never)),
        ("I4", "never happened, and was answered", |it| calls(it)[3].answers.push("case_9".into())),
        ("I4", "an order that its case never learned of", |it| it.cases.facts[0].order_id = None),
        ("I4", "a refund that its case never learned of", |it| it.cases.facts[1].refund_id = None),
        ("I4", "a case without an answer", |it| it.cases.facts[1].state = State::Unknown),
        ("I4", "a silent case", |it| it.cases.silent = 1),
        ("I5", "a lost capture", |it| it.orders[0].captured_minor = 0),
        ("I5", "a doubled capture", |it| {
            let journals = it.journals.as_mut().expect("journals");
            let again = journals.channel[0].clone();
            journals.channel.push(again);
        }),
        ("I5", "an order of a stranger", |it| {
            let journals = it.journals.as_mut().expect("journals");
            journals.channel.push(json!({"event": "order_created", "out_trade_no": "n9"}));
        }),
        ("I5", "money of a stranger", |it| {
            let journals = it.journals.as_mut().expect("journals");
            journals.channel.push(json!({"event": "order_paid", "out_trade_no": "n9", "amount_minor": 5}));
        }),
        ("I5", "an order of a stranger with Alipay", |it| {
            let journals = it.journals.as_mut().expect("journals");
            journals.channel.push(json!({"event": "offered", "out_trade_no": "n9", "amount_minor": 5}));
        }),
        ("I5", "a refund with Alipay that we do not know", |it| {
            let journals = it.journals.as_mut().expect("journals");
            journals.channel.push(json!({"event": "refund_done", "out_trade_no": "n1", "amount_minor": 5}));
        }),
        ("I5", "a combined order of a stranger", |it| {
            let parts = json!([{"out_trade_no": "n8"}, {"out_trade_no": "n9"}]);
            let journals = it.journals.as_mut().expect("journals");
            journals.channel.push(json!({"event": "combine_created", "out_trade_no": "w", "parts": parts}));
        }),
        ("I5", "a part that was paid twice", |it| {
            let parts = json!([{"out_trade_no": "n1", "amount_minor": 20_000}]);
            let journals = it.journals.as_mut().expect("journals");
            journals.channel.push(json!({"event": "combine_paid", "out_trade_no": "w", "parts": parts}));
        }),
        ("I5", "a refund that the ledger lacks", |it| it.orders[1].refunded_minor = 0),
        ("I5", "done without the department", |it| drop(department(it).remove(0))),
        ("I5", "refunded and posted", |it| department(it)[1]["state"] = json!("posted")),
        ("I5", "another serial", |it| it.cases.facts[0].proof_serial = Some("S-9".into())),
        ("I6", "an event that was not applied", |it| it.events = Some(10)),
        ("I6", "a broken history", |it| {
            it.cases.problems_total = 1;
            it.cases.problems.push(("case_1".into(), "x".into()));
        }),
        ("I6", "late money without its case", |it| drop(it.cases.facts.pop())),
        ("I8", "a leak", |it| it.probes.as_mut().expect("probes")[0].leaked = true),
        ("I10", "a canary", |it| it.leaks.as_mut().expect("leaks").found.push("canary 0 is in log".into())),
    ];
    for (id, what, plant) in plants {
        let mut evidence = sound();
        plant(&mut evidence);
        let report = judge(evidence);
        assert!(report.broken().contains(&id), "{what} was not found by {id}:\n{report}");
    }
    let mut grown = sound();
    grown.bounds.as_mut().expect("bounds")[0].seen = 251;
    assert_eq!(judge(grown).broken(), ["I9"]);
}

#[test]
fn a_canary_is_found_in_texts_and_files_and_not_repeated() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), b"\0\x01x-CANARY-7\xff").expect("writes");
    let leaks = Leaks {
        canaries: vec!["CANARY-1".to_owned(), "CANARY-7".to_owned()],
        texts: vec![("log".to_owned(), b"nothing".to_vec()), ("trace".to_owned(), b"has CANARY-1".to_vec())],
        files: vec![file.path().to_owned()],
    };
    let Searched { found, canaries, texts, .. } = leaks.search().expect("reads");
    assert_eq!((found.len(), canaries, texts), (2, 2, 3), "{found:?}");
    assert!(found.iter().all(|line| !line.contains("CANARY-")));
}

/// Where nobody opens cases, those who asked a department themselves are held against its journal.
#[test]
fn whoever_settles_by_himself_knows_what_was_posted() {
    let told = |serial: &str| {
        let settled = Call { caller: "traffic/430100".to_owned(), ..own(Deed::Settlement, "case_1-settle", serial) };
        let (journals, calls) = (sound().journals, Some(vec![settled]));
        judge(Evidence { without_cases: true, without_payments: true, journals, calls, ..Evidence::default() })
    };
    told("S-1").require(&["I2", "I3", "I5"]).expect("told as it was posted");
    assert_eq!(told("S-9").broken(), ["I2", "I5"]);
}

#[tokio::test]
async fn calls_without_books_are_an_error() {
    let mut world = World::at(Timestamp::default());
    world.calls = Some(vec![own(Deed::Order, "r-1", "ord_1")]);
    let error = check_all(&world).await.expect_err("there is no ledger").to_string();
    assert!(error.contains("no books tell of Order r-1"), "{error}");
}

/// Who asks learns that it was done, or that it never happened; a peer that stays away is an answer of neither.
#[tokio::test(start_paused = true)]
async fn an_inquiry_ends_with_one_of_two_answers_or_in_time() {
    let clock = Clock::simulated(Timestamp::default());
    #[expect(clippy::disallowed_methods, reason = "a peer's answer is played")]
    let fault = |code| rpc::RemoteFault::from(tonic::Status::new(code, ""));
    let tries = std::cell::Cell::new(0);
    let later = inquire(&clock, async || {
        tries.set(tries.get() + 1);
        if tries.get() < 4 { Err(fault(tonic::Code::Unavailable)) } else { Ok("case_1".to_owned()) }
    });
    assert_eq!(later.await, Some(Found::Done("case_1".to_owned())));
    let never = inquire(&clock, async || Err(fault(tonic::Code::NotFound)));
    assert_eq!(never.await, Some(Found::Never));
    let began = clock.now();
    assert_eq!(inquire(&clock, async || Err(fault(tonic::Code::Unavailable))).await, None);
    assert!(clock.now().since(began) >= RESOLVED_WITHIN);
}
