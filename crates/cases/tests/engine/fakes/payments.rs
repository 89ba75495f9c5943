//! Payments with a channel behind it: orders, refunds and their events, as the contract promises them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::common::v1::Money;
use contracts::payments::v1 as pb;
use contracts::payments::v1::payment_service_server::PaymentService;
use contracts::payments::v1::{EventKind, OrderState, RefundState};
use rpc::{Effect, Kind, time};
use runtime::{Clock, watch};
use tonic::{Request, Response, Status};

use super::{Play, Script, Trouble, locked};
use crate::not_served;

#[derive(Default)]
struct Truth {
    orders: BTreeMap<String, pb::Order>,
    created: BTreeMap<String, (Vec<u8>, String)>,
    refunds: BTreeMap<String, pb::RefundRecord>,
    closings: BTreeMap<String, pb::Order>,
    /// Refused orders by their key: the same answer for ever.
    refused: BTreeMap<String, &'static str>,
    events: Vec<pb::Event>,
    /// Amounts whose callback is lost: nobody hears of the money until the channel is asked.
    lost_callbacks: BTreeSet<i64>,
    payers: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Payments {
    pub script: Arc<Script>,
    clock: Clock,
    truth: Arc<Mutex<Truth>>,
    grown: watch::Sender<u64>,
}

impl Payments {
    pub(crate) fn new(script: Arc<Script>, clock: Clock) -> Self {
        Self { script, clock, truth: Arc::default(), grown: watch::Sender::new(0) }
    }

    /// The citizen pays at the channel; tells whether the channel let him.
    pub(crate) fn pay(&self, amount: i64) -> bool {
        let mut truth = locked(&self.truth);
        let now = time::to_proto(self.clock.now());
        let lost = truth.lost_callbacks.contains(&amount);
        let Some(order) = truth.orders.values_mut().find(|order| minor(order) == amount) else { return false };
        let late = match order.state() {
            OrderState::Waiting => false,
            OrderState::Closed if order.channel_transaction.is_empty() => true,
            _ => return false,
        };
        order.channel_transaction = format!("4200{amount}");
        order.paid_time = Some(now);
        order.late_money = late;
        if lost && !late {
            return true;
        }
        order.set_state(OrderState::Paid);
        let order = order.clone();
        let kind = if late { EventKind::LateMoney } else { EventKind::OrderPaid };
        self.tell(&mut truth, kind, &order, "");
        true
    }

    /// Nobody hears of this payment by itself.
    pub(crate) fn lose_callback(&self, amount: i64) {
        locked(&self.truth).lost_callbacks.insert(amount);
    }

    /// Where the order of a case stands.
    pub(crate) fn state(&self, amount: i64) -> Option<OrderState> {
        let truth = locked(&self.truth);
        truth.orders.values().find(|order| minor(order) == amount).map(pb::Order::state)
    }

    /// The payment code of the order for an amount.
    pub(crate) fn payment_code(&self, amount: i64) -> Option<String> {
        let truth = locked(&self.truth);
        truth.orders.values().find(|order| minor(order) == amount).map(|order| order.payment_code.clone())
    }

    /// How many orders were made for an amount.
    pub(crate) fn orders(&self, amount: i64) -> usize {
        locked(&self.truth).orders.values().filter(|order| minor(order) == amount).count()
    }

    /// How much went back of an amount.
    pub(crate) fn refunded(&self, amount: i64) -> i64 {
        let truth = locked(&self.truth);
        let back = truth.refunds.values().filter(|refund| refund.state() == RefundState::Succeeded);
        back.filter_map(|refund| refund.amount.as_ref())
            .map(|money| money.amount_minor)
            .filter(|it| *it == amount)
            .sum()
    }

    /// How many events there are.
    pub(crate) fn told(&self) -> i64 {
        i64::try_from(locked(&self.truth).events.len()).expect("few")
    }

    /// The payer references that came.
    pub(crate) fn payers(&self) -> Vec<String> {
        locked(&self.truth).payers.clone()
    }

    fn tell(&self, truth: &mut Truth, kind: EventKind, order: &pb::Order, refund_id: &str) {
        truth.events.push(pb::Event {
            sequence: i64::try_from(truth.events.len()).expect("few") + 1,
            kind: kind.into(),
            case_id: order.case_id.clone(),
            order_id: order.order_id.clone(),
            refund_id: refund_id.to_owned(),
            commit_time: Some(time::to_proto(self.clock.now())),
        });
        self.grown.send_modify(|count| *count += 1);
    }

    async fn play<T>(&self, play: Play, answer: T) -> Result<Response<T>, Status> {
        match play {
            Play::LoseAnswer | Play::LoseRequest => Err(Trouble::away(Effect::Possible)),
            Play::Refuse => Err(Trouble::away(Effect::None)),
            Play::Hang => {
                self.clock.sleep(Duration::from_secs(3_600)).await;
                Err(Trouble::away(Effect::Possible))
            }
            _ => Ok(Response::new(answer)),
        }
    }

    fn order(&self, order_id: &str, request_id: &str) -> Result<pb::Order, Status> {
        let truth = locked(&self.truth);
        let id = match order_id {
            "" => truth.created.get(request_id).map(|(_, id)| id.clone()).unwrap_or_default(),
            id => id.to_owned(),
        };
        truth.orders.get(&id).cloned().ok_or_else(|| missing("ORDER_NOT_FOUND"))
    }

    fn change(&self, order_id: &str, change: impl FnOnce(&mut Truth, &mut pb::Order)) -> Result<pb::Order, Status> {
        let mut truth = locked(&self.truth);
        let mut order = truth.orders.get(order_id).cloned().ok_or_else(|| missing("ORDER_NOT_FOUND"))?;
        change(&mut truth, &mut order);
        truth.orders.insert(order_id.to_owned(), order.clone());
        Ok(order)
    }

    fn create(&self, asked: &pb::CreateOrderRequest, play: Play) -> Result<pb::Order, Status> {
        use prost::Message;
        let mut truth = locked(&self.truth);
        truth.payers.push(asked.payer_reference.clone());
        let digest = asked.encode_to_vec();
        if let Some((known, id)) = truth.created.get(&asked.request_id) {
            if *known != digest {
                return Err(rule("common.lastmile", "REQUEST_ID_REUSED"));
            }
            let id = id.clone();
            return truth.orders.get(&id).cloned().ok_or_else(|| missing("ORDER_NOT_FOUND"));
        }
        let state = if play == Play::Creating { OrderState::Creating } else { OrderState::Waiting };
        let expire_time = match play {
            Play::Short => Some(time::to_proto(self.clock.now().plus(Duration::from_secs(2)))),
            _ => asked.expire_time,
        };
        let order = pb::Order {
            order_id: format!("ord_{:032x}", truth.orders.len() + 1),
            request_id: asked.request_id.clone(),
            case_id: asked.case_id.clone(),
            payee_id: asked.payee_id.clone(),
            amount: asked.amount.clone(),
            channel: asked.channel.clone(),
            state: state.into(),
            payment_code: asked.payment_code.clone(),
            expire_time,
            pay_sheet: Some(pb::PaySheet {
                trade_type: asked.trade_type,
                code_url: format!("weixin://pay/{}", asked.request_id),
                expire_time,
                ..pb::PaySheet::default()
            }),
            ..pb::Order::default()
        };
        truth.created.insert(asked.request_id.clone(), (digest, order.order_id.clone()));
        truth.orders.insert(order.order_id.clone(), order.clone());
        Ok(order)
    }

    fn close(&self, asked: &pb::CloseOrderRequest, play: Play) -> Result<pb::Order, Status> {
        if let Some(answer) = locked(&self.truth).closings.get(&asked.request_id) {
            return Ok(answer.clone());
        }
        let order = self.change(&asked.order_id, |truth, order| {
            let open = matches!(order.state(), OrderState::Waiting | OrderState::Creating);
            let paid_unheard = !order.channel_transaction.is_empty();
            if open && paid_unheard {
                order.set_state(OrderState::Paid);
                self.tell(truth, EventKind::OrderPaid, order, "");
            } else if open && play != Play::StillOpen {
                order.set_state(OrderState::Closed);
                self.tell(truth, EventKind::OrderClosed, order, "");
            }
        })?;
        // Kept for ever: a new attempt needs a new key.
        locked(&self.truth).closings.insert(asked.request_id.clone(), order.clone());
        Ok(order)
    }

    fn begin_refund(&self, asked: &pb::RefundRequest, play: Play) -> Result<pb::RefundRecord, Status> {
        if let Some(refund) = locked(&self.truth).refunds.get(&asked.request_id) {
            return Ok(refund.clone());
        }
        let order = self.order(&asked.order_id, "")?;
        let in_hand = matches!(order.state(), OrderState::Paid | OrderState::Refunding);
        if !in_hand {
            return Err(rule("payments.lastmile", "REFUND_EXCEEDS_CAPTURE"));
        }
        let state = match play {
            Play::RefundFails => RefundState::Failed,
            Play::RefundSlow => RefundState::Processing,
            _ => RefundState::Succeeded,
        };
        let refund = pb::RefundRecord {
            refund_id: format!("rfd_{:032x}", locked(&self.truth).refunds.len() + 1),
            request_id: asked.request_id.clone(),
            order_id: asked.order_id.clone(),
            amount: asked.amount.clone(),
            state: state.into(),
            ..pb::RefundRecord::default()
        };
        locked(&self.truth).refunds.insert(asked.request_id.clone(), refund.clone());
        self.settle_refund(&refund)?;
        Ok(refund)
    }

    /// Brings the order and the stream in line with a refund.
    fn settle_refund(&self, refund: &pb::RefundRecord) -> Result<(), Status> {
        self.change(&refund.order_id, |truth, order| match refund.state() {
            RefundState::Succeeded => {
                order.set_state(OrderState::Refunded);
                self.tell(truth, EventKind::RefundSucceeded, order, &refund.refund_id);
            }
            RefundState::Failed => {
                order.set_state(OrderState::Paid);
                self.tell(truth, EventKind::RefundFailed, order, &refund.refund_id);
            }
            _ => order.set_state(OrderState::Refunding),
        })?;
        Ok(())
    }
}

fn minor(order: &pb::Order) -> i64 {
    order.amount.as_ref().map(|money| money.amount_minor).expect("an amount")
}

fn minor_of(money: Option<&Money>) -> i64 {
    money.map(|money| money.amount_minor).expect("an amount")
}

fn missing(reason: &'static str) -> Status {
    Trouble::status(Kind::NotFound, Effect::None, "payments.lastmile", reason)
}

fn rule(domain: &'static str, reason: &'static str) -> Status {
    Trouble::status(Kind::RuleBroken, Effect::None, domain, reason)
}

#[tonic::async_trait]
impl PaymentService for Payments {
    async fn create_order(
        &self,
        request: Request<pb::CreateOrderRequest>,
    ) -> Result<Response<pb::CreateOrderResponse>, Status> {
        let asked = request.into_inner();
        let known = locked(&self.truth).refused.get(&asked.request_id).copied();
        let play = known.map_or_else(|| self.script.next("create", minor_of(asked.amount.as_ref())), Play::Reject);
        let order = match play {
            Play::LoseRequest | Play::Refuse => None,
            Play::Reject(reason) => {
                locked(&self.truth).refused.insert(asked.request_id, reason);
                return Err(rule("payments.lastmile", reason));
            }
            _ => Some(self.create(&asked, play)?),
        };
        self.play(play, pb::CreateOrderResponse { order }).await
    }

    async fn get_order(&self, request: Request<pb::GetOrderRequest>) -> Result<Response<pb::GetOrderResponse>, Status> {
        let asked = request.into_inner();
        let order = self.order(&asked.order_id, &asked.request_id)?;
        let play = self.script.next("get", minor(&order));
        let order = self.change(&order.order_id, |_, order| {
            if order.state() == OrderState::Creating {
                order.set_state(OrderState::Waiting);
            }
        })?;
        self.play(play, pb::GetOrderResponse { order: Some(order) }).await
    }

    async fn refresh_order(
        &self,
        request: Request<pb::RefreshOrderRequest>,
    ) -> Result<Response<pb::RefreshOrderResponse>, Status> {
        let order = self.order(&request.get_ref().order_id, "")?;
        let play = self.script.next("refresh", minor(&order));
        let order = self.change(&order.order_id, |truth, order| {
            if order.state() == OrderState::Waiting && !order.channel_transaction.is_empty() {
                order.set_state(OrderState::Paid);
                self.tell(truth, EventKind::OrderPaid, order, "");
            }
        })?;
        self.play(play, pb::RefreshOrderResponse { order: Some(order) }).await
    }

    async fn close_order(
        &self,
        request: Request<pb::CloseOrderRequest>,
    ) -> Result<Response<pb::CloseOrderResponse>, Status> {
        let asked = request.into_inner();
        let order = self.order(&asked.order_id, "")?;
        let play = self.script.next("close", minor(&order));
        let order = match play {
            Play::LoseRequest | Play::Refuse => order,
            _ => self.close(&asked, play)?,
        };
        self.play(play, pb::CloseOrderResponse { order: Some(order) }).await
    }

    async fn post_order(
        &self,
        request: Request<pb::PostOrderRequest>,
    ) -> Result<Response<pb::PostOrderResponse>, Status> {
        let asked = request.into_inner();
        let order = self.order(&asked.order_id, "")?;
        let play = self.script.next("post", minor(&order));
        if matches!(play, Play::LoseRequest | Play::Refuse) {
            return self.play(play, pb::PostOrderResponse::default()).await;
        }
        let mut refused = false;
        let order = self.change(&asked.order_id, |truth, order| match order.state() {
            OrderState::Paid => {
                order.set_state(OrderState::Posted);
                self.tell(truth, EventKind::OrderPosted, order, "");
            }
            OrderState::Posted => {}
            _ => refused = true,
        })?;
        if refused {
            return Err(rule("payments.lastmile", "ORDER_NOT_PAID"));
        }
        self.play(play, pb::PostOrderResponse { order: Some(order) }).await
    }

    async fn refund(&self, request: Request<pb::RefundRequest>) -> Result<Response<pb::RefundResponse>, Status> {
        let asked = request.into_inner();
        let play = self.script.next("refund", minor_of(asked.amount.as_ref()));
        let refund = match play {
            Play::LoseRequest | Play::Refuse => None,
            _ => Some(self.begin_refund(&asked, play)?),
        };
        self.play(play, pb::RefundResponse { refund }).await
    }

    async fn get_refund(
        &self,
        request: Request<pb::GetRefundRequest>,
    ) -> Result<Response<pb::GetRefundResponse>, Status> {
        let asked = request.into_inner();
        let found = locked(&self.truth).refunds.get(&asked.request_id).cloned();
        let mut refund = found.ok_or_else(|| missing("REFUND_NOT_FOUND"))?;
        let play = self.script.next("get_refund", minor_of(refund.amount.as_ref()));
        if refund.state() == RefundState::Processing && play == Play::Answer {
            refund.set_state(RefundState::Succeeded);
            locked(&self.truth).refunds.insert(asked.request_id, refund.clone());
            self.settle_refund(&refund)?;
        }
        self.play(play, pb::GetRefundResponse { refund: Some(refund) }).await
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let asked = request.into_inner();
        let mut grown = self.grown.subscribe();
        let read = || -> Vec<pb::Event> {
            let after = usize::try_from(asked.after_sequence).expect("not negative");
            let max = usize::try_from(asked.page_size).expect("not negative");
            locked(&self.truth).events.iter().skip(after).take(max).cloned().collect()
        };
        let mut events = read();
        if events.is_empty() {
            let wait = Duration::from_millis(u64::try_from(asked.wait_ms).expect("not negative"));
            let _ = self.clock.timeout(wait, grown.changed()).await;
            events = read();
        }
        Ok(Response::new(pb::ListEventsResponse { events }))
    }

    not_served! {
        pb: create_combined_order(CreateCombinedOrderRequest) -> CreateCombinedOrderResponse,
            list_transfers(ListTransfersRequest) -> ListTransfersResponse, get_account(GetAccountRequest) -> GetAccountResponse,
            reconcile(ReconcileRequest) -> ReconcileResponse, list_breaks(ListBreaksRequest) -> ListBreaksResponse,
            resolve_break(ResolveBreakRequest) -> ResolveBreakResponse,
            refund_posted(RefundPostedRequest) -> RefundPostedResponse,
            cut_settlement(CutSettlementRequest) -> CutSettlementResponse,
            list_settlements(ListSettlementsRequest) -> ListSettlementsResponse,
            get_settlement(GetSettlementRequest) -> GetSettlementResponse,
            read_settlement_file(ReadSettlementFileRequest) -> ReadSettlementFileResponse,
            confirm_settlement(ConfirmSettlementRequest) -> ConfirmSettlementResponse,
            verify_receipt(VerifyReceiptRequest) -> VerifyReceiptResponse;
    }
}
