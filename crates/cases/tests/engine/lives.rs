//! Every way through a case, led by a citizen, on every store.

use std::sync::Arc;

use contracts::cases::v1::CaseState::{Cancelled, Done, Expired, Refunded, Rejected};

use crate::bench::{Bench, Kept};
use crate::fakes::Play::{
    Answer, Creating, Garble, Hang, LoseAnswer, LoseRequest, Pending, RefundFails, RefundSlow, Refuse, Reject, Short,
    StillOpen,
};
use crate::judge::judge;
use crate::life::{Citizen, Life, Lived};

/// All ways. Together they pass every crash point.
pub(crate) fn all() -> Vec<Life> {
    // Longer than any test: an inquiry that never says anything.
    const NEVER: &[crate::fakes::Play] = &[Garble; 400];
    vec![
        Life::new("paid", &[Done]),
        Life::new("paid where nothing is recognised", &[Done, Refunded]).in_taiyuan(),
        Life::new("the callback is lost", &[Done]).citizen(Citizen::PaysUnheard),
        Life::new("the lock is refused", &[Rejected]).plan("lock", &[Reject("RECORD_CHANGED")]),
        Life::new("the lock's answer is lost", &[Done]).plan("lock", &[LoseAnswer, Garble, Refuse]),
        Life::new("the lock hangs", &[Done, Rejected]).plan("lock", &[Hang]),
        Life::new("the order's answer is lost", &[Done]).plan("create", &[LoseAnswer]),
        Life::new("the order is lost", &[Done]).plan("create", &[LoseRequest, Refuse, Creating]),
        Life::new("the order is refused", &[Rejected]).plan("create", &[Reject("PAYEE_UNKNOWN")]),
        Life::new("never paid", &[Expired])
            .citizen(Citizen::Sleeps)
            .plan("create", &[Short])
            .plan("close", &[StillOpen, LoseAnswer]),
        Life::new("cancelled", &[Cancelled])
            .citizen(Citizen::Cancels)
            .plan("close", &[LoseRequest, StillOpen])
            .plan("release", &[LoseAnswer, Refuse]),
        Life::new("late money", &[Cancelled]).citizen(Citizen::PaysLate).plan("refund", &[LoseAnswer]),
        Life::new("the department refuses", &[Refunded])
            .plan("settle", &[Reject("ACCOUNT_CLOSED")])
            .plan("refund", &[RefundSlow])
            .plan("get_refund", &[Refuse]),
        Life::new("the refund's answer is lost", &[Refunded])
            .plan("settle", &[Reject("ACCOUNT_CLOSED")])
            .plan("refund", &[LoseRequest, LoseAnswer]),
        Life::new("the answer is lost, the deed is done", &[Done]).plan("settle", &[LoseAnswer]),
        // Refunded where a kill comes before the settlement has left: then it never happened.
        Life::new("the same where nothing is recognised", &[Done, Refunded]).in_taiyuan().plan("settle", &[LoseAnswer]),
        Life::new("nothing arrived, sent again", &[Done]).plan("settle", &[LoseRequest]).plan("inquire", &[Garble]),
        Life::new("nothing arrived, not sent again", &[Refunded]).in_taiyuan().plan("settle", &[LoseRequest]),
        Life::new("the department is slow to decide", &[Done]).plan("settle", &[Pending]),
        Life::new("the department hangs", &[Done]).plan("settle", &[Hang]),
        Life::new("the answer cannot be read", &[Done]).plan("settle", &[Garble]).plan("inquire", &[Refuse]),
        Life::new("the department is closed for a while", &[Done]).plan("settle", &[Refuse, Refuse, Refuse]),
        Life::new("the ledger's answer is lost", &[Done]).plan("post", &[LoseAnswer, Refuse, LoseRequest]),
        Life::new("a clerk finds the serial", &[Done, Refunded])
            .in_taiyuan()
            .plan("settle", &[LoseAnswer])
            .plan("inquire", NEVER)
            .with_clerks(),
        Life::new("a clerk sends the money back", &[Refunded])
            .plan("settle", &[LoseRequest])
            .plan("inquire", NEVER)
            .with_clerks(),
        Life::new("the refund fails once", &[Refunded])
            .plan("settle", &[Reject("ACCOUNT_CLOSED")])
            .plan("refund", &[RefundFails, Answer])
            .with_clerks(),
    ]
}

/// The amount of each way: its own, so that scripts and truth can be told apart.
pub(crate) fn amount(index: usize) -> i64 {
    20_000 + i64::try_from(index).expect("few")
}

pub(crate) async fn live_all(bench: &Arc<Bench>) -> Vec<Lived> {
    let lives = all().into_iter().enumerate().map(|(index, life)| life.live(bench.clone(), amount(index)));
    futures::future::join_all(lives).await
}

/// What runs in real time runs alone: beside another it would only wait longer.
pub(crate) static REAL_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn every_way_ends_rightly(kept: Kept) {
    let bench = Arc::new(Bench::new(kept).await);
    let lived = live_all(&bench).await;
    judge(&bench, &lived).await;
    assert!(bench.metrics().contains("lastmile_cases_moves_total"), "moves are counted");
    for one in &lived {
        assert_eq!(Some(&one.case.state()), one.life.ends.first(), "{}: {:?}", one.life.name, one.reasons());
    }
    let paid = lived.first().expect("lives").reasons().join(" ");
    assert_eq!(paid, "CASE_OPENED LOCKING BILL_HELD ORDER_CREATED PAYMENT_RECEIVED DEPARTMENT_DONE POSTED");
    bench.stop().await;
    let hits = bench.hits();
    let missed: Vec<_> = cases::CRASH_POINTS.iter().filter(|point| !hits.contains_key(**point)).collect();
    assert!(missed.is_empty(), "crash points that no way passes: {missed:?}");
    let unknown: Vec<_> = hits.keys().filter(|point| !cases::CRASH_POINTS.contains(point)).collect();
    assert!(unknown.is_empty(), "crash points that the list does not name: {unknown:?}");
}

#[tokio::test(start_paused = true)]
async fn every_way_ends_rightly_on_the_simulated_store() {
    every_way_ends_rightly(Kept::Simulated).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_ends_rightly_on_sqlite() {
    let _alone = REAL_TIME.lock().await;
    every_way_ends_rightly(Kept::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_ends_rightly_on_postgres() {
    let _alone = REAL_TIME.lock().await;
    every_way_ends_rightly(Kept::Postgres).await;
}
