//! CreateOrder: first the order is kept, then the channel is called, then its answer is kept.

use std::sync::Arc;

use contracts::ids::OrderId;
use contracts::payments::v1 as pb;
use futures::FutureExt;
use prost::Message;
use rpc::Effect;
use runtime::{Timestamp, crash};
use store::lease::Lease;
use tokio::time::Instant;

use super::Till;
use super::notice::number_of;
use crate::channel::{Capabilities, ChannelError};
use crate::convert::{self, CreateAsk};
use crate::domain::ledger::Merchant;
use crate::domain::order::{Order, State, Terms};
use crate::error::Error;
use crate::repo::requests::Key;

/// What became of an attempt to make an order.
pub(super) enum Made {
    /// There was one already under this key.
    Known,
    /// It was made, and the channel called.
    Called {
        /// The encoded answer, when it can be paid.
        answer: Option<Vec<u8>>,
        /// What the channel did not answer.
        failed: Option<ChannelError>,
    },
}

impl Till {
    /// Creates an order and hands back the encoded answer, the same for every call under one key.
    pub(crate) async fn create(self: &Arc<Self>, ask: CreateAsk) -> Result<Vec<u8>, Error> {
        crash::point("payments.create.before_claim");
        let key = ask.key.clone();
        let made = match self.new_order(&ask) {
            Ok(order) => {
                let till = Arc::clone(self);
                self.to_end("payments.create", async move { till.make(ask.key, order).await }.boxed()).await?
            }
            // What could not be made today may have been made under this key before.
            Err(_) if self.known(&mut self.db.read().await?, &key).await?.is_some() => Made::Known,
            Err(error) => return Err(error),
        };
        self.creation_told(&key, made).await
    }

    /// The answer to a creation: what the attempt brought, or what was or is being brought by another.
    pub(super) async fn creation_told(&self, key: &Key, made: Made) -> Result<Vec<u8>, Error> {
        let (deadline, failed) = match made {
            Made::Known => (self.deadline(), None),
            Made::Called { answer: Some(answer), .. } => {
                crash::point("payments.create.before_answer");
                return Ok(answer);
            }
            // What an attempt did not bring is not waited for: the caller asks again.
            Made::Called { failed, .. } => (Instant::now(), failed),
        };
        let answer = self.creation(key, deadline).await.map_err(Error::possible);
        crash::point("payments.create.before_answer");
        match (answer, failed) {
            (Err(Error::ChannelUnavailable { effect, .. }), source @ Some(_)) => {
                Err(Error::ChannelUnavailable { effect, source })
            }
            (answer, _) => answer,
        }
    }

    async fn make(self: Arc<Self>, key: Key, order: Order) -> Result<Made, Error> {
        let lease = self.first_lease(&order);
        let is_new = self.teller.open(key, order.clone(), lease.clone()).await?;
        if !is_new {
            return Ok(Made::Known);
        }
        crash::point("payments.create.after_commit");
        let (order, failed) = self.look_order(&lease, order, true).await.map_err(Error::possible)?;
        let answer = (order.state == State::Waiting).then(|| creation_answer(&order)).transpose()?;
        Ok(Made::Called { answer, failed })
    }

    /// The lease by which the maker of an order has it in hand.
    pub(super) fn first_lease(&self, order: &Order) -> Lease {
        let now = order.terms.created_at;
        Lease {
            key: order.followed_as(),
            owner: self.owner.clone(),
            fence: 1,
            due_at: Some(now),
            until: now.plus(self.config.worker.lease.get()),
        }
    }

    /// Makes an order of what was asked, under the settings of now.
    pub(super) fn new_order(&self, ask: &CreateAsk) -> Result<Order, Error> {
        if !self.config.has_payee(&ask.payee_id) {
            return Err(Error::PayeeUnknown);
        }
        let channel = self.channel(&ask.channel)?;
        let capabilities = channel.capabilities();
        if !capabilities.trade_types.contains(&ask.trade_type)
            || !capabilities.currencies.contains(&ask.amount.currency())
            || ask.insurance.is_some() && !capabilities.insured_by.contains(&ask.trade_type)
        {
            return Err(Error::ChannelNotOffered);
        }
        let now = self.now();
        check_limits(ask, capabilities, now)?;
        if ask.payment_code.as_deref().is_some_and(|code| !self.config.is_payment_code(&ask.payee_id, code)) {
            return Err(Error::field("payment_code", "has not the shape that is set for this payee"));
        }
        let merchant = self.config.merchant(&ask.entry_point, &ask.channel, &ask.payee_id);
        let merchant = merchant.ok_or(Error::MerchantUnknown)?;
        let id = OrderId::new(self.context.ids.uuid().as_u128());
        let terms = Terms {
            id,
            caller: ask.key.caller.clone(),
            request_id: ask.key.request_id.clone(),
            case_id: ask.case_id.clone(),
            payee_id: ask.payee_id.clone(),
            amount: ask.amount,
            merchant: Merchant { channel: merchant.channel().to_owned(), number: merchant.mch_id.clone() },
            app_id: merchant.app_id.clone(),
            trade_type: ask.trade_type,
            channel_order_no: number_of(id.bits()),
            notify_url: channel.notify_url(&merchant.mch_id),
            description: ask.description.clone(),
            created_at: now,
            expire_at: ask.expire_at,
            payment_code: ask.payment_code.clone(),
            receipt_prefix: self.config.receipts.prefix(&ask.payee_id),
            insured: ask.insurance.as_ref().map(|insurance| insurance.insured.clone()),
        };
        let sealed = match &ask.payer {
            None => None,
            Some(payer) => {
                // Who is treated is sealed with who pays.
                let patient = ask.insurance.as_ref().map(|insurance| insurance.patient.write(payer));
                let payer = patient.unwrap_or_else(|| Some(payer.clone()));
                let sealed = self.vault.as_ref().zip(payer).and_then(|(vault, payer)| vault.seal(id, &payer));
                Some(sealed.ok_or(Error::Internal("the payer reference cannot be sealed"))?)
            }
        };
        let order = Order::new(terms, sealed);
        // It is sent right after the commit; to say so with it saves a commit and errs on the safe side.
        Ok(Order { is_sent: true, ..order })
    }

    /// Waits for the answer to a creation.
    ///
    /// Errors: ChannelRefused; ChannelUnavailable with effect POSSIBLE when it is not there by `deadline`.
    async fn creation(&self, key: &Key, deadline: Instant) -> Result<Vec<u8>, Error> {
        let mut changes = self.changes.subscribe();
        loop {
            {
                let mut reader = self.db.read().await?;
                let known = self.known(&mut reader, key).await?;
                let known = known.ok_or(Error::Internal("a claimed request is gone"))?;
                if let Some(answer) = known.answer {
                    return Ok(answer);
                }
                if let Some(code) = self.refusal(&mut reader, &known.subject).await? {
                    return Err(Error::ChannelRefused { code });
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::ChannelUnavailable { effect: Effect::Possible, source: None });
            }
            self.wait(&mut changes, deadline).await;
        }
    }
}

/// The answer to a creation, as it is kept when the order comes to exist; it says the same as long as the order waits.
pub(super) fn creation_answer(order: &Order) -> Result<Vec<u8>, Error> {
    Ok(pb::CreateOrderResponse { order: Some(convert::order(order)?) }.encode_to_vec())
}

fn check_limits(ask: &CreateAsk, capabilities: &Capabilities, now: Timestamp) -> Result<(), Error> {
    if capabilities.payer_for.contains(&ask.trade_type) != ask.payer.is_some() {
        return Err(Error::field("payer_reference", "this channel must have it for this trade type, or must not"));
    }
    if ask.description.len() > capabilities.description_bytes_max {
        return Err(Error::field("description", "is longer than the channel takes"));
    }
    if ask.amount.amount_minor() > capabilities.amount_minor_max {
        return Err(Error::field("amount.amount_minor", "is more than the channel takes"));
    }
    if ask.expire_at <= now || ask.expire_at > now.plus(capabilities.order_life_max) {
        return Err(Error::field("expire_time", "must be in the future, and no later than the channel allows"));
    }
    Ok(())
}
