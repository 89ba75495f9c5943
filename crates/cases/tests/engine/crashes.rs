//! Every way through a case, while cases is killed at every crash point: one life after the other, until all cases have ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::crash::Plan;

use crate::bench::{Bench, Kept};
use crate::fakes::locked;
use crate::judge::judge;
use crate::lives::{REAL_TIME, all, amount, live_all};

/// The points still to die at, each with the passing at which it kills.
type Deaths = Arc<Mutex<VecDeque<(&'static str, u32)>>>;

/// Runs all ways at once. Each life of cases dies at the next point of the queue; a point that is not reached any more stays in it.
/// Returns how many lives were lost.
async fn run(kept: Kept, seed: u64, deaths: &Deaths) -> usize {
    let bench = Arc::new(Bench::with(kept, seed, |_| {}).await);
    let armed = || locked(deaths).front().map(|(point, hit)| Plan { point: (*point).to_owned(), hit: *hit });
    let before = locked(deaths).len();
    bench.restart(armed()).await;
    let over = runtime::watch::Sender::new(false);
    let mut is_over = over.subscribe();
    let keeping = async {
        loop {
            tokio::select! {
                biased;
                _ = is_over.changed() => return,
                () = bench.clock.sleep(Duration::from_millis(15)) => {}
            }
            if bench.is_dead() {
                locked(deaths).pop_front();
                bench.restart(armed()).await;
            }
        }
    };
    let lives = all().into_iter().enumerate().map(|(index, life)| life.live(bench.clone(), amount(index)));
    let living = async {
        let lived = futures::future::join_all(lives).await;
        over.send_modify(|over| *over = true);
        lived
    };
    let ((), lived) = tokio::join!(keeping, living);
    if bench.is_dead() {
        locked(deaths).pop_front();
        bench.restart(None).await;
    }
    judge(&bench, &lived).await;
    bench.stop().await;
    before - locked(deaths).len()
}

/// Runs until every point has killed, each at its first and then at a later passing.
async fn until_all_have_killed(kept: Kept, hits: &[u32]) {
    let points = hits.iter().flat_map(|hit| cases::CRASH_POINTS.iter().map(|point| (*point, *hit)));
    let deaths: Deaths = Arc::new(Mutex::new(points.collect()));
    let mut seed = 10;
    while let Some((point, hit)) = { locked(&deaths).front().copied() } {
        let killed = run(kept, seed, &deaths).await;
        assert!(killed > 0, "{point} was not passed {hit} times");
        seed += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn no_kill_loses_or_doubles_anything_on_the_simulated_store() {
    until_all_have_killed(Kept::Simulated, &[1, 2]).await;
}

/// Real threads, a real file, each life on a runtime of its own that the kill takes away with everything on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_loses_or_doubles_anything_on_sqlite() {
    let _alone = REAL_TIME.lock().await;
    until_all_have_killed(Kept::Sqlite, &[1]).await;
}

/// The same seed gives the same run, line for line.
#[tokio::test(start_paused = true)]
async fn a_simulated_run_repeats() {
    let run = async || {
        let bench = Arc::new(Bench::with(Kept::Simulated, 77, |_| {}).await);
        live_all(&bench).await.into_iter().map(|one| (one.case, one.history)).collect::<Vec<_>>()
    };
    assert_eq!(run().await, run().await);
}
