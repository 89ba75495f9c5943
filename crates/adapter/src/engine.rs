//! Running the operations of a profile: steps out, outcome back.
//!
//! The engine knows what a query, a lock or a settlement is and what may follow from each failure; the profile knows the department.
//! Every legacy call is made once. What changes something and brings no readable answer is UNKNOWN, never success and never failure.

use std::sync::Arc;
use std::time::Duration;

use minijinja::Value;
use runtime::Context;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use crate::applicant::Citizen;
use crate::connector::{Answer, Call, CallError, Connector, Effect, LinkErrorKind, ReadFlaw, Unreadable};
use crate::error::{Error, Place};
use crate::gate::{Class, Gate, Pass};
use crate::plan::{ItemPlan, Plan, StepPlan};
use crate::profile::{Changes, Verdict};
use crate::record::Record;
use crate::template::{self, Failed, Scope, Vars};
use crate::words::without_identifiers;

mod hold;
mod observe;
mod outcome;
mod read;
mod rows;
mod settle;

pub use rows::CURRENCY;

pub use hold::{LockAsked, Locked, Released};
pub use outcome::{Bill, BillState, Listed, Outcome, Queried, Receipt, Rejection, Settled};
pub use read::Page;
pub use settle::{InquireAsked, SettleAsked};

/// What changes something is not begun with less time than this left.
const CHANGE_TIME_MIN: Duration = Duration::from_millis(100);
/// What the adapter itself needs after the department's answer.
const OWN_COST: Duration = Duration::from_millis(5);
/// Longest operation, whatever the caller allows.
const OPERATION_MAX: Duration = Duration::from_secs(30);

/// Longest code of a department that is passed on.
const CODE_CHARS_MAX: usize = 64;
/// Digits of a message's own number.
const SERIAL_DIGITS: usize = 20;

/// One back end: a profile, the way to it, and what it bears.
pub struct Backend {
    plan: Arc<Plan>,
    connector: Box<dyn Connector>,
    gate: Gate,
    settings: Value,
    observe: observe::Exchanges,
    context: Context,
    serials: Box<dyn Fn() -> String + Send + Sync>,
}

/// An operation that is running.
pub(crate) struct Run<'b> {
    backend: &'b Backend,
    vars: Vars,
    deadline: Instant,
    /// What must not stand in a text that leaves.
    hidden: Vec<String>,
    _pass: Pass,
}

/// How the steps of an operation came to their end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// All were made; the department said so to the last.
    Done(Answer),
    /// All were made; the department has not decided about the last.
    Pending(Answer),
    /// A step said that no more are needed.
    Enough,
    /// The department refused.
    Rejected(Rejection),
    /// A change may have happened or not; the reason is for the log.
    Unknown(Error),
    /// The department knows nothing of what was inquired.
    NeverHappened,
}

/// What a single call brought.
enum Called {
    /// An answer to go on with.
    Answered(Answer, Verdict),
    /// Nothing that can be read, after bytes left for something that changes.
    Unknown(Error),
}

impl Backend {
    /// Puts a back end together. `settings` replace those of the profile that have the same name.
    #[must_use]
    pub fn new(
        plan: Arc<Plan>,
        connector: Box<dyn Connector>,
        settings: &[(String, String)],
        context: Context,
    ) -> Self {
        let replaced = |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let values = plan
            .profile
            .settings
            .iter()
            .map(|(name, value)| (name.to_owned(), replaced(name).unwrap_or(value).to_owned()));
        let settings = Value::from_pairs(values);
        let gate = Gate::new(plan.limits(), plan.profile.zone, context.clock.clone());
        let ids = context.ids.clone();
        let observe = observe::Exchanges::new(plan.name(), &context.metrics);
        Self { plan, connector, gate, settings, observe, context, serials: Box::new(move || ids.hex(SERIAL_DIGITS)) }
    }

    /// Numbers its messages another way: golden cases need to know the number.
    #[must_use]
    pub fn with_serials(self, serials: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { serials: Box::new(serials), ..self }
    }

    /// Returns its compiled profile.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Begins an operation: waits for its turn and sets what every expression may use.
    async fn begin(
        &self,
        class: Class,
        deadline: Option<Instant>,
        item: &ItemPlan,
        citizen: &Citizen,
        input: &serde_json::Value,
    ) -> Result<Run<'_>, Error> {
        let latest = Instant::now() + OPERATION_MAX;
        let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
        let deadline = deadline.checked_sub(OWN_COST).ok_or(Error::DeadlinePassed)?;
        let pass =
            tokio::time::timeout_at(deadline, self.gate.enter(class)).await.map_err(|_| Error::DeadlinePassed)??;
        let now = crate::kind::rfc3339(self.context.clock.now()).unwrap_or_default();
        let vars = Vars::default()
            .with("settings", self.settings.clone())
            .with("now", now)
            .with("applicant", citizen.to_value())
            .with("input", item.input_value(input));
        let bound = item.input.subjects().iter().filter_map(|(field, _)| input.get(field)?.as_str());
        let hidden = citizen.identifiers().into_iter().chain(bound).map(str::to_owned).collect();
        Ok(Run { backend: self, vars, deadline, hidden, _pass: pass })
    }

    fn place(&self, exchange: &str, field: &str, offset: usize, what: impl ToString) -> Place {
        let field = if exchange.is_empty() { field.to_owned() } else { format!("{exchange}.{field}") };
        Place { profile: self.plan.name().to_owned(), field, offset, what: what.to_string() }
    }

    fn unreadable(&self, exchange: &str, flaw: &Unreadable) -> Error {
        Error::Unreadable(self.place(exchange, &flaw.field, flaw.at, &flaw.flaw))
    }

    /// An expression of the profile that fails before a request is begun: it stands in no bytes.
    fn broken(&self, what: &str, failed: &Failed) -> Error {
        let field = match &failed.place {
            template::Place::Field(field) => field.clone(),
            template::Place::Line(line) => format!("line {line}"),
        };
        Error::Broken(self.place(what, &field, 0, &failed.why))
    }
}

impl Run<'_> {
    /// Makes the steps. `points` are passed before, while and after the last one.
    pub(crate) async fn steps(&mut self, steps: &[StepPlan], points: Option<&Points>) -> Result<Ended, Error> {
        let mut ended = Ended::Enough;
        for (position, step) in steps.iter().enumerate() {
            let is_last = position + 1 == steps.len();
            let points = points.filter(|_| is_last);
            match self.step(step, points).await? {
                Stepped::Skipped => {}
                Stepped::Went(went) => match went {
                    Ended::Done(_) => ended = went,
                    Ended::Pending(_) if is_last => ended = went,
                    // A step in the middle that is not decided cannot be built upon.
                    Ended::Pending(answer) => return Err(self.odd_code(step, &answer)),
                    Ended::Unknown(reason) if !is_last => return Err(undecided(self.backend, step, &reason)),
                    Ended::Enough | Ended::Rejected(_) | Ended::Unknown(_) | Ended::NeverHappened => return Ok(went),
                },
            }
        }
        Ok(ended)
    }

    async fn step(&mut self, step: &StepPlan, points: Option<&Points>) -> Result<Stepped, Error> {
        let skipped = |run: &mut Self| {
            run.vars.set(&step.name, ());
            Ok(Stepped::Skipped)
        };
        if let Some(when) = &step.when
            && !self.value(when)?.is_true()
        {
            return skipped(self);
        }
        let Some((each, element)) = &step.each else {
            return match self.call(step, &self.vars, points).await? {
                Called::Answered(answer, verdict) => match self.judge(step, answer, verdict)? {
                    Judged::Skip => skipped(self),
                    Judged::Went(went, body) => {
                        self.vars.set(&step.name, body.unwrap_or_default());
                        Ok(Stepped::Went(went))
                    }
                },
                Called::Unknown(reason) => Ok(Stepped::Went(Ended::Unknown(reason))),
            };
        };
        let elements = self.value(each)?;
        let mut bodies = Vec::new();
        let mut last = None;
        for value in crate::mapping::elements(&elements).map_err(|why| self.broken_expression(step, why))? {
            let vars = self.vars.clone().with(element.clone(), value);
            match self.call(step, &vars, None).await? {
                Called::Answered(answer, verdict) => match self.judge(step, answer, verdict)? {
                    Judged::Went(went @ Ended::Done(_), body) => {
                        bodies.push(body.unwrap_or_default());
                        last = Some(went);
                    }
                    Judged::Skip => bodies.push(Value::from(())),
                    Judged::Went(went, _) => return Ok(Stepped::Went(went)),
                },
                Called::Unknown(reason) => return Ok(Stepped::Went(Ended::Unknown(reason))),
            }
        }
        self.vars.set(&step.name, bodies.into_iter().collect::<Value>());
        Ok(last.map_or(Stepped::Skipped, Stepped::Went))
    }

    /// What the department's code means for the operation.
    fn judge(&self, step: &StepPlan, answer: Answer, verdict: Verdict) -> Result<Judged, Error> {
        let body = answer.body.clone();
        Ok(match verdict {
            Verdict::Done => Judged::Went(Ended::Done(answer), body),
            Verdict::Pending => Judged::Went(Ended::Pending(answer), body),
            Verdict::Skip => Judged::Skip,
            Verdict::Enough => Judged::Went(Ended::Enough, None),
            Verdict::Reject(code) => {
                Judged::Went(Ended::Rejected(self.rejection(code, &answer.code, &answer.text)), None)
            }
            Verdict::NeverHappened => Judged::Went(Ended::NeverHappened, None),
            Verdict::Closed => return Err(Error::Closed { opens_at: None }),
            Verdict::Busy => return Err(Error::Busy(Duration::from_secs(1))),
            Verdict::Broken => {
                let what = format!("the department does not understand the request (code {})", answer.code);
                return Err(Error::Broken(self.backend.place(&step.call, &answer.code_field, answer.code_at, what)));
            }
            Verdict::Unknown if self.changes(step) => {
                Judged::Went(Ended::Unknown(Error::Unreachable(rpc::Effect::Possible)), None)
            }
            Verdict::Unknown => return Err(Error::Unreachable(rpc::Effect::None)),
        })
    }

    /// A refusal in the department's words, identifiers taken out.
    fn rejection(&self, code: String, department_code: &str, words: &str) -> Rejection {
        let department_text = without_identifiers(words, self.hidden.iter().map(String::as_str));
        let department_code = department_code.chars().take(CODE_CHARS_MAX).collect();
        Rejection { code, department_code, department_text }
    }

    fn changes(&self, step: &StepPlan) -> bool {
        let exchange = self.backend.plan.exchanges.get(&step.call);
        exchange.is_none_or(|exchange| exchange.changes == Changes::Something)
    }

    /// Makes one call and reads what its code means.
    async fn call(&self, step: &StepPlan, vars: &Vars, points: Option<&Points>) -> Result<Called, Error> {
        let changes = self.changes(step);
        let asked = self.request_vars(step, vars)?;
        let budget = self.turn(changes).await?;
        if let Some(points) = points {
            runtime::crash::point(points.before_send);
        }
        let plan = &self.backend.plan;
        let call = Call {
            exchange: &step.call,
            vars: &asked,
            budget,
            reply_bytes_max: usize::try_from(plan.limits().reply_bytes_max).unwrap_or(usize::MAX),
            sent_point: points.map(|points| points.after_send),
        };
        let span = tracing::info_span!(
            "department.exchange",
            otel.kind = "client",
            profile = plan.name(),
            exchange = step.call,
            changes,
            request_bytes = Empty,
            reply_bytes = Empty,
            code = Empty,
            end = Empty,
        );
        let begun = Instant::now();
        let called = self.backend.connector.call(&plan.templates, call).instrument(span.clone()).await;
        self.backend.observe.ended(&step.call, begun.elapsed(), &called, &span);
        if let Some(points) = points {
            runtime::crash::point(points.after_reply);
        }
        let answer = match called {
            Ok(answer) => answer,
            Err(error) => return self.failed(step, error, changes),
        };
        let read = self.check_echo(step, &asked, &answer).and_then(|()| self.verdict(step, &answer));
        match read {
            Ok(verdict) => Ok(Called::Answered(answer, verdict)),
            Err(flaw) if changes => Ok(Called::Unknown(self.backend.unreadable(&step.call, &flaw))),
            Err(flaw) => Err(self.backend.unreadable(&step.call, &flaw)),
        }
    }

    /// The values of a request: what the step gives, and what every request has.
    fn request_vars(&self, step: &StepPlan, vars: &Vars) -> Result<Vars, Error> {
        let templates = &self.backend.plan.templates;
        let values = templates.eval(&step.with, vars).map_err(|failed| self.backend.broken(&step.call, &failed))?;
        let mut asked = Vars::default()
            .with("settings", self.backend.settings.clone())
            .with("now", crate::kind::rfc3339(self.backend.context.clock.now()).unwrap_or_default())
            .with("serial", (self.backend.serials)());
        for (name, value) in step.with.fields().zip(values) {
            asked.set(name, value);
        }
        Ok(asked)
    }

    /// Waits for the rate and tells how long the call may take.
    async fn turn(&self, changes: bool) -> Result<Duration, Error> {
        let paced = tokio::time::timeout_at(self.deadline, self.backend.gate.keep_pace()).await;
        paced.map_err(|_| Error::DeadlinePassed)??;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let least = if changes { CHANGE_TIME_MIN } else { Duration::from_millis(1) };
        if left < least {
            return Err(Error::DeadlinePassed);
        }
        Ok(left.min(self.backend.plan.limits().timeout.get()))
    }

    /// A call without an answer: nothing was sent, or nothing can be known, or it was only a question.
    fn failed(&self, step: &StepPlan, error: CallError, changes: bool) -> Result<Called, Error> {
        let (error, effect) = match error {
            CallError::Unwritable(flaw) => {
                let place = self.backend.place(&step.call, &flaw.field, flaw.at, &flaw.flaw);
                let error = if flaw.is_callers() { Error::Unmappable(place) } else { Error::Broken(place) };
                (error, Effect::None)
            }
            CallError::Link(link) => {
                let effect = if changes { link.effect } else { Effect::None };
                let error = match link.kind {
                    LinkErrorKind::Timeout => Error::Timeout,
                    LinkErrorKind::Reply(flaw) => self.backend.unreadable(&step.call, &flaw),
                    LinkErrorKind::Connect | LinkErrorKind::Broken => Error::Unreachable(fault_effect(effect)),
                };
                (error, link.effect)
            }
            CallError::Unreadable(flaw) => (self.backend.unreadable(&step.call, &flaw), Effect::Possible),
        };
        if changes && effect == Effect::Possible { Ok(Called::Unknown(error)) } else { Err(error) }
    }

    /// The reply must be about what was asked.
    fn check_echo(&self, step: &StepPlan, asked: &Vars, answer: &Answer) -> Result<(), Unreadable> {
        let plan = &self.backend.plan;
        let expect = plan.exchanges.get(&step.call).and_then(|exchange| exchange.expect.as_ref());
        let (Some(expect), Some(body)) = (expect, &answer.body) else { return Ok(()) };
        let wanted = plan
            .templates
            .eval(expect, asked)
            .map_err(|failed| Unreadable::new("expect", 0, ReadFlaw::Template(failed.why)))?;
        for (path, wanted) in expect.fields().zip(&wanted) {
            let (found, at) = follow(body, path);
            if found.as_ref() != Some(wanted) {
                return Err(Unreadable::new(path, at, ReadFlaw::Foreign));
            }
        }
        Ok(())
    }

    fn verdict(&self, step: &StepPlan, answer: &Answer) -> Result<Verdict, Unreadable> {
        let verdict = self.backend.plan.verdict(step, &answer.code).cloned();
        verdict.ok_or_else(|| Unreadable::new(&answer.code_field, answer.code_at, ReadFlaw::Code))
    }

    /// A code that has no meaning at this place of the operation.
    fn odd_code(&self, step: &StepPlan, answer: &Answer) -> Error {
        self.backend.unreadable(&step.call, &Unreadable::new(&answer.code_field, answer.code_at, ReadFlaw::Code))
    }

    fn broken_expression(&self, step: &StepPlan, why: crate::template::Why) -> Error {
        Error::Broken(self.backend.place(&step.call, "each", 0, why))
    }

    /// Evaluates one expression.
    pub(crate) fn value(&self, scope: &Scope) -> Result<Value, Error> {
        let values = self.values(scope)?;
        Ok(values.into_iter().next().unwrap_or_default())
    }

    /// Evaluates the expressions of a scope over the replies so far.
    pub(crate) fn values(&self, scope: &Scope) -> Result<Vec<Value>, Error> {
        let values = self.backend.plan.templates.eval(scope, &self.vars);
        values.map_err(|failed| self.backend.broken(scope.template(), &failed))
    }
}

/// What a code means for its step.
enum Judged {
    /// The step's variable is none.
    Skip,
    /// It counts; with the body of the reply.
    Went(Ended, Option<Value>),
}

/// What a step came to.
enum Stepped {
    /// It was not made, or its answer is none.
    Skipped,
    Went(Ended),
}

/// Where a drill may kill the process around a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Points {
    pub(crate) before_send: &'static str,
    pub(crate) after_send: &'static str,
    pub(crate) after_reply: &'static str,
}

/// Something before the deciding step is not known. The deciding step was not made, so nothing of what the operation is for
/// happened, and it may be asked again: what the earlier step may have done, it does once (it has our key).
fn undecided(backend: &Backend, step: &StepPlan, reason: &Error) -> Error {
    tracing::warn!(profile = backend.plan.name(), exchange = step.call, %reason, "a step before the deciding one is not known");
    Error::Unreachable(rpc::Effect::None)
}

fn fault_effect(effect: Effect) -> rpc::Effect {
    match effect {
        Effect::None => rpc::Effect::None,
        Effect::Possible => rpc::Effect::Possible,
    }
}

/// Follows a path of fields into a reply: the value, and where it stands.
fn follow(body: &Value, path: &str) -> (Option<Value>, usize) {
    let (mut value, mut at) = (body.clone(), 0);
    for field in path.split('.') {
        let Some(record) = Record::of(&value) else { return (None, at) };
        at = record.offset(field).unwrap_or(at);
        let Some(next) = record.get(field).cloned() else { return (None, at) };
        value = next;
    }
    (Some(value), at)
}
