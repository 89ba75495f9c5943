//! Every fault that a department can stage, on every call that changes something, in both cities. Reads are in `reads.rs`.
//!
//! A change that brought no readable answer is UNKNOWN, and the inquiry afterwards finds what the department's own books say: done, or
//! never happened.

use std::time::Duration;

use contracts::common::v1::Outcome;
use futures::future::join_all;
use rpc::{Effect, RemoteFault};

use super::rig::{REGIONS, Rig, magic};

/// The faults by the two digits of their magic plate, and whether the department did what it was asked.
pub(super) const FAULTS: [(u32, &str, bool); 16] = [
    (1, "error_after", true),
    (2, "error_before", false),
    (3, "busy", false),
    (4, "closed", false),
    (5, "slow", true),
    (6, "late", true),
    (7, "hang", true),
    (8, "drop_after", true),
    (9, "drop_before", false),
    (10, "garble_value", true),
    (11, "garble_cut", true),
    (12, "garble_unmappable", true),
    (13, "garble_doctype", true),
    (14, "too_long", true),
    (15, "duplicate", true),
    (16, "fault", true),
];

pub(super) type Case = (&'static str, u32, &'static str, bool);

/// Plays every fault in every city, all at once; the two that make the sandbox write megabytes afterwards, out of the others' way.
pub(super) async fn each<F: Future<Output = ()>>(play: impl Fn(Case) -> F) {
    let cases = REGIONS.into_iter().flat_map(|region| FAULTS.map(|(fault, name, done)| (region, fault, name, done)));
    let (heavy, light): (Vec<_>, Vec<_>) = cases.partition(|(_, _, name, _)| *name == "too_long");
    join_all(light.into_iter().map(&play)).await;
    join_all(heavy.into_iter().map(&play)).await;
}

fn fault_of<T>(answer: Result<T, tonic::Status>) -> Option<RemoteFault> {
    answer.err().map(|status| RemoteFault::from(&status))
}

/// The headline: whatever happens to a payment's reply, it ends as what the department's books say, and is never called otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_ends_as_the_department_has_it() {
    let rig = Rig::new().await;
    let play = |(region, fault, name, done): Case| {
        let rig = &rig;
        async move {
            let (person, key) = (magic(5, fault, 0), format!("pay-{name}"));
            let bill = rig.locked_bill(region, &person, &key).await;
            let sent = rig.context.clock.now();
            let settled = rig.settle(region, &person, &bill, &key).await;
            match settled {
                Ok(settled) => {
                    let is_answer = name == "duplicate" && region == "140100";
                    let expected = if is_answer { Outcome::Done } else { Outcome::Unknown };
                    assert_eq!(settled.outcome(), expected, "{region} {name}: {:?}", settled.rejection);
                    assert_eq!(settled.proof.is_some(), is_answer, "{region} {name}");
                }
                Err(status) => {
                    let fault = RemoteFault::from(&status);
                    assert!(["busy", "closed"].contains(&name), "{region} {name}: {}", fault.reason());
                    assert_eq!(
                        fault.effect(),
                        Effect::None,
                        "{region} {name}: the department says that nothing happened"
                    );
                }
            }
            // The truth, once there is one; the quiet period has passed for what never came.
            let sent = if done { sent } else { sent.minus(Duration::from_secs(11)) };
            let decided = rig.decided(region, &person, &bill, &key, sent).await;
            let expected = if done { Outcome::Done } else { Outcome::Rejected };
            assert_eq!(decided.outcome(), expected, "{region} {name}: {:?}", decided.rejection);
            assert_eq!(decided.proof.is_some(), done, "{region} {name}");
            if !done {
                assert_eq!(decided.rejection.expect("refused").code, "NEVER_HAPPENED", "{region} {name}");
            }
        }
    };
    each(play).await;
    rig.assert_held().await;
}

/// A lock that brought no readable answer is UNKNOWN; its key brings the same hold, and the payment goes through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_without_an_answer_is_asked_again_by_its_key() {
    let rig = Rig::new().await;
    let play = |(region, fault, name, _): Case| {
        let rig = &rig;
        async move {
            // Copy 5 misbehaves on the first call only.
            let (person, key) = (magic(3, fault, 5), format!("lock-{name}"));
            let bill = rig.bill(region, &person).await;
            let first = rig.lock(region, &person, &bill, &key).await;
            let is_answer = name == "duplicate" && region == "140100";
            match first {
                Ok(locked) if is_answer => assert_eq!(locked.outcome(), Outcome::Done, "{name}"),
                Ok(locked) => assert_eq!((locked.outcome(), locked.bill), (Outcome::Unknown, None), "{region} {name}"),
                Err(status) => {
                    let fault = RemoteFault::from(&status);
                    assert_eq!(fault.effect(), Effect::None, "{region} {name}: {}", fault.reason());
                }
            }
            let again = locked_at_last(rig, region, &person, &bill, &key).await;
            assert_eq!(again, Outcome::Done, "{region} {name}");
            let settled = rig.settle(region, &person, &bill, &key).await.expect("settles");
            assert_eq!(settled.outcome(), Outcome::Done, "{region} {name}: {:?}", settled.rejection);
        }
    };
    each(play).await;
    rig.assert_held().await;
}

/// "Late" is done only after five seconds: until then somebody else's call is in the way.
async fn locked_at_last(
    rig: &Rig,
    region: &str,
    person: &super::rig::Citizen,
    bill: &contracts::department::v1::Bill,
    key: &str,
) -> Outcome {
    let trying = async {
        loop {
            if let Ok(locked) = rig.lock(region, person, bill, key).await
                && locked.outcome() == Outcome::Done
            {
                return Outcome::Done;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), trying).await.unwrap_or(Outcome::Unknown)
}

/// The inquiry itself may fail: it is an error or UNKNOWN, and the next one tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inquiry_without_an_answer_decides_nothing() {
    let rig = Rig::new().await;
    let play = |(region, fault, name, _): Case| {
        let rig = &rig;
        async move {
            let (person, key) = (magic(6, fault, 5), format!("ask-{name}"));
            let bill = rig.locked_bill(region, &person, &key).await;
            let sent = rig.context.clock.now();
            assert_eq!(rig.settle(region, &person, &bill, &key).await.expect("settles").outcome(), Outcome::Done);
            if let Ok(asked) = rig.inquire(region, &person, &bill, &key, sent).await {
                let is_answer = name == "duplicate" && region == "140100";
                let expected = if is_answer { Outcome::Done } else { Outcome::Unknown };
                assert_eq!(asked.outcome(), expected, "{region} {name}");
            }
            let decided = rig.decided(region, &person, &bill, &key, sent).await;
            assert_eq!(decided.outcome(), Outcome::Done, "{region} {name}");
        }
    };
    each(play).await;
    rig.assert_held().await;
}

/// A department that is gone: nothing was sent, and the error says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_department_that_is_gone_did_nothing() {
    let rig = Rig::new().await;
    let people: Vec<_> = REGIONS.into_iter().map(|region| (region, magic(0, 0, 3))).collect();
    let mut held = Vec::new();
    for (region, person) in &people {
        held.push(rig.locked_bill(region, person, "gone").await);
    }
    rig.stop_sandbox().await;
    for ((region, person), bill) in people.iter().zip(&held) {
        let fault = fault_of(rig.settle(region, person, bill, "gone").await).expect("an error");
        assert_eq!((fault.reason(), fault.effect()), ("DEPARTMENT_UNREACHABLE", Effect::None), "{region}");
    }
    rig.assert_held().await;
}
