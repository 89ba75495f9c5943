//! What a verified callback tells, held against the order and booked.

use contracts::ids::RefundId;
use runtime::crash;
use store::Tx;

use super::Till;
use crate::channel::Notice;
use crate::domain::ledger::Merchant;
use crate::domain::order::Rule;
use crate::error::Error;
use crate::repo::{orders, work};

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
                let order = {
                    let mut reader = self.db.read().await?;
                    orders::by_channel_no(&mut reader, merchant, &channel_order_no).await?
                };
                let order = order.ok_or(NoticeError::Unknown)?;
                if app_id != order.terms.app_id {
                    self.mismatch(&order, "app_id");
                    return Err(NoticeError::Differs("app_id"));
                }
                crash::point("payments.callback.before_commit");
                match self.amend(order.terms.id, move |order| order.captured(&capture)).await {
                    Ok(_) => {
                        crash::point("payments.callback.after_commit");
                        Ok(())
                    }
                    Err(Error::Rule(Rule::Differs(what))) => {
                        self.mismatch(&order, what);
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
