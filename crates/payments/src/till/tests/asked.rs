//! What clients of the till asked and were answered, and the judgement at the end of everything that goes wrong.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use contracts::payments::v1 as pb;
use invariants::{Call, Deed, Found, Journals, World, check_all};
use prost::Message;

use super::*;
use crate::error::Error;

/// Every request that was made, by its id. An answer that is there once is the same for ever.
#[derive(Default)]
pub(super) struct Asked(Mutex<BTreeMap<String, Heard>>);

#[derive(Clone, Default)]
struct Heard {
    deed: Option<Deed>,
    answers: Vec<Vec<u8>>,
    /// Tries that have not come back, or came back without an answer.
    lost: u32,
}

impl Asked {
    /// A request is made; until it is answered nobody knows what becomes of it.
    pub(super) fn asks(&self, deed: Option<Deed>, request_id: &str) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = asked.entry(request_id.to_owned()).or_default();
        heard.deed = deed;
        heard.lost += 1;
    }

    /// The request was answered.
    pub(super) fn told(&self, request_id: &str, answer: Vec<u8>) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = asked.entry(request_id.to_owned()).or_default();
        heard.lost -= 1;
        if let Some(first) = heard.answers.first() {
            assert_eq!(*first, answer, "{request_id}: another answer");
        }
        heard.answers.push(answer);
    }

    /// What clients know of orders and refunds: what they were answered, and what they find by the request id where they were not.
    async fn calls(&self, till: &Till) -> Vec<Call> {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut calls = Vec::new();
        for (request_id, Heard { deed, answers, lost }) in asked {
            let Some(deed) = deed else { continue };
            let id = |answer: &Vec<u8>| match deed {
                Deed::Refund => {
                    pb::RefundResponse::decode(answer.as_slice()).ok()?.refund.map(|refund| refund.refund_id)
                }
                _ => pb::CreateOrderResponse::decode(answer.as_slice()).ok()?.order.map(|order| order.order_id),
            };
            let found = match deed {
                Deed::Refund => till.refund_by_request("cases", &request_id).await.map(|refund| refund.id.to_string()),
                _ => till.order_by_request("cases", &request_id).await.map(|order| order.terms.id.to_string()),
            };
            let found = match found {
                Ok(id) => Found::Done(id),
                Err(Error::NotFound { .. }) => Found::Never,
                Err(error) => panic!("{request_id}: {error:?}"),
            };
            let (caller, answers) = ("cases".to_owned(), answers.iter().filter_map(id).collect());
            calls.push(Call { deed, caller, request_id, answers, lost, found: Some(found), ..Call::default() });
        }
        calls
    }

    /// Nothing is open, and every invariant holds that speaks of payments and the channel; the rest has nobody here to be judged of.
    pub(super) async fn assert_held(&self, till: &Till, played: &Played) {
        let world = World {
            payments: Some(till.db.clone()),
            journals: Some(Journals { channel: played.journal(), ..Journals::default() }),
            calls: Some(self.calls(till).await),
            ..World::at(till.now())
        };
        let report = check_all(&world).await.expect("reads");
        report.require(&["I1", "I2", "I3", "I4", "I5"]).expect("everybody's books agree");
        assert_eq!(report.evidence.ledger.open, 0, "nothing stays open");
    }
}
