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
use super::ways::{AMOUNT, BY, By, Ends, WAYS};
use super::{Plot, Progress};
use crate::super_app::Outside;

/// Whom the sandbox collects for. A payment for one is for the first.
const PAYEES: [&str; 2] = ["treasury-430100-traffic", "treasury-140100-traffic"];
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
    /// By what they were paid with: payments that ended, and those of them that the citizen paid.
    pub(super) tally: RefCell<BTreeMap<By, [u32; 2]>>,
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
            tally: BY.map(|by| (by, [0; 2])).into_iter().collect::<BTreeMap<_, _>>().into(),
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
                match Box::pin(self.one(number)).await {
                    Ok(is_paid) => self.count(By::of(number), is_paid),
                    Err(error) => {
                        let name = By::of(number).name();
                        tell(format!("p-{number}, {name}: {error:#}"));
                        stuck.borrow_mut().push(format!("p-{number}, {name}, was not led to its end: {error:#}"));
                    }
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

    fn count(&self, by: By, is_paid: bool) {
        let mut tally = self.tally.borrow_mut();
        let [ended, paid] = tally.entry(by).or_default();
        *ended += 1;
        *paid += u32::from(is_paid);
    }

    /// Leads one payment to its end; returns whether the citizen paid.
    async fn one(&self, number: u32) -> anyhow::Result<bool> {
        let way = usize::try_from(number)? % WAYS.len();
        let (fault, ends) = WAYS.get(way).copied().context("a way")?;
        let by = By::of(number);
        let before = |operation: &'static str| fault.filter(|(of, _)| *of == operation);
        self.stage(by, before("order")).await?;
        let Some(orders) = self.order(number, by, ends).await? else {
            // What became of it is asked in the end.
            return Ok(false);
        };
        // Who pays for several orders pays one of them, and so all.
        let order_no = orders.first().context("an order")?.channel_order_no.clone();
        let pay = |although_closed| self.outside.pay_order(by.channel(), &order_no, although_closed);
        match ends {
            Ends::Closed | Ends::Late => {
                self.stage(by, before("close")).await?;
                let closed = self.close(number, &orders).await?;
                ensure!(closed == OrderState::Closed, "nobody paid, and it is {closed:?}");
                if ends == Ends::Closed {
                    return Ok(false);
                }
                pay(true).await?;
                self.hear(&orders, EventKind::LateMoney).await?;
                self.give_all_back(number, &orders).await?;
            }
            Ends::Raced => {
                let (paid, closed) = futures::future::join(pay(false), self.close(number, &orders)).await;
                if paid.is_err() {
                    ensure!(closed? == OrderState::Closed, "nobody paid, and it is not closed");
                    return Ok(false);
                }
                ensure!(closed? == OrderState::Paid, "the channel took the money, and it is closed");
                self.hear(&orders, EventKind::OrderPaid).await?;
                self.give_all_back(number, &orders).await?;
            }
            Ends::Expired | Ends::HungUp => {
                self.hear(&orders, EventKind::OrderClosed).await?;
                return Ok(false);
            }
            Ends::Posted | Ends::PartsReturned | Ends::Returned(_) => {
                self.stage(by, before("notify").or(before("query"))).await?;
                pay(false).await?;
                self.hear(&orders, EventKind::OrderPaid).await?;
                self.stage(by, before("refund")).await?;
                // From here on each order goes its own way: what one department refuses, the other has done.
                let ends = [ends].into_iter().chain(std::iter::repeat(Ends::Posted));
                let each = keys(number, &orders).zip(ends).map(|((key, order), ends)| self.end(key, order, ends));
                futures::future::try_join_all(each).await?;
            }
        }
        Ok(true)
    }

    /// Gives an order that is paid its end.
    async fn end(&self, key: Key, order: &pb::Order, ends: Ends) -> anyhow::Result<()> {
        if let Ends::Returned(part) = ends {
            return self.give_back(key, order, part, false).await;
        }
        self.post(key, order).await?;
        match ends {
            Ends::PartsReturned => self.give_back(key, order, AMOUNT / 4, true).await,
            _ => Ok(()),
        }
    }

    async fn stage(&self, by: By, fault: Option<(&str, &str)>) -> anyhow::Result<()> {
        match fault {
            Some((operation, fault)) => {
                let delay = if fault == "late" { "500ms" } else { "0s" };
                self.outside.stage_for((by.channel(), operation, fault), 1, delay).await
            }
            None => Ok(()),
        }
    }

    /// Makes the order or orders of a payment, as the channel can be asked for them by its number; None where that hung up.
    async fn order(&self, number: u32, by: By, ends: Ends) -> anyhow::Result<Option<Vec<pb::Order>>> {
        let life = if matches!(ends, Ends::Expired | Ends::HungUp) { SHORT_LIFE_SECS } else { LONG_LIFE_SECS };
        let (seconds, _) = self.context.clock.now().seconds_nanos();
        let expire_time = Some(prost_types::Timestamp { seconds: seconds + life, nanos: 0 });
        // Alipay hears of what is paid on a page when the page is opened, and closes nothing that it has not heard of.
        let is_on_a_page = by.channel() == "alipay" && matches!(ends, Ends::Closed | Ends::Late | Ends::Raced);
        let trade_type = if is_on_a_page { pb::TradeType::H5 } else { pb::TradeType::Native };
        let is_hung_up = ends == Ends::HungUp;
        if by == By::Together {
            let asked = together(number, by, expire_time);
            let names: Vec<_> = asked.parts.iter().map(|part| part.request_id.clone()).collect();
            let create = async || {
                let told = self.client.clone().create_combined_order(asked.clone()).await?;
                Ok(told.into_inner().combined_order.unwrap_or_default())
            };
            let made = self.insist_or_hang_up(is_hung_up, number, &names, create).await?;
            return Ok(made.map(|combined| combined.parts));
        }
        let asked = alone(number, by, trade_type, expire_time);
        let create = async || {
            let told = self.client.clone().create_order(asked.clone()).await?;
            Ok(told.into_inner().order.unwrap_or_default())
        };
        let names = [asked.request_id.clone()];
        let Some(order) = self.insist_or_hang_up(is_hung_up, number, &names, create).await? else { return Ok(None) };
        if is_on_a_page {
            let sheet = order.pay_sheet.as_ref().context("a sheet")?;
            self.outside.open_alipay(&sheet.page_url).await?;
        }
        Ok(Some(vec![order]))
    }

    async fn insist_or_hang_up<T: Message + About>(
        &self,
        is_hung_up: bool,
        number: u32,
        names: &[String],
        create: impl AsyncFn() -> Result<T, tonic::Status>,
    ) -> anyhow::Result<Option<T>> {
        match is_hung_up {
            true => Ok(self.ask(Call::Create, names, create).await.ok()),
            false => self.insist(number, Call::Create, names, create).await.map(Some),
        }
    }

    /// Closes what was ordered, every part by itself, asking until the channel has confirmed; returns how all of it stands then.
    async fn close(&self, number: u32, orders: &[pb::Order]) -> anyhow::Result<OrderState> {
        let each = keys(number, orders).map(|(key, order)| self.close_one(key, order));
        let states = futures::future::try_join_all(each).await?;
        let first = states.first().copied().context("an order")?;
        ensure!(states.iter().all(|state| *state == first), "parts of one payment stand apart: {states:?}");
        Ok(first)
    }

    async fn close_one(&self, key: Key, order: &pb::Order) -> anyhow::Result<OrderState> {
        let request_id = format!("c-{key}");
        let asked = pb::CloseOrderRequest { request_id: request_id.clone(), order_id: order.order_id.clone() };
        let close = async || {
            let told = self.client.clone().close_order(asked.clone()).await?;
            Ok(told.into_inner().order.unwrap_or_default())
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let order = self.insist(key.number, Call::Close, std::slice::from_ref(&request_id), close).await?;
            if order.state() != OrderState::Waiting {
                return Ok(order.state());
            }
            ensure!(Instant::now() < deadline, "{request_id}: the channel never confirms");
            self.pause().await;
        }
    }

    async fn post(&self, key: Key, order: &pb::Order) -> anyhow::Result<()> {
        let request_id = format!("s-{key}");
        let (proof_serial, order_id) = (format!("SN{key}"), order.order_id.clone());
        let asked = pb::PostOrderRequest { request_id: request_id.clone(), order_id, proof_serial };
        let post = async || {
            let told = self.client.clone().post_order(asked.clone()).await?;
            Ok(told.into_inner().order.unwrap_or_default())
        };
        self.insist(key.number, Call::Post, &[request_id], post).await.map(drop)
    }

    async fn give_all_back(&self, number: u32, orders: &[pb::Order]) -> anyhow::Result<()> {
        let each = keys(number, orders).map(async |(key, order)| self.give_back(key, order, AMOUNT, false).await);
        futures::future::try_join_all(each).await.map(drop)
    }

    /// Gives back in parts of `part`, two at most, side by side; what is more than was taken is refused.
    async fn give_back(&self, key: Key, order: &pb::Order, part: i64, after_settlement: bool) -> anyhow::Result<()> {
        let parts = if part == AMOUNT { 1 } else { 2 };
        let refunds = (0..parts).map(async |index: u32| {
            let request_id = format!("f{index}-{key}");
            let refunded = self.insist(key.number, Call::Refund, std::slice::from_ref(&request_id), async || {
                self.refund(&request_id, order, part, after_settlement).await
            });
            anyhow::Ok(refunded.await?.refund_id)
        });
        let refunds = futures::future::try_join_all(refunds).await?;
        let more = self.refund(&format!("f9-{key}"), order, AMOUNT, after_settlement).await;
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

    /// Waits until each has had an event of a kind.
    async fn hear(&self, orders: &[pb::Order], kind: EventKind) -> anyhow::Result<()> {
        let each = orders.iter().map(|order| self.await_news(order, move |event| event.kind() == kind));
        futures::future::try_join_all(each).await.map(drop)
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

    /// Asks under the same request ids until there is an answer.
    async fn insist<T: Message + About>(
        &self,
        number: u32,
        call: Call,
        names: &[String],
        ask: impl AsyncFn() -> Result<T, tonic::Status>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut again = u32::from(number.is_multiple_of(AGAIN_EVERY));
        loop {
            match self.ask(call, names, &ask).await {
                Ok(answer) if again == 0 => return Ok(answer),
                Ok(_) => again -= 1,
                Err(fault) if is_answer(&fault) => bail!("{}: {fault}", names.join(" ")),
                Err(fault) => {
                    ensure!(Instant::now() < deadline, "{} is not answered: {fault}", names.join(" "));
                    self.pause().await;
                }
            }
        }
    }

    /// Asks once, and writes down what came of it: a line for each request id that it was asked under.
    async fn ask<T: Message + About>(
        &self,
        call: Call,
        names: &[String],
        ask: impl AsyncFn() -> Result<T, tonic::Status>,
    ) -> Result<T, RemoteFault> {
        let told = ask().await.map_err(|status| RemoteFault::from(&status));
        let line = |request_id: &String, id: &str, digest: &str| Line {
            deed: format!("{call:?}"),
            request_id: request_id.clone(),
            id: id.to_owned(),
            digest: digest.to_owned(),
        };
        match &told {
            Ok(answer) if call == Call::Close && answer.waits() => {}
            Ok(answer) => {
                let digest = hex::encode(rpc::digest::sha256(&answer.encode_to_vec()));
                let about = answer.about();
                assert_eq!(about.len(), names.len(), "as many are told of as were asked for");
                names.iter().zip(about).for_each(|(name, id)| self.note(&line(name, id, &digest)));
                self.answers.set(self.answers.get() + 1);
            }
            Err(fault) if !is_answer(fault) && fault.effect() == Effect::Possible => {
                names.iter().for_each(|name| self.note(&line(name, "", "")));
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

/// Names one order of a payment in request ids.
#[derive(Clone, Copy)]
struct Key {
    number: u32,
    part: usize,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.part {
            0 => write!(f, "{}", self.number),
            part => write!(f, "{}-{part}", self.number),
        }
    }
}

fn keys(number: u32, orders: &[pb::Order]) -> impl Iterator<Item = (Key, &pb::Order)> {
    orders.iter().enumerate().map(move |(part, order)| (Key { number, part }, order))
}

fn alone(
    number: u32,
    by: By,
    trade_type: pb::TradeType,
    expire_time: Option<prost_types::Timestamp>,
) -> pb::CreateOrderRequest {
    pb::CreateOrderRequest {
        request_id: format!("p-{number}"),
        case_id: case_id(number, 0),
        payee_id: PAYEES[0].into(),
        amount: money(AMOUNT),
        channel: by.channel().into(),
        trade_type: trade_type.into(),
        entry_point: by.entry_point().into(),
        payer_reference: String::new(),
        description: "drill".into(),
        expire_time,
        payment_code: String::new(),
        insurance: None,
    }
}

/// One payment for an order of each payee.
fn together(number: u32, by: By, expire_time: Option<prost_types::Timestamp>) -> pb::CreateCombinedOrderRequest {
    let parts = PAYEES.into_iter().enumerate().map(|(part, payee_id)| pb::CombinedPart {
        request_id: format!("p-{}", Key { number, part }),
        case_id: case_id(number, part),
        payee_id: payee_id.into(),
        amount: money(AMOUNT),
        description: "drill".into(),
        payment_code: String::new(),
    });
    pb::CreateCombinedOrderRequest {
        request_id: format!("w-{number}"),
        channel: by.channel().into(),
        trade_type: pb::TradeType::Native.into(),
        entry_point: by.entry_point().into(),
        payer_reference: String::new(),
        expire_time,
        parts: parts.collect(),
    }
}

/// Each order is of a case of its own.
fn case_id(number: u32, part: usize) -> String {
    format!("case_{part:08x}{number:024x}")
}
