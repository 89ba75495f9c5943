//! Columns of fixed length over TCP, behind a length in digits: the manner of bank middle-business hosts.
//!
//! All lengths and offsets are bytes, counted from the first byte after the length. Text is padded by bytes, and a character that a
//! column cuts in half is an error.

use std::sync::Arc;

use bytes::Bytes;
use minijinja::Value;
use runtime::config::Duration;
use schemars::JsonSchema;
use serde::Deserialize;

use super::flaw::unwritable;
use super::soap::sha256;
use super::{Answer, Codec, Frame, ReadFlaw, Reply, Unreadable, Unwritable, WriteFlaw};
use crate::charset::Charset;
use crate::named::Named;
use crate::record::Record;
use crate::template::{Templates, Vars};

mod compile;
mod link;

pub use link::TcpLink;

use compile::{Column, Part, Shape, Written};

/// What errors call the length before a frame; it stands at its beginning.
const LENGTH: &str = "length";
const UNFRAMED: ReadFlaw = ReadFlaw::Form("the frame's length is not in digits");

/// How a department's columns are spoken.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Charset of text columns.
    pub charset: Charset,
    /// Digits of the length before each frame, 4 to 8. It counts the bytes after it.
    pub length_digits: usize,
    /// Longest request, in bytes after the length.
    pub request_bytes_max: usize,
    /// How long a connection is kept unused; below the department's own limit.
    pub idle: Duration,
    /// The columns that begin every request.
    pub request: Vec<RequestColumn>,
    /// The columns that begin every reply. With a code that has no body the reply ends after them.
    pub reply: Vec<ReplyColumn>,
    /// Column of the reply that holds the return code.
    pub code: String,
    /// Column of the reply that holds the department's words.
    pub text: String,
    /// Groups of columns that occur in replies, by name.
    #[serde(default)]
    pub groups: Named<Vec<ReplyColumn>>,
}

/// A call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeSpec {
    /// The transaction code; `transaction` in the header's expressions.
    pub transaction: String,
    /// The columns after the header.
    #[serde(default)]
    pub request: Vec<RequestColumn>,
    /// The columns and groups after the reply's header.
    #[serde(default)]
    pub reply: Vec<ReplyColumn>,
}

/// A column of a request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestColumn {
    /// The department's name for it.
    pub name: String,
    /// Its length.
    pub bytes: usize,
    /// Its type; with `?` it may be blank.
    #[serde(rename = "type")]
    pub kind: String,
    /// Expression of its value. `serial` is a number of this message's own.
    pub value: String,
}

/// A column of a reply, or a group: `{name, bytes, type, equals?}`, `{name, group}` or `{name, group, count, max, key}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplyColumn {
    /// The department's name for it; for a group its name in mappings.
    pub name: String,
    /// Its length.
    pub bytes: Option<usize>,
    /// Its type; with `?` it may be blank.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Expression over the request that it must equal; otherwise the reply is another's.
    pub equals: Option<String>,
    /// The group of columns that stands here.
    pub group: Option<String>,
    /// The column before that says how often the group stands here.
    pub count: Option<String>,
    /// Most times.
    pub max: Option<usize>,
    /// The column that occurs once among them.
    pub key: Option<String>,
}

/// Reads and writes one department's columns.
pub struct FixedCodec {
    charset: Charset,
    length_digits: usize,
    request_bytes_max: usize,
    header: Shape,
    code: String,
    text: String,
    with_body: Vec<String>,
    exchanges: Vec<(String, compile::Exchange)>,
}

impl Codec for FixedCodec {
    fn write(&self, templates: &Templates, exchange: &str, vars: &Vars) -> Result<Frame, Unwritable> {
        let found = self.exchange(exchange);
        let Some(exchange) = found else { return Err(Unwritable::new("call", 0, crate::template::Why::Undefined)) };
        let vars = vars.clone().with("transaction", exchange.transaction.as_str());
        let values = templates.eval(&exchange.values, &vars);
        let values = values.map_err(|failed| unwritable(failed, 0, |_| String::new()))?;
        let mut payload = Vec::with_capacity(256);
        for (column, value) in exchange.request.iter().zip(&values) {
            self.write_column(column, value, &mut payload)?;
        }
        if payload.len() > self.request_bytes_max {
            return Err(Unwritable::new(LENGTH, 0, WriteFlaw::TooLong(self.request_bytes_max)));
        }
        let mut bytes = format!("{:0width$}", payload.len(), width = self.length_digits).into_bytes();
        bytes.append(&mut payload);
        Ok(Frame { bytes: Bytes::from(bytes), action: None })
    }

    fn read(&self, templates: &Templates, exchange: &str, vars: &Vars, reply: &Reply) -> Result<Answer, Unreadable> {
        let found = self.exchange(exchange);
        let Some(exchange) = found else { return Err(Unreadable::new("call", 0, ReadFlaw::Missing)) };
        let mut cursor = Cursor { charset: self.charset, bytes: self.payload(&reply.bytes)?, at: 0 };
        let header = cursor.record(&self.header)?;
        let vars = vars.clone().with("transaction", exchange.transaction.as_str());
        self.check_echo(templates, &exchange.echo, &header, &vars)?;
        let text_of = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = text_of(&self.code);
        let has_body = self.with_body.contains(&code);
        let body = has_body.then(|| cursor.record(&exchange.reply)).transpose()?;
        if cursor.at != cursor.bytes.len() {
            let flaw = ReadFlaw::Length { found: cursor.bytes.len(), wanted: cursor.at };
            return Err(Unreadable::new(LENGTH, cursor.at, flaw));
        }
        Ok(Answer {
            code,
            code_field: self.code.clone(),
            code_at: header.offset(&self.code).unwrap_or(0),
            text: text_of(&self.text),
            body: body.map(Record::into_value),
            digest: sha256(&reply.bytes),
        })
    }
}

impl FixedCodec {
    fn exchange(&self, name: &str) -> Option<&compile::Exchange> {
        self.exchanges.iter().find(|(known, _)| known == name).map(|(_, exchange)| exchange)
    }

    fn write_column(&self, column: &Written, value: &Value, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let at = out.len();
        let text = column.kind.write(value).map_err(|misfit| Unwritable::new(&column.name, at, misfit))?;
        let encoded = self.charset.encode(&text).map_err(|misfit| {
            // What stands before it has bytes, and maybe others than in our text.
            let before = text.get(..misfit.at).and_then(|before| self.charset.encode(before).ok());
            let at = at.saturating_add(before.map_or(0, |before| before.len()));
            Unwritable::new(&column.name, at, misfit.flaw)
        })?;
        let Some(padding) = column.bytes.checked_sub(encoded.len()) else {
            return Err(Unwritable::new(&column.name, at, WriteFlaw::Column(column.bytes)));
        };
        if column.kind.is_zero_filled() && !encoded.is_empty() {
            out.extend(std::iter::repeat_n(b'0', padding));
            out.extend_from_slice(&encoded);
        } else {
            out.extend_from_slice(&encoded);
            out.extend(std::iter::repeat_n(b' ', padding));
        }
        Ok(())
    }

    /// The bytes that the length counts; it must count exactly what is there.
    fn payload<'r>(&self, bytes: &'r [u8]) -> Result<&'r [u8], Unreadable> {
        let unframed = || Unreadable::new(LENGTH, 0, UNFRAMED);
        let (length, payload) = bytes.split_at_checked(self.length_digits).ok_or_else(unframed)?;
        let wanted = frame_length(length).ok_or_else(unframed)?;
        if payload.len() == wanted {
            Ok(payload)
        } else {
            Err(Unreadable::new(LENGTH, 0, ReadFlaw::Length { found: payload.len(), wanted }))
        }
    }

    fn check_echo(
        &self,
        templates: &Templates,
        echo: &Option<crate::template::Scope>,
        header: &Record,
        vars: &Vars,
    ) -> Result<(), Unreadable> {
        let Some(scope) = echo else { return Ok(()) };
        let values = templates
            .eval(scope, vars)
            .map_err(|failed| Unreadable::new("reply", 0, ReadFlaw::Template(failed.why)))?;
        for (name, wanted) in scope.fields().zip(&values) {
            if header.get(name) != Some(wanted) {
                return Err(Unreadable::new(name, header.offset(name).unwrap_or(0), ReadFlaw::Foreign));
            }
        }
        Ok(())
    }
}

/// Reads the digits of a length.
fn frame_length(digits: &[u8]) -> Option<usize> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

/// Where reading stands.
struct Cursor<'r> {
    charset: Charset,
    bytes: &'r [u8],
    at: usize,
}

impl Cursor<'_> {
    fn record(&mut self, shape: &Shape) -> Result<Record, Unreadable> {
        let mut record = Record::new(Arc::clone(&shape.names), self.at);
        for (name, part) in shape.names.iter().zip(&shape.parts) {
            let at = self.at;
            let value = match part {
                Part::Column(column) => self.column(name, column)?,
                Part::Once(shape) => self.record(shape).map_err(|flaw| flaw.within(name))?.into_value(),
                Part::Counted { count, max, key, shape } => {
                    let times = record.get(count).and_then(Value::as_usize).unwrap_or(0);
                    let count_at = record.offset(count).unwrap_or(at);
                    if times > *max {
                        return Err(Unreadable::new(count, count_at, ReadFlaw::TooMany(*max)));
                    }
                    self.counted(times, key, shape).map_err(|flaw| flaw.within(name))?
                }
            };
            record.push(value, at);
        }
        Ok(record)
    }

    fn counted(&mut self, times: usize, key: &str, shape: &Shape) -> Result<Value, Unreadable> {
        let mut records: Vec<Record> = Vec::with_capacity(times);
        for position in 0..times {
            let record = self.record(shape).map_err(|flaw| flaw.within(position))?;
            if records.iter().any(|known| known.get(key) == record.get(key)) {
                return Err(Unreadable::new(key, record.at(), ReadFlaw::Twice).within(position));
            }
            records.push(record);
        }
        Ok(records.into_iter().map(Record::into_value).collect())
    }

    fn column(&mut self, name: &str, column: &Column) -> Result<Value, Unreadable> {
        let at = self.at;
        let end = at.saturating_add(column.bytes);
        let Some(bytes) = self.bytes.get(at..end) else {
            return Err(Unreadable::new(name, at, ReadFlaw::Length { found: self.bytes.len(), wanted: end }));
        };
        self.at = end;
        let text = self
            .charset
            .decode(bytes)
            .map_err(|misfit| Unreadable::new(name, at.saturating_add(misfit.at), misfit.flaw))?;
        column.kind.read(text.trim_end_matches(' ')).map_err(|misfit| Unreadable::new(name, at, misfit))
    }
}

#[cfg(test)]
mod tests;
