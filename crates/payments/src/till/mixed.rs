//! Mixed orders (医保自费混合订单): what is theirs alone. They are made, looked at and refunded as any order; the driver knows their legs.

use contracts::ids::{OrderId, RefundId};
use runtime::crash;
use store::Tx;

use super::Till;
use super::notice::{NoticeError, bits_of};
use crate::domain::ledger::Merchant;
use crate::domain::order::{Capture, Order};
use crate::domain::refund::{Refund, State as RefundState};
use crate::error::Error;
use crate::repo::requests::{Key, Method};
use crate::repo::work;

/// Who asks for the refunds that payments makes by itself.
const OURSELVES: &str = "payments";
/// Why, for the channel and the citizen.
const REASON: &str = "医保支付未完成";

impl Till {
    /// A mixed order came to nothing, and something of it was paid: the cash leg goes back by itself, in the transaction that books it.
    /// The insurance's money never passed here and goes back at its centre; that it has to, a person is told.
    pub(super) async fn take_half(
        &self,
        order: &Order,
        cash: Option<Capture>,
        has_insurance: bool,
    ) -> Result<Order, Error> {
        if has_insurance {
            self.mismatch(order, "insurance paid for an order that failed");
        }
        let Some(cash) = cash else { return self.amend(order.terms.id, |order| Ok(order.closed())).await };
        let (key, refund) = (self.half_key(order), self.half_refund(order, &cash));
        let kept = refund.clone();
        let dealt = self.teller.give_back(key, refund, move |order| order.half_paid(&cash, &kept)).await?;
        if let Some(before) = dealt.before {
            crash::point("payments.book.after_commit");
            self.mismatch(&dealt.order, "half of an order was paid");
            self.changed(&dealt.order, before);
            self.nudge.notify_one();
        }
        Ok(dealt.order)
    }

    /// One order, one such refund: its key is the order's number.
    fn half_key(&self, order: &Order) -> Key {
        let request_id = order.terms.channel_order_no.clone();
        let digest = rpc::digest::sha256(request_id.as_bytes());
        Key { caller: OURSELVES.to_owned(), method: Method::Refund, request_id, digest }
    }

    fn half_refund(&self, order: &Order, cash: &Capture) -> Refund {
        let now = self.now();
        Refund {
            id: RefundId::new(self.context.ids.uuid().as_u128()),
            order: order.terms.id,
            caller: OURSELVES.to_owned(),
            request_id: order.terms.channel_order_no.clone(),
            amount: cash.amount,
            legs: order.legs().map(|legs| legs.cash_alone()),
            insurance_returned_at: None,
            reason: REASON.to_owned(),
            created_at: now,
            send_by: now.plus(self.config.worker.refund_send_timeout.get()),
            is_after_settlement: false,
            version: 1,
            state: RefundState::Requested,
            is_sent: false,
            channel_refund: None,
            success_at: None,
            refusal: None,
        }
    }

    /// Something became of a mixed order: it is asked for at once, and the answer to that is what counts. A leg alone is never booked.
    pub(super) async fn hint_order(&self, merchant: &Merchant, channel_order_no: &str) -> Result<(), NoticeError> {
        let id = bits_of(channel_order_no).map(OrderId::new).ok_or(NoticeError::Unknown)?;
        let order = match self.order_now(id).await {
            Err(Error::NotFound { .. }) => return Err(NoticeError::Unknown),
            order => order?,
        };
        if order.terms.merchant != *merchant {
            self.mismatch(&order, "merchant");
            return Err(NoticeError::Differs("merchant"));
        }
        let now = self.now();
        crash::point("payments.callback.before_commit");
        if !order.is_open() {
            // Nobody follows it any longer, and money may have come late.
            self.refresh_now(id).await?;
            crash::point("payments.callback.after_commit");
            return Ok(());
        }
        self.db.transact(async |mut tx: Tx| work::wake(&mut tx, &order.followed_as(), now).await).await?;
        crash::point("payments.callback.after_commit");
        self.nudge.notify_one();
        Ok(())
    }
}
