//! The transactions: from columns to the office and back.

use std::sync::Arc;
use std::time::Duration;

use super::columns::{self, BadColumn, Column, Fields, Value};
use super::layout::{self, REQUEST_HEAD};
use super::reply::{self, Answer, Code, DONE, Group, IN_PROCESS};
use crate::beijing;
use crate::faults::Operation;
use crate::police::event::PaymentState;
use crate::police::office::{After, Before, No, Office, Subject};
use crate::police::view::{Notice, Record};

/// Rows of a list at most.
const ROWS_MAX: u64 = 20;
/// Minutes of a lock at most.
const LOCK_MINUTES_MAX: u64 = 1_440;

/// Transaction code, what it does (nothing: the link test), and the columns of its body.
const TRANSACTIONS: [(&str, Option<Operation>, &[Column]); 8] = [
    ("2001", None, &[]),
    ("2101", Some(Operation::List), layout::LIST),
    ("2102", Some(Operation::Detail), layout::DETAIL),
    ("2201", Some(Operation::Lock), layout::LOCK),
    ("2202", Some(Operation::Release), layout::RELEASE),
    ("2301", Some(Operation::Pay), layout::PAY),
    ("2302", Some(Operation::Inquire), layout::INQUIRE),
    ("2401", Some(Operation::Points), layout::POINTS),
];

/// Taiyuan's counter: who may call, and the office behind it.
pub(crate) struct Service {
    /// The office.
    pub office: Arc<Office>,
    /// The institution code that callers must give.
    pub institution: String,
}

/// A transaction with its columns read.
struct Call {
    operation: Option<Operation>,
    fields: Fields,
}

/// A request that is not even tried.
struct Unread {
    code: Code,
    detail: &'static str,
}

impl From<BadColumn> for Unread {
    fn from(BadColumn(detail): BadColumn) -> Self {
        Self { code: ("E102", "报文格式错误"), detail }
    }
}

impl Service {
    /// Answers one frame, given without its length.
    pub(crate) async fn answer(&self, bytes: &[u8]) -> Answer {
        let (transaction, serial) = (echo(bytes, 0, 4), echo(bytes, 16, 20));
        let head = |code, detail: &str| reply::head(&transaction, &serial, code, detail, self.office.now());
        let refused = |no| sent(head(reply::code_of(no), ""), Vec::new());
        let call = match self.read(bytes) {
            Ok(call) => call,
            Err(unread) => return sent(head(unread.code, unread.detail), Vec::new()),
        };
        let Some(operation) = call.operation else { return sent(head(DONE, ""), Vec::new()) };
        let suffer = self.office.suffer(operation, call.subject());
        match self.office.before(suffer).await {
            Before::Go => {}
            Before::Answer(no) => return refused(no),
            Before::HangUp => return Answer::HangUp,
        }
        let done = self.run(operation, &call).await;
        let after = self.office.after(suffer).await;
        let (head, body) = match done {
            Ok((code, body)) => (head(code, ""), body),
            Err(no) => (head(reply::code_of(no), ""), Vec::new()),
        };
        match after {
            After::Answer => sent(head, body),
            After::Internal => refused(No::Internal),
            After::HangUp => Answer::HangUp,
            After::Spoil(fault) => reply::frame(head, body).map_or_else(bug, |frame| reply::spoilt(frame, fault)),
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<Call, Unread> {
        let (head, body) = bytes.split_at_checked(columns::width(REQUEST_HEAD)).ok_or(BadColumn("jydm"))?;
        let fields = columns::read(REQUEST_HEAD, head)?;
        let code = fields.get("jydm").map_or("", String::as_str);
        let known = TRANSACTIONS.iter().find(|(known, ..)| *known == code);
        let (_, operation, layout) = known.ok_or(Unread { code: reply::UNKNOWN_TRANSACTION, detail: "" })?;
        if fields.get("jgdm") != Some(&self.institution) {
            return Err(Unread { code: reply::BAD_INSTITUTION, detail: "" });
        }
        let call = Call { operation: *operation, fields: columns::read(layout, body)? };
        call.check()?;
        Ok(call)
    }

    async fn run(&self, operation: Operation, call: &Call) -> Result<(Code, Vec<Group>), No> {
        match operation {
            Operation::List => self.list(call).await,
            Operation::Detail => self.detail(call).await,
            Operation::Lock => self.lock(call).await,
            Operation::Release => {
                self.office.release(call.get("sdh"), call.get("sdlsh")).await?;
                Ok((DONE, Vec::new()))
            }
            Operation::Pay => self.pay(call).await,
            Operation::Inquire => self.inquire(call).await,
            _ => self.points(call).await,
        }
    }

    async fn list(&self, call: &Call) -> Result<(Code, Vec<Group>), No> {
        let keep = |record: &Record| match (call.get("zt"), reply::letter(record)) {
            ("", _) => true,
            ("*", letter) => !matches!(letter, "J" | "M"),
            (wanted, letter) => wanted == letter,
        };
        let skip = usize::try_from(call.number("ksh").saturating_sub(1)).unwrap_or(usize::MAX);
        let take = usize::try_from(call.number("jls")).unwrap_or(0);
        let listing = self.office.list(call.subject(), keep, skip, take).await?;
        let counts = vec![("zjls", Value::Number(listing.total)), ("bcs", Value::Number(listing.records.len()))];
        let records = listing.records.iter().map(|record| reply::record(self.office.city(), record));
        Ok((DONE, std::iter::once((layout::LIST_REPLY, counts)).chain(records).collect()))
    }

    async fn detail(&self, call: &Call) -> Result<(Code, Vec<Group>), No> {
        let (record, evidence) = self.office.detail(call.get("wfbh")).await?;
        let offence = record.base.offence;
        let law =
            vec![("wfgd", offence.rule.into()), ("fltw", offence.law.into()), ("zjs", Value::Number(evidence.len()))];
        let head = [reply::record(self.office.city(), &record), (layout::DETAIL_REPLY, law)];
        Ok((DONE, head.into_iter().chain(evidence.iter().map(reply::evidence)).collect()))
    }

    async fn lock(&self, call: &Call) -> Result<(Code, Vec<Group>), No> {
        let span = Duration::from_secs(call.number("sdfz") * 60);
        let (lock, record) = self.office.lock(call.get("wfbh"), call.get("sdlsh"), span).await?;
        let held = vec![("sdh", lock.number.into()), ("sdzz", Value::Time(Some(lock.until)))];
        Ok((DONE, vec![(layout::LOCK_REPLY, held), reply::record(self.office.city(), &record)]))
    }

    async fn pay(&self, call: &Call) -> Result<(Code, Vec<Group>), No> {
        let notice = Notice {
            order: call.get("ddh").into(),
            record: call.get("wfbh").into(),
            lock: Some(call.get("sdh").to_owned()).filter(|number| !number.is_empty()),
            amount_minor: i64::try_from(call.number("je")).unwrap_or(i64::MAX),
            channel_number: call.get("qdlsh").into(),
        };
        let (payment, record) = self.office.pay(&notice).await?;
        let code = match payment.state {
            PaymentState::Posted { .. } => DONE,
            PaymentState::Taken { .. } => IN_PROCESS,
            PaymentState::Refused { reason } => return Err(No::Refused(reason)),
        };
        Ok((code, vec![reply::payment(&payment, record.as_ref())]))
    }

    async fn inquire(&self, call: &Call) -> Result<(Code, Vec<Group>), No> {
        let (payment, record) = self.office.inquire(call.get("ddh")).await?;
        let (code, reason) = match payment.state {
            PaymentState::Refused { reason } => reply::code_of_refusal(reason),
            PaymentState::Posted { .. } | PaymentState::Taken { .. } => ("", ""),
        };
        let refusal = vec![("jjm", code.into()), ("jjyy", reason.into())];
        Ok((DONE, vec![reply::payment(&payment, record.as_ref()), (layout::INQUIRE_REPLY, refusal)]))
    }

    async fn points(&self, call: &Call) -> Result<(Code, Vec<Group>), No> {
        let driver = self.office.points(call.get("jszh")).await?;
        let (from, to) = driver.cycle(beijing::day(self.office.now()));
        let values = vec![
            ("jszh", driver.person.number.clone().into()),
            ("xm", driver.person.name.clone().into()),
            ("dabh", self.office.city().archive_number(driver.id).into()),
            ("zjcx", driver.person.classes.into()),
            ("jszt", driver.status().into()),
            ("ljjf", Value::Number(driver.points as usize)),
            ("qsrq", Value::Day(from)),
            ("jzrq", Value::Day(to)),
            ("wcls", Value::Number(driver.unhandled)),
        ];
        Ok((DONE, vec![(layout::POINTS_REPLY, values)]))
    }
}

impl Call {
    fn get(&self, column: &str) -> &str {
        self.fields.get(column).map_or("", String::as_str)
    }

    fn number(&self, column: &str) -> u64 {
        self.get(column).parse().unwrap_or(u64::MAX)
    }

    fn subject(&self) -> Subject<'_> {
        match self.operation {
            Some(Operation::List) if self.get("cxfs") == "P" => {
                Subject::Plate(reply::plate_type(self.get("hpzl")).unwrap_or(""), self.get("hphm"))
            }
            Some(Operation::Release) => Subject::Lock(self.get("sdh")),
            Some(Operation::Inquire) => Subject::Order(self.get("ddh")),
            Some(Operation::Detail | Operation::Lock | Operation::Pay) => Subject::Record(self.get("wfbh")),
            _ => Subject::Licence(self.get("jszh")),
        }
    }

    /// What the kinds of the columns do not say yet.
    fn check(&self) -> Result<(), BadColumn> {
        let blank = |column| self.get(column).is_empty();
        let within = |column, range: std::ops::RangeInclusive<u64>| range.contains(&self.number(column));
        let key = |column| {
            let text = self.get(column);
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        let by_plate = self.get("cxfs") == "P";
        let checks: &[(&'static str, bool)] = &match self.operation {
            Some(Operation::List) => vec![
                ("cxfs", matches!(self.get("cxfs"), "P" | "L")),
                ("hpzl", if by_plate { reply::plate_type(self.get("hpzl")).is_some() } else { blank("hpzl") }),
                ("hphm", blank("hphm") != by_plate),
                ("jszh", blank("jszh") == by_plate),
                ("zt", matches!(self.get("zt"), "" | "*" | "W" | "Q" | "Y" | "D" | "J" | "M")),
                ("ksh", within("ksh", 1..=u64::MAX)),
                ("jls", within("jls", 1..=ROWS_MAX)),
            ],
            Some(Operation::Detail) => vec![("wfbh", !blank("wfbh"))],
            Some(Operation::Lock) => {
                vec![("wfbh", !blank("wfbh")), ("sdlsh", key("sdlsh")), ("sdfz", within("sdfz", 1..=LOCK_MINUTES_MAX))]
            }
            Some(Operation::Release) => vec![("sdh", !blank("sdh")), ("sdlsh", key("sdlsh"))],
            Some(Operation::Pay) => vec![
                ("ddh", key("ddh")),
                ("wfbh", !blank("wfbh")),
                ("jfsj", !blank("jfsj")),
                ("jfqd", !blank("jfqd")),
                ("qdlsh", !blank("qdlsh")),
            ],
            Some(Operation::Inquire) => vec![("ddh", key("ddh"))],
            Some(Operation::Points) => vec![("jszh", !blank("jszh"))],
            _ => Vec::new(),
        };
        checks.iter().find(|(_, good)| !good).map_or(Ok(()), |(column, _)| Err(BadColumn(column)))
    }
}

/// What of a header can be given back although the request may be ill-formed.
fn echo(bytes: &[u8], offset: usize, width: usize) -> String {
    let cell = bytes.get(offset..offset + width).unwrap_or_default();
    if cell.is_ascii() && !cell.iter().any(u8::is_ascii_control) {
        String::from_utf8_lossy(cell).trim().to_owned()
    } else {
        String::new()
    }
}

fn sent(head: Group, body: Vec<Group>) -> Answer {
    reply::frame(head, body).map_or_else(bug, |frame| Answer::Bytes(reply::framed(&frame)))
}

/// A reply that does not fit its columns is a fault of the sandbox's own data: nothing sensible can be said on this wire.
fn bug(error: columns::DoesNotFit) -> Answer {
    tracing::error!(%error, "a reply does not fit its columns");
    Answer::HangUp
}
