//! What must be true when all cases of a bench have ended, whoever died on the way.

use contracts::cases::v1::CaseState;
use contracts::payments::v1::OrderState;
use futures::StreamExt;
use invariants::{Call, Journals, Leaks, World, check_all};
use std::time::Duration;

use crate::bench::Bench;
use crate::citizens::{PAYER, PLATE, Who};
use crate::fakes::department::payment_code;
use crate::life::{Citizen, Lived};

/// Compares every case with what the department and the channel know, and the census with both.
pub(crate) async fn judge(bench: &Bench, lived: &[Lived]) {
    for one in lived {
        case(bench, one);
    }
    let late = lived.iter().filter(|one| one.life.citizen == Citizen::PaysLate).count();
    let census = bench.census().await;
    let accepted = i64::try_from(lived.len() + late).expect("few");
    assert_eq!((census.accepted, census.terminal, census.silent()), (accepted, accepted, 0), "{census:?}");
    assert_eq!(bench.changsha.strangers(), Vec::<String>::new(), "every call brought assertion and grant");
    assert_eq!(bench.taiyuan.strangers(), Vec::<String>::new());
    assert!(bench.changsha.inputs().iter().all(|plate| plate == PLATE), "the input arrives as it came");
    assert!(bench.payments.payers().iter().all(|payer| payer == PAYER), "and so does the payer");
    every_invariant_holds(bench, lived).await;
    stream_is_whole(bench, lived).await;
}

fn case(bench: &Bench, lived: &Lived) {
    let (name, amount, state) = (lived.life.name, lived.amount, lived.case.state());
    assert!(lived.life.ends.contains(&state), "{name} ended {state:?}: {:?}", lived.reasons());
    let (booked, order) = (bench.department(lived.life.region).booked(amount), bench.payments.state(amount));
    let refunded = bench.payments.refunded(amount);
    assert!(bench.payments.orders(amount) <= 1, "{name}: one order");
    match state {
        CaseState::Done => {
            assert_eq!((booked, order, refunded), (1, Some(OrderState::Posted), 0), "{name}: done once, posted once");
            assert!(lived.case.proof.as_ref().is_some_and(|proof| !proof.department_serial.is_empty()), "{name}");
            assert_eq!(
                bench.payments.payment_code(amount),
                Some(payment_code(amount)),
                "{name}: the department's code"
            );
        }
        CaseState::Refunded => {
            assert_eq!((booked, order), (0, Some(OrderState::Refunded)), "{name}: the money went back");
            assert_eq!(refunded, amount, "{name}: once and whole");
        }
        CaseState::Rejected | CaseState::Expired | CaseState::Cancelled => {
            assert_eq!(booked, 0, "{name}: nothing was booked");
            let late = lived.life.citizen == Citizen::PaysLate;
            let expected = if late { [Some(OrderState::Refunded); 2] } else { [None, Some(OrderState::Closed)] };
            assert!(expected.contains(&order), "{name}: {order:?}");
            assert_eq!(refunded, if late { amount } else { 0 }, "{name}: nothing is kept");
        }
        other => panic!("{name} stands at {other:?}"),
    }
    for (event, sequence) in lived.history.iter().zip(1_i64..) {
        assert_eq!(event.sequence, sequence, "{name}: the history has no gaps");
    }
    for pair in lived.history.windows(2) {
        if let [before, after] = pair {
            assert_eq!(before.to_state, after.from_state, "{name}: the history is a chain");
        }
    }
}

/// The stream of the entry point has every line of every case once, numbered without gaps.
async fn stream_is_whole(bench: &Bench, lived: &[Lived]) {
    let mut client = bench.client();
    let asked = bench.request(&Who::EntryPoint, contracts::cases::v1::WatchCasesRequest::default()).await;
    let mut stream = client.watch_cases(asked).await.expect("streams").into_inner();
    let mut told = Vec::new();
    while let Ok(Some(Ok(line))) = bench.clock.timeout(Duration::from_millis(500), stream.next()).await {
        told.push(line);
    }
    let sequences: Vec<_> = told.iter().map(|line| line.sequence).collect();
    let all = i64::try_from(told.len()).expect("few");
    assert_eq!(sequences, (1..=all).collect::<Vec<_>>(), "from 1, without gaps");
    for one in lived {
        let lines: Vec<_> = told.iter().filter(|line| line.case_id == one.case.case_id).collect();
        let events: Vec<_> = lines.iter().filter_map(|line| line.event.clone()).collect();
        assert_eq!(events.get(..one.history.len()), Some(one.history.as_slice()), "{}: the same lines", one.life.name);
    }
}

/// What cases, the department and the citizens have, compared as everywhere. The fakes' books are told as journals are; payments is a
/// fake that keeps no ledger, nobody is a stranger here, and the processes are one.
async fn every_invariant_holds(bench: &Bench, lived: &[Lived]) {
    let departments = [&bench.changsha, &bench.taiyuan].map(|it| (it.profile.to_owned(), it.journal()));
    let mut calls = Vec::new();
    for one in lived {
        let found = match one.lost {
            0 => None,
            _ => bench.found(&Who::Citizen("li"), &one.request_id()).await,
        };
        calls.push(Call {
            caller: "wechat".to_owned(),
            request_id: one.request_id(),
            answers: vec![one.case.case_id.clone(); 2],
            ended_as: Some(one.case.state().as_str_name().trim_start_matches("CASE_STATE_").to_owned()),
            lost: one.lost,
            found,
            ..Call::default()
        });
    }
    let world = World {
        cases: Some(bench.db()),
        told: Some(bench.payments.told()),
        journals: Some(Journals { departments: departments.into(), ..Journals::default() }),
        calls: Some(calls),
        leaks: Some(Leaks {
            canaries: vec![PLATE.to_owned(), PAYER.to_owned()],
            texts: vec![("metrics".to_owned(), bench.metrics().into_bytes()), ("cases".to_owned(), texts(bench).await)],
            files: Vec::new(),
        }),
        ..World::at(bench.clock.now())
    };
    let report = check_all(&world).await.expect("reads");
    report.require(&["I2", "I3", "I4", "I5", "I6", "I10"]).expect("everybody's books agree");
    assert_eq!(report.evidence.cases.open, 0);
}

/// Every text that is kept of cases and of their history; what was sealed is gone with the end of the case.
async fn texts(bench: &Bench) -> Vec<u8> {
    const KEPT: [(&str, &[&str]); 2] = [
        (
            "SELECT case_id, owner, request_id, bill_no, title, COALESCE(rejection_department_text, '') AS said FROM cases",
            &["owner", "request_id", "bill_no", "title", "said"],
        ),
        ("SELECT note, evidence FROM case_events", &["note", "evidence"]),
    ];
    let db = bench.db();
    let mut reader = db.read().await.expect("reads");
    let sealed = "SELECT case_id FROM cases WHERE input_sealed IS NOT NULL OR payer_sealed IS NOT NULL OR case_grant IS NOT NULL";
    assert!(reader.fetch_all(sealed, &[]).await.expect("reads").is_empty(), "ended cases keep nothing sealed");
    let mut texts = String::new();
    for (sql, columns) in KEPT {
        for row in reader.fetch_all(sql, &[]).await.expect("reads") {
            for column in columns {
                texts += &row.get::<String>(column).expect("a text");
                texts.push('\n');
            }
        }
    }
    texts.into_bytes()
}
