//! The callers of payments and the citizens who pay. What gets no answer is asked again under the same request id; every answer is written
//! down before anything is done on the strength of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use contracts::common::v1::Money;
use contracts::payments::v1 as pb;
use contracts::payments::v1::payment_service_client::PaymentServiceClient;
use pb::{EventKind, OrderState};
use prost::Message;
use rpc::{Effect, RemoteFault, Wire};
use runtime::Context;
use tokio::time::Instant;

use super::book::{About, Call, Line, is_answer};
use super::site::Site;
use super::ways::{AMOUNT, Ends, WAYS};
use super::{Plot, Progress};
use crate::super_app::Outside;

/// Whom the sandbox collects for.
const PAYEE: &str = "treasury-430100-traffic";
/// After so many payments that went wrong nothing more is begun.
const STUCK_MAX: usize = 20;
/// For one payment, over all kills that it meets.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(50);
/// How long news is waited for before it is asked.
const NEWS_WITHIN: Duration = Duration::from_secs(2);
/// How long the stream of events is held open.
const EVENTS_WAIT_MS: i64 = 500;
/// How long an order lives that is to be paid, and one that nobody will pay.
const LONG_LIFE_SECS: i64 = 3_600;
const SHORT_LIFE_SECS: i64 = 10;
/// One call in so many is made again after its answer.
const AGAIN_EVERY: u32 = 4;

/// The callers.
pub(super) struct Payers {
    pub(super) client: PaymentServiceClient<Wire>,
    pub(super) context: Context,
    outside: Outside,
    book: RefCell<File>,
    pub(super) book_at: PathBuf,
    answers: Cell<u64>,
    /// Events by their order; all of them, in the order in which they came.
    news: RefCell<BTreeMap<String, Vec<pb::Event>>>,
    heard: RefCell<Vec<pb::Event>>,
    changed: tokio::sync::Notify,
}

impl Payers {
    pub(super) fn new(context: &Context, site: &Site, place: &Path) -> anyhow::Result<Self> {
        let book_at = place.join("answers.ndjson");
        Ok(Self {
            client: site.client.clone(),
            context: context.clone(),
            outside: Outside::new(context, &site.control),
            book: File::create(&book_at)?.into(),
            book_at,
            answers: Cell::default(),
            news: RefCell::default(),
            heard: RefCell::default(),
            changed: tokio::sync::Notify::new(),
        })
    }

    /// Answers so far.
    pub(super) fn answers(&self) -> u64 {
        self.answers.get()
    }

    /// Every event that was heard, in order.
    pub(super) fn heard(&self) -> Vec<pb::Event> {
        self.heard.borrow().clone()
    }

    /// Makes payments until there were enough of them and nothing is left to kill; returns what went wrong.
    pub(super) async fn load(&self, plot: &Plot, progress: &Progress, tell: &dyn Fn(String)) -> Vec<String> {
        let stuck = RefCell::new(Vec::new());
        let clients = (0..plot.clients).map(async |_| {
            while (progress.begun.get() < plot.payments || !progress.is_calm.get()) && stuck.borrow().len() < STUCK_MAX
            {
                let number = progress.begun.replace(progress.begun.get() + 1);
                if let Err(error) = Box::pin(self.one(number)).await {
                    tell(format!("p-{number}: {error:#}"));
                    stuck.borrow_mut().push(format!("p-{number} was not led to its end: {error:#}"));
                }
                progress.ended.set(progress.ended.get() + 1);
            }
        });
        futures::future::join_all(clients).await;
        stuck.into_inner()
    }

    /// Hears the events, one after the other, as cases does. Ends with an error only.
    pub(super) async fn listen(&self) -> anyhow::Result<()> {
        loop {
            let after_sequence = self.heard.borrow().last().map_or(0, |event| event.sequence);
            let asked = pb::ListEventsRequest { after_sequence, page_size: 1_000, wait_ms: EVENTS_WAIT_MS };
            let Ok(told) = self.client.clone().list_events(asked).await else {
                self.pause().await;
                continue;
            };
            for (event, sequence) in told.into_inner().events.into_iter().zip(after_sequence + 1..) {
                ensure!(event.sequence == sequence, "event {} came where {sequence} was due", event.sequence);
                self.news.borrow_mut().entry(event.order_id.clone()).or_default().push(event.clone());
                self.heard.borrow_mut().push(event);
            }
            self.changed.notify_waiters();
        }
    }

    /// Leads one payment to its end.
    async fn one(&self, number: u32) -> anyhow::Result<()> {
        let way = usize::try_from(number)? % WAYS.len();
        let (fault, ends) = WAYS.get(way).copied().context("a way")?;
        let before = |operation: &'static str| fault.filter(|(of, _)| *of == operation);
        self.stage(before("order")).await?;
        let life = if matches!(ends, Ends::Expired | Ends::HungUp) { SHORT_LIFE_SECS } else { LONG_LIFE_SECS };
        let asked = self.creation(number, life);
        let order = match ends {
            Ends::HungUp => match self.ask(Call::Create, &asked.request_id, async || self.create(&asked).await).await {
                Ok(order) => order,
                // What became of it is asked in the end.
                Err(_) => return Ok(()),
            },
            _ => self.insist(number, Call::Create, &asked.request_id, async || self.create(&asked).await).await?,
        };
        let order_no = order.channel_order_no.clone();
        match ends {
            Ends::Closed | Ends::Late => {
                self.stage(before("close")).await?;
                let closed = self.close(number, &order).await?;
                ensure!(closed.state() == OrderState::Closed, "nobody paid, and it is {:?}", closed.state());
                if ends == Ends::Late {
                    self.outside.pay_order(&order_no, true).await?;
                    self.hear(&order, EventKind::LateMoney).await?;
                    self.give_back(number, &order, AMOUNT, false).await?;
                }
            }
            Ends::Raced => {
                let (paid, closed) =
                    futures::future::join(self.outside.pay_order(&order_no, false), self.close(number, &order)).await;
                if paid.is_ok() {
                    ensure!(closed?.state() == OrderState::Paid, "the channel took the money, and it is closed");
                    self.give_back(number, &order, AMOUNT, false).await?;
                } else {
                    ensure!(closed?.state() == OrderState::Closed, "nobody paid, and it is not closed");
                }
            }
            Ends::Expired | Ends::HungUp => self.hear(&order, EventKind::OrderClosed).await?,
            Ends::Posted | Ends::PartsReturned | Ends::Returned(_) => {
                self.stage(before("notify").or(before("query"))).await?;
                self.outside.pay_order(&order_no, false).await?;
                self.hear(&order, EventKind::OrderPaid).await?;
                self.stage(before("refund")).await?;
                match ends {
                    Ends::Returned(part) => self.give_back(number, &order, part, false).await?,
                    _ => {
                        self.post(number, &order).await?;
                        if ends == Ends::PartsReturned {
                            self.give_back(number, &order, AMOUNT / 4, true).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn stage(&self, fault: Option<(&str, &str)>) -> anyhow::Result<()> {
        match fault {
            Some((operation, fault)) => {
                let delay = if fault == "late" { "500ms" } else { "0s" };
                self.outside.stage_for(("wechatpay", operation, fault), 1, delay).await
            }
            None => Ok(()),
        }
    }

    fn creation(&self, number: u32, life_secs: i64) -> pb::CreateOrderRequest {
        let (seconds, _) = self.context.clock.now().seconds_nanos();
        pb::CreateOrderRequest {
            request_id: format!("p-{number}"),
            case_id: format!("case_{number:032x}"),
            payee_id: PAYEE.into(),
            amount: money(AMOUNT),
            channel: "wechatpay".into(),
            trade_type: pb::TradeType::Native.into(),
            entry_point: "wechat".into(),
            payer_reference: String::new(),
            description: "drill".into(),
            expire_time: Some(prost_types::Timestamp { seconds: seconds + life_secs, nanos: 0 }),
            payment_code: String::new(),
            insurance: None,
        }
    }

    async fn create(&self, asked: &pb::CreateOrderRequest) -> Result<pb::Order, tonic::Status> {
        self.client.clone().create_order(asked.clone()).await.map(|told| told.into_inner().order.unwrap_or_default())
    }

    /// Closes an order, asking until the channel has confirmed; returns the order as it is then.
    async fn close(&self, number: u32, order: &pb::Order) -> anyhow::Result<pb::Order> {
        let request_id = format!("c-{number}");
        let asked = pb::CloseOrderRequest { request_id: request_id.clone(), order_id: order.order_id.clone() };
        let close = async || {
            let told = self.client.clone().close_order(asked.clone()).await?;
            Ok(told.into_inner().order.unwrap_or_default())
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let order = self.insist(number, Call::Close, &request_id, close).await?;
            if order.state() != OrderState::Waiting {
                return Ok(order);
            }
            ensure!(Instant::now() < deadline, "{request_id}: the channel never confirms");
            self.pause().await;
        }
    }

    async fn post(&self, number: u32, order: &pb::Order) -> anyhow::Result<()> {
        let request_id = format!("s-{number}");
        let (proof_serial, order_id) = (format!("SN{number}"), order.order_id.clone());
        let asked = pb::PostOrderRequest { request_id: request_id.clone(), order_id, proof_serial };
        let post = async || {
            let told = self.client.clone().post_order(asked.clone()).await?;
            Ok(told.into_inner().order.unwrap_or_default())
        };
        self.insist(number, Call::Post, &request_id, post).await.map(drop)
    }

    /// Gives back in parts of `part`, two at most, side by side; what is more than was taken is refused.
    async fn give_back(&self, number: u32, order: &pb::Order, part: i64, after_settlement: bool) -> anyhow::Result<()> {
        let parts = if part == AMOUNT { 1 } else { 2 };
        let refunds = (0..parts).map(async |index: u32| {
            let request_id = format!("f{index}-{number}");
            let refunded = self.insist(number, Call::Refund, &request_id, async || {
                self.refund(&request_id, order, part, after_settlement).await
            });
            anyhow::Ok(refunded.await?.refund_id)
        });
        let refunds = futures::future::try_join_all(refunds).await?;
        let more = self.refund(&format!("f9-{number}"), order, AMOUNT, after_settlement).await;
        if let Err(status) = more {
            let fault = RemoteFault::from(&status);
            ensure!(
                !is_answer(&fault) || fault.reason() == "REFUND_EXCEEDS_CAPTURE",
                "too much was refused as {fault}"
            );
        } else {
            bail!("more is given back than was taken");
        }
        for refund in refunds {
            self.await_news(order, |event| event.kind() == EventKind::RefundSucceeded && event.refund_id == refund)
                .await?;
        }
        Ok(())
    }

    async fn refund(
        &self,
        request_id: &str,
        order: &pb::Order,
        amount: i64,
        after_settlement: bool,
    ) -> Result<pb::RefundRecord, tonic::Status> {
        let asked = pb::RefundRequest {
            request_id: request_id.to_owned(),
            order_id: order.order_id.clone(),
            amount: money(amount),
            reason: "drill".into(),
            after_settlement,
            ..Default::default()
        };
        self.client.clone().refund(asked).await.map(|told| told.into_inner().refund.unwrap_or_default())
    }

    async fn hear(&self, order: &pb::Order, kind: EventKind) -> anyhow::Result<()> {
        self.await_news(order, |event| event.kind() == kind).await
    }

    /// Waits for an event of an order, and where it does not come has the channel asked.
    async fn await_news(&self, order: &pb::Order, is_it: impl Fn(&pb::Event) -> bool) -> anyhow::Result<()> {
        let (order_id, deadline) = (&order.order_id, Instant::now() + PATIENCE);
        loop {
            let changed = self.changed.notified();
            if self.news.borrow().get(order_id).is_some_and(|events| events.iter().any(&is_it)) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{order_id}: no such event among {:?}",
                self.news.borrow().get(order_id)
            );
            if tokio::time::timeout(NEWS_WITHIN, changed).await.is_err() {
                // It has no effect that anybody has to fear; what it brings comes as an event.
                let asked = pb::RefreshOrderRequest { order_id: order_id.clone() };
                let _ = self.client.clone().refresh_order(asked).await;
            }
        }
    }

    /// Asks under one request id until there is an answer.
    async fn insist<T: Message + About>(
        &self,
        number: u32,
        call: Call,
        request_id: &str,
        ask: impl AsyncFn() -> Result<T, tonic::Status>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut again = u32::from(number.is_multiple_of(AGAIN_EVERY));
        loop {
            match self.ask(call, request_id, &ask).await {
                Ok(answer) if again == 0 => return Ok(answer),
                Ok(_) => again -= 1,
                Err(fault) if is_answer(&fault) => bail!("{request_id}: {fault}"),
                Err(fault) => {
                    ensure!(Instant::now() < deadline, "{request_id} is not answered: {fault}");
                    self.pause().await;
                }
            }
        }
    }

    /// Asks once, and writes down what came of it.
    async fn ask<T: Message + About>(
        &self,
        call: Call,
        request_id: &str,
        ask: impl AsyncFn() -> Result<T, tonic::Status>,
    ) -> Result<T, RemoteFault> {
        let (deed, request_id) = (format!("{call:?}"), request_id.to_owned());
        let told = ask().await.map_err(|status| RemoteFault::from(&status));
        match &told {
            Ok(answer) if call == Call::Close && answer.waits() => {}
            Ok(answer) => {
                let digest = hex::encode(rpc::digest::sha256(&answer.encode_to_vec()));
                self.note(&Line { deed, request_id, id: answer.about().to_owned(), digest });
                self.answers.set(self.answers.get() + 1);
            }
            Err(fault) if !is_answer(fault) && fault.effect() == Effect::Possible => {
                self.note(&Line { deed, request_id, id: String::new(), digest: String::new() });
            }
            Err(_) => {}
        }
        told
    }

    fn note(&self, line: &Line) {
        let text = serde_json::to_string(line).unwrap_or_default();
        let written = writeln!(self.book.borrow_mut(), "{text}");
        assert!(written.is_ok(), "the callers cannot write down what they heard: {written:?}");
    }

    async fn pause(&self) {
        self.context.clock.sleep(PAUSE).await;
    }
}

fn money(amount_minor: i64) -> Option<Money> {
    Some(Money { amount_minor, currency: "CNY".into() })
}
