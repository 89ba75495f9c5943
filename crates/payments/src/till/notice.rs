//! What a verified callback tells, held against the order and booked.

use contracts::ids::{OrderId, RefundId};
use runtime::crash;
use store::Tx;

use super::Till;
use crate::channel::Notice;
use crate::domain::ledger::Merchant;
use crate::domain::order::Rule;
use crate::error::Error;
use crate::repo::work;

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
            Notice::Refund { channel_refund_no } => self.hint(&channel_refund_no).await,
            Notice::Paid { channel_order_no, app_id, capture } => {
                let id = order_of(&channel_order_no).ok_or(NoticeError::Unknown)?;
                let merchant = merchant.clone();
                crash::point("payments.callback.before_commit");
                match self.amend(id, move |order| order.told_paid(&merchant, &app_id, &capture)).await {
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
        }
    }

    /// Something became of a refund: it is asked for at once, and the answer to that is what counts.
    async fn hint(&self, channel_refund_no: &str) -> Result<(), NoticeError> {
        let Ok(id) = format!("{}{channel_refund_no}", RefundId::PREFIX).parse::<RefundId>() else {
            return Err(NoticeError::Unknown);
        };
        let now = self.now();
        self.db.transact(async |mut tx: Tx| work::wake(&mut tx, &id.to_string(), now).await).await?;
        self.nudge.notify_one();
        Ok(())
    }
}

/// The order that a channel knows by a number of ours.
fn order_of(channel_order_no: &str) -> Option<OrderId> {
    let bits = u128::from_str_radix(channel_order_no, 16).ok()?;
    (channel_order_no == number_of(bits)).then(|| OrderId::new(bits))
}

/// The number that channels know an order by: its id's.
pub(crate) fn number_of(bits: u128) -> String {
    format!("{bits:032x}")
}
