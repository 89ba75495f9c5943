//! Combined orders (合单): the channel makes, closes and tells of all parts at once, and they are kept at once. What a part is from then
//! on, it is by itself: its money, its refunds and its posting are those of any order.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::ids::{CombinedOrderId, OrderId};
use contracts::payments::v1 as pb;
use futures::FutureExt;
use prost::Message;
use runtime::crash;
use store::Read;
use store::lease::Lease;

use super::create::Made;
use super::notice::bits_of;
use super::{NoticeError, Till, number_of, subject};
use crate::channel::{ChannelError, OrderStatus, PartPaid, Whole};
use crate::convert::{self, CombineAsk};
use crate::domain::combined::{Part, combined_step};
use crate::domain::ledger::Merchant;
use crate::domain::order::{Change, Order, Rule, State, Terms};
use crate::domain::plan::{self, OrderStep};
use crate::error::Error;
use crate::repo::orders;
use crate::repo::requests::Key;

/// Steps of one look: create, close, ask.
const MOVES_MAX: u32 = 3;

/// What a step of a look brought; the parts as they stand then.
enum Moved {
    To(Vec<Order>),
    /// Nothing new.
    Nothing,
    /// The channel gave no answer that says how they stand.
    Failed(ChannelError),
}

impl Till {
    /// Creates a combined order and hands back the encoded answer, the same for every call under one key.
    pub(crate) async fn create_combined(self: &Arc<Self>, ask: CombineAsk) -> Result<Vec<u8>, Error> {
        crash::point("payments.create.before_claim");
        let key = ask.key.clone();
        let made = match self.new_parts(&ask) {
            Ok(parts) => {
                let (till, key) = (Arc::clone(self), ask.key);
                let make = async move { till.make_together(key, parts).await };
                self.to_end("payments.create_combined", make.boxed()).await?
            }
            // What could not be made today may have been made under this key before.
            Err(_) if self.known(&mut self.db.read().await?, &key).await?.is_some() => Made::Known,
            Err(error) => return Err(error),
        };
        self.creation_told(&key, made).await
    }

    /// Makes the parts of what was asked, under the settings of now.
    fn new_parts(&self, ask: &CombineAsk) -> Result<Vec<Order>, Error> {
        let most = self.channel(&ask.channel)?.capabilities().combine_max;
        if most < 2 {
            return Err(Error::ChannelNotOffered);
        }
        let count = u32::try_from(ask.parts.len()).unwrap_or(u32::MAX);
        if count > most {
            return Err(Error::field("parts", "are more than the channel combines"));
        }
        let of = CombinedOrderId::new(self.context.ids.uuid().as_u128());
        let mut parts: Vec<Order> = Vec::new();
        for ((at, ask_part), number) in ask.parts.iter().enumerate().zip(1..) {
            let order = self.new_order(ask_part).map_err(|error| error.of_part(at))?;
            if parts.first().is_some_and(|first| first.terms.app_id != order.terms.app_id) {
                return Err(Error::PartsApart.of_part(at));
            }
            let part = Part { of, number, count, request_id: ask.key.request_id.clone() };
            parts.push(Order { part: Some(part), ..order });
        }
        Ok(parts)
    }

    async fn make_together(self: Arc<Self>, key: Key, parts: Vec<Order>) -> Result<Made, Error> {
        let lease = self.first_lease(parts.first().ok_or(NO_PARTS)?);
        if !self.teller.open_together(key, parts.clone(), lease.clone()).await? {
            return Ok(Made::Known);
        }
        crash::point("payments.create.after_commit");
        let (parts, failed) = self.look_parts(&lease, parts, true).await.map_err(Error::possible)?;
        let is_made = parts.iter().all(|part| part.state == State::Waiting);
        let answer = is_made.then(|| combined_answer(parts.iter())).transpose()?;
        Ok(Made::Called { answer, failed })
    }

    /// The channel's refusal of what was claimed: an order, or a combined one.
    pub(super) async fn refusal(&self, reader: &mut impl Read, claimed: &str) -> Result<Option<String>, Error> {
        if claimed.starts_with(CombinedOrderId::PREFIX) {
            let parts = orders::parts(reader, subject(claimed)?).await?;
            return Ok(parts.into_iter().find_map(|part| part.refusal));
        }
        Ok(self.order(reader, subject(claimed)?).await?.refusal)
    }

    async fn parts(&self, of: CombinedOrderId) -> Result<Vec<Order>, Error> {
        Ok(orders::parts(&mut self.db.read().await?, of).await?)
    }

    /// Takes claimed work one step further and puts it back.
    pub(super) async fn look_together(&self, lease: &Lease, of: CombinedOrderId) -> Result<(), Error> {
        let parts = self.parts(of).await?;
        let is_first = parts.iter().all(|part| !part.is_sent);
        self.look_parts(lease, parts, is_first).await.map(|_| ())
    }

    /// Takes a combined order further, as [`Till::look_order`] does an order.
    async fn look_parts(
        &self,
        lease: &Lease,
        mut parts: Vec<Order>,
        mut is_first: bool,
    ) -> Result<(Vec<Order>, Option<ChannelError>), Error> {
        let states = |parts: &[Order]| parts.iter().map(|part| part.state).collect::<Vec<_>>();
        let was = states(&parts);
        let mut failed = None;
        for _ in 0..MOVES_MAX {
            let before = states(&parts);
            match self.move_parts(&parts, is_first).await? {
                Moved::To(next) => parts = next,
                Moved::Nothing => break,
                Moved::Failed(error) => {
                    tracing::debug!(combined_order_id = %lease.key, %error, "the channel gave no answer");
                    failed = Some(error);
                    break;
                }
            }
            is_first = false;
            let is_pressing = parts.iter().any(|part| part.is_closing || self.is_over(part));
            if !is_pressing || states(&parts) == before {
                break;
            }
        }
        let open = parts.iter().find(|part| part.is_open());
        // What changed its state was put back in the transaction that kept it.
        if let Some(open) = open.filter(|_| was == states(&parts)) {
            self.put_back(lease, |attempts, now| plan::next_look(open, attempts, now, self.config.worker.pace()))
                .await?;
        }
        Ok((parts, failed))
    }

    async fn move_parts(&self, parts: &[Order], is_first: bool) -> Result<Moved, Error> {
        match combined_step(parts, self.now()) {
            OrderStep::Rest => Ok(Moved::Nothing),
            OrderStep::Forget => self.amend_together(parts, |part| Ok(part.closed())).await.map(Moved::To),
            OrderStep::Create => self.create_together(parts, is_first).await,
            OrderStep::Query => self.ask_together(parts).await,
            OrderStep::Close => self.close_together(parts).await,
        }
    }

    /// Changes every part by the rules, or none; hands back how they stand, when that is durable.
    async fn amend_together(
        &self,
        parts: &[Order],
        step: impl Fn(&Order) -> Result<Option<Change>, Rule> + Send + Sync + 'static,
    ) -> Result<Vec<Order>, Error> {
        let dealt = self.teller.change_together(parts.iter().map(|part| part.terms.id).collect(), step).await?;
        if dealt.iter().any(|dealt| dealt.before.is_some()) {
            crash::point("payments.book.after_commit");
        }
        for dealt in &dealt {
            if let Some(before) = dealt.before {
                self.changed(&dealt.order, before);
            }
        }
        Ok(dealt.into_iter().map(|dealt| dealt.order).collect())
    }

    /// Creates a combined order at the channel, or repeats that.
    async fn create_together(&self, parts: &[Order], is_first: bool) -> Result<Moved, Error> {
        let (whole, terms) = asked(parts)?;
        let payer = parts.first().map(|first| self.payer_of(first)).transpose()?.flatten();
        if parts.iter().any(|part| !part.is_sent) {
            self.amend_together(parts, |part| Ok(part.sending())).await?;
        }
        let channel = self.channel(&whole.merchant.channel)?;
        crash::point("payments.create.before_call");
        let told = channel.create_combined(&whole, &terms, payer.as_ref()).await;
        crash::point("payments.create.after_call");
        let code = match told {
            Ok(sheet) => {
                let sheet = convert::sheet(sheet, channel.capabilities().known);
                return self.amend_together(parts, move |part| Ok(part.created(sheet.clone()))).await.map(Moved::To);
            }
            Err(ChannelError::Refused { code }) if is_first => {
                return self.amend_together(parts, move |part| Ok(part.refused(code.clone()))).await.map(Moved::To);
            }
            Err(ChannelError::Refused { code } | ChannelError::Otherwise { code }) => code,
            Err(ChannelError::NotKnown) => "NOT_KNOWN".to_owned(),
            Err(error @ (ChannelError::NotNow { .. } | ChannelError::NoAnswer { .. })) => {
                if is_first && error.had_no_effect() {
                    self.amend_together(parts, |part| Ok(part.unsent())).await?;
                }
                return Ok(Moved::Failed(error));
            }
        };
        // As for an order: it cannot be created (again), and how it stands decides.
        match channel.query_combined(&whole, &terms).await {
            Err(ChannelError::NotKnown) => {
                self.amend_together(parts, move |part| Ok(part.refused(code.clone()))).await.map(Moved::To)
            }
            Ok(statuses) if statuses.contains(&OrderStatus::Pending) => self.close_together(parts).await,
            Ok(statuses) => self.take_together(parts, statuses).await,
            Err(error) => Ok(Moved::Failed(error)),
        }
    }

    /// Asks how a combined order stands of which this is a part.
    pub(super) async fn ask_part(
        &self,
        id: OrderId,
        of: CombinedOrderId,
    ) -> Result<Result<Order, ChannelError>, Error> {
        let parts = self.parts(of).await?;
        let parts = match self.ask_together(&parts).await? {
            Moved::To(parts) => parts,
            Moved::Nothing => parts,
            Moved::Failed(error) => return Ok(Err(error)),
        };
        let part = parts.into_iter().find(|part| part.terms.id == id);
        part.map(Ok).ok_or(NO_PARTS)
    }

    async fn ask_together(&self, parts: &[Order]) -> Result<Moved, Error> {
        let (whole, terms) = asked(parts)?;
        let told = self.channel(&whole.merchant.channel)?.query_combined(&whole, &terms).await;
        crash::point("payments.query.after_call");
        match told {
            Ok(statuses) => {
                // One that was being created when its time ended exists after all: it has no pay sheet, and now needs none.
                let is_over = parts.iter().any(|part| part.state == State::Creating && self.is_over(part));
                if is_over && statuses.contains(&OrderStatus::Pending) {
                    return self.close_together(parts).await;
                }
                self.take_together(parts, statuses).await
            }
            Err(ChannelError::NotKnown) => self.not_known_together(parts).await,
            Err(error) => Ok(Moved::Failed(error)),
        }
    }

    /// Closes a combined order at the channel and asks for the confirmation.
    async fn close_together(&self, parts: &[Order]) -> Result<Moved, Error> {
        let (whole, terms) = asked(parts)?;
        let channel = self.channel(&whole.merchant.channel)?;
        crash::point("payments.close.before_call");
        let closed = channel.close_combined(&whole, &terms).await;
        crash::point("payments.close.after_call");
        if let Err(error @ (ChannelError::NotNow { .. } | ChannelError::NoAnswer { .. })) = closed {
            return Ok(Moved::Failed(error));
        }
        // Whatever else it said, the query says how it stands: closed, or paid first.
        match channel.query_combined(&whole, &terms).await {
            Ok(statuses) => self.take_together(parts, statuses).await,
            Err(ChannelError::NotKnown) => self.not_known_together(parts).await,
            Err(error) => Ok(Moved::Failed(error)),
        }
    }

    /// The channel does not know a combined order: closes it here once that is final.
    async fn not_known_together(&self, parts: &[Order]) -> Result<Moved, Error> {
        let Some(open) = parts.iter().find(|part| part.is_open()) else { return Ok(Moved::Nothing) };
        let known = self.channel(&open.terms.merchant.channel)?.capabilities().known;
        if plan::is_gone(open, known, self.now(), self.config.worker.pace()) {
            return self.amend_together(parts, |part| Ok(part.closed())).await.map(Moved::To);
        }
        Ok(Moved::Nothing)
    }

    /// Books what the channel says of every part, by their order; nothing of it when one does not fit.
    async fn take_together(&self, parts: &[Order], statuses: Vec<OrderStatus>) -> Result<Moved, Error> {
        if statuses.iter().all(|status| *status == OrderStatus::Pending) {
            return Ok(Moved::Nothing);
        }
        let told: BTreeMap<_, _> = parts.iter().map(|part| part.terms.id).zip(statuses).collect();
        let step = move |part: &Order| match told.get(&part.terms.id) {
            None | Some(OrderStatus::Pending) => Ok(None),
            // No part is a mixed order.
            Some(OrderStatus::Half { .. } | OrderStatus::Differs(_)) => Err(Rule::Differs("legs")),
            Some(OrderStatus::Closed) => Ok(part.closed()),
            Some(OrderStatus::Paid(capture)) => part.captured(capture),
        };
        match self.amend_together(parts, step).await {
            Ok(parts) => Ok(Moved::To(parts)),
            Err(error) => match self.unfit(parts, &error) {
                Some(_) => Ok(Moved::Nothing),
                None => Err(error),
            },
        }
    }

    /// Books that every part was paid; when this returns Ok, that is durable.
    pub(super) async fn heed_together(
        &self,
        merchant: &Merchant,
        channel_order_no: &str,
        app_id: String,
        told: Vec<PartPaid>,
    ) -> Result<(), NoticeError> {
        let of = bits_of(channel_order_no).map(CombinedOrderId::new).ok_or(NoticeError::Unknown)?;
        let parts = self.parts(of).await?;
        let first = parts.first().ok_or(NoticeError::Unknown)?;
        let number = |part: &Order| part.terms.channel_order_no.clone();
        let told_of: BTreeMap<_, _> = told.iter().map(|part| (part.channel_order_no.clone(), part.clone())).collect();
        let is_all = told.len() == parts.len() && parts.iter().all(|part| told_of.contains_key(&number(part)));
        let unfit = [("combine_mchid", first.terms.merchant != *merchant), ("sub_orders", !is_all)];
        if let Some((what, _)) = unfit.into_iter().find(|(_, is_unfit)| *is_unfit) {
            self.mismatch(first, what);
            return Err(NoticeError::Differs(what));
        }
        let channel = merchant.channel.clone();
        let step = move |part: &Order| {
            let told = told_of.get(&part.terms.channel_order_no).ok_or(Rule::Differs("sub_orders"))?;
            let merchant = Merchant { channel: channel.clone(), number: told.merchant.clone() };
            part.told_paid_together(of, &merchant, &app_id, &told.capture)
        };
        crash::point("payments.callback.before_commit");
        match self.amend_together(&parts, step).await {
            Ok(_) => {
                crash::point("payments.callback.after_commit");
                Ok(())
            }
            Err(error) => match self.unfit(&parts, &error) {
                Some(what) => Err(NoticeError::Differs(what)),
                None => Err(NoticeError::Failed(error)),
            },
        }
    }

    /// Notes that what the channel says does not fit a part, where that is why nothing was booked.
    fn unfit(&self, parts: &[Order], error: &Error) -> Option<&'static str> {
        let Error::Part { number, error } = error else { return None };
        let Error::Rule(Rule::Differs(what)) = **error else { return None };
        self.mismatch(parts.get(*number)?, what);
        Some(what)
    }
}

const NO_PARTS: Error = Error::Internal("a combined order without parts");

/// A combined order as the channel is asked about it.
fn asked(parts: &[Order]) -> Result<(Whole, Vec<Terms>), Error> {
    let first = parts.first().ok_or(NO_PARTS)?;
    let of = first.part.as_ref().map(|part| part.of).ok_or(NO_PARTS)?;
    let whole = Whole { merchant: first.terms.merchant.clone(), channel_order_no: number_of(of.bits()) };
    Ok((whole, parts.iter().map(|part| (*part.terms).clone()).collect()))
}

/// The answer to a creation, as it is kept when the combined order comes to exist.
pub(super) fn combined_answer<'a>(parts: impl Iterator<Item = &'a Order>) -> Result<Vec<u8>, Error> {
    let combined_order = Some(convert::combined_order(parts)?);
    Ok(pb::CreateCombinedOrderResponse { combined_order }.encode_to_vec())
}
