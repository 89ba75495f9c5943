//! RefundPosted: a payee gives back what it has, when two persons say so.
//!
//! The first word is kept beside the order. The second one, of another person, ends it and claims the key of its call in one transaction;
//! the refund is then asked for under a key made of the proposal, so that whatever is tried again after that is the same refund.

use contracts::payments::v1 as pb;
use prost::Message;
use runtime::crash;
use store::Tx;

use super::Till;
use super::refund::of_currency;
use crate::convert::RefundAsk;
use crate::domain::breaks::Refused;
use crate::domain::order::Order;
use crate::domain::refund;
use crate::error::{Error, Thing};
use crate::repo::orders;
use crate::repo::proposals::{self, Proposal};
use crate::repo::requests::{self, Key, Method};

/// Under whose name the refunds are asked for that two persons agreed on.
const OPERATORS: &str = "operators";

/// Every moment at which a test may kill the second word, in its order.
pub(crate) const CRASH_POINTS: &[&str] = &["payments.proposal.after_word", "payments.proposal.after_answer"];

enum Word {
    /// It was answered, now or before.
    Answered(Vec<u8>),
    /// Two persons want it: the proposal's id.
    Agreed(String),
}

impl Till {
    /// Takes a person's word; hands back the encoded answer.
    ///
    /// Errors: NotFound, NotPaid, NotPosted, ExceedsCapture, of a first word; SamePerson; and those of the refund.
    pub(crate) async fn refund_posted(&self, ask: &RefundAsk, person: &str) -> Result<Vec<u8>, Error> {
        let proposal = match self.word(ask, person).await? {
            Word::Answered(answer) => return Ok(answer),
            Word::Agreed(proposal) => proposal,
        };
        crash::point("payments.proposal.after_word");
        let key = Key { caller: OPERATORS.to_owned(), method: Method::Refund, request_id: proposal, ..ask.key.clone() };
        let told = self.refund(&RefundAsk { key, ..ask.clone() }).await?;
        let told = pb::RefundResponse::decode(&*told).map_err(|_| Error::Internal("the answer of a refund"))?;
        let answer = pb::RefundPostedResponse { refund: told.refund, needs_second_person: false }.encode_to_vec();
        let Key { caller, method, request_id, .. } = &ask.key;
        self.db
            .transact(async |mut tx: Tx| requests::answer(&mut tx, caller, *method, request_id, &answer).await)
            .await?;
        crash::point("payments.proposal.after_answer");
        Ok(answer)
    }

    async fn word(&self, ask: &RefundAsk, person: &str) -> Result<Word, Error> {
        self.db
            .transact(async |mut tx: Tx| {
                // First the lock: whoever says the same at once has said it by then.
                let order = orders::lock_all(&mut tx, std::iter::once(ask.order)).await?.remove(&ask.order);
                if let Some(known) = self.known(&mut tx, &ask.key).await? {
                    return Ok(known.answer.map_or(Word::Agreed(known.subject), Word::Answered));
                }
                let missing = || Error::NotFound { what: Thing::Order, name: ask.order.to_string() };
                let order = order.ok_or_else(missing)?;
                let now = tx.now()?;
                if let Some(first) = proposals::get(&mut tx, ask.order).await?
                    && (first.amount, &first.reason) == (ask.amount, &ask.reason)
                {
                    if first.person == person {
                        return Err(Refused::SamePerson.into());
                    }
                    proposals::end(&mut tx, ask.order).await?;
                    super::days::claim(&mut tx, &ask.key, first.id.clone(), None, now).await?;
                    return Ok(Word::Agreed(first.id));
                }
                self.could_be_refunded(&order, ask)?;
                let proposal = Proposal {
                    id: self.context.ids.hex(32),
                    order: ask.order,
                    amount: ask.amount,
                    reason: ask.reason.clone(),
                    person: person.to_owned(),
                };
                proposals::keep(&mut tx, &proposal, now).await?;
                let answer = pb::RefundPostedResponse { refund: None, needs_second_person: true }.encode_to_vec();
                super::days::claim(&mut tx, &ask.key, proposal.id, Some(answer.clone()), now).await?;
                Ok(Word::Answered(answer))
            })
            .await
    }

    /// Whether the refund would be accepted as the order stands.
    fn could_be_refunded(&self, order: &Order, ask: &RefundAsk) -> Result<(), Error> {
        refund::accept(order, &self.refund_of(ask)).map(drop).map_err(|rule| of_currency(rule.into()))
    }
}
