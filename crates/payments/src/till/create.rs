//! CreateOrder: first the order is kept, then the channel is called, then its answer is kept.

use std::sync::Arc;

use contracts::ids::OrderId;
use futures::FutureExt;
use rpc::Effect;
use runtime::{Timestamp, crash};
use store::lease::Lease;
use tokio::time::Instant;

use super::notice::number_of;
use super::{Till, subject};
use crate::channel::{Capabilities, ChannelError};
use crate::convert::CreateAsk;
use crate::domain::ledger::Merchant;
use crate::domain::order::{Order, Terms};
use crate::error::Error;
use crate::repo::requests::Key;

/// What became of an attempt to make an order.
enum Made {
    /// There was one already under this key.
    Known,
    /// It was made, and the channel called; the error is the channel's.
    Called(Option<ChannelError>),
}

impl Till {
    /// Creates an order and hands back the encoded answer, the same for every call under one key.
    pub(crate) async fn create(self: &Arc<Self>, ask: CreateAsk) -> Result<Vec<u8>, Error> {
        crash::point("payments.create.before_claim");
        let key = ask.key.clone();
        let is_known = self.known(&mut self.db.read().await?, &key).await?.is_some();
        let made = if is_known {
            Made::Known
        } else {
            let till = Arc::clone(self);
            self.to_end("payments.create", async move { till.make(ask).await }.boxed()).await?
        };
        let deadline = match made {
            Made::Known => self.deadline(),
            // What an attempt did not bring is not waited for: the caller asks again.
            Made::Called(_) => Instant::now(),
        };
        let answer = self.creation(&key, deadline).await.map_err(Error::possible);
        crash::point("payments.create.before_answer");
        match (answer, made) {
            (Err(Error::ChannelUnavailable { effect, .. }), Made::Called(source)) => {
                Err(Error::ChannelUnavailable { effect, source })
            }
            (answer, _) => answer,
        }
    }

    async fn make(self: Arc<Self>, ask: CreateAsk) -> Result<Made, Error> {
        let order = self.new_order(&ask)?;
        let now = order.terms.created_at;
        let id = order.terms.id.to_string();
        let lease = Lease {
            key: id.clone(),
            owner: self.owner.clone(),
            fence: 1,
            due_at: Some(now),
            until: now.plus(self.config.worker.lease.get()),
        };
        let claimed = self.teller.open(ask.key, order.clone(), lease.clone()).await?;
        if !claimed {
            return Ok(Made::Known);
        }
        crash::point("payments.create.after_commit");
        let looked = self.look_order(&lease, order, true).await;
        looked.map(Made::Called).map_err(Error::possible)
    }

    /// Makes an order of what was asked, under the settings of now.
    fn new_order(&self, ask: &CreateAsk) -> Result<Order, Error> {
        if !self.config.has_payee(&ask.payee_id) {
            return Err(Error::PayeeUnknown);
        }
        let capabilities = self.channel(&ask.channel)?.capabilities();
        if !capabilities.trade_types.contains(&ask.trade_type)
            || !capabilities.currencies.contains(&ask.amount.currency())
        {
            return Err(Error::ChannelNotOffered);
        }
        let now = self.now();
        check_limits(ask, capabilities, now)?;
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
            merchant: Merchant { channel: merchant.channel.clone(), number: merchant.mch_id.clone() },
            app_id: merchant.app_id.clone(),
            trade_type: ask.trade_type,
            channel_order_no: number_of(id.bits()),
            notify_url: self.config.channels.wechatpay.notify_url(&merchant.mch_id),
            description: ask.description.clone(),
            created_at: now,
            expire_at: ask.expire_at,
        };
        let sealed = match &ask.payer {
            None => None,
            Some(payer) => {
                let sealed = self.vault.as_ref().and_then(|vault| vault.seal(id, payer));
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
                let order = self.order(&mut reader, subject(&known.subject)?).await?;
                if let Some(code) = order.refusal {
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

fn check_limits(ask: &CreateAsk, capabilities: &Capabilities, now: Timestamp) -> Result<(), Error> {
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
