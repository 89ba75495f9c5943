//! PostOrder and Refund: one transaction each, with the key, the effect and the answer in it.

use contracts::ids::{OrderId, RefundId};
use contracts::payments::v1 as pb;
use prost::Message;
use runtime::crash;

use super::{Till, subject};
use crate::convert::{self, RefundAsk};
use crate::domain::order::{Order, Rule};
use crate::domain::refund::{Refund, State as RefundState};
use crate::error::{Error, Thing};
use crate::repo::refunds;
use crate::repo::requests::{self, Key, Method};

impl Till {
    /// Gives an order's money to its payee and hands back the encoded answer.
    pub(crate) async fn post(&self, key: &Key, id: OrderId, proof_serial: &str) -> Result<Vec<u8>, Error> {
        let answer = |order: &Order| Ok(pb::PostOrderResponse { order: Some(convert::order(order)?) }.encode_to_vec());
        let (key, serial) = (key.clone(), proof_serial.to_owned());
        let dealt = self.teller.change(id, Some((key, Some(answer))), move |order| order.posted(&serial)).await?;
        crash::point("payments.post.after_commit");
        if let Some(before) = dealt.before {
            self.changed(&dealt.order, before);
        }
        let kept: pb::PostOrderResponse = convert::answer(&dealt.answer)?;
        let told = kept.order.ok_or(Error::Internal("stored answer"))?;
        let told = self.with_receipt(&dealt.order, told, dealt.receipt).await.map_err(Error::possible)?;
        Ok(pb::PostOrderResponse { order: Some(told) }.encode_to_vec())
    }

    /// A refund that is asked for.
    pub(super) fn refund_of(&self, ask: &RefundAsk) -> Refund {
        let now = self.now();
        Refund {
            id: RefundId::new(self.context.ids.uuid().as_u128()),
            order: ask.order,
            caller: ask.key.caller.clone(),
            request_id: ask.key.request_id.clone(),
            amount: ask.amount,
            legs: ask.legs,
            insurance_returned_at: ask.insurance_returned_at,
            reason: ask.reason.clone(),
            created_at: now,
            send_by: now.plus(self.config.worker.refund_send_timeout.get()),
            is_after_settlement: ask.is_after_settlement,
            version: 1,
            state: RefundState::Requested,
            is_sent: false,
            channel_refund: None,
            success_at: None,
            refusal: None,
        }
    }

    /// Accepts a refund and hands back the encoded answer. The worker takes it to the channel.
    pub(crate) async fn refund(&self, ask: &RefundAsk) -> Result<Vec<u8>, Error> {
        let dealt = self.teller.refund(ask.key.clone(), self.refund_of(ask)).await.map_err(of_currency)?;
        crash::point("payments.refund.after_commit");
        if let Some(before) = dealt.before {
            self.changed(&dealt.order, before);
            self.nudge.notify_one();
        }
        Ok(dealt.answer)
    }

    /// Reads a refund.
    pub(crate) async fn refund_by_id(&self, id: RefundId) -> Result<Refund, Error> {
        let refund = refunds::get(&mut self.db.read().await?, id).await?;
        refund.ok_or_else(|| Error::NotFound { what: Thing::Refund, name: id.to_string() })
    }

    /// Finds a refund by the request that made it.
    pub(crate) async fn refund_by_request(&self, caller: &str, request_id: &str) -> Result<Refund, Error> {
        let known = requests::get(&mut self.db.read().await?, caller, Method::Refund, request_id).await?;
        let missing = || Error::NotFound { what: Thing::Refund, name: request_id.to_owned() };
        self.refund_by_id(subject(&known.ok_or_else(missing)?.subject)?).await
    }
}

/// The one thing that can differ is what the caller wrote.
pub(super) fn of_currency(error: Error) -> Error {
    match error {
        Error::Rule(Rule::Differs(_)) => Error::field("amount.currency", "is not the currency of the order"),
        error => error,
    }
}
