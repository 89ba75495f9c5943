//! Receipts: what an order's is, and whether one is ours.

use contracts::payments::v1 as pb;

use super::Till;
use crate::convert::{self, VerifyAsk};
use crate::domain::order::Order;
use crate::domain::receipt::{Due, Receipt, printed};
use crate::error::{Error, Thing};
use crate::repo::{orders, receipts};
use crate::vault::Vault;

impl Till {
    /// Writes an order as it stands, with its receipt.
    pub(crate) async fn told(&self, order: &Order) -> Result<pb::Order, Error> {
        self.with_receipt(order, convert::order(order)?, None).await
    }

    /// Adds the receipt to an answer about a posted order. A receipt never changes, and how it stands follows from the sums in the answer:
    /// so a kept answer is the same for ever, though its receipt gets its number after it is written. One that was `issued` just now is not
    /// read: a batch of postings would read all at once.
    pub(crate) async fn with_receipt(
        &self,
        order: &Order,
        told: pb::Order,
        issued: Option<Receipt>,
    ) -> Result<pb::Order, Error> {
        let Some(settled) = told.settled.as_ref().filter(|_| order.terms.receipt_prefix.is_some()) else {
            return Ok(told);
        };
        let receipt = match issued {
            Some(issued) => Some(issued),
            None => receipts::get(&mut self.db.read().await?, order.terms.id).await?,
        };
        let Some(receipt) = receipt else {
            // The money went its way all the same. `ledger verify` counts it.
            tracing::error!(order_id = %order.terms.id, "a posted order has no receipt");
            return Ok(told);
        };
        let address = self.config.receipts.address(&receipt);
        let receipt = convert::receipt(order, &receipt, settled.amount_minor, address);
        Ok(pb::Order { receipt: Some(receipt), ..told })
    }

    /// Whether a receipt is ours: of everything that is asked, all is true, or the answer is the same whatever is not.
    ///
    /// Errors: NotFound; ReceiptRests after too many wrong tries on the number.
    pub(crate) async fn verify(&self, ask: &VerifyAsk) -> Result<pb::VerifyReceiptResponse, Error> {
        let name = format!("{}/{}", ask.code, printed(ask.number));
        self.tries.begin(&name, self.now()).map_err(|after| Error::ReceiptRests { after })?;
        let found = self.genuine(ask).await;
        if !matches!(found, Ok(None)) {
            // It was right, or nobody knows: what the store suffers makes nobody's receipt rest.
            self.tries.forgive(&name);
        }
        let (order, receipt) = found?.ok_or(Error::NotFound { what: Thing::Receipt, name })?;
        convert::verified(&order, &receipt)
    }

    /// The receipt of which all that is asked is true. An installation that has no key issued none.
    async fn genuine(&self, ask: &VerifyAsk) -> Result<Option<(Order, Receipt)>, Error> {
        let seal = self.vault.as_ref().and_then(Vault::receipts);
        let mut reader = self.db.read().await?;
        // What is not there is looked at as well, so that the time tells nothing.
        let receipt = receipts::find(&mut reader, &ask.code, ask.number).await?.unwrap_or_else(|| nothing(ask));
        let order = orders::get(&mut reader, receipt.due.order).await?;
        let is_printed = receipt.due.amount == ask.amount && receipt.due.day() == ask.day;
        let is_true = seal.is_some_and(|seal| seal.is_true(&receipt, &ask.check_code)) & is_printed;
        Ok(order.filter(|_| is_true).map(|order| (order, receipt)))
    }
}

/// A receipt that nobody has, to be checked in place of one.
fn nothing(ask: &VerifyAsk) -> Receipt {
    let due = Due {
        order: contracts::ids::OrderId::new(0),
        code: ask.code.clone(),
        payee_id: String::new(),
        amount: ask.amount,
        at: runtime::Timestamp::default(),
    };
    Receipt { due, number: ask.number, key_id: String::new(), check_code: String::new() }
}
