//! CloseOrder and RefreshOrder: what is asked of the channel while the caller waits.

use std::sync::Arc;

use contracts::ids::OrderId;
use contracts::payments::v1 as pb;
use futures::FutureExt;
use prost::Message;
use rpc::Effect;
use runtime::crash;
use store::Tx;

use super::Till;
use crate::convert;
use crate::domain::order::{Order, State};
use crate::error::Error;
use crate::repo::orders;
use crate::repo::requests::{self, Key};
use tokio::time::Instant;

impl Till {
    /// Closes an order and hands back the encoded answer. Only a final answer is kept: a caller that was told WAITING asks again.
    pub(crate) async fn close(self: &Arc<Self>, key: Key, id: OrderId) -> Result<Vec<u8>, Error> {
        if let Some(answer) = self.known(&mut self.db.read().await?, &key).await?.and_then(|known| known.answer) {
            return Ok(answer);
        }
        let deadline = self.deadline();
        let till = Arc::clone(self);
        self.to_end("payments.close", async move { till.close_by(&key, id, deadline).await }.boxed()).await
    }

    async fn close_by(&self, key: &Key, id: OrderId, deadline: Instant) -> Result<Vec<u8>, Error> {
        let mut order = self.ask_to_close(key, id).await?;
        let mut changes = self.changes.subscribe();
        while order.is_open() {
            let now = self.now();
            let lease = self
                .db
                .transact(async |mut tx: Tx| {
                    let ttl = self.config.worker.lease.get();
                    self.leases.claim_one(&mut tx, &order.followed_as(), &self.owner, now, ttl).await
                })
                .await
                .map_err(|error: store::Error| Error::from(error).possible())?;
            if let Some(lease) = lease {
                let looked = self.look(&lease).await.map_err(Error::possible);
                order = self.order_now(id).await.map_err(Error::possible)?;
                // One look is one honest attempt; what it did not bring, the worker goes on with.
                looked?;
                break;
            }
            if Instant::now() >= deadline {
                break;
            }
            self.wait(&mut changes, deadline).await;
            order = self.order_now(id).await.map_err(Error::possible)?;
        }
        if order.is_open() {
            return Ok(answer(&order)?.encode_to_vec());
        }
        self.keep_close(key, id).await.map_err(Error::possible)
    }

    pub(super) async fn order_now(&self, id: OrderId) -> Result<Order, Error> {
        let mut reader = self.db.read().await?;
        self.order(&mut reader, id).await
    }

    /// Claims the key and notes on the order that it is to be closed.
    async fn ask_to_close(&self, key: &Key, id: OrderId) -> Result<Order, Error> {
        let dealt = self.teller.change(id, Some((key.clone(), None)), |order| Ok(order.close_asked())).await?;
        crash::point("payments.close.after_commit");
        Ok(dealt.order)
    }

    /// Keeps the final answer, or hands back the one that was kept first.
    async fn keep_close(&self, key: &Key, id: OrderId) -> Result<Vec<u8>, Error> {
        self.db
            .transact(async |mut tx: Tx| {
                let order = self.order(&mut tx, id).await?;
                let answer = answer(&order)?.encode_to_vec();
                requests::answer(&mut tx, &key.caller, key.method, &key.request_id, &answer).await?;
                let known = self.known(&mut tx, key).await?;
                Ok(known.and_then(|known| known.answer).unwrap_or(answer))
            })
            .await
    }

    /// Asks the channel how an order stands, and books it. A closed one is asked about too: that is how late money is found.
    pub(crate) async fn refresh(self: &Arc<Self>, id: OrderId) -> Result<Order, Error> {
        let order = self.order_now(id).await?;
        if !is_worth_asking(&order) {
            return Ok(order);
        }
        let till = Arc::clone(self);
        self.to_end("payments.refresh", async move { till.ask_now(&order).await }.boxed()).await
    }

    /// The same in the caller's own task: for work that nobody waits for.
    pub(super) async fn refresh_now(&self, id: OrderId) -> Result<Order, Error> {
        let order = self.order_now(id).await?;
        if is_worth_asking(&order) { self.ask_now(&order).await } else { Ok(order) }
    }

    async fn ask_now(&self, order: &Order) -> Result<Order, Error> {
        let asked = match &order.part {
            None => self.ask_order(order).await?,
            Some(part) => self.ask_part(order.terms.id, part.of).await?,
        };
        // Asking has no effect at the channel that anybody has to fear.
        asked.map_err(|error| Error::ChannelUnavailable { effect: Effect::None, source: Some(error) })
    }

    /// Finds an order by the request that made it.
    pub(crate) async fn order_by_request(&self, caller: &str, request_id: &str) -> Result<Order, Error> {
        let mut reader = self.db.read().await?;
        let missing = || Error::NotFound { what: crate::error::Thing::Order, name: request_id.to_owned() };
        let known = requests::get(&mut reader, caller, requests::Method::CreateOrder, request_id).await?;
        let id = super::subject(&known.ok_or_else(missing)?.subject)?;
        orders::get(&mut reader, id).await?.ok_or_else(missing)
    }
}

/// Whether the channel may know more of it than we do.
fn is_worth_asking(order: &Order) -> bool {
    match order.state {
        State::Creating | State::Waiting => true,
        State::Closed | State::Refused => order.is_sent && !order.is_late,
        State::Paid | State::Posted | State::Refunding | State::Refunded => false,
    }
}

fn answer(order: &Order) -> Result<pb::CloseOrderResponse, Error> {
    Ok(pb::CloseOrderResponse { order: Some(convert::order(order)?) })
}
