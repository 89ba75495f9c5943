//! A look at what is open at a channel: one step further with an order or refund, whoever takes it.

use contracts::ids::{CombinedOrderId, OrderId, RefundId};
use rpc::Effect;
use runtime::secret::Pii;
use runtime::{Timestamp, crash};
use store::Tx;
use store::lease::Lease;

use super::{Till, subject};
use crate::channel::{ChannelError, OrderStatus, RefundStatus};
use crate::convert;
use crate::domain::order::{Order, Rule, State};
use crate::domain::plan::{self, OrderStep, RefundStep};
use crate::domain::refund::{self, Decided, Decision, Refund};
use crate::error::{Error, Thing};
use crate::repo::{refunds, work};

/// Why a refund failed that could not be brought to the channel.
const NOT_SENT_IN_TIME: &str = "NOT_SENT_IN_TIME";
/// Steps of one look: create, close, ask.
const MOVES_MAX: u32 = 3;

/// What a step of a look brought.
enum Moved {
    /// The order as it stands now.
    To(Box<Order>),
    /// Nothing new.
    Nothing,
    /// The channel gave no answer that says how it stands.
    Failed(ChannelError),
}

impl Moved {
    fn to(order: Order) -> Self {
        Self::To(Box::new(order))
    }
}

impl Till {
    /// Takes claimed work one step further and puts it back.
    pub(crate) async fn look(&self, lease: &Lease) -> Result<(), Error> {
        if lease.key.starts_with(RefundId::PREFIX) {
            let id = subject(&lease.key)?;
            return self.look_refund(lease, id).await;
        }
        if lease.key.starts_with(CombinedOrderId::PREFIX) {
            return self.look_together(lease, subject(&lease.key)?).await;
        }
        let id: OrderId = subject(&lease.key)?;
        let order = {
            let mut reader = self.db.read().await?;
            self.order(&mut reader, id).await?
        };
        let is_first = !order.is_sent;
        self.look_order(lease, order, is_first).await.map(|_| ())
    }

    /// Takes an order further, as far as it goes now, and puts it back. `is_first`: nothing was sent for it before.
    ///
    /// Shape: the order as it stands then; what the channel did not answer is handed back and is no failure of the look.
    pub(super) async fn look_order(
        &self,
        lease: &Lease,
        order: Order,
        is_first: bool,
    ) -> Result<(Order, Option<ChannelError>), Error> {
        let was = order.state;
        let mut order = order;
        let mut is_first = is_first;
        let mut failed = None;
        for _ in 0..MOVES_MAX {
            let before = order.state;
            match self.move_order(&order, is_first).await? {
                Moved::To(next) => order = *next,
                Moved::Nothing => break,
                Moved::Failed(error) => {
                    tracing::debug!(order_id = %order.terms.id, %error, "the channel gave no answer");
                    failed = Some(error);
                    break;
                }
            }
            is_first = false;
            let is_pressing = order.is_closing || self.is_over(&order);
            if !order.is_open() || !is_pressing || order.state == before {
                break;
            }
        }
        // An order that came to exist was put back in the transaction that kept it.
        if order.is_open() && (was, order.state) != (State::Creating, State::Waiting) {
            self.put_back(lease, |attempts, now| plan::next_look(&order, attempts, now, self.config.worker.pace()))
                .await?;
        }
        Ok((order, failed))
    }

    async fn move_order(&self, order: &Order, is_first: bool) -> Result<Moved, Error> {
        match plan::order_step(order, self.now()) {
            OrderStep::Rest => Ok(Moved::Nothing),
            OrderStep::Forget => self.amend(order.terms.id, |order| Ok(order.closed())).await.map(Moved::to),
            OrderStep::Create => self.create_there(order, is_first).await,
            OrderStep::Query => self.ask(order).await,
            OrderStep::Close => self.close_there(order).await,
        }
    }

    /// Creates the order at the channel, or repeats it.
    async fn create_there(&self, order: &Order, is_first: bool) -> Result<Moved, Error> {
        let id = order.terms.id;
        let payer = self.payer_of(order)?;
        if !order.is_sent {
            self.amend(id, |order| Ok(order.sending())).await?;
        }
        let channel = self.channel(&order.terms.merchant.channel)?;
        crash::point("payments.create.before_call");
        let told = channel.create(&order.terms, payer.as_ref()).await;
        crash::point("payments.create.after_call");
        let code = match told {
            Ok(sheet) => {
                let sheet = convert::sheet(sheet, channel.capabilities().known);
                return self.amend(id, move |order| Ok(order.created(sheet.clone()))).await.map(Moved::to);
            }
            Err(ChannelError::Refused { code }) if is_first => {
                return self.amend(id, move |order| Ok(order.refused(code.clone()))).await.map(Moved::to);
            }
            Err(ChannelError::Refused { code } | ChannelError::Otherwise { code }) => code,
            Err(ChannelError::NotKnown) => "NOT_KNOWN".to_owned(),
            Err(error @ (ChannelError::NotNow { .. } | ChannelError::NoAnswer { .. })) => {
                if is_first && error.had_no_effect() {
                    self.amend(id, |order| Ok(order.unsent())).await?;
                }
                return Ok(Moved::Failed(error));
            }
        };
        // It cannot be created (again). How it stands decides; if an earlier call made it, there is no pay sheet, so it must end. Without a
        // sheet nobody can open it either, so "not known" is final here for every channel.
        match channel.query(&order.terms).await {
            Err(ChannelError::NotKnown) => {
                self.amend(id, move |order| Ok(order.refused(code.clone()))).await.map(Moved::to)
            }
            Ok(OrderStatus::Pending) => self.close_there(order).await,
            Ok(status) => self.take(order, status).await,
            Err(error) => Ok(Moved::Failed(error)),
        }
    }

    /// Opens what is kept of the payer for the channel.
    pub(super) fn payer_of(&self, order: &Order) -> Result<Option<Pii<String>>, Error> {
        let Some(sealed) = &order.payer_sealed else { return Ok(None) };
        let opened = self.vault.as_ref().and_then(|vault| vault.open_for(order.terms.id, sealed));
        opened.map(Some).ok_or(Error::Internal("the payer reference cannot be opened: another payer key file"))
    }

    /// Asks how an order stands.
    pub(super) async fn ask_order(&self, order: &Order) -> Result<Result<Order, ChannelError>, Error> {
        Ok(match self.ask(order).await? {
            Moved::To(order) => Ok(*order),
            Moved::Nothing => Ok(order.clone()),
            Moved::Failed(error) => Err(error),
        })
    }

    async fn ask(&self, order: &Order) -> Result<Moved, Error> {
        let told = self.channel(&order.terms.merchant.channel)?.query(&order.terms).await;
        crash::point("payments.query.after_call");
        match told {
            // An order that was being created when its time ended exists after all: it has no pay sheet, and now needs none.
            Ok(OrderStatus::Pending) if order.state == State::Creating && self.is_over(order) => {
                self.close_there(order).await
            }
            Ok(status) => self.take(order, status).await,
            Err(ChannelError::NotKnown) => self.not_known(order).await,
            Err(error) => Ok(Moved::Failed(error)),
        }
    }

    /// The channel does not know an order: closes it here once that is final.
    async fn not_known(&self, order: &Order) -> Result<Moved, Error> {
        let known = self.channel(&order.terms.merchant.channel)?.capabilities().known;
        if plan::is_gone(order, known, self.now(), self.config.worker.pace()) {
            return self.amend(order.terms.id, |order| Ok(order.closed())).await.map(Moved::to);
        }
        Ok(Moved::Nothing)
    }

    pub(super) fn is_over(&self, order: &Order) -> bool {
        self.now() >= order.terms.expire_at
    }

    /// Closes an order at the channel and asks for the confirmation.
    async fn close_there(&self, order: &Order) -> Result<Moved, Error> {
        let channel = self.channel(&order.terms.merchant.channel)?;
        crash::point("payments.close.before_call");
        let closed = channel.close(&order.terms).await;
        crash::point("payments.close.after_call");
        match closed {
            // Whatever it said, the query says how it stands: closed, or paid first.
            Ok(()) | Err(ChannelError::Refused { .. } | ChannelError::Otherwise { .. } | ChannelError::NotKnown) => {}
            Err(error @ (ChannelError::NotNow { .. } | ChannelError::NoAnswer { .. })) => {
                return Ok(Moved::Failed(error));
            }
        }
        match channel.query(&order.terms).await {
            Ok(status) => self.take(order, status).await,
            Err(ChannelError::NotKnown) => self.not_known(order).await,
            Err(error) => Ok(Moved::Failed(error)),
        }
    }

    /// Books what the channel says of an order.
    async fn take(&self, order: &Order, status: OrderStatus) -> Result<Moved, Error> {
        let taken = match status {
            OrderStatus::Pending => return Ok(Moved::Nothing),
            OrderStatus::Half { cash, insurance } => self.take_half(order, cash, insurance).await,
            OrderStatus::Differs(what) => Err(Error::Rule(Rule::Differs(what))),
            OrderStatus::Closed => self.amend(order.terms.id, |order| Ok(order.closed())).await,
            OrderStatus::Paid(capture) => self.amend(order.terms.id, move |order| order.captured(&capture)).await,
        };
        match taken {
            Ok(order) => Ok(Moved::to(order)),
            Err(Error::Rule(Rule::Differs(what))) => {
                self.mismatch(order, what);
                Ok(Moved::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts work back, to be looked at again; nothing happens when it is done or another holds it.
    pub(super) async fn put_back(
        &self,
        lease: &Lease,
        next: impl Fn(u32, Timestamp) -> Timestamp + Send + Sync,
    ) -> Result<(), Error> {
        self.db
            .transact(async |mut tx: Tx| {
                let Some((attempts, woken_at)) = work::looked(&mut tx, lease).await? else { return Ok(()) };
                let attempt = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
                let due_at = next(attempt, tx.now()?);
                let due_at = woken_at.map_or(due_at, |woken_at| due_at.min(woken_at));
                crash::point("payments.work.before_release");
                match self.leases.release(&mut tx, lease, Some(due_at)).await {
                    Ok(()) | Err(store::Error::LeaseLost) => Ok(()),
                    Err(error) => Err(Error::from(error)),
                }
            })
            .await
    }

    async fn look_refund(&self, lease: &Lease, id: RefundId) -> Result<(), Error> {
        let (order, refund) = {
            let mut reader = self.db.read().await?;
            let refund = refunds::get(&mut reader, id).await?;
            let refund = refund.ok_or_else(|| Error::NotFound { what: Thing::Refund, name: id.to_string() })?;
            (self.order(&mut reader, refund.order).await?, refund)
        };
        let told = match plan::refund_step(&refund, self.now()) {
            RefundStep::Rest => None,
            RefundStep::Expire => {
                Some(Ok(RefundStatus::Decided(Decision::Failed { code: NOT_SENT_IN_TIME.to_owned() })))
            }
            RefundStep::Send => Some(self.send_refund(&order, &refund, true).await?),
            RefundStep::Query => Some(self.ask_refund(&order, &refund).await?),
        };
        let is_done = match told {
            None => true,
            Some(Ok(RefundStatus::Decided(decision))) => self.decide(&refund, decision).await?,
            Some(Ok(RefundStatus::Processing { channel_refund })) => {
                let number = Some(channel_refund);
                self.amend_refund(&refund, move |refund| refund.processing(number.clone())).await?;
                false
            }
            Some(Err(error)) => {
                tracing::debug!(refund_id = %id, %error, "the channel gave no answer");
                false
            }
        };
        if is_done {
            return Ok(());
        }
        let pace = self.config.worker.pace();
        self.put_back(lease, |attempts, now| now.plus(plan::pause(attempts, pace))).await
    }

    /// Sends a refund, or repeats it.
    async fn send_refund(
        &self,
        order: &Order,
        refund: &Refund,
        is_first: bool,
    ) -> Result<Result<RefundStatus, ChannelError>, Error> {
        if !refund.is_sent {
            self.amend_refund(refund, Refund::sending).await?;
        }
        let channel = self.channel(&order.terms.merchant.channel)?;
        crash::point("payments.refund.before_call");
        let told = channel.refund(&order.terms, refund).await;
        crash::point("payments.refund.after_call");
        let failed = |code: String| Ok(Ok(RefundStatus::Decided(Decision::Failed { code })));
        let code = match told {
            Ok(status) => return Ok(Ok(status)),
            Err(ChannelError::Refused { code }) if is_first => return failed(code),
            Err(ChannelError::Refused { code } | ChannelError::Otherwise { code }) => code,
            Err(ChannelError::NotKnown) => "NOT_KNOWN".to_owned(),
            Err(error @ (ChannelError::NotNow { .. } | ChannelError::NoAnswer { .. })) => {
                if is_first && error.had_no_effect() {
                    self.amend_refund(refund, Refund::unsent).await?;
                }
                return Ok(Err(error));
            }
        };
        match channel.query_refund(&order.terms, refund).await {
            Err(ChannelError::NotKnown) => failed(code),
            told => Ok(told),
        }
    }

    /// Asks how a refund stands; one that the channel does not know is sent again, under the same number.
    async fn ask_refund(&self, order: &Order, refund: &Refund) -> Result<Result<RefundStatus, ChannelError>, Error> {
        let told = self.channel(&order.terms.merchant.channel)?.query_refund(&order.terms, refund).await;
        crash::point("payments.query.after_call");
        match told {
            Err(ChannelError::NotKnown) => self.send_refund(order, refund, false).await,
            told => Ok(told),
        }
    }

    /// Asks how an open refund stands, and books a verdict. Nothing is sent again: that is for whoever holds its lease.
    pub(super) async fn refresh_refund(&self, id: RefundId) -> Result<(), Error> {
        let refund = self.refund_by_id(id).await?;
        if !refund.is_open() {
            return Ok(());
        }
        let order = self.order_now(refund.order).await?;
        let channel = self.channel(&order.terms.merchant.channel)?;
        match channel.query_refund(&order.terms, &refund).await {
            Ok(RefundStatus::Decided(decision)) => self.decide(&refund, decision).await.map(|_| ()),
            Ok(RefundStatus::Processing { .. }) | Err(ChannelError::NotKnown) => Ok(()),
            Err(error) => Err(Error::ChannelUnavailable { effect: Effect::None, source: Some(error) }),
        }
    }

    /// Changes a refund alone.
    async fn amend_refund(
        &self,
        refund: &Refund,
        step: impl Fn(&Refund) -> Option<Refund> + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let step = move |_: &Order, refund: &Refund| Ok(step(refund).map(|refund| Decided { refund, change: None }));
        self.teller.follow(refund, step).await.map(|_| ())
    }

    /// Books the channel's verdict on a refund; false when the channel contradicts itself and nothing was booked.
    pub(super) async fn decide(&self, refund: &Refund, decision: Decision) -> Result<bool, Error> {
        match self.teller.follow(refund, move |order, refund| refund::decide(order, refund, &decision)).await {
            Ok(dealt) => {
                crash::point("payments.refund.after_decision");
                if let Some(before) = dealt.before {
                    self.changed(&dealt.order, before);
                }
                Ok(true)
            }
            Err(Error::Rule(Rule::Differs(what))) => {
                tracing::error!(refund_id = %refund.id, what, "the channel contradicts itself about a refund");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
