//! Queries and lists of bills. They change nothing.

use minijinja::Value;
use serde_json::Value as Json;
use tokio::time::Instant;

use super::outcome::{Bill, Listed, Queried};
use super::rows::Row;
use super::{Backend, Ended, Run};
use crate::applicant::{Binding, Citizen};
use crate::connector::ReadFlaw;
use crate::error::Error;
use crate::gate::Class;
use crate::plan::ItemPlan;
use crate::profile::Applicant;
use crate::template::Scope;

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Rows before it; a multiple of `size`.
    pub offset: u64,
    /// Rows wanted, from 1.
    pub size: u64,
}

impl Page {
    fn to_value(self) -> Value {
        let number = self.offset.checked_div(self.size).unwrap_or(0).saturating_add(1);
        Value::from_pairs(
            [("size", self.size), ("offset", self.offset), ("number", number)]
                .map(|(name, value)| (name, Value::from(value))),
        )
    }
}

impl Backend {
    /// Reads a citizen's records. `input` was held to its schema.
    pub async fn query(
        &self,
        item: &ItemPlan,
        citizen: &Citizen,
        input: &Json,
        page: Page,
        deadline: Option<Instant>,
    ) -> Result<Queried, Error> {
        let plan = item.operations.query.as_ref().ok_or(Error::ItemNotOffered)?;
        let binding = citizen.bind(item, input)?;
        let mut run = self.begin(Class::Read, deadline, item, citizen, input).await?;
        run.vars.set("page", page.to_value());
        if let Some(rejection) = run.read(&plan.steps).await? {
            return Ok(Queried { result: Err(rejection), next_offset: None });
        }
        let rows = plan.rows.as_ref().map(|rows| run.rows(item, rows)).transpose()?.unwrap_or_default();
        check_owners(item, citizen, binding, input, &rows)?;
        let next_offset = run.next_offset(plan.total.as_ref(), page)?;
        let records = Json::Array(rows.into_iter().map(|row| row.record).collect());
        let result = plan.result.eval(&self.plan.templates, &run.vars, Some(&records));
        let result = result.map_err(|unmapped| run.unmapped(unmapped, 0))?;
        if let Some(violation) = item.result.check(&result).into_iter().next() {
            return Err(Error::Unreadable(self.place("result", &violation.field, 0, violation.what)));
        }
        Ok(Queried { result: Ok(result), next_offset })
    }

    /// Lists what a citizen can pay. `input` was held to its schema.
    pub async fn list_bills(
        &self,
        item: &ItemPlan,
        citizen: &Citizen,
        input: &Json,
        page: Page,
        deadline: Option<Instant>,
    ) -> Result<Listed, Error> {
        let plan = item.operations.list_bills.as_ref().ok_or(Error::ItemNotOffered)?;
        let binding = citizen.bind(item, input)?;
        let mut run = self.begin(Class::Read, deadline, item, citizen, input).await?;
        run.vars.set("page", page.to_value());
        if let Some(rejection) = run.read(&plan.steps).await? {
            return Ok(Listed { bills: Err(rejection), next_offset: None });
        }
        let rows = run.rows(item, &plan.rows)?;
        check_owners(item, citizen, binding, input, &rows)?;
        let next_offset = run.next_offset(plan.total.as_ref(), page)?;
        let bills = rows.into_iter().map(|row| row.into_bill(self)).collect::<Result<Vec<Bill>, Error>>()?;
        Ok(Listed { bills: Ok(bills), next_offset })
    }
}

impl Run<'_> {
    /// Makes steps that only read; a refusal is handed back.
    pub(super) async fn read(&mut self, steps: &[crate::plan::StepPlan]) -> Result<Option<super::Rejection>, Error> {
        match self.steps(steps, None).await? {
            Ended::Done(_) | Ended::Enough => Ok(None),
            Ended::Rejected(rejection) => Ok(Some(rejection)),
            // A question is not taken for later, and nothing is inquired here.
            Ended::Pending(answer) => Err(self.odd(&answer.code_field, answer.code_at, ReadFlaw::Code)),
            Ended::NeverHappened => Err(self.odd("code", 0, ReadFlaw::Code)),
            Ended::Unknown(reason) => Err(reason),
        }
    }

    fn next_offset(&self, total: Option<&Scope>, page: Page) -> Result<Option<u64>, Error> {
        let Some(total) = total else { return Ok(None) };
        let total = self.value(total)?;
        let total = u64::try_from(total).map_err(|_| self.odd("total", 0, ReadFlaw::Missing))?;
        let next = page.offset.saturating_add(page.size);
        Ok((next < total).then_some(next))
    }
}

/// Nobody reads another's record: one that is not the citizen's own makes the whole request a mismatch.
fn check_owners(item: &ItemPlan, citizen: &Citizen, binding: Binding, input: &Json, rows: &[Row]) -> Result<(), Error> {
    if item.item.applicant == Applicant::Anyone {
        return Ok(());
    }
    let is_own = |row: &Row| row.owner.as_deref().is_some_and(|owner| citizen.is(owner));
    if rows.iter().all(is_own) {
        return Ok(());
    }
    // The bound field that was not proven by an attribute is the one that does not fit.
    let field = item.input.subjects().iter().map(|(field, _)| field).find(|field| input.get(field.as_str()).is_some());
    let field = field.filter(|_| binding == Binding::ByOwner).map_or("input", String::as_str);
    Err(Error::SubjectMismatch(field.to_owned()))
}
