//! Many deals at one counter: each keeps its own verdict, and together they cost few transactions.

use futures::future::join_all;

use super::*;
use crate::channel::Notice;
use crate::domain::ledger::Merchant as LedgerMerchant;
use crate::domain::order::{Capture, State};
use crate::repo::orders;
use rpc::Fault as _;

const ORDERS: usize = 60;

impl Stage {
    /// Orders that wait for their money.
    async fn waiting(&self, count: usize) -> Vec<crate::domain::order::Order> {
        let expire_at = EPOCH.plus(LIFE);
        let asks = (0..count).map(|number| self.till.create(create_ask(&format!("r{number}"), expire_at)));
        for answer in join_all(asks).await {
            answer.expect("is created");
        }
        let mut reader = self.till.db.read().await.expect("reads");
        orders::page(&mut reader, "", 10_000).await.expect("reads")
    }

    async fn states(&self) -> Vec<State> {
        let mut reader = self.till.db.read().await.expect("reads");
        orders::page(&mut reader, "", 10_000).await.expect("reads").iter().map(|order| order.state).collect()
    }
}

fn paid(order: &crate::domain::order::Order, transaction: &str) -> Notice {
    let capture = Capture { amount: order.terms.amount, transaction: transaction.to_owned(), at: EPOCH };
    let (channel_order_no, app_id) = (order.terms.channel_order_no.clone(), order.terms.app_id.clone());
    Notice::Paid { channel_order_no, app_id, capture }
}

async fn heed(till: &Till, notice: Notice) -> Result<(), super::super::NoticeError> {
    till.heed(&LedgerMerchant { channel: "played".into(), number: "1900000001".into() }, notice).await
}

#[tokio::test(start_paused = true)]
async fn what_comes_together_is_kept_together() {
    let stage = Stage::new().await;
    let orders = stage.waiting(ORDERS).await;
    let before = stage.till.db.meter().counts();
    let notices = orders.iter().map(|order| heed(&stage.till, paid(order, &order.terms.channel_order_no)));
    assert!(join_all(notices).await.iter().all(Result::is_ok));
    let after = stage.till.db.meter().counts();
    // The first comes alone, the others while it is written; each has asked for its order by itself.
    assert!(after.commits - before.commits <= 3, "{} commits", after.commits - before.commits);
    assert!(after.statements - before.statements < 3 * ORDERS as u64, "{}", after.statements - before.statements);
    assert_eq!(stage.states().await, vec![State::Paid; ORDERS]);
    assert_eq!(stage.assert_sound().await.orders, ORDERS as u64);
}

/// Two orders are told the same payment of the channel: the index refuses the batch that has both.
#[tokio::test(start_paused = true)]
async fn one_bad_deal_never_fails_its_neighbours() {
    let stage = Stage::new().await;
    let orders = stage.waiting(ORDERS).await;
    let transaction = |at: usize| if at == 40 { 7 } else { at };
    let notices = orders.iter().enumerate().map(|(at, order)| {
        let notice = paid(order, &format!("tx-{}", transaction(at)));
        heed(&stage.till, notice)
    });
    let told = join_all(notices).await;
    let refused: Vec<_> = told.iter().enumerate().filter(|(_, told)| told.is_err()).map(|(at, _)| at).collect();
    assert_eq!(refused, [40]);
    let states = stage.states().await;
    assert!((0..ORDERS).all(|at| states[at] == if at == 40 { State::Waiting } else { State::Paid }));
    stage.assert_sound().await;
}

/// Deals on one order in one batch see what those before them did; equal keys get one answer, another request under a key is refused.
#[tokio::test(start_paused = true)]
async fn deals_on_one_order_follow_each_other() {
    let stage = Stage::new().await;
    let orders = stage.waiting(2).await;
    let till = &stage.till;
    let post = key(Method::PostOrder, "p");
    let other = Key { digest: [8; 32], ..post.clone() };
    let early = key(Method::PostOrder, "q");
    let (first, second) = (orders[0].terms.id, orders[1].terms.id);
    let (paid, again, posted, repeated, reused, unpaid) = tokio::join!(
        heed(till, paid(&orders[0], "tx")),
        heed(till, paid(&orders[0], "tx")),
        till.post(&post, first, "serial"),
        till.post(&post, first, "serial"),
        till.post(&other, first, "serial"),
        till.post(&early, second, "serial"),
    );
    assert!(paid.is_ok() && again.is_ok());
    let posted = posted.expect("the money is there");
    assert_eq!(repeated.expect("the same"), posted);
    assert_eq!(reused.expect_err("another request").reason(), "REQUEST_ID_REUSED");
    assert_eq!(unpaid.expect_err("no money").reason(), "ORDER_NOT_PAID");
    assert_eq!(stage.states().await, [State::Posted, State::Waiting]);
    stage.assert_sound().await;
}
