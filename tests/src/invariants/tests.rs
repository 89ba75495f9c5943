//! The judge is judged: sound evidence holds, and every planted breach is found by the invariant that it breaks.

use cases::audit::Fact;
use cases::domain::State;
use serde_json::json;

use super::*;

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
        settle_key: format!("case_{number}-settle"),
        proof_serial: (state == State::Done).then(|| format!("S-{number}")),
        payments_received: u32::from(matches!(state, State::Done | State::Refunded)),
        clerk_decided: false,
    }
}

fn order(number: u32, captured_minor: i64, refunded_minor: i64, posted_minor: i64) -> OrderFact {
    OrderFact {
        order_id: format!("ord_{number}"),
        case_id: format!("case_{number}"),
        channel_order_no: format!("n{number}"),
        state: String::new(),
        is_late: false,
        captured_minor,
        refunded_minor,
        posted_minor,
    }
}

/// One case done, one refunded, one cancelled with late money that went back.
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
    let mut channel = vec![paid(1), paid(2), paid(3)];
    channel.extend(back(2));
    channel.extend(back(3));
    let posted = json!({"event": "payment", "order": "case_1-settle", "record": "R1", "serial": "S-1",
        "amount_minor": 20_000, "state": "posted"});
    let refused = json!({"event": "payment", "order": "case_2-settle", "record": "R2", "serial": "S-2",
        "amount_minor": 20_000, "state": "refused"});
    let call = |number: u32, ended_as: &str| Call {
        entry_point: "wechat".to_owned(),
        request_id: format!("r-{number}"),
        answers: vec![format!("case_{number}"); 2],
        ended_as: Some(ended_as.to_owned()),
        unresolved: false,
    };
    Evidence {
        orders: vec![order(1, 20_000, 0, 20_000), order(2, 20_000, 20_000, 0), late_order],
        events: 9,
        cases: cases::audit::Report { facts, cursor: 9, ..Default::default() },
        journals: Some(Journals {
            channel,
            departments: [("traffic/430100".to_owned(), vec![posted, refused])].into(),
        }),
        calls: Some(vec![call(1, "DONE"), call(2, "REFUNDED"), call(3, "CANCELLED")]),
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

#[test]
fn sound_evidence_holds_and_what_nobody_serves_is_not_called_held() {
    let report = judge(&sound());
    report.require(&SERVED).expect("all of it held");
    assert_eq!(report.verdict("I7"), Some(&Verdict::NotServed));
    let held = report.lines.iter().filter(|line| line.verdict == Verdict::Held).count();
    assert_eq!((report.lines.len(), held), (10, 9), "{report}");
    let text = report.to_string();
    assert!(text.contains("I7  not served") && text.contains("· captures 3"), "{text}");

    let bare = judge(&Evidence { calls: None, journals: None, probes: None, bounds: None, leaks: None, ..sound() });
    for id in ["I2", "I5", "I8", "I9", "I10"] {
        assert_eq!(bare.verdict(id), Some(&Verdict::NotJudged), "{id}");
    }
    // What a test runs without is not judged, and the rest still is.
    let payments = judge(&Evidence { without_cases: true, ..sound() });
    let departments = judge(&Evidence { without_cases: true, without_payments: true, ..sound() });
    for (report, unjudged) in [(&payments, &["I2", "I4", "I6"][..]), (&departments, &["I1", "I2", "I4", "I5", "I6"])] {
        let found: Vec<_> = report.lines.iter().filter(|line| line.verdict == Verdict::NotJudged).collect();
        assert_eq!(found.iter().map(|line| line.id).collect::<Vec<_>>(), unjudged, "{report}");
        report.require(&[]).expect("nothing broke");
    }
    let mut lost = Evidence { without_cases: true, ..sound() };
    lost.orders[0].captured_minor = 0;
    assert_eq!(judge(&lost).broken(), ["I5"]);
}

#[test]
fn what_was_required_and_not_judged_has_not_passed() {
    let report = judge(&Evidence { bounds: None, ..sound() });
    report.require(&["I1", "I10"]).expect("these held");
    let missing = report.require(&SERVED).expect_err("I9 was not judged").to_string();
    assert!(missing.contains("required and not judged [\"I9\"]"), "{missing}");
    assert!(report.require(&["I7"]).is_err(), "what nobody serves cannot be required");

    let nothing = judge(&Evidence {
        calls: Some(Vec::new()),
        probes: Some(Vec::new()),
        bounds: Some(Vec::new()),
        journals: Some(Journals::default()),
        leaks: Some(Searched { texts: 3, bytes: 1_000, ..Searched::default() }),
        ..Evidence::default()
    });
    for id in SERVED {
        assert_eq!(nothing.verdict(id), Some(&Verdict::NotJudged), "nothing happened, and {id} is not judged of it");
    }

    let mut broken = sound();
    broken.events = 10;
    assert!(judge(&broken).require(&["I1"]).is_err(), "what broke fails whoever required something else");
}

#[test]
fn every_planted_breach_is_found() {
    type Plant = fn(&mut Evidence);
    let plants: [(&str, &str, Plant); 24] = [
        ("I1", "a problem of the ledger", |it| {
            it.ledger.problems_total = 1;
            it.ledger.problems.push(payments::audit::Problem { subject: "ord_1".into(), what: "x".into() });
        }),
        ("I2", "an acknowledged case is gone", |it| drop(it.cases.facts.remove(0))),
        ("I2", "an ended case stands elsewhere", |it| it.cases.facts[2].state = State::Expired),
        ("I3", "two cases of one request", |it| it.cases.facts[1].request_id = "r-1".into()),
        ("I3", "a case paid twice", |it| it.cases.facts[0].payments_received = 2),
        ("I3", "two answers to one request", |it| {
            it.calls.as_mut().expect("calls")[0].answers.push("case_9".into());
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
        ("I4", "a call that nobody resolved", |it| it.calls.as_mut().expect("calls")[0].unresolved = true),
        ("I4", "a case without an answer", |it| it.cases.facts[1].state = State::Unknown),
        ("I4", "a silent case", |it| it.cases.silent = 1),
        ("I5", "a lost capture", |it| it.orders[0].captured_minor = 0),
        ("I5", "a doubled capture", |it| {
            let journals = it.journals.as_mut().expect("journals");
            let again = journals.channel[0].clone();
            journals.channel.push(again);
        }),
        ("I5", "money of a stranger", |it| {
            let journals = it.journals.as_mut().expect("journals");
            journals.channel.push(json!({"event": "order_paid", "out_trade_no": "n9", "amount_minor": 5}));
        }),
        ("I5", "a refund that the ledger lacks", |it| it.orders[1].refunded_minor = 0),
        ("I5", "done without the department", |it| drop(department(it).remove(0))),
        ("I5", "refunded and posted", |it| department(it)[1]["state"] = json!("posted")),
        ("I5", "another serial", |it| it.cases.facts[0].proof_serial = Some("S-9".into())),
        ("I6", "an event that was not applied", |it| it.events = 10),
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
        let report = judge(&evidence);
        assert!(report.broken().contains(&id), "{what} was not found by {id}:\n{report}");
    }
    let mut grown = sound();
    grown.bounds.as_mut().expect("bounds")[0].seen = 251;
    assert_eq!(judge(&grown).broken(), ["I9"]);
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
