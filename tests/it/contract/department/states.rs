//! Records in every state that a department knows, and what may be done with them.

use std::time::Duration;

use contracts::common::v1::Outcome;
use contracts::department::v1::BillState;
use rpc::Role;

use super::rig::{Citizen, REGIONS, Rig, list, magic, query, text};

async fn refusal(rig: &Rig, region: &str, person: &Citizen, key: &str) -> String {
    let bill = rig.bill(region, person).await;
    let locked = rig.lock(region, person, &bill, key).await.expect("answers");
    assert_eq!(locked.outcome(), Outcome::Rejected);
    locked.rejection.expect("refused").code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_paid_is_not_held() {
    let rig = Rig::new().await;
    for region in REGIONS {
        for (fault, state, code) in [
            (1, BillState::Unconfirmed, "RECORD_UNCONFIRMED"),
            (2, BillState::Disputed, "RECORD_DISPUTED"),
            (9, BillState::Payable, "BILL_HELD"),
        ] {
            let person = magic(0, fault, 0);
            assert_eq!(rig.bill(region, &person).await.state(), state, "{region} {fault}");
            assert_eq!(refusal(&rig, region, &person, &format!("state-{fault}")).await, code, "{region}");
        }
        // Paid and handled: no bill, and the record says so. No record at all: nothing, and no error.
        for (fault, states) in [(3, vec!["HANDLED"]), (10, vec![])] {
            let person = magic(0, fault, 0);
            let request = rig.envelope(query(region, &[]), &person, &rig.by_gateway(region));
            let answer = rig.client(region, Role::Gateway).query(request).await.expect("answers").into_inner();
            let result = answer.result.expect("a result");
            let found: Vec<_> =
                list(&result, "violations").iter().map(|record| text(record, "state").to_owned()).collect();
            assert_eq!(found, states, "{region} {fault}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fine_that_rises_after_it_was_read_is_told() {
    let rig = Rig::new().await;
    for region in REGIONS {
        let person = magic(0, 4, 0);
        let read = rig.bill(region, &person).await;
        let locked = rig.lock(region, &person, &read, "risen").await.expect("answers");
        assert_eq!(
            (locked.outcome(), locked.rejection.expect("refused").code.as_str()),
            (Outcome::Rejected, "RECORD_CHANGED")
        );
        let now = locked.bill.expect("the bill as it is now");
        let minor =
            |bill: &contracts::department::v1::Bill| bill.amount.as_ref().map_or(0, |amount| amount.amount_minor);
        assert_eq!(minor(&now), minor(&read) + 5_000);
        // With what is true now it goes through, and nothing was left held by the first try.
        let locked = rig.lock(region, &person, &now, "risen-2").await.expect("answers");
        assert_eq!(locked.outcome(), Outcome::Done, "{:?}", locked.rejection);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_given_back_and_can_be_had_again() {
    let rig = Rig::new().await;
    for region in REGIONS {
        let person = magic(0, 0, 1);
        let bill = rig.locked_bill(region, &person, "first").await;
        let other = rig.lock(region, &person, &bill, "second").await.expect("answers");
        assert_eq!(other.rejection.expect("refused").code, "BILL_HELD", "another key");
        for _ in 0..2 {
            assert_eq!(rig.release(region, &person, &bill, "first").await.expect("answers").outcome(), Outcome::Done);
        }
        assert_eq!(rig.lock(region, &person, &bill, "second").await.expect("answers").outcome(), Outcome::Done);
    }
}

/// Posted later, refused later, points later, never: PENDING until it is decided, and then what it was decided to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_decided_later_is_pending_until_then() {
    let rig = Rig::new().await;
    let cases = REGIONS.into_iter().flat_map(|region| [(region, 6), (region, 7), (region, 8)]);
    let play = |(region, fault): (&'static str, u32)| {
        let rig = &rig;
        async move {
            let (person, key) = (magic(0, fault, 0), format!("later-{fault}"));
            let bill = rig.locked_bill(region, &person, &key).await;
            let sent = rig.context.clock.now();
            let settled = rig.settle(region, &person, &bill, &key).await.expect("answers");
            assert_eq!((settled.outcome(), settled.proof), (Outcome::Pending, None), "{region} {fault}");
            let decided = rig.decided(region, &person, &bill, &key, sent).await;
            match fault {
                7 => {
                    assert_eq!(decided.outcome(), Outcome::Rejected, "{region}");
                    assert_eq!(decided.rejection.expect("refused").code, "REFUSED", "{region}");
                }
                _ => assert!(decided.outcome() == Outcome::Done && decided.proof.is_some(), "{region} {fault}"),
            }
        }
    };
    futures::future::join_all(cases.map(play)).await;
    rig.assert_held().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_definitive_and_has_the_departments_words() {
    let rig = Rig::new().await;
    for region in REGIONS {
        let person = magic(0, 5, 0);
        let bill = rig.locked_bill(region, &person, "refused").await;
        let sent = rig.context.clock.now();
        for _ in 0..2 {
            let settled = rig.settle(region, &person, &bill, "refused").await.expect("answers");
            let rejection = settled.rejection.expect("refused");
            assert_eq!((rejection.code.as_str(), settled.proof), ("REFUSED", None), "{region}");
            assert!(!rejection.department_code.is_empty() && !rejection.department_text.contains(&person.number));
        }
        let decided = rig.decided(region, &person, &bill, "refused", sent).await;
        assert_eq!(
            (decided.outcome(), decided.rejection.expect("refused").code.as_str()),
            (Outcome::Rejected, "REFUSED")
        );
    }
}

/// "Not found" is definitive only after the quiet period; before it, nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_found_counts_only_after_the_quiet_period() {
    let rig = Rig::new().await;
    for region in REGIONS {
        let person = magic(0, 0, 2);
        let bill = rig.locked_bill(region, &person, "never").await;
        let now = rig.context.clock.now();
        let early = rig.inquire(region, &person, &bill, "never", now).await.expect("answers");
        assert_eq!((early.outcome(), early.rejection), (Outcome::Unknown, None), "{region}");
        let long_ago = now.minus(Duration::from_secs(11));
        let late = rig.inquire(region, &person, &bill, "never", long_ago).await.expect("answers");
        assert_eq!(late.outcome(), Outcome::Rejected, "{region}");
        assert_eq!(late.rejection.expect("refused").code, "NEVER_HAPPENED", "{region}");
    }
}

/// A payment that stays in process for ever stays PENDING: never done, never failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_ends_is_never_called_done() {
    let rig = Rig::new().await;
    for region in REGIONS {
        let person = magic(0, 12, 0);
        let bill = rig.locked_bill(region, &person, "for-ever").await;
        let sent = rig.context.clock.now().minus(Duration::from_secs(60));
        assert_eq!(rig.settle(region, &person, &bill, "for-ever").await.expect("answers").outcome(), Outcome::Pending);
        for _ in 0..3 {
            let asked = rig.inquire(region, &person, &bill, "for-ever", sent).await.expect("answers");
            assert_eq!((asked.outcome(), asked.proof, asked.rejection), (Outcome::Pending, None, None), "{region}");
        }
    }
}
