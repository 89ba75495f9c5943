//! SOAP 1.1 over HTTP, document/literal.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use minijinja::Value;
use runtime::config::Duration;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::MapAccess;
use serde::{Deserialize, Deserializer};

use super::flaw::unwritable;
use super::{Answer, Codec, Frame, ReadFlaw, Reply, Unreadable, Unwritable};
use crate::charset::{Charset, Misfit};
use crate::named::Named;
use crate::profile::{FromMap, text_or_map};
use crate::record::Record;
use crate::template::{Templates, Unrendered, Vars};

mod compile;
mod link;
mod xml;

pub use link::HttpLink;

use compile::{Field, Shape};
use xml::{Element, Refused, Space, Spaces};

/// The namespace of the SOAP 1.1 envelope.
const ENVELOPE: &str = "http://schemas.xmlsoap.org/soap/envelope/";

/// How a department's SOAP is spoken.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Charset of requests and replies. A reply that says another is unreadable.
    pub charset: Charset,
    /// What becomes of a character that the charset does not have.
    pub unmappable: Unmappable,
    /// Path of the service, for example `/services/WfclService`. The host stands in the configuration alone.
    pub path: String,
    /// How long a connection is kept unused; below the department's own limit.
    pub idle: Duration,
    /// Namespace of the operation elements.
    pub namespace: String,
    /// Element of the reply that holds the return code.
    pub code: String,
    /// Element of the reply that holds the department's words.
    pub text: String,
    /// Groups of elements that occur in replies, by name: element, type.
    #[serde(default)]
    pub records: Named<Named<FieldUse>>,
}

/// What becomes of a character that the charset does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unmappable {
    /// An error; nothing is sent.
    Error,
    /// A decimal character reference.
    CharacterReference,
}

/// A call.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExchangeSpec {
    /// `SOAPAction`.
    pub action: String,
    /// Template of what stands in the envelope's body. The department's namespace has the prefix `w`. One element a line: errors
    /// name the element of their line.
    pub body: String,
    /// Element of the reply, in the department's namespace.
    pub element: String,
    /// Elements of the reply after code and text, by name: a type, a record or a list.
    #[serde(default)]
    pub reply: Named<FieldUse>,
}

/// What an element holds: `type`, `type?`, `{record: name}` or `{list: name, entry: element, key: field, max: 50}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldUse {
    /// A value.
    Value(String),
    /// The elements of a record.
    Record(String),
    /// Any number of records.
    List(ListUse),
}

/// An element that holds any number of records.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListUse {
    /// Name of the record.
    pub list: String,
    /// Element of each.
    pub entry: String,
    /// Field that occurs once in the list.
    pub key: String,
    /// Most of them.
    pub max: usize,
}

/// Reads and writes one department's SOAP.
pub struct SoapCodec {
    charset: Charset,
    unmappable: Unmappable,
    namespace: String,
    code: String,
    text: String,
    has_body: Box<dyn Fn(&str) -> bool + Send + Sync>,
    exchanges: Vec<(String, compile::Exchange)>,
}

/// The names under which SOAP faults stand in a profile's `codes`.
pub const FAULT_CODES: [&str; 2] = ["soap:Client", "soap:Server"];

impl Codec for SoapCodec {
    fn write(&self, templates: &Templates, exchange: &str, vars: &Vars) -> Result<Frame, Unwritable> {
        let exchange = self.exchange(exchange);
        let Some(exchange) = exchange else { return Err(Unwritable::new("call", 0, crate::template::Why::Undefined)) };
        let opening = format!(
            "<?xml version=\"1.0\" encoding=\"{}\"?>\n<soapenv:Envelope xmlns:soapenv=\"{ENVELOPE}\" \
             xmlns:w=\"{}\"><soapenv:Body>",
            self.charset.label().to_uppercase(),
            self.namespace,
        );
        // So many bytes of the request precede what cannot be written; all of them can.
        let length = |xml: &str| self.encode(xml).map_or(0, |bytes| bytes.len());
        let body = templates.render(&exchange.template, vars).map_err(|Unrendered { failed, written }| {
            let at = length(&opening) + length(written.trim_start());
            unwritable(failed, at, |line| exchange.element_of_line(line))
        })?;
        let xml = format!("{opening}{}</soapenv:Body></soapenv:Envelope>", body.trim());
        let bytes = self.encode(&xml).map_err(|misfit| {
            let at = length(xml.get(..misfit.at).unwrap_or_default());
            Unwritable::new(element_before(&xml, misfit.at), at, misfit.flaw)
        })?;
        Ok(Frame { bytes: Bytes::copy_from_slice(&bytes), action: Some(exchange.action.clone()) })
    }

    fn read(&self, _: &Templates, exchange: &str, _: &Vars, reply: &Reply) -> Result<Answer, Unreadable> {
        let Some(exchange) = self.exchange(exchange) else { return Err(Unreadable::new("call", 0, ReadFlaw::Missing)) };
        self.check_content_type(reply)?;
        let text = self
            .charset
            .decode(&reply.bytes)
            .map_err(|misfit| Unreadable::new(field_at(&reply.bytes, misfit.at), misfit.at, misfit.flaw))?;
        self.read_text(exchange, &text, reply)
    }
}

impl SoapCodec {
    fn encode<'x>(&self, xml: &'x str) -> Result<Cow<'x, [u8]>, Misfit> {
        match self.unmappable {
            Unmappable::Error => self.charset.encode(xml),
            Unmappable::CharacterReference => self.charset.encode_xml(xml),
        }
    }

    fn exchange(&self, name: &str) -> Option<&compile::Exchange> {
        self.exchanges.iter().find(|(known, _)| known == name).map(|(_, exchange)| exchange)
    }

    /// A type or charset other than agreed means that something else answers there.
    fn check_content_type(&self, reply: &Reply) -> Result<(), Unreadable> {
        let Some(content_type) = &reply.content_type else { return Ok(()) };
        let mut parts = content_type.split(';').map(str::trim);
        if !parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("text/xml")) {
            return Err(Unreadable::new("Content-Type", 0, ReadFlaw::Form("not text/xml")));
        }
        let charset = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
        });
        match charset {
            Some(charset) if !self.charset.is_called(charset) => {
                Err(Unreadable::new("Content-Type", 0, ReadFlaw::Form("another charset than the profile's")))
            }
            _ => Ok(()),
        }
    }

    fn read_text(&self, exchange: &compile::Exchange, text: &str, reply: &Reply) -> Result<Answer, Unreadable> {
        let spaces = Spaces { envelope: ENVELOPE, target: &self.namespace };
        let document = xml::read(text, self.charset.offsets(text, &reply.bytes), spaces).map_err(refused)?;
        if document.encoding.as_deref().is_some_and(|name| !self.charset.is_called(name)) {
            return Err(Unreadable::new("xml", 0, ReadFlaw::Form("another encoding than the profile's")));
        }
        let content = body_content(&document.root)?;
        let digest = sha256(&reply.bytes);
        if content.space == Space::Envelope && content.name == "Fault" {
            return fault(content, digest);
        }
        if reply.status.is_some_and(|status| status != 200) {
            return Err(Unreadable::new("status", 0, ReadFlaw::Form("an error status without a SOAP fault")));
        }
        if content.space != Space::Target || content.name != exchange.element {
            return Err(Unreadable::new(content.name, content.at, ReadFlaw::Foreign));
        }
        let value =
            |name: &str| content.child(name).map_err(|(at, flaw)| Unreadable::new(name, at, flaw)).and_then(plain);
        let (code, words) = (value(&self.code)?, value(&self.text)?);
        let body = (self.has_body)(code.value()).then(|| exchange.reply.read(content)).transpose()?;
        Ok(Answer {
            code: code.value().to_owned(),
            code_field: self.code.clone(),
            code_at: code.at,
            text: words.value().to_owned(),
            body: body.map(Record::into_value),
            digest,
        })
    }
}

impl Shape {
    fn read(&self, element: &Element<'_>) -> Result<Record, Unreadable> {
        let mut record = Record::new(Arc::clone(&self.names), element.at);
        for (name, field) in self.names.iter().zip(&self.fields) {
            let child = element.child(name).map_err(|(at, flaw)| Unreadable::new(name, at, flaw))?;
            let value = match field {
                Field::Value(kind) => {
                    let value = kind.read(plain(child)?.value());
                    value.map_err(|misfit| Unreadable::new(name, child.at, misfit))?
                }
                Field::Record(shape) => shape.read(child).map_err(|flaw| flaw.within(name))?.into_value(),
                Field::List { entry, key, max, shape } => {
                    shape.read_list(child, entry, key, *max).map_err(|flaw| flaw.within(name))?
                }
            };
            record.push(value, child.at);
        }
        Ok(record)
    }

    fn read_list(&self, parent: &Element<'_>, entry: &str, key: &str, max: usize) -> Result<Value, Unreadable> {
        if parent.children.len() > max {
            return Err(Unreadable::new(entry, parent.at, ReadFlaw::TooMany(max)));
        }
        let mut records: Vec<Record> = Vec::with_capacity(parent.children.len());
        for (position, child) in parent.children.iter().enumerate() {
            if child.name != entry || child.space != Space::None {
                return Err(Unreadable::new(child.name, child.at, ReadFlaw::Form("not an entry of this list")));
            }
            let record = self.read(child).map_err(|flaw| flaw.within(position))?;
            if records.iter().any(|known| known.get(key) == record.get(key)) {
                return Err(Unreadable::new(key, record.at(), ReadFlaw::Twice).within(position));
            }
            records.push(record);
        }
        Ok(records.into_iter().map(Record::into_value).collect())
    }
}

/// The one element in the envelope's body.
fn body_content<'d, 't>(root: &'d Element<'t>) -> Result<&'d Element<'t>, Unreadable> {
    let is_envelope = |element: &Element<'_>, name| element.space == Space::Envelope && element.name == name;
    if !is_envelope(root, "Envelope") {
        return Err(Unreadable::new(root.name, root.at, ReadFlaw::Form("not a SOAP 1.1 envelope")));
    }
    let mut bodies = root.children.iter().filter(|child| is_envelope(child, "Body"));
    let body = match (bodies.next(), bodies.next()) {
        (Some(body), None) => body,
        (Some(_), Some(second)) => return Err(Unreadable::new("Body", second.at, ReadFlaw::Twice)),
        (None, _) => return Err(Unreadable::new("Body", root.at, ReadFlaw::Missing)),
    };
    if let Some(stranger) = root.children.iter().find(|child| child.space != Space::Envelope) {
        return Err(Unreadable::new(stranger.name, stranger.at, ReadFlaw::Form("not a part of an envelope")));
    }
    match body.children.as_slice() {
        [content] => Ok(content),
        [] => Err(Unreadable::new("Body", body.at, ReadFlaw::Missing)),
        [_, second, ..] => Err(Unreadable::new(second.name, second.at, ReadFlaw::Twice)),
    }
}

/// A SOAP fault reads as a return code: `soap:Client` or `soap:Server`, whatever prefix and detail the department gives it.
fn fault(fault: &Element<'_>, digest: [u8; 32]) -> Result<Answer, Unreadable> {
    let code = fault.child("faultcode").map_err(|(at, flaw)| Unreadable::new("faultcode", at, flaw))?;
    let text = fault.child("faultstring").map(|text| text.value().to_owned()).unwrap_or_default();
    let local = code.value().rsplit(':').next().unwrap_or_default();
    // A dotted code is a subcode of its first part.
    let local = local.split('.').next().unwrap_or_default();
    let (code_field, code_at) = (code.name.to_owned(), code.at);
    Ok(Answer { code: format!("soap:{local}"), code_field, code_at, text, body: None, digest })
}

/// An element that holds a value, not elements.
fn plain<'d, 't>(element: &'d Element<'t>) -> Result<&'d Element<'t>, Unreadable> {
    match element.children.first() {
        None => Ok(element),
        Some(child) => Err(Unreadable::new(element.name, child.at, ReadFlaw::Form("elements where a value belongs"))),
    }
}

fn refused(refused: Refused) -> Unreadable {
    Unreadable { field: refused.element.unwrap_or_else(|| "xml".to_owned()), at: refused.at, flaw: refused.flaw }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

/// The element that was opened last before an offset of our own XML.
fn element_before(xml: &str, at: usize) -> String {
    let before = xml.get(..at).unwrap_or_default();
    let tag = before.rsplit('<').next().unwrap_or_default();
    tag.split(['>', ' ', '/']).next().unwrap_or_default().to_owned()
}

/// The same in the department's bytes, which are not text there: tags are ASCII in every charset of ours.
fn field_at(bytes: &[u8], at: usize) -> String {
    let before = bytes.get(..at).unwrap_or_default();
    let tag = before.rsplit(|b| *b == b'<').next().unwrap_or_default();
    let name = tag.split(|b| b"> /".contains(b)).next().unwrap_or_default();
    let is_name = !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b":_-.".contains(b));
    if is_name { String::from_utf8_lossy(name).into_owned() } else { "xml".to_owned() }
}

impl<'de> Deserialize<'de> for FieldUse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_map(
            deserializer,
            "a type, {record: name}, or {list: name, entry: element, key: field, max: 50}",
            |text| Self::Value(text.to_owned()),
        )
    }
}

impl<'de> FromMap<'de> for FieldUse {
    fn from_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            record: Option<String>,
            list: Option<String>,
            entry: Option<String>,
            key: Option<String>,
            max: Option<usize>,
        }
        let written = Written::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        match written {
            Written { record: Some(record), list: None, entry: None, key: None, max: None } => Ok(Self::Record(record)),
            Written { record: None, list: Some(list), entry: Some(entry), key: Some(key), max: Some(max) } => {
                Ok(Self::List(ListUse { list, entry, key, max }))
            }
            _ => Err(serde::de::Error::custom(
                "expected {record: name} or {list: name, entry: element, key: field, max: 50}",
            )),
        }
    }
}

impl JsonSchema for FieldUse {
    fn schema_name() -> Cow<'static, str> {
        "SoapField".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let list = generator.subschema_for::<ListUse>();
        schemars::json_schema!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "record": { "type": "string" } },
                    "required": ["record"],
                    "additionalProperties": false,
                },
                list,
            ],
        })
    }
}

#[cfg(test)]
mod tests;
