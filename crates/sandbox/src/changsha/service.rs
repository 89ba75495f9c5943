//! The operations: from elements to the office and back, over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse as _;
use axum::routing::post;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Response, StatusCode, Uri};
use runtime::Context;
use runtime::http::HangUp;

use super::envelope::{self, Node, Request, Unreadable};
use super::reply::{self, Code, DONE, IN_PROCESS};
use crate::beijing;
use crate::faults::{Fault, Operation};
use crate::police::event::PaymentState;
use crate::police::office::{After, Before, No, Office, Subject};
use crate::police::view::{Notice, Record};

/// Where the service is.
const PATH: &str = "/services/WfclService";
const WSDL: &str = include_str!("wfcl.wsdl");
const XML: &str = "text/xml; charset=GBK";
const ROWS_MAX: usize = 50;
const ROWS_DEFAULT: usize = 20;
const LOCK_MINUTES_MAX: u64 = 1_440;

/// Changsha's counter: who may call, and the office behind it.
pub(crate) struct Service {
    /// The office.
    pub office: Arc<Office>,
    /// The interface serial number that callers must give.
    pub serial: String,
    /// Calls run to their end even when the caller hangs up.
    pub context: Context,
}

/// An operation: its name, what it does, its parameters (`!` marks the required ones), and the elements of its reply after the codes,
/// which an error leaves empty (`[]` marks a list, `?` what is then absent).
struct Entry {
    name: &'static str,
    operation: Operation,
    parameters: &'static [&'static str],
    reply: &'static [&'static str],
}

const PAYMENT: [&str; 9] = ["jkzt", "jflsh", "rzsj", "xh", "jfje", "jkbj", "clbj", "ljjfq", "ljjfh"];
const INQUIRY: [&str; 11] = ["jkzt", "jflsh", "rzsj", "xh", "jfje", "jkbj", "clbj", "ljjfq", "ljjfh", "jjm", "jjyy"];

const ENTRIES: [Entry; 7] = [
    Entry {
        name: "cxWfxx",
        operation: Operation::List,
        parameters: &["jkxlh!", "hpzl", "hphm", "jszh", "clbj", "dqy", "mys"],
        reply: &["zjls", "dqy", "wfxxlb[]"],
    },
    Entry {
        name: "cxWfxq",
        operation: Operation::Detail,
        parameters: &["jkxlh!", "xh!"],
        reply: &["wfxx?", "wfgd", "fltw", "zjlb[]"],
    },
    Entry {
        name: "sdWfjl",
        operation: Operation::Lock,
        parameters: &["jkxlh!", "xh!", "ywlsh!", "sdfz!"],
        reply: &["sdbh", "sdyxq", "wfxx?"],
    },
    Entry { name: "jcSd", operation: Operation::Release, parameters: &["jkxlh!", "sdbh!", "ywlsh!"], reply: &[] },
    Entry {
        name: "tzJk",
        operation: Operation::Pay,
        parameters: &["jkxlh!", "ddh!", "xh!", "sdbh", "jfje!", "jfsj!", "jfqd!", "qdlsh!"],
        reply: &PAYMENT,
    },
    Entry { name: "cxJk", operation: Operation::Inquire, parameters: &["jkxlh!", "ddh!"], reply: &INQUIRY },
    Entry {
        name: "cxJsrjf",
        operation: Operation::Points,
        parameters: &["jkxlh!", "jszh!"],
        reply: &["jszh", "dsr", "dabh", "zjcx", "zt", "ljjf", "qsrq", "jzrq", "wcls"],
    },
];

/// A call whose parameters are checked.
struct Call {
    entry: &'static Entry,
    fields: BTreeMap<String, String>,
}

/// A parameter that is missing, unknown or ill-formed.
struct BadParameter(String);

/// Builds the HTTP routes.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new().route(PATH, post(call).get(wsdl)).with_state(service)
}

async fn wsdl(State(_): State<Arc<Service>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    if !uri.query().is_some_and(|query| query.eq_ignore_ascii_case("wsdl")) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let address = format!("http://{}{PATH}", quick_xml::escape::escape(host));
    document(StatusCode::OK, envelope::encoded(&WSDL.replace("{address}", &address)))
}

async fn call(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let tasks = service.context.tasks.clone();
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let answer = async move { service.answer(&body, content_type.as_deref()).await };
    tasks.run_to_end("sandbox police call", answer).await.unwrap_or_else(|_| hang_up())
}

impl Service {
    async fn answer(&self, body: &[u8], content_type: Option<&str>) -> Response<Body> {
        let request = match envelope::read(body, content_type) {
            Ok(request) => request,
            Err(Unreadable(reason)) => return faulted("Client", reason),
        };
        let Some(entry) = ENTRIES.iter().find(|entry| entry.name == request.operation) else {
            return faulted("Client", "未知的操作");
        };
        let call = match self.check(entry, request) {
            Ok(call) => call,
            Err((code, detail)) => return refused(entry, code, &detail),
        };
        let suffer = self.office.suffer(entry.operation, call.subject());
        match self.office.before(suffer).await {
            Before::Go => {}
            Before::Answer(no) => return refused(entry, reply::code_of(no), ""),
            Before::HangUp => return hang_up(),
        }
        let done = self.run(&call).await;
        let nodes = match done {
            Ok((code, body)) => reply::head(code, "").into_iter().chain(body).collect(),
            Err(no) => empty(entry, reply::code_of(no), ""),
        };
        match self.office.after(suffer).await {
            After::Answer => document(StatusCode::OK, envelope::encoded(&envelope::reply(entry.name, &nodes))),
            After::Internal => refused(entry, reply::code_of(No::Internal), ""),
            After::HangUp => hang_up(),
            After::Spoil(Fault::Fault) => faulted("Server", "系统内部错误"),
            After::Spoil(fault) => document(StatusCode::OK, reply::spoilt(entry.name, nodes, fault)),
        }
    }

    fn check(&self, entry: &'static Entry, request: Request) -> Result<Call, (Code, String)> {
        let call = Call { entry, fields: request.fields };
        call.check().map_err(|BadParameter(name)| (reply::BAD_PARAMETER, name))?;
        if call.get("jkxlh") == self.serial { Ok(call) } else { Err((reply::BAD_CALLER, String::new())) }
    }

    async fn run(&self, call: &Call) -> Result<(Code, Vec<Node>), No> {
        match call.entry.operation {
            Operation::List => self.list(call).await,
            Operation::Detail => self.detail(call).await,
            Operation::Lock => {
                let span = Duration::from_secs(call.number("sdfz").unwrap_or(0) * 60);
                let (lock, record) = self.office.lock(call.get("xh"), call.get("ywlsh"), span).await?;
                let mut nodes = reply::lock(&lock);
                nodes.push(reply::record(self.office.city(), &record));
                Ok((DONE, nodes))
            }
            Operation::Release => {
                self.office.release(call.get("sdbh"), call.get("ywlsh")).await?;
                Ok((DONE, Vec::new()))
            }
            Operation::Pay => self.pay(call).await,
            Operation::Inquire => self.inquire(call).await,
            _ => self.points(call).await,
        }
    }

    async fn list(&self, call: &Call) -> Result<(Code, Vec<Node>), No> {
        let keep = |record: &Record| match call.get("clbj") {
            "0" => record.handled_at.is_none(),
            "1" => record.handled_at.is_some(),
            _ => true,
        };
        let page = call.number("dqy").and_then(|page| usize::try_from(page).ok()).unwrap_or(1);
        let rows = call.number("mys").and_then(|rows| usize::try_from(rows).ok()).unwrap_or(ROWS_DEFAULT);
        let skip = page.saturating_sub(1).saturating_mul(rows);
        let listing = self.office.list(call.subject(), keep, skip, rows).await?;
        let records = listing.records.iter().map(|record| reply::record(self.office.city(), record)).collect();
        let nodes = vec![
            Node::Text("zjls", listing.total.to_string()),
            Node::Text("dqy", page.to_string()),
            Node::Group("wfxxlb", records),
        ];
        Ok((DONE, nodes))
    }

    async fn detail(&self, call: &Call) -> Result<(Code, Vec<Node>), No> {
        let (record, evidence) = self.office.detail(call.get("xh")).await?;
        let offence = record.base.offence;
        let nodes = vec![
            reply::record(self.office.city(), &record),
            Node::Text("wfgd", offence.rule.into()),
            Node::Text("fltw", offence.law.into()),
            Node::Group("zjlb", evidence.iter().map(reply::evidence).collect()),
        ];
        Ok((DONE, nodes))
    }

    async fn pay(&self, call: &Call) -> Result<(Code, Vec<Node>), No> {
        let notice = Notice {
            order: call.get("ddh").into(),
            record: call.get("xh").into(),
            lock: Some(call.get("sdbh").to_owned()).filter(|number| !number.is_empty()),
            amount_minor: reply::fen(call.get("jfje")).unwrap_or(-1),
            channel_number: call.get("qdlsh").into(),
        };
        let (payment, record) = self.office.pay(&notice).await?;
        let code = match payment.state {
            PaymentState::Posted { .. } => DONE,
            PaymentState::Taken { .. } => IN_PROCESS,
            PaymentState::Refused { reason } => return Err(No::Refused(reason)),
        };
        Ok((code, reply::payment(&payment, record.as_ref())))
    }

    async fn inquire(&self, call: &Call) -> Result<(Code, Vec<Node>), No> {
        let (payment, record) = self.office.inquire(call.get("ddh")).await?;
        let (code, reason) = match payment.state {
            PaymentState::Refused { reason } => reply::code_of_refusal(reason),
            PaymentState::Posted { .. } | PaymentState::Taken { .. } => ("", ""),
        };
        let mut nodes = reply::payment(&payment, record.as_ref());
        nodes.extend([Node::Text("jjm", code.into()), Node::Text("jjyy", reason.into())]);
        Ok((DONE, nodes))
    }

    async fn points(&self, call: &Call) -> Result<(Code, Vec<Node>), No> {
        let driver = self.office.points(call.get("jszh")).await?;
        let (from, to) = driver.cycle(beijing::day(self.office.now()));
        let fields = [
            ("jszh", driver.person.number.clone()),
            ("dsr", driver.person.name.clone()),
            ("dabh", self.office.city().archive_number(driver.id)),
            ("zjcx", driver.person.classes.into()),
            ("zt", driver.status().into()),
            ("ljjf", driver.points.to_string()),
            ("qsrq", from.to_string()),
            ("jzrq", to.to_string()),
            ("wcls", driver.unhandled.to_string()),
        ];
        Ok((DONE, fields.into_iter().map(|(name, text)| Node::Text(name, text)).collect()))
    }
}

impl Call {
    fn get(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        let text = self.get(name);
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        if plain { text.parse().ok() } else { None }
    }

    fn subject(&self) -> Subject<'_> {
        match self.entry.operation {
            Operation::List if !self.get("hphm").is_empty() => Subject::Plate(self.get("hpzl"), self.get("hphm")),
            Operation::Release => Subject::Lock(self.get("sdbh")),
            Operation::Inquire => Subject::Order(self.get("ddh")),
            Operation::Detail | Operation::Lock | Operation::Pay => Subject::Record(self.get("xh")),
            _ => Subject::Licence(self.get("jszh")),
        }
    }

    /// Every parameter is known, those that must be there are, and each has its form.
    fn check(&self) -> Result<(), BadParameter> {
        let names = |name: &String| self.entry.parameters.iter().any(|known| known.trim_end_matches('!') == name);
        if let Some(stranger) = self.fields.keys().find(|name| !names(name)) {
            return Err(BadParameter(stranger.chars().take(20).collect()));
        }
        for parameter in self.entry.parameters {
            let name = parameter.trim_end_matches('!');
            let value = self.get(name);
            let good = if value.is_empty() { !parameter.ends_with('!') } else { self.well_formed(name, value) };
            if !good {
                return Err(BadParameter(name.into()));
            }
        }
        let list = self.entry.operation == Operation::List;
        let by_plate = !self.get("hphm").is_empty();
        match () {
            () if list && by_plate == self.get("hpzl").is_empty() => Err(BadParameter("hpzl".into())),
            () if list && by_plate != self.get("jszh").is_empty() => Err(BadParameter("jszh".into())),
            () => Ok(()),
        }
    }

    fn well_formed(&self, name: &str, value: &str) -> bool {
        let length = |range: std::ops::RangeInclusive<usize>| range.contains(&value.chars().count());
        let graphic = value.bytes().all(|b| b.is_ascii_graphic());
        let within =
            |range: std::ops::RangeInclusive<u64>| self.number(name).is_some_and(|number| range.contains(&number));
        match name {
            "ywlsh" | "ddh" => {
                length(1..=64) && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
            }
            "hpzl" => length(2..=2) && value.bytes().all(|b| b.is_ascii_digit()),
            "hphm" => length(1..=8),
            "clbj" => matches!(value, "0" | "1"),
            "dqy" => within(1..=100_000),
            "mys" => within(1..=ROWS_MAX as u64),
            "sdfz" => within(1..=LOCK_MINUTES_MAX),
            "jfje" => reply::fen(value).is_some(),
            "jfsj" => beijing::parse_spaced(value).is_some(),
            _ => graphic && length(1..=32),
        }
    }
}

/// The nodes of a reply that says no: the codes, and every other element empty.
fn empty(entry: &Entry, code: Code, detail: &str) -> Vec<Node> {
    let rest = entry.reply.iter().filter(|name| !name.ends_with('?')).map(|name| match name.strip_suffix("[]") {
        Some(list) => Node::Group(list, Vec::new()),
        None => Node::Text(name, String::new()),
    });
    reply::head(code, detail).into_iter().chain(rest).collect()
}

fn refused(entry: &Entry, code: Code, detail: &str) -> Response<Body> {
    document(StatusCode::OK, envelope::encoded(&envelope::reply(entry.name, &empty(entry, code, detail))))
}

fn faulted(code: &str, text: &str) -> Response<Body> {
    document(StatusCode::INTERNAL_SERVER_ERROR, envelope::encoded(&envelope::fault(code, text)))
}

fn document(status: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    (status, [(CONTENT_TYPE, XML)], bytes).into_response()
}

fn hang_up() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(HangUp);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the elements in the sequence of a declared element.
    fn declared(element: &str) -> Vec<String> {
        let start = WSDL.find(&format!("<xs:element name=\"{element}\">")).unwrap_or_else(|| panic!("no {element}"));
        let body = WSDL[start..].split_once("<xs:sequence>").expect("a sequence").1;
        let body = body.split_once("</xs:sequence>").expect("its end").0;
        let lines = body.lines().filter(|line| line.contains("<xs:element"));
        let name = |line: &str| line.split('"').nth(1).expect("a name").to_owned();
        let optional = |line: &str| line.contains("minOccurs=\"0\"");
        let list = |line: &str| line.contains("type=\"w:") && line.contains("lb\"");
        lines
            .map(|line| match (optional(line), list(line)) {
                (true, _) => format!("{}?", name(line)),
                (false, true) => format!("{}[]", name(line)),
                (false, false) => name(line),
            })
            .collect()
    }

    #[test]
    fn the_wsdl_declares_what_the_service_reads_and_writes() {
        assert_eq!(WSDL.matches("<wsdl:operation ").count(), 2 * ENTRIES.len());
        for entry in &ENTRIES {
            let parameters = entry.parameters.iter().map(|name| match name.strip_suffix('!') {
                Some(required) => required.to_owned(),
                None => format!("{name}?"),
            });
            assert_eq!(declared(entry.name), parameters.collect::<Vec<_>>(), "{}", entry.name);
            let reply: Vec<_> = ["fhm", "fhxx"].iter().chain(entry.reply).map(|name| (*name).to_owned()).collect();
            assert_eq!(declared(&format!("{}Response", entry.name)), reply, "{}", entry.name);
        }
    }
}
