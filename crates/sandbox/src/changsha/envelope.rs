//! SOAP 1.1 envelopes: reading a stranger's, writing ours.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use quick_xml::escape::escape;
use quick_xml::events::{BytesRef, Event};
use quick_xml::name::{Namespace, ResolveResult};
use quick_xml::reader::NsReader;

use crate::charset;

/// The namespace of the operations.
pub(super) const NAMESPACE: &str = "urn:csjj:wfcl:1";
const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"GBK\"?>\n";
const DEPTH_MAX: usize = 16;
const FIELDS_MAX: usize = 64;

/// What a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The operation: the local name of the body's element.
    pub operation: String,
    /// Its children and their texts, trimmed.
    pub fields: BTreeMap<String, String>,
}

/// A request that cannot be read. The text is what the caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(pub &'static str);

/// A piece of a reply.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// An element with text.
    Text(&'static str, String),
    /// An element with elements.
    Group(&'static str, Vec<Node>),
}

/// Reads a request in the charset of its `Content-Type`, else of its declaration, else UTF-8.
pub(super) fn read(bytes: &[u8], content_type: Option<&str>) -> Result<Request, Unreadable> {
    let named = content_type.and_then(charset_parameter).or_else(|| declared_charset(bytes));
    let text = match named.as_deref() {
        Some("gbk" | "gb2312") => charset::decode_gbk(bytes).map_err(|_| Unreadable("请求不是有效的GBK编码"))?,
        None | Some("utf-8") => String::from_utf8(bytes.to_vec()).map_err(|_| Unreadable("请求不是有效的UTF-8编码"))?,
        Some(_) => return Err(Unreadable("不支持的字符集")),
    };
    parse(text.trim_start_matches('\u{FEFF}'))
}

fn charset_parameter(content_type: &str) -> Option<String> {
    let parameters = content_type.split(';').skip(1);
    let mut pairs = parameters.filter_map(|parameter| parameter.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    Some(value.trim().trim_matches('"').to_ascii_lowercase())
}

/// The declaration is ASCII in every charset that is taken here.
fn declared_charset(bytes: &[u8]) -> Option<String> {
    let head = bytes.get(..bytes.len().min(200))?;
    let head: String =
        head.iter().take_while(|byte| byte.is_ascii() && **byte != b'>').map(|byte| char::from(*byte)).collect();
    let declaration = head.trim_start().strip_prefix("<?xml")?;
    let (_, value) = declaration.split_once("encoding=")?;
    let quote = value.chars().next()?;
    Some(value.get(1..)?.split(quote).next()?.to_ascii_lowercase())
}

fn parse(text: &str) -> Result<Request, Unreadable> {
    let mut reader = NsReader::from_str(text);
    let mut at = Position::default();
    loop {
        let (namespace, event) = reader.read_resolved_event().map_err(|_| Unreadable("请求不是格式良好的XML"))?;
        match event {
            Event::DocType(_) => return Err(Unreadable("不允许DOCTYPE")),
            Event::Start(start) => at.enter(namespace, start.local_name().into_inner())?,
            Event::Empty(empty) => {
                at.enter(namespace, empty.local_name().into_inner())?;
                at.leave();
            }
            Event::End(_) => at.leave(),
            Event::Text(text) => at.text(&text.xml10_content())?,
            Event::CData(text) => at.text(&text.xml10_content())?,
            Event::GeneralRef(reference) => at.text(&resolve(&reference)?)?,
            Event::Eof if at.path.is_empty() => break,
            Event::Eof => return Err(Unreadable("请求不是格式良好的XML")),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
        }
    }
    let operation = at.operation.ok_or(Unreadable("缺少SOAP Body"))?;
    Ok(Request { operation, fields: at.fields })
}

fn resolve(reference: &BytesRef<'_>) -> Result<String, Unreadable> {
    let bad = Unreadable("未定义的实体");
    if let Some(c) = reference.resolve_char_ref().map_err(|_| bad)? {
        return Ok(c.to_string());
    }
    quick_xml::escape::resolve_predefined_entity(reference).map(str::to_owned).ok_or(bad)
}

/// Where the reader stands, and what it has gathered.
#[derive(Default)]
struct Position {
    path: Vec<String>,
    operation: Option<String>,
    fields: BTreeMap<String, String>,
    in_body: bool,
}

impl Position {
    fn enter(&mut self, namespace: ResolveResult<'_>, name: &str) -> Result<(), Unreadable> {
        let is_in = |wanted: &str| matches!(&namespace, ResolveResult::Bound(Namespace(ns)) if *ns == wanted);
        if matches!(namespace, ResolveResult::Unknown(_)) {
            return Err(Unreadable("未声明的命名空间前缀"));
        }
        match self.path.len() {
            0 if name != "Envelope" || !is_in(SOAP) => return Err(Unreadable("不是SOAP 1.1信封")),
            1 => self.in_body = name == "Body" && is_in(SOAP),
            2 if self.in_body => {
                if self.operation.is_some() || !is_in(NAMESPACE) {
                    return Err(Unreadable("未知的操作"));
                }
                self.operation = Some(name.to_owned());
            }
            3 if self.in_body => {
                let qualified = !matches!(namespace, ResolveResult::Unbound) && !is_in(NAMESPACE);
                let repeated = self.fields.insert(name.to_owned(), String::new()).is_some();
                if qualified || repeated || self.fields.len() > FIELDS_MAX {
                    return Err(Unreadable("参数重复或命名空间不符"));
                }
            }
            4.. if self.in_body => return Err(Unreadable("参数不能有子元素")),
            depth if depth >= DEPTH_MAX => return Err(Unreadable("嵌套过深")),
            _ => {}
        }
        self.path.push(name.to_owned());
        Ok(())
    }

    fn leave(&mut self) {
        let name = self.path.pop().filter(|_| self.path.len() == 3 && self.in_body);
        if let Some(text) = name.and_then(|name| self.fields.get_mut(&name)) {
            *text = text.trim().to_owned();
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Unreadable> {
        let field = if self.path.len() == 4 && self.in_body { self.path.last() } else { None };
        match field.and_then(|name| self.fields.get_mut(name)) {
            Some(value) => value.push_str(text),
            None if text.trim().is_empty() => {}
            None if !self.in_body && self.path.len() > 1 => {}
            None => return Err(Unreadable("请求中有多余的文本")),
        }
        Ok(())
    }
}

/// Writes the reply of an operation, as text; `encoded` makes the bytes.
pub(super) fn reply(operation: &str, nodes: &[Node]) -> String {
    let mut body = format!("<w:{operation}Response xmlns:w=\"{NAMESPACE}\">");
    nodes.iter().for_each(|node| node.write(&mut body));
    // Writing into a String cannot fail.
    let _ = write!(body, "</w:{operation}Response>");
    enveloped(&body)
}

/// Writes a SOAP Fault, as text.
pub(super) fn fault(code: &str, text: &str) -> String {
    enveloped(&format!(
        "<soap:Fault><faultcode>soap:{code}</faultcode><faultstring>{}</faultstring></soap:Fault>",
        escape(text)
    ))
}

fn enveloped(body: &str) -> String {
    format!("{DECLARATION}<soap:Envelope xmlns:soap=\"{SOAP}\"><soap:Body>{body}</soap:Body></soap:Envelope>")
}

/// The bytes of a document of ours.
pub(super) fn encoded(text: &str) -> Vec<u8> {
    charset::encode_gbk_xml(text)
}

impl Node {
    fn write(&self, out: &mut String) {
        // Writing into a String cannot fail.
        let _ = match self {
            Self::Text(name, text) if text.is_empty() => write!(out, "<{name}/>"),
            Self::Text(name, text) => write!(out, "<{name}>{}</{name}>", escape(text)),
            Self::Group(name, nodes) => {
                let _ = write!(out, "<{name}>");
                nodes.iter().for_each(|node| node.write(out));
                write!(out, "</{name}>")
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(body: &str) -> String {
        format!(
            "<s:Envelope xmlns:s=\"{SOAP}\"><s:Header><x>ignored</x></s:Header><s:Body>{body}</s:Body></s:Envelope>"
        )
    }

    fn call(inner: &str) -> String {
        envelope(&format!("<w:cxWfxx xmlns:w=\"{NAMESPACE}\">{inner}</w:cxWfxx>"))
    }

    #[test]
    fn requests_read_in_either_charset() {
        let text = call("<hphm> 湘A8K2J6 </hphm><hpzl><![CDATA[02]]></hpzl><w:dsr>&#19886;&amp;</w:dsr><jszh/>");
        let expected = BTreeMap::from(
            [("hphm", "湘A8K2J6"), ("hpzl", "02"), ("dsr", "䶮&"), ("jszh", "")]
                .map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let declared = format!("<?xml version='1.0' encoding='GBK'?>{text}");
        let readings = [
            read(text.as_bytes(), None),
            read(text.as_bytes(), Some("text/xml; charset=UTF-8")),
            read(&encoded(&text), Some("text/xml;charset=\"GBK\"")),
            read(&encoded(&declared), Some("text/xml")),
        ];
        for reading in readings {
            let request = reading.expect("reads");
            assert_eq!((request.operation.as_str(), &request.fields), ("cxWfxx", &expected));
        }
    }

    #[test]
    fn what_is_no_call_is_refused_with_its_reason() {
        let deep = "<a>".repeat(40);
        let cases = [
            ("<a/>".to_owned(), "不是SOAP 1.1信封"),
            (String::new(), "缺少SOAP Body"),
            (envelope(""), "缺少SOAP Body"),
            (format!("<!DOCTYPE a [<!ENTITY b \"c\">]>{}", call("")), "不允许DOCTYPE"),
            (call("<hphm>&b;</hphm>"), "未定义的实体"),
            (call("<hphm>a</hphm><hphm>b</hphm>"), "参数重复或命名空间不符"),
            (call("<hphm><b/></hphm>"), "参数不能有子元素"),
            (call("text"), "请求中有多余的文本"),
            (call("<z:hphm/>"), "未声明的命名空间前缀"),
            (call("<hphm>"), "请求不是格式良好的XML"),
            (envelope("<cxWfxx/>"), "未知的操作"),
            (envelope(&deep), "未知的操作"),
            (call("")[..90].to_owned(), "请求不是格式良好的XML"),
            (format!("<s:Envelope xmlns:s=\"{SOAP}\"><s:Header>{deep}"), "嵌套过深"),
        ];
        for (text, reason) in cases {
            assert_eq!(read(text.as_bytes(), None), Err(Unreadable(reason)), "{text}");
        }
        assert_eq!(read(b"\xCF", Some("text/xml; charset=GBK")), Err(Unreadable("请求不是有效的GBK编码")));
        assert_eq!(read(b"\xCF", None), Err(Unreadable("请求不是有效的UTF-8编码")));
        assert_eq!(read(b"", Some("text/xml; charset=big5")), Err(Unreadable("不支持的字符集")));
    }

    #[test]
    fn replies_escape_and_carry_what_gbk_has_not() {
        let nodes = [
            Node::Text("fhm", "0000".into()),
            Node::Group("wfxx", vec![Node::Text("dsr", "王䶮<".into()), Node::Text("jdsbh", String::new())]),
        ];
        let text = reply("cxWfxq", &nodes);
        assert!(text.contains("<fhm>0000</fhm><wfxx><dsr>王䶮&lt;</dsr><jdsbh/></wfxx></w:cxWfxqResponse>"));
        let bytes = encoded(&text);
        assert!(bytes.windows(12).any(|window| window == b"\xCD\xF5&#19886;&l"), "王 in GBK, 䶮 as a reference");
    }
}
