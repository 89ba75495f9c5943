//! Combined orders: read part by part as CreateOrder is, and written as orders with one pay sheet.

use std::collections::BTreeSet;

use contracts::payments::v1 as pb;

use super::{Check, CreateAsk, create, order};
use crate::domain::order::Order;
use crate::error::Error;
use crate::repo::requests::{Key, Method};
use crate::till::number_of;

const PARTS: std::ops::RangeInclusive<usize> = 2..=50;

/// What CreateCombinedOrder asks.
#[derive(Debug)]
pub(crate) struct CombineAsk {
    pub(crate) key: Key,
    pub(crate) channel: String,
    /// Each as if it were asked for by itself.
    pub(crate) parts: Vec<CreateAsk>,
}

/// Reads CreateCombinedOrder. What depends on the clock and the settings is checked where they are known.
pub(crate) fn create_combined(caller: &str, request: pb::CreateCombinedOrderRequest) -> Result<CombineAsk, Error> {
    let digest = rpc::digest::request("payments.v1/CreateCombinedOrder", &request);
    let mut check = Check::default();
    let key = check.key(caller, Method::CreateCombinedOrder, &request.request_id, digest);
    check.demand("parts", PARTS.contains(&request.parts.len()), "must be 2 to 50");
    let (mut parts, mut names) = (Vec::new(), BTreeSet::new());
    for (number, part) in request.parts.into_iter().take(*PARTS.end()).enumerate() {
        let is_new = names.insert(part.request_id.clone());
        check.demand(&format!("parts[{number}].request_id"), is_new, "is another part's");
        let alone = pb::CreateOrderRequest {
            request_id: part.request_id,
            case_id: part.case_id,
            payee_id: part.payee_id,
            amount: part.amount,
            channel: request.channel.clone(),
            trade_type: request.trade_type,
            entry_point: request.entry_point.clone(),
            payer_reference: request.payer_reference.clone(),
            description: part.description,
            expire_time: request.expire_time,
            payment_code: part.payment_code,
            insurance: None,
        };
        match create(caller, alone) {
            Ok(ask) => parts.push(CreateAsk { key: key.of_part(&ask.key.request_id), ..ask }),
            Err(error) => check.add(error.of_part(number))?,
        }
    }
    check.done(Some(CombineAsk { key, channel: request.channel, parts }))
}

/// Writes a combined order, of its parts by their numbers.
pub(crate) fn combined_order<'a>(parts: impl Iterator<Item = &'a Order>) -> Result<pb::CombinedOrder, Error> {
    let mut combined = pb::CombinedOrder::default();
    for part in parts {
        let of = part.part.as_ref().ok_or(Error::Internal("an order that is no part"))?;
        combined.combined_order_id = of.of.to_string();
        combined.request_id.clone_from(&of.request_id);
        combined.channel_order_no = number_of(of.of.bits());
        let mut told = order(part)?;
        combined.pay_sheet = told.pay_sheet.take().or(combined.pay_sheet);
        combined.parts.push(told);
    }
    Ok(combined)
}
