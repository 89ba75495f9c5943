//! Holding a bill's amount, and giving it back.

use runtime::Timestamp;
use serde_json::Value as Json;
use tokio::time::Instant;

use super::outcome::{Bill, Outcome, Rejection};
use super::{Backend, Ended, Run};
use crate::applicant::Citizen;
use crate::connector::ReadFlaw;
use crate::error::Error;
use crate::gate::Class;
use crate::plan::{ItemPlan, LockPlan};
use crate::profile::Applicant;

/// Shortest and longest hold that is asked for.
const HOLD_MINUTES: (u64, u64) = (1, 24 * 60);

/// What a lock came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Locked {
    /// The outcome.
    pub outcome: Outcome,
    /// Set when it was rejected.
    pub rejection: Option<Rejection>,
    /// The bill as it is now: when it is held, and when it is not what the citizen read.
    pub bill: Option<Bill>,
    /// Until when it is held.
    pub held_until: Option<Timestamp>,
}

/// What a release came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Released {
    /// The outcome.
    pub outcome: Outcome,
    /// Set when it was rejected.
    pub rejection: Option<Rejection>,
}

/// What a lock asks for.
#[derive(Clone, Copy, Debug)]
pub struct LockAsked<'a> {
    /// The department's number.
    pub bill_no: &'a str,
    /// Our key.
    pub request_id: &'a str,
    /// Digest of what the citizen read.
    pub digest: &'a [u8],
    /// Until when.
    pub hold_until: Timestamp,
    /// The fields with which the bill was found.
    pub input: &'a Json,
}

impl Locked {
    fn rejected(rejection: Rejection, bill: Option<Bill>) -> Self {
        Self { outcome: Outcome::Rejected, rejection: Some(rejection), bill, held_until: None }
    }

    fn plain(outcome: Outcome) -> Self {
        Self { outcome, rejection: None, bill: None, held_until: None }
    }
}

impl Backend {
    /// Re-reads a bill, compares it with what the citizen read, holds it, and compares again.
    pub async fn lock(
        &self,
        item: &ItemPlan,
        citizen: &Citizen,
        asked: LockAsked<'_>,
        deadline: Option<Instant>,
    ) -> Result<Locked, Error> {
        let plan = item.operations.lock.as_ref().ok_or(Error::ItemNotOffered)?;
        citizen.bind(item, asked.input)?;
        let mut run = self.begin(Class::Read, deadline, item, citizen, asked.input).await?;
        let seconds = asked.hold_until.since(self.context.clock.now()).as_secs();
        run.vars.set("bill_no", asked.bill_no);
        run.vars.set("request_id", asked.request_id);
        run.vars.set("hold_minutes", seconds.div_ceil(60).clamp(HOLD_MINUTES.0, HOLD_MINUTES.1));
        if let Some(refused) = run.read_bill(item, citizen, plan, asked.digest).await? {
            return Ok(refused);
        }
        match run.steps(&plan.steps, None).await? {
            Ended::Done(_) => {}
            Ended::Rejected(rejection) => return Ok(Locked::rejected(rejection, None)),
            Ended::Pending(_) => return Ok(Locked::plain(Outcome::Pending)),
            Ended::Unknown(reason) => return Ok(self.lock_unknown(&reason)),
            Ended::Enough | Ended::NeverHappened => return Err(run.odd("code", 0, ReadFlaw::Code)),
        }
        // It is held now: what cannot be read of it is not known, and the key brings the same hold again.
        match run.held_bill(item, citizen, plan) {
            Ok((bill, held_until)) if bill.digest.as_slice() == asked.digest => {
                Ok(Locked { outcome: Outcome::Done, rejection: None, bill: Some(bill), held_until: Some(held_until) })
            }
            Ok((bill, _)) => {
                drop(run);
                self.give_back(item, citizen, asked, deadline).await;
                Ok(Locked::rejected(Rejection::of("RECORD_CHANGED"), Some(bill)))
            }
            Err(reason) => Ok(self.lock_unknown(&reason)),
        }
    }

    /// Gives a held bill back.
    pub async fn release(
        &self,
        item: &ItemPlan,
        citizen: &Citizen,
        bill_no: &str,
        request_id: &str,
        lock_request_id: &str,
        deadline: Option<Instant>,
    ) -> Result<Released, Error> {
        let steps = item.operations.release.as_ref().ok_or(Error::ItemNotOffered)?;
        let mut run = self.begin(Class::Settle, deadline, item, citizen, &Json::Null).await?;
        run.vars.set("bill_no", bill_no);
        run.vars.set("request_id", request_id);
        run.vars.set("lock_request_id", lock_request_id);
        let plain = |outcome| Released { outcome, rejection: None };
        Ok(match run.steps(steps, None).await? {
            Ended::Done(_) | Ended::Enough => plain(Outcome::Done),
            Ended::Pending(_) => plain(Outcome::Pending),
            Ended::Rejected(rejection) => Released { outcome: Outcome::Rejected, rejection: Some(rejection) },
            Ended::Unknown(reason) => {
                self.say_unknown("release", &reason);
                plain(Outcome::Unknown)
            }
            Ended::NeverHappened => return Err(run.odd("code", 0, ReadFlaw::Code)),
        })
    }

    /// A hold that turned out to be of something else is given back at once; if that fails it runs out by itself.
    async fn give_back(&self, item: &ItemPlan, citizen: &Citizen, asked: LockAsked<'_>, deadline: Option<Instant>) {
        let released = self.release(item, citizen, asked.bill_no, asked.request_id, asked.request_id, deadline).await;
        if let Err(reason) = released {
            tracing::warn!(profile = self.plan.name(), %reason, "a hold of a changed record was not given back; it runs out");
        }
    }

    fn lock_unknown(&self, reason: &Error) -> Locked {
        self.say_unknown("lock", reason);
        Locked::plain(Outcome::Unknown)
    }
}

impl Run<'_> {
    /// Reads the bill and compares it with what the citizen read; what speaks against holding it is handed back.
    async fn read_bill(
        &mut self,
        item: &ItemPlan,
        citizen: &Citizen,
        plan: &LockPlan,
        digest: &[u8],
    ) -> Result<Option<Locked>, Error> {
        if let Some(rejection) = self.read(&plan.read.steps).await? {
            return Ok(Some(Locked::rejected(rejection, None)));
        }
        let row = self.row(item, &plan.read.row)?;
        // Another's bill is answered like one that does not exist.
        let is_own = row.owner.as_deref().is_some_and(|owner| citizen.is(owner));
        if item.item.applicant == Applicant::Own && !is_own {
            return Ok(Some(Locked::rejected(Rejection::of("NOT_FOUND"), None)));
        }
        let bill = row.into_bill(self.backend)?;
        if let Some(code) = bill.state.refusal() {
            return Ok(Some(Locked::rejected(Rejection::of(code), None)));
        }
        if bill.digest.as_slice() != digest {
            return Ok(Some(Locked::rejected(Rejection::of("RECORD_CHANGED"), Some(bill))));
        }
        Ok(None)
    }

    fn held_bill(&self, item: &ItemPlan, citizen: &Citizen, plan: &LockPlan) -> Result<(Bill, Timestamp), Error> {
        let row = self.row(item, &plan.row)?;
        let is_own = row.owner.as_deref().is_some_and(|owner| citizen.is(owner));
        if item.item.applicant == Applicant::Own && !is_own {
            return Err(self.odd("owner", 0, ReadFlaw::Foreign));
        }
        let until = self.value(&plan.held_until)?;
        let until = until.as_str().and_then(crate::kind::parse_rfc3339);
        let until = until.ok_or_else(|| self.odd("held_until", 0, ReadFlaw::Missing))?;
        Ok((row.into_bill(self.backend)?, until))
    }
}
