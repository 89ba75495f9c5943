//! What makes an order a mixed one, as it is kept.

use runtime::Timestamp;
use serde::{Deserialize, Serialize};
use store::Row;

use crate::domain::insurance::{Funds, Insured, Legs, Split};

/// Written as JSON. Words are the channel's own, as the rules write them.
#[derive(Serialize, Deserialize)]
struct Kept {
    mix: String,
    order_type: String,
    total: i64,
    government: i64,
    personal: i64,
    other: i64,
    cash: i64,
    added: Vec<(String, i64)>,
    reduced: Vec<(String, i64)>,
    paid_in_cash: i64,
    serial_no: String,
    pay_order_id: Option<String>,
    insurance_created_at: Option<i64>,
    city_id: String,
    institution_no: String,
    institution_name: String,
}

/// Writes what is kept of an order.
pub(super) fn write(insured: Option<&Insured>) -> Result<Option<String>, store::Error> {
    let Some(insured) = insured else { return Ok(None) };
    let Split { total, funds, cash, added, reduced, paid_in_cash } = &insured.split;
    let kept = Kept {
        mix: insured.mix.to_string(),
        order_type: insured.order_type.clone(),
        total: *total,
        government: funds.government,
        personal: funds.personal,
        other: funds.other,
        cash: *cash,
        added: added.iter().map(|(kind, minor)| (kind.to_string(), *minor)).collect(),
        reduced: reduced.iter().map(|(kind, minor)| (kind.to_string(), *minor)).collect(),
        paid_in_cash: *paid_in_cash,
        serial_no: insured.serial_no.clone(),
        pay_order_id: insured.pay_order_id.clone(),
        insurance_created_at: insured.insurance_created_at.map(Timestamp::micros),
        city_id: insured.city_id.clone(),
        institution_no: insured.institution_no.clone(),
        institution_name: insured.institution_name.clone(),
    };
    serde_json::to_string(&kept).map(Some).map_err(|_| super::unreadable("insured"))
}

/// Reads what is kept of an order.
pub(super) fn read(row: &Row) -> Result<Option<Insured>, store::Error> {
    let Some(text) = row.get::<Option<String>>("insured")? else { return Ok(None) };
    let kept: Kept = serde_json::from_str(&text).map_err(|_| super::unreadable("insured"))?;
    kept.insured().map(Some).ok_or_else(|| super::unreadable("insured"))
}

impl Kept {
    fn insured(self) -> Option<Insured> {
        let Self { government, personal, other, .. } = self;
        let added = self.added.into_iter().map(|(kind, minor)| Some((kind.parse().ok()?, minor)));
        let reduced = self.reduced.into_iter().map(|(kind, minor)| Some((kind.parse().ok()?, minor)));
        Some(Insured {
            mix: self.mix.parse().ok()?,
            order_type: self.order_type,
            split: Split {
                total: self.total,
                funds: Funds { government, personal, other },
                cash: self.cash,
                added: added.collect::<Option<_>>()?,
                reduced: reduced.collect::<Option<_>>()?,
                paid_in_cash: self.paid_in_cash,
            },
            serial_no: self.serial_no,
            pay_order_id: self.pay_order_id,
            insurance_created_at: self.insurance_created_at.map(Timestamp::from_micros),
            city_id: self.city_id,
            institution_no: self.institution_no,
            institution_name: self.institution_name,
        })
    }
}

/// Reads what stands on each leg, from columns that are NULL where there are none.
pub(super) fn legs(row: &Row, columns: [&'static str; 4]) -> Result<Option<Legs>, store::Error> {
    let [cash, government, personal, other] = columns;
    let (cash, government) = (row.get::<Option<i64>>(cash)?, row.get::<Option<i64>>(government)?);
    let (personal, other) = (row.get::<Option<i64>>(personal)?, row.get::<Option<i64>>(other)?);
    Ok(cash
        .zip(government)
        .zip(personal.zip(other))
        .map(|((cash, government), (personal, other))| Legs { cash, funds: Funds { government, personal, other } }))
}
