//! From the department's rows to records and bills.

use minijinja::Value;
use serde_json::Value as Json;

use super::outcome::{Bill, BillState};
use super::{Backend, Run};
use crate::canonical::bill_digest;
use crate::connector::{ReadFlaw, Unreadable};
use crate::error::Error;
use crate::mapping::{Unmapped, elements};
use crate::plan::{ItemPlan, RowPlan, RowsPlan};
use crate::record::Record;
use crate::template::Vars;

/// The currency of every department so far.
pub const CURRENCY: &str = "CNY";

/// One row, mapped and held to its schema.
pub(super) struct Row {
    pub(super) owner: Option<String>,
    pub(super) record: Json,
    fields: Json,
    at: usize,
}

impl Row {
    /// Reads it as a bill.
    pub(super) fn into_bill(self, backend: &Backend) -> Result<Bill, Error> {
        let odd = |field: &str, flaw| backend.unreadable("bill", &Unreadable::new(field, self.at, flaw));
        let missing = |field: &str| odd(field, ReadFlaw::Missing);
        let text = |field: &str| self.fields.get(field).and_then(Json::as_str);
        let number = |field: &str| self.fields.get(field).and_then(Json::as_i64);
        let state = text("bill_state").and_then(BillState::parse).ok_or_else(|| missing("bill_state"))?;
        let bill_no = text("bill_no").ok_or_else(|| missing("bill_no"))?.to_owned();
        if !rpc::form::is_number(&bill_no) {
            // Nobody could ask for this bill by its number.
            return Err(odd("bill_no", ReadFlaw::Form("not 1 to 64 characters of printable ASCII")));
        }
        let payment_code = text("payment_code").filter(|code| !code.is_empty()).map(str::to_owned);
        if !payment_code.as_deref().is_none_or(rpc::form::is_number) {
            return Err(odd("payment_code", ReadFlaw::Form("not 1 to 64 characters of printable ASCII")));
        }
        let amount_minor = number("amount_minor").ok_or_else(|| missing("amount_minor"))?;
        let digest = bill_digest(&self.record, amount_minor, CURRENCY, state.name());
        Ok(Bill {
            bill_no,
            amount_minor,
            late_fee_minor: number("late_fee_minor").ok_or_else(|| missing("late_fee_minor"))?,
            payment_code,
            state,
            record: self.record,
            digest,
        })
    }
}

impl Run<'_> {
    /// Maps every row of a list.
    pub(super) fn rows(&self, item: &ItemPlan, rows: &RowsPlan) -> Result<Vec<Row>, Error> {
        let list = self.value(&rows.each)?;
        let list = elements(&list).map_err(|why| self.odd("rows", 0, ReadFlaw::Template(why)))?;
        let mapped = list.into_iter().enumerate().map(|(position, element)| {
            let at = Record::of(&element).map_or(0, Record::at);
            let vars = self.vars.clone().with(rows.element.clone(), element).with("index", position);
            self.map_row(item, &rows.row, &vars, at)
        });
        mapped.collect()
    }

    /// Maps the one row of a lock.
    pub(super) fn row(&self, item: &ItemPlan, row: &RowPlan) -> Result<Row, Error> {
        self.map_row(item, row, &self.vars, 0)
    }

    fn map_row(&self, item: &ItemPlan, row: &RowPlan, vars: &Vars, at: usize) -> Result<Row, Error> {
        let mapped = row.0.eval(&self.backend.plan.templates, vars, None);
        let mut fields = mapped.map_err(|unmapped| self.unmapped(unmapped, at))?;
        let required = fields.get("require").and_then(Json::as_object);
        if let Some((position, _)) = required.into_iter().flatten().find(|(_, holds)| **holds != Json::Bool(true)) {
            return Err(self.odd(&format!("require.{position}"), at, ReadFlaw::Foreign));
        }
        let record = fields.get_mut("record").map(Json::take).unwrap_or_default();
        if let Some(violation) = item.record.check(&record).into_iter().next() {
            let place = self.backend.place("record", &violation.field, at, violation.what);
            return Err(Error::Unreadable(place));
        }
        let owner = fields.get("owner").and_then(Json::as_str).map(str::to_owned);
        Ok(Row { owner, record, fields, at })
    }

    /// An output that could not be made of the department's reply.
    pub(super) fn unmapped(&self, unmapped: Unmapped, at: usize) -> Error {
        self.odd(&unmapped.field, unmapped.at.unwrap_or(at), ReadFlaw::Template(unmapped.why))
    }

    pub(super) fn odd(&self, field: &str, at: usize, flaw: ReadFlaw) -> Error {
        self.backend.unreadable("", &Unreadable::new(field, at, flaw))
    }

    /// Reads a value that must be a text.
    pub(super) fn text(&self, field: &str, value: Option<&Value>) -> Result<String, Error> {
        let text = value.and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| self.odd(field, 0, ReadFlaw::Missing))
    }
}
