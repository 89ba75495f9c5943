//! Reconciling: a host that dies while it keeps a day books the channel's fee once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::civil::Date;
use runtime::crash::Plan;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::beijing;
use crate::channel::ChannelError;
use crate::domain::ledger::{Account, Merchant as LedgerMerchant};
use crate::reconcile::source::BillSource;
use crate::repo::ledger;
use crate::repo::runs::{self, Name, State};
use crate::till::days;

const CHARGED: &str = "1900000001";
const FEE: i64 = 123;

/// Bills of one payment that is not ours, and of what it cost.
struct Bills;

impl BillSource for Bills {
    fn bill<'a>(&'a self, merchant: &'a str, day: Date, file: &'a Path) -> BoxFuture<'a, Result<u64, ChannelError>> {
        let written = if merchant == CHARGED {
            let row = format!("`{day} 12:00:00,`{merchant},`a1,`SUCCESS,`CNY,`0,`205.00,`0.00,`1.23000");
            let text = format!(
                "交易时间,商户号,商户订单号,交易状态,货币种类,商户退款单号,订单金额,申请退款金额,手续费\r\n{row}\r\n\
                总交易单数,订单总金额,申请退款总金额,手续费总金额\r\n`1,`205.00,`0.00,`1.23000\r\n"
            );
            std::fs::write(file, text).map(|()| 1).map_err(|_| ChannelError::unusable("the disk"))
        } else {
            Err(ChannelError::NotKnown)
        };
        std::future::ready(written).boxed()
    }
}

/// What outlives a host that reconciles.
struct World {
    db: Db,
    played: Played,
    dir: tempfile::TempDir,
    now: Mutex<Timestamp>,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let db = runtime.expect("a runtime").block_on(async {
            let db = Db::simulated().expect("a store");
            db.migrate(crate::MIGRATIONS).await.expect("migrates");
            db
        });
        let dir = tempfile::tempdir().expect("a directory");
        Self { db, played: Played::default(), dir, now: Mutex::new(EPOCH) }
    }

    /// One life: until the day is reconciled (true) or the host dies (false).
    fn live(&self, plan: Option<Plan>) -> (bool, BTreeMap<&'static str, u32>) {
        let died = CancellationToken::new();
        let death = died.clone();
        let points = Points::simulated(move |_| death.cancel());
        if let Some(plan) = plan {
            points.arm(plan);
        }
        let host = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let done = host.expect("a runtime").block_on(async {
            let born = *self.now.lock().expect("unpoisoned");
            let context = Context::simulated(born, 7, Net::system(), points.clone());
            let till = Arc::into_inner(till(&self.db, &context, &self.played, &self.dir)).expect("nobody else has it");
            let till = Arc::new(till.with_bills(BTreeMap::from([("wechatpay".to_owned(), Arc::new(Bills) as _)])));
            context.tasks.spawn("worker", crate::worker::run(till.clone()));
            let life = std::panic::AssertUnwindSafe(points.scope(until_done(&till))).catch_unwind();
            let done = tokio::select! {
                () = died.cancelled() => false,
                ended = life => match ended {
                    Ok(()) => true,
                    Err(payload) if runtime::crash::is_crash(payload.as_ref()) => false,
                    Err(payload) => std::panic::resume_unwind(payload),
                },
            };
            *self.now.lock().expect("unpoisoned") = context.clock.now();
            context.tasks.abort();
            done
        });
        (done, points.hits())
    }
}

fn names(till: &Till) -> Vec<Name> {
    let ready = beijing::civil(till.now().minus(till.config.reconcile.ready_after.get())).date();
    let merchants = till.config.merchants.iter();
    let merchants = merchants.map(|one| LedgerMerchant { channel: "wechatpay".into(), number: one.mch_id.clone() });
    merchants.map(|merchant| Name { merchant, day: ready.yesterday().expect("a day") }).collect()
}

async fn until_done(till: &Till) {
    let names = names(till);
    loop {
        let mut done = 0;
        for name in &names {
            let run = runs::get(&mut till.db.read().await.expect("reads"), name).await.expect("reads");
            done += usize::from(run.is_some_and(|run| run.state == State::Done));
        }
        if done == names.len() {
            return;
        }
        till.context.clock.sleep(Duration::from_millis(500)).await;
    }
}

#[test]
fn a_host_that_dies_while_it_keeps_a_day_books_the_fee_once() {
    let (done, hits) = World::new().live(None);
    assert!(done, "an ordinary life ends");
    let passed: Vec<_> = hits.keys().copied().filter(|point| point.starts_with("payments.day.")).collect();
    let mut named = days::CRASH_POINTS.to_vec();
    named.sort_unstable();
    assert_eq!(passed, named, "the list is what the code passes, no more and no less");
    for (index, point) in days::CRASH_POINTS.iter().enumerate() {
        for hit in [1, hits[point]] {
            let world = World::new();
            let plan = |point: &str, hit| Some(Plan { point: point.to_owned(), hit });
            assert!(!world.live(plan(point, hit)).0, "{point}:{hit} did not fire");
            // The second life may die too, somewhere else.
            let _ = world.live(plan(days::CRASH_POINTS[(index + 1) % days::CRASH_POINTS.len()], 1));
            assert!(world.live(None).0, "{point}:{hit}");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let report = crate::audit::check(&world.db).await.expect("reads");
                assert!(report.is_sound(), "{point}:{hit}: {:#?}", report.problems);
                let merchant = LedgerMerchant { channel: "wechatpay".into(), number: CHARGED.into() };
                let mut reader = world.db.read().await.expect("reads");
                let sum = ledger::sum(&mut reader, &Account::Fees(merchant)).await.expect("reads");
                let days = i64::try_from(report.transfers).expect("few");
                let posted = sum.map(|(_, balance)| (balance.debit_posted, balance.credit_posted));
                assert_eq!(posted, Some((days * FEE, 0)), "{point}:{hit}");
                assert_eq!(days, 3, "one for each of the days that are looked at: {point}:{hit}");
            });
        }
    }
}
