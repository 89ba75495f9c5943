//! What a verified callback tells, held against the order and booked.

use contracts::ids::{OrderId, RefundId};
use runtime::crash;
use store::Tx;

use super::Till;
use crate::channel::Notice;
use crate::domain::ledger::Merchant;
use crate::domain::order::{Capture, Order, Rule};
use crate::domain::refund::Refund;
use crate::error::Error;
use crate::repo::{refunds, work};

/// Why a verified callback was not booked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoticeError {
    /// It is about an order that we do not have.
    #[error("no such order")]
    Unknown,
    /// It does not fit the order.
    #[error("it does not fit the order: {0}")]
    Differs(&'static str),
    /// It cannot be kept now.
    #[error("it cannot be kept now")]
    Failed(#[source] Error),
}

impl<E: Into<Error>> From<E> for NoticeError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Till {
    /// Books a notice; when this returns Ok, it is durable. A duplicate changes nothing and is as good as the first.
    pub(crate) async fn heed(&self, merchant: &Merchant, notice: Notice) -> Result<(), NoticeError> {
        match notice {
            Notice::Other => Ok(()),
            Notice::Mixed { channel_order_no } => self.hint_order(merchant, &channel_order_no).await,
            Notice::Refund { channel_refund_no } => self.hint(merchant, refund_of(&channel_refund_no)?).await,
            Notice::RefundDecided { channel_order_no, channel_refund_no, amount_minor, decision } => {
                let (order, refund) = self.refund_at(merchant, refund_of(&channel_refund_no)?).await?;
                let in_cash = refund.legs.map_or(refund.amount.amount_minor(), |legs| legs.cash);
                let differs = [
                    ("out_trade_no", order.terms.channel_order_no != channel_order_no),
                    ("amount.refund", in_cash != amount_minor),
                ];
                if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
                    self.mismatch(&order, what);
                    return Err(NoticeError::Differs(what));
                }
                // It speaks of the cash leg alone, and the insurance's is still to be told.
                if in_cash != refund.amount.amount_minor() {
                    return self.hint(merchant, refund.id).await;
                }
                crash::point("payments.callback.before_commit");
                if !self.decide(&refund, decision).await? {
                    self.mismatch(&order, "refund status");
                    return Err(NoticeError::Differs("refund status"));
                }
                crash::point("payments.callback.after_commit");
                Ok(())
            }
            Notice::Paid { channel_order_no, app_id, capture } => {
                self.heed_paid(merchant.clone(), &channel_order_no, app_id, capture).await
            }
            Notice::PaidTogether { channel_order_no, app_id, parts } => {
                self.heed_together(merchant, &channel_order_no, app_id, parts).await
            }
        }
    }

    async fn heed_paid(
        &self,
        merchant: Merchant,
        channel_order_no: &str,
        app_id: String,
        capture: Capture,
    ) -> Result<(), NoticeError> {
        let id = bits_of(channel_order_no).map(OrderId::new).ok_or(NoticeError::Unknown)?;
        crash::point("payments.callback.before_commit");
        let told = merchant.clone();
        match self.amend(id, move |order| order.told_paid(&told, &app_id, &capture)).await {
            Ok(order) if order.terms.insured.is_some() => self.hint_order(&merchant, channel_order_no).await,
            Ok(_) => {
                crash::point("payments.callback.after_commit");
                Ok(())
            }
            Err(Error::NotFound { .. }) => Err(NoticeError::Unknown),
            Err(Error::Rule(Rule::Differs(what))) => {
                self.mismatch(&self.order_now(id).await?, what);
                Err(NoticeError::Differs(what))
            }
            Err(error) => Err(NoticeError::Failed(error)),
        }
    }

    /// Something became of a refund: it is asked for at once, and the answer to that is what counts.
    async fn hint(&self, merchant: &Merchant, id: RefundId) -> Result<(), NoticeError> {
        self.refund_at(merchant, id).await?;
        let now = self.now();
        self.db.transact(async |mut tx: Tx| work::wake(&mut tx, &id.to_string(), now).await).await?;
        self.nudge.notify_one();
        Ok(())
    }

    /// Reads a refund that a merchant account was told of, with its order.
    async fn refund_at(&self, merchant: &Merchant, id: RefundId) -> Result<(Order, Refund), NoticeError> {
        let mut reader = self.db.read().await?;
        let refund = refunds::get(&mut reader, id).await?.ok_or(NoticeError::Unknown)?;
        let order = self.order(&mut reader, refund.order).await?;
        if order.terms.merchant != *merchant {
            self.mismatch(&order, "merchant");
            return Err(NoticeError::Differs("merchant"));
        }
        Ok((order, refund))
    }
}

/// The bits of the id of what a channel knows by a number of ours.
pub(super) fn bits_of(channel_order_no: &str) -> Option<u128> {
    let bits = u128::from_str_radix(channel_order_no, 16).ok()?;
    (channel_order_no == number_of(bits)).then_some(bits)
}

/// The refund that a channel knows by a number of ours.
fn refund_of(channel_refund_no: &str) -> Result<RefundId, NoticeError> {
    format!("{}{channel_refund_no}", RefundId::PREFIX).parse().map_err(|_| NoticeError::Unknown)
}

/// The number that channels know an order by: its id's.
pub(crate) fn number_of(bits: u128) -> String {
    format!("{bits:032x}")
}
