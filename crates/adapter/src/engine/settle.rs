//! Telling the department of a payment, and asking what became of it. The deciding call is made once; without a readable answer the
//! outcome is UNKNOWN, and only the inquiry resolves it.

use minijinja::Value;
use rpc::form::SERIAL_CHARS_MAX;
use runtime::Timestamp;
use serde_json::Value as Json;
use tokio::time::Instant;

use super::outcome::{Outcome, Receipt, Rejection, Settled};
use super::{Backend, Ended, Points, Run};
use crate::applicant::Citizen;
use crate::connector::{Answer, ReadFlaw};
use crate::error::Error;
use crate::gate::Class;
use crate::plan::{InquirePlan, ItemPlan, OutcomePlan};
use crate::profile::{Then, Verdict};
use crate::template::Scope;

/// Where a drill kills the adapter around a settlement. `after_send` is passed by connectors that see the moment (fixed-tcp).
pub(crate) const SETTLE_POINTS: Points = Points {
    before_send: "adapter.settle.before_send",
    after_send: "adapter.settle.after_send",
    after_reply: "adapter.settle.after_reply",
};

/// What a settlement tells.
#[derive(Clone, Copy, Debug)]
pub struct SettleAsked<'a> {
    /// The department's number.
    pub bill_no: &'a str,
    /// Our key.
    pub request_id: &'a str,
    /// The key of the hold.
    pub lock_request_id: &'a str,
    /// What was paid, in fen.
    pub amount_minor: i64,
    /// When the channel took the money.
    pub paid_time: Timestamp,
    /// The channel.
    pub channel: &'a str,
    /// The channel's own number.
    pub channel_transaction: &'a str,
    /// The fields with which the bill was found.
    pub input: &'a Json,
}

/// What an inquiry asks.
#[derive(Clone, Copy, Debug)]
pub struct InquireAsked<'a> {
    /// The department's number.
    pub bill_no: &'a str,
    /// The key of the settlement.
    pub request_id: &'a str,
    /// When the last settlement was sent.
    pub sent_time: Timestamp,
    /// What was paid, in fen, where it is known.
    pub amount_minor: Option<i64>,
    /// The fields with which the bill was found.
    pub input: &'a Json,
}

impl Backend {
    /// Tells the department of a payment.
    pub async fn settle(
        &self,
        item: &ItemPlan,
        citizen: &Citizen,
        asked: SettleAsked<'_>,
        deadline: Option<Instant>,
    ) -> Result<Settled, Error> {
        let plan = item.operations.settle.as_ref().ok_or(Error::ItemNotOffered)?;
        let mut run = self.begin(Class::Settle, deadline, item, citizen, asked.input).await?;
        run.vars.set("bill_no", asked.bill_no);
        run.vars.set("request_id", asked.request_id);
        run.vars.set("lock_request_id", asked.lock_request_id);
        run.vars.set("amount_minor", asked.amount_minor);
        run.vars.set("paid_time", crate::kind::rfc3339(asked.paid_time).unwrap_or_default());
        run.vars.set("channel", asked.channel);
        run.vars.set("channel_transaction", asked.channel_transaction);
        let ended = run.steps(&plan.steps, Some(&SETTLE_POINTS)).await?;
        let settled = match ended {
            Ended::Rejected(rejection) => Ok(Settled::rejected(rejection)),
            Ended::Unknown(reason) => Err(reason),
            Ended::NeverHappened | Ended::Enough => Err(run.odd("code", 0, ReadFlaw::Code)),
            Ended::Done(answer) => run.settled(&plan.outcome, &plan.proof, &answer, false, Some(asked.amount_minor)),
            Ended::Pending(answer) => run.settled(&plan.outcome, &plan.proof, &answer, true, Some(asked.amount_minor)),
        };
        // From here on the payment was told: whatever cannot be read is unknown, not an error of the call.
        Ok(settled.unwrap_or_else(|reason| {
            self.say_unknown("settle", &reason);
            Settled::plain(Outcome::Unknown)
        }))
    }

    /// Asks what became of a settlement.
    pub async fn inquire(
        &self,
        item: &ItemPlan,
        citizen: &Citizen,
        asked: InquireAsked<'_>,
        deadline: Option<Instant>,
    ) -> Result<Settled, Error> {
        let plan = item.operations.inquire.as_ref().ok_or(Error::ItemNotOffered)?;
        let mut run = self.begin(Class::Settle, deadline, item, citizen, asked.input).await?;
        let amount = asked.amount_minor.map_or(Value::from(()), Value::from);
        run.vars.set("bill_no", asked.bill_no);
        run.vars.set("request_id", asked.request_id);
        run.vars.set("amount_minor", amount);
        // The time before the question: a settlement that arrives while it is asked is not missed.
        let quiet = self.context.clock.now().since(asked.sent_time) >= item.item.settle_quiet_period.get();
        match run.steps(&plan.steps, None).await? {
            Ended::Done(answer) => run.inquired(plan, &answer, false, asked.amount_minor),
            Ended::Pending(answer) => run.inquired(plan, &answer, true, asked.amount_minor),
            Ended::NeverHappened if quiet => Ok(Settled::rejected(Rejection::of("NEVER_HAPPENED"))),
            Ended::NeverHappened => Ok(Settled::plain(Outcome::Unknown)),
            // The department refuses the question; that says nothing of the payment.
            Ended::Rejected(_) | Ended::Enough => Ok(Settled::plain(Outcome::Unknown)),
            Ended::Unknown(reason) => Err(reason),
        }
    }

    /// The reason of an unknown outcome, for those who run the adapter. It names fields, never values.
    pub(super) fn say_unknown(&self, operation: &str, reason: &Error) {
        let place = match reason {
            Error::Unreadable(place) | Error::Broken(place) | Error::Unmappable(place) => Some(place),
            _ => None,
        };
        tracing::warn!(
            profile = self.plan.name(),
            operation,
            reason = rpc::Fault::reason(reason),
            field = place.map(|place| place.field.as_str()),
            offset_bytes = place.map(|place| place.offset),
            what = place.map(|place| place.what.as_str()),
            "the outcome is unknown"
        );
    }
}

impl Run<'_> {
    fn inquired(
        &self,
        plan: &InquirePlan,
        answer: &Answer,
        is_pending: bool,
        amount: Option<i64>,
    ) -> Result<Settled, Error> {
        if self.rule(&plan.outcome)? != Some(Then::Refused) {
            return self.settled(&plan.outcome, &plan.proof, answer, is_pending, amount);
        }
        let refusal = plan.refusal.as_ref().ok_or_else(|| self.odd("refusal", 0, ReadFlaw::Missing))?;
        let values = self.values(refusal)?;
        let code = self.text("refusal.code", values.first())?;
        let words = values.get(1).and_then(Value::as_str).unwrap_or_default().to_owned();
        match self.backend.plan.profile.codes.get(&code) {
            Some(Verdict::Reject(ours)) => Ok(Settled::rejected(self.rejection(ours.clone(), &code, &words))),
            _ => Err(self.odd("refusal.code", 0, ReadFlaw::Code)),
        }
    }

    fn settled(
        &self,
        outcome: &OutcomePlan,
        proof: &Scope,
        answer: &Answer,
        is_pending: bool,
        amount: Option<i64>,
    ) -> Result<Settled, Error> {
        match self.rule(outcome)? {
            // The code says that it is not decided: a body that says otherwise is not believed.
            Some(Then::Done) if is_pending => Err(self.odd("outcome", answer.code_at, ReadFlaw::Foreign)),
            Some(Then::Done) => {
                let receipt = self.receipt(proof, answer, amount)?;
                Ok(Settled { outcome: Outcome::Done, rejection: None, receipt: Some(receipt) })
            }
            Some(Then::Pending) => Ok(Settled::plain(Outcome::Pending)),
            Some(Then::Unknown | Then::Refused) => Ok(Settled::plain(Outcome::Unknown)),
            None => Err(self.odd("outcome", answer.code_at, ReadFlaw::Form("no rule of the profile fits the reply"))),
        }
    }

    /// The first rule that holds. A condition that is neither true nor false holds nothing up: it is an error.
    fn rule(&self, outcome: &OutcomePlan) -> Result<Option<Then>, Error> {
        let values = self.values(&outcome.when)?;
        for (value, then) in values.iter().zip(&outcome.then) {
            if value.kind() != minijinja::value::ValueKind::Bool {
                return Err(self.odd("outcome", 0, ReadFlaw::Form("a condition is true or false")));
            }
            if value.is_true() {
                return Ok(Some(*then));
            }
        }
        Ok(None)
    }

    fn receipt(&self, proof: &Scope, answer: &Answer, amount: Option<i64>) -> Result<Receipt, Error> {
        let values = self.values(proof)?;
        let serial = self.text("proof.serial", values.first())?;
        if !rpc::form::is_line(&serial, SERIAL_CHARS_MAX) {
            return Err(self.odd(
                "proof.serial",
                0,
                ReadFlaw::Form("not 1 to 200 characters without control characters"),
            ));
        }
        let time = self.text("proof.time", values.get(1))?;
        let time = crate::kind::parse_rfc3339(&time).ok_or_else(|| self.odd("proof.time", 0, ReadFlaw::Missing))?;
        let taken = values.get(2).and_then(|value| i64::try_from(value.clone()).ok());
        let taken = taken.ok_or_else(|| self.odd("proof.amount_minor", 0, ReadFlaw::Missing))?;
        if amount.is_some_and(|amount| amount != taken) {
            return Err(self.odd("proof.amount_minor", 0, ReadFlaw::Foreign));
        }
        Ok(Receipt { serial, time, amount_minor: taken, reply_digest: answer.digest })
    }
}
