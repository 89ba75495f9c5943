//! PostOrder and Refund: one transaction each, with the key, the effect and the answer in it.

use contracts::ids::{OrderId, RefundId};
use contracts::payments::v1 as pb;
use prost::Message;
use runtime::crash;
use store::Tx;

use super::{AMEND_TRIES_MAX, Till, subject};
use crate::convert::{self, RefundAsk};
use crate::domain::order::{Order, Rule, State};
use crate::domain::refund::{self, Refund, State as RefundState};
use crate::error::{Error, Thing};
use crate::repo::requests::{self, Key, Method};
use crate::repo::{refunds, work};

/// An encoded answer, and the change that brought it, unless it was there before.
type Done = (Vec<u8>, Option<(Order, State)>);

impl Till {
    /// Gives an order's money to its payee and hands back the encoded answer.
    pub(crate) async fn post(&self, key: &Key, id: OrderId, proof_serial: &str) -> Result<Vec<u8>, Error> {
        let answer = |order: &Order| Ok(pb::PostOrderResponse { order: Some(convert::order(order)?) }.encode_to_vec());
        let (key, serial) = (key.clone(), proof_serial.to_owned());
        let dealt = self.teller.change(id, Some((key, answer)), move |order| order.posted(&serial)).await?;
        crash::point("payments.post.after_commit");
        if let Some(before) = dealt.before {
            self.changed(&dealt.order, before);
        }
        Ok(dealt.answer)
    }

    /// Accepts a refund and hands back the encoded answer. The worker takes it to the channel.
    pub(crate) async fn refund(&self, ask: &RefundAsk) -> Result<Vec<u8>, Error> {
        let id = RefundId::new(self.context.ids.uuid().as_u128());
        for _ in 0..AMEND_TRIES_MAX {
            match self.try_refund(ask, id).await {
                Err(Error::Raced) => {}
                Err(Error::Rule(Rule::Differs(_))) => {
                    return Err(Error::field("amount.currency", "is not the currency of the order"));
                }
                Err(error) => return Err(error),
                Ok((answer, change)) => {
                    crash::point("payments.refund.after_commit");
                    if let Some((order, before)) = change {
                        self.changed(&order, before);
                        self.nudge.notify_one();
                    }
                    return Ok(answer);
                }
            }
        }
        Err(Error::Raced)
    }

    async fn try_refund(&self, ask: &RefundAsk, id: RefundId) -> Result<Done, Error> {
        self.db
            .transact(async |mut tx: Tx| {
                if let Some(answer) = self.known(&mut tx, &ask.key).await?.and_then(|known| known.answer) {
                    return Ok((answer, None));
                }
                let order = self.order(&mut tx, ask.order).await?;
                let now = tx.now()?;
                let refund = Refund {
                    id,
                    order: ask.order,
                    caller: ask.key.caller.clone(),
                    request_id: ask.key.request_id.clone(),
                    amount: ask.amount,
                    reason: ask.reason.clone(),
                    created_at: now,
                    version: 1,
                    state: RefundState::Requested,
                    is_sent: false,
                    channel_refund: None,
                    success_at: None,
                    refusal: None,
                };
                let change = refund::accept(&order, &refund)?;
                let after = self.book(&mut tx, &order, &change, Some(id)).await?;
                refunds::insert(&mut tx, &refund).await?;
                work::insert(&mut tx, &id.to_string(), now).await?;
                let answer = pb::RefundResponse { refund: Some(convert::refund_record(&refund)) }.encode_to_vec();
                self.claim(&mut tx, &ask.key, &id.to_string(), &answer).await?;
                crash::point("payments.refund.before_commit");
                Ok((answer, Some((after, order.state))))
            })
            .await
    }

    /// Keeps the answer under its key, in the transaction of its effect.
    ///
    /// Errors: Raced when an equal call was first; the next try finds its answer.
    async fn claim(&self, tx: &mut Tx, key: &Key, subject: &str, answer: &[u8]) -> Result<(), Error> {
        let now = tx.now()?;
        if requests::claim(tx, key, subject, Some(answer), now).await? { Ok(()) } else { Err(Error::Raced) }
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
