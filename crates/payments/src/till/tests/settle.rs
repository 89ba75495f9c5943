//! Settling: what is cut once and for all, by whom and after whatever crash, and what is then paid over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use contracts::ids::{OrderId, SettlementId};
use contracts::payments::v1 as pb;
use futures::FutureExt;
use prost::Message;
use runtime::crash::Plan;
use store::params;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::convert::ConfirmAsk;
use crate::domain::ledger::{Account, Merchant as LedgerMerchant};
use crate::domain::settlement::{Settlement, State};
use crate::error::Error;
use crate::repo::settlements::{self, Filter};
use crate::repo::work;
use crate::till::settle;

const PAYEE: &str = "traffic-430100";
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn confirm_ask(request_id: &str, id: SettlementId) -> ConfirmAsk {
    ConfirmAsk { key: key(Method::ConfirmSettlement, request_id), id, reference: "bank 1".into() }
}

async fn all(till: &Till) -> Vec<Settlement> {
    let before = (Timestamp::from_micros(i64::MAX), String::new());
    let mut reader = till.db.read().await.expect("reads");
    let mut all = settlements::page(&mut reader, &Filter::default(), &before, 100).await.expect("reads");
    all.reverse();
    all
}

/// The file as it is handed out, part by part.
async fn file(till: &Till, id: SettlementId) -> String {
    let (mut bytes, mut after) = (Vec::new(), None);
    loop {
        let (part, next) = till.file_part(id, after.as_ref()).await.expect("is signed");
        bytes.extend(part);
        match next {
            Some(next) => after = Some(next),
            None => return String::from_utf8(bytes).expect("is text"),
        }
    }
}

impl Stage {
    pub(super) async fn posted(&self, name: &str) -> OrderId {
        self.posted_by(create_ask(name, self.till.now().plus(LIFE))).await
    }

    async fn posted_by(&self, ask: CreateAsk) -> OrderId {
        let name = &ask.key.request_id.clone();
        self.till.create(ask).await.expect("creates");
        let order = self.till.order_by_request("cases", name).await.expect("is there");
        self.played.pay(&order.terms.channel_order_no, self.till.now()).expect("pays");
        let notice = self.played.notice(&order.terms.channel_order_no).expect("paid");
        let merchant = LedgerMerchant { channel: super::channel::NAME.into(), number: "1900000001".into() };
        self.till.heed(&merchant, notice).await.expect("heeds");
        self.till.post(&key(Method::PostOrder, name), order.terms.id, "CSJJ-1").await.expect("posts");
        order.terms.id
    }

    /// The payee gives money back.
    async fn given_back(&self, name: &str, order: OrderId, amount: i64) {
        self.till
            .refund(&RefundAsk { is_after_settlement: true, ..refund_ask(name, order, amount) })
            .await
            .expect("accepts");
        self.pass(Duration::from_secs(3)).await;
        self.played.decide(true, self.till.now());
        self.pass(Duration::from_secs(30)).await;
    }

    /// Cuts what falls due, and settles it.
    async fn settle(&self) {
        self.till.plan_settlements().await.expect("plans");
        for one in all(&self.till).await {
            self.till.settle(one.id).await.expect("settles");
            let done = BTreeSet::from([format!("{}{}", settle::PREFIX, one.id)]);
            let done = async |mut tx: Tx| work::done_all(&mut tx, &done).await;
            self.till.db.transact(done).await.expect("is done");
        }
    }

    /// Past the next midnight in Beijing.
    async fn next_day(&self) {
        self.till.context.clock.sleep(DAY).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_tells_the_payment_code_of_its_order() {
    const CODE: &str = "43010023000000000017";
    let stage = Stage::new().await;
    let ask = create_ask("coded", stage.till.now().plus(LIFE));
    let coded = stage.posted_by(CreateAsk { payment_code: Some(CODE.into()), ..ask }).await;
    let plain = stage.posted("plain").await;
    for (name, order) in [("one", coded), ("two", plain)] {
        stage.given_back(name, order, AMOUNT / 4).await;
    }
    stage.next_day().await;
    stage.settle().await;
    let file = file(&stage.till, all(&stage.till).await[0].id).await;
    let lines: Vec<serde_json::Value> = file.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let codes_of = |order: OrderId| {
        let lines = lines.iter().filter(|line| line["order_id"] == order.to_string());
        lines.map(|line| line["payment_code"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((codes_of(coded), codes_of(plain)), (vec![CODE.to_owned(); 2], vec![String::new(); 2]));
}

#[tokio::test(start_paused = true)]
async fn each_posting_and_refund_stands_in_one_settlement_across_the_days() {
    let stage = Stage::new().await;
    let till = &stage.till;
    let mut orders = Vec::new();
    for number in 0..7 {
        orders.push(stage.posted(&format!("first-{number}")).await);
    }
    stage.settle().await;
    assert_eq!(all(till).await, [], "the day is not over");
    stage.next_day().await;
    stage.settle().await;
    stage.settle().await;
    let first = all(till).await;
    let [first] = &first[..] else { panic!("one settlement: {first:#?}") };
    assert_eq!((first.state, first.totals.count, first.net()), (State::Signed, 7, Some(7 * AMOUNT)));
    assert_eq!(first.day.to_string(), "2023-11-15", "the day that was over");

    // A quiet day makes none; what is given back afterwards is a day of its own.
    stage.next_day().await;
    stage.settle().await;
    assert_eq!(all(till).await.len(), 1);
    for (number, order) in orders.iter().enumerate().take(3) {
        stage.given_back(&format!("back-{number}"), *order, AMOUNT).await;
    }
    stage.next_day().await;
    stage.settle().await;
    stage.posted("last").await;
    stage.next_day().await;
    stage.settle().await;
    let list = all(till).await;
    let told: Vec<_> = list.iter().map(|one| (one.state, one.totals.count, one.carried, one.net())).collect();
    let expected = [
        (State::Signed, 7, 0, Some(7 * AMOUNT)),
        (State::Carried, 3, 0, Some(-3 * AMOUNT)),
        (State::Carried, 1, -3 * AMOUNT, Some(-2 * AMOUNT)),
    ];
    assert_eq!(told, expected);
    assert_eq!(list[2].carried_from, Some(list[1].id));
    for one in &list {
        let (text, name) = (file(till, one.id).await, one.file_name());
        let (signature, jwk) = (one.signature.clone().expect("signed"), one.key.clone().expect("signed"));
        let report = crate::settlement::verify(&name, text.as_bytes(), &signature, &jwk, None).expect("is sound");
        assert_eq!((Some(report.net), Some(report.sha256)), (one.net(), one.sha256.clone()));
    }
    stage.assert_sound().await;
}

/// A reservation counts only when the channel has decided, however long ago it was made, and whatever was cut in between.
#[tokio::test(start_paused = true)]
async fn a_refund_that_is_decided_behind_a_cut_stands_in_the_next() {
    let stage = Stage::new().await;
    let (kept, back) = (stage.posted("kept").await, stage.posted("back").await);
    let ask = RefundAsk { is_after_settlement: true, ..refund_ask("f", back, AMOUNT / 2) };
    stage.till.refund(&ask).await.expect("accepts");
    stage.pass(Duration::from_secs(3)).await;
    stage.next_day().await;
    stage.settle().await;
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(120)).await;
    stage.posted("next").await;
    stage.next_day().await;
    stage.settle().await;
    let told: Vec<_> = all(&stage.till).await.iter().map(|one| (one.totals.gross, one.totals.refunds)).collect();
    assert_eq!(told, [(2 * AMOUNT, 0), (AMOUNT, AMOUNT / 2)]);
    assert_ne!(kept, back);
    stage.assert_sound().await;
}

/// To the microsecond: what is booked at the cut is the next day's.
#[tokio::test(start_paused = true)]
async fn the_cut_itself_belongs_to_the_next_day() {
    let stage = Stage::new().await;
    let (before, at) = (stage.posted("before").await, stage.posted("at").await);
    // 2023-11-16 in Beijing.
    let midnight = 1_700_064_000_000_000_i64;
    for (order, moment) in [(before, midnight - 1), (at, midnight)] {
        let moved = async |mut tx: Tx| {
            let sql = "UPDATE transfers SET booked_at = $2 WHERE order_id = $1";
            tx.execute(sql, params![order.to_string(), moment]).await
        };
        assert_eq!(stage.till.db.transact(moved).await.expect("moves"), 2);
    }
    stage.next_day().await;
    stage.settle().await;
    let text = file(&stage.till, all(&stage.till).await[0].id).await;
    assert!(text.contains(&before.to_string()) && !text.contains(&at.to_string()), "{text}");
    assert!(text.contains("2023-11-15T23:59:59.999999"), "{text}");
    stage.next_day().await;
    stage.settle().await;
    let list = all(&stage.till).await;
    let days: Vec<_> = list.iter().map(|one| (one.day.to_string(), one.totals.count)).collect();
    assert_eq!(days, [("2023-11-15".to_owned(), 1), ("2023-11-16".to_owned(), 1)]);
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn paying_over_is_booked_once_and_by_two() {
    let stage = Stage::new().await;
    let till = &stage.till;
    stage.posted("one").await;
    till.context.clock.sleep(Duration::from_secs(1)).await;
    let cut = till.cut_now(&key(Method::CutSettlement, "c"), PAYEE).await.expect("cuts");
    assert_eq!(till.cut_now(&key(Method::CutSettlement, "c"), PAYEE).await.expect("answers"), cut, "the same for ever");
    let other = Key { digest: [8; 32], ..key(Method::CutSettlement, "c") };
    assert!(matches!(till.cut_now(&other, PAYEE).await, Err(Error::RequestIdReused)));
    assert!(matches!(till.cut_now(&key(Method::CutSettlement, "d"), "nobody").await, Err(Error::PayeeUnknown)));
    let id = all(till).await[0].id;
    assert!(matches!(till.file_part(id, None).await, Err(Error::Settlement(_))));
    assert!(matches!(till.confirm(&confirm_ask("1", id), "one").await, Err(Error::Settlement(_))), "is not signed");
    till.settle(id).await.expect("settles");
    let first = till.confirm(&confirm_ask("1", id), "one").await.expect("is taken");
    assert_eq!(till.confirm(&confirm_ask("1", id), "one").await.expect("answers"), first);
    assert!(matches!(till.confirm(&confirm_ask("2", id), "one").await, Err(Error::Settlement(_))), "one person");
    let last = till.confirm(&confirm_ask("3", id), "two").await.expect("is agreed");
    assert_eq!(till.confirm(&confirm_ask("3", id), "two").await.expect("answers"), last);
    assert!(matches!(till.confirm(&confirm_ask("4", id), "three").await, Err(Error::Settlement(_))));
    let told = pb::ConfirmSettlementResponse::decode(last.as_slice()).expect("decodes");
    assert!(!told.needs_second_person);
    let mut reader = till.db.read().await.expect("reads");
    let mut left = async |account: &str| {
        let sum = crate::repo::ledger::sum(&mut reader, &account.parse::<Account>().expect("an account")).await;
        sum.expect("reads").and_then(|(_, balance)| balance.available())
    };
    assert_eq!((left("payee/traffic-430100").await, left("treasury/traffic-430100").await), (Some(0), Some(AMOUNT)));
    drop(reader);
    till.context.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!(till.cut_now(&key(Method::CutSettlement, "e"), PAYEE).await.map(|answer| answer.len()).ok(), Some(0));
    let report = stage.assert_sound().await;
    assert_eq!((report.settlements, report.transfers), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn replicas_that_cut_at_once_make_one_settlement() {
    let stage = Stage::new().await;
    for number in 0..9 {
        stage.posted(&format!("r{number}")).await;
    }
    stage.next_day().await;
    let other = till(&stage.till.db, &stage.till.context, &stage.played, &stage._dir);
    let (one, two) = tokio::join!(stage.till.plan_settlements(), other.plan_settlements());
    one.and(two).expect("plan");
    let list = all(&stage.till).await;
    assert_eq!(list.len(), 1);
    let (one, two) = tokio::join!(stage.till.settle(list[0].id), other.settle(list[0].id));
    one.and(two).expect("settle");
    let cuts = ["a", "b", "c"].map(|name| key(Method::CutSettlement, name));
    stage.posted("late").await;
    other.context.clock.sleep(Duration::from_secs(1)).await;
    let mut tries = 0;
    while futures::future::join_all(cuts.iter().map(|key| other.cut_now(key, PAYEE))).await.iter().any(Result::is_err) {
        stage.settle().await;
        tries += 1;
        assert!(tries < 10, "each has its answer in the end");
    }
    stage.settle().await;
    let told: Vec<_> = all(&stage.till).await.iter().map(|one| (one.state, one.totals.count)).collect();
    assert_eq!(told, [(State::Signed, 9), (State::Signed, 1)]);
    stage.assert_sound().await;
}

/// Ways to spoil settled books.
const SPOILS: [&str; 15] = [
    "UPDATE settlements SET gross_minor = gross_minor + 1 WHERE number = 1",
    "UPDATE settlements SET line_count = line_count + 1 WHERE number = 1",
    "UPDATE settlements SET state = 'signed' WHERE state = 'paid_over'",
    "UPDATE settlements SET state = 'carried' WHERE number = 3",
    "UPDATE settlements SET carried_minor = carried_minor - 1 WHERE number = 3",
    "UPDATE settlements SET carried_from = NULL WHERE number = 3",
    "UPDATE settlements SET second_by = first_by WHERE number = 1",
    "UPDATE settlements SET signature = NULL WHERE number = 3",
    "DELETE FROM settlements WHERE number = 2",
    "DELETE FROM settlement_lines WHERE what = 'refund'",
    "UPDATE settlement_lines SET amount_minor = amount_minor + 1 WHERE what = 'posting'",
    "UPDATE settlement_lines SET transfer_id = 'x' WHERE what = 'refund'",
    "UPDATE transfers SET amount_minor = amount_minor - 1 WHERE transfer_id LIKE '%/pay_over'",
    "DELETE FROM transfers WHERE transfer_id LIKE '%/pay_over'",
    "UPDATE balances SET credit_posted = credit_posted + 1 WHERE account LIKE 'treasury/%'",
];

#[tokio::test(start_paused = true)]
async fn nothing_of_a_settlement_that_was_spoilt_stays_unseen() {
    let settled = async || {
        let stage = Stage::new().await;
        let order = stage.posted("one").await;
        stage.next_day().await;
        stage.settle().await;
        let id = all(&stage.till).await[0].id;
        for (request_id, person) in [("1", "one"), ("2", "two")] {
            stage.till.confirm(&confirm_ask(request_id, id), person).await.expect("is taken");
        }
        stage.given_back("back", order, AMOUNT / 4).await;
        stage.next_day().await;
        stage.settle().await;
        stage.posted("two").await;
        stage.next_day().await;
        stage.settle().await;
        stage
    };
    let report = settled().await.assert_sound().await;
    assert_eq!((report.settlements, report.transfers), (3, 7));
    for spoil in SPOILS {
        let stage = settled().await;
        let spoilt = async |mut tx: Tx| tx.execute(spoil, params![]).await;
        assert!(stage.till.db.transact(spoilt).await.expect(spoil) > 0, "{spoil}: nothing to spoil");
        let report = crate::audit::check(&stage.till.db).await.expect("reads");
        assert!(!report.is_sound(), "not seen: {spoil}");
    }
}

/// What outlives a host that settles.
struct World {
    db: Db,
    played: Played,
    dir: tempfile::TempDir,
    now: Mutex<Timestamp>,
}

impl World {
    /// One life: until the settlement is paid over (true) or the host dies (false).
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
            let till = till(&self.db, &context, &self.played, &self.dir);
            context.tasks.spawn("worker", crate::worker::run(till.clone()));
            let life = std::panic::AssertUnwindSafe(points.scope(self.until_paid_over(&till))).catch_unwind();
            let done = tokio::select! {
                () = died.cancelled() => false,
                ended = life => match ended {
                    Ok(()) => true,
                    Err(payload) if runtime::crash::is_crash(payload.as_ref()) => false,
                    Err(payload) => std::panic::resume_unwind(payload),
                },
            };
            *self.now.lock().expect("unpoisoned") = context.clock.now();
            done
        });
        (done, points.hits())
    }

    /// What the staff do, from the beginning in every life, always with the same keys.
    async fn until_paid_over(&self, till: &Arc<Till>) {
        till.cut_now(&key(Method::CutSettlement, "c"), PAYEE).await.expect("cuts");
        let waits = async || loop {
            match all(till).await.first() {
                Some(one) if matches!(one.state, State::Signed | State::PaidOver) => return one.id,
                _ => till.context.clock.sleep(Duration::from_millis(500)).await,
            }
        };
        let id = waits().await;
        for (request_id, person) in [("1", "one"), ("2", "two")] {
            till.confirm(&confirm_ask(request_id, id), person).await.expect("is taken");
        }
    }
}

fn world() -> World {
    let host = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    host.expect("a runtime").block_on(async {
        let stage = Stage::new().await;
        for number in 0..7 {
            stage.posted(&format!("r{number}")).await;
        }
        let now = Mutex::new(stage.till.now().plus(Duration::from_secs(1)));
        let Stage { till, played, _dir: dir } = stage;
        World { db: till.db.clone(), played, dir, now }
    })
}

#[test]
fn a_host_that_dies_at_any_point_of_settling_settles_once() {
    let hits = world().live(None);
    assert!(hits.0, "an ordinary life ends");
    let passed: Vec<_> = hits.1.keys().copied().filter(|point| point.starts_with("payments.settle.")).collect();
    let mut named = settle::CRASH_POINTS.to_vec();
    named.sort_unstable();
    assert_eq!(passed, named, "the list is what the code passes, no more and no less");
    for (index, point) in settle::CRASH_POINTS.iter().enumerate() {
        for hit in 1..=hits.1[point] {
            let world = world();
            let plan = |point: &str, hit| Some(Plan { point: point.to_owned(), hit });
            assert!(!world.live(plan(point, hit)).0, "{point}:{hit} did not fire");
            // The second life may die too, somewhere else.
            let other = settle::CRASH_POINTS[(index * 3 + 1) % settle::CRASH_POINTS.len()];
            let _ = world.live(plan(other, 1));
            assert!(world.live(None).0, "{point}:{hit}");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let report = crate::audit::check(&world.db).await.expect("reads");
                assert!(report.is_sound(), "{point}:{hit}: {:#?}", report.problems);
                assert_eq!((report.settlements, report.transfers), (1, 15), "{point}:{hit}");
            });
        }
    }
}
