//! Every way through a case, while cases is killed at every crash point: again and again, until all have ended.

use std::sync::Arc;
use std::time::Duration;

use runtime::crash::Plan;

use crate::bench::{Bench, Kept};
use crate::judge::judge;
use crate::lives::{all, amount};

/// Runs all ways, killing cases at the `hit`-th passing of `point` in each of its lives, `kills` times.
async fn killed_at(
    kept: Kept,
    seed: u64,
    point: &'static str,
    kills: u32,
    change: impl FnOnce(&mut cases::Config),
) -> u32 {
    let bench = Arc::new(Bench::with(kept, seed, change).await);
    let plan = |hit: u32| Some(Plan { point: point.to_owned(), hit });
    bench.restart(plan(1)).await;
    let keeper = bench.clone();
    let (over, mut is_over) = tokio::sync::watch::channel(false);
    let lives = all().into_iter().enumerate().map(|(index, life)| life.live(bench.clone(), amount(index)));
    let keeping = async move {
        let mut deaths = 0;
        loop {
            tokio::select! {
                biased;
                _ = is_over.changed() => return deaths,
                () = keeper.clock.sleep(Duration::from_millis(15)) => {}
            }
            if keeper.is_dead() {
                deaths += 1;
                // The next life dies a little later on its way, so that every way gets its turn.
                keeper.restart(if deaths < kills { plan(deaths + 1) } else { None }).await;
            }
        }
    };
    let living = async {
        let lived = futures::future::join_all(lives).await;
        over.send_replace(true);
        lived
    };
    let (deaths, lived) = tokio::join!(keeping, living);
    judge(&bench, &lived).await;
    bench.stop().await;
    deaths
}

/// Under virtual time and with the store in memory a run takes a moment, so each point gets several kills.
#[tokio::test(start_paused = true)]
async fn no_kill_loses_or_doubles_anything_on_the_simulated_store() {
    for (index, point) in cases::CRASH_POINTS.iter().enumerate() {
        let deaths = killed_at(Kept::Simulated, 10 + index as u64, point, 4, |_| {}).await;
        assert!(deaths >= 1, "{point} was never reached");
    }
}

/// The same kills twice are the same run, line for line.
#[tokio::test(start_paused = true)]
async fn a_simulated_run_repeats() {
    let run = async || {
        let bench = Arc::new(Bench::with(Kept::Simulated, 77, |_| {}).await);
        let lived = crate::lives::live_all(&bench).await;
        lived.into_iter().map(|one| (one.case, one.history)).collect::<Vec<_>>()
    };
    assert_eq!(run().await, run().await);
}

/// Real threads, a real file, each life on a runtime of its own that the kill takes away with everything on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kill_loses_or_doubles_anything_on_sqlite() {
    let points = cases::CRASH_POINTS.iter().enumerate();
    let runs = points.map(|(index, point)| async move {
        let deaths = killed_at(Kept::Sqlite, 100 + index as u64, point, 2, |_| {}).await;
        assert!(deaths >= 1, "{point} was never reached");
    });
    use futures::StreamExt;
    futures::stream::iter(runs).for_each_concurrent(6, |run| run).await;
}
