//! The envelope of the gateway's answers: `{"alipay_trade_query_response":{…},"sign":"…"}`.
//!
//! The signature covers the node's bytes as they came: what was read and written again is something else. So the envelope's own members
//! are found by a JSON reader that tells where each begins and ends, never by searching for a text, which could stand inside a value.

use serde::de::{Deserialize, IgnoredAny};

/// The node for errors before the call was looked at.
const ERROR_NODE: &str = "error_response";

/// The node of an answer, not yet verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    /// Its bytes.
    pub(super) raw: &'a str,
}

/// An answer taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    pub(super) node: Node<'a>,
    pub(super) sign: Option<String>,
    /// Which of Alipay's certificates the signature is of, in certificate mode.
    pub(super) certificate: Option<String>,
}

/// The node's name for a method.
pub(super) fn node_name(method: &str) -> String {
    format!("{}_response", method.replace('.', "_"))
}

/// Takes an answer apart. Err says what is wrong with it.
///
/// A member that comes twice, or a node of the call beside one for errors, is refused: readers disagree which of them counts.
pub(super) fn open<'a>(body: &'a [u8], method: &str) -> Result<Envelope<'a>, &'static str> {
    let text = std::str::from_utf8(body).map_err(|_| "encoding")?;
    let name = node_name(method);
    let (mut node, mut sign, mut certificate, mut seen) = (None, None, None, Vec::new());
    for (member, raw) in members(text).ok_or("envelope")? {
        if seen.contains(&member) {
            return Err("repeated member");
        }
        if member == name || member == ERROR_NODE {
            if !raw.starts_with('{') || node.replace(Node { raw }).is_some() {
                return Err("node");
            }
        } else if member == "sign" {
            sign = Some(serde_json::from_str(raw).map_err(|_| "sign")?);
        } else if member == "alipay_cert_sn" {
            certificate = Some(serde_json::from_str(raw).map_err(|_| "alipay_cert_sn")?);
        }
        seen.push(member);
    }
    Ok(Envelope { node: node.ok_or("node")?, sign, certificate })
}

/// The members of the object that `text` is, each with the bytes of its value.
fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start().strip_prefix('{')?.trim_start();
    if let Some(after) = rest.strip_prefix('}') {
        return after.trim().is_empty().then_some(found);
    }
    loop {
        let (name, _, after) = one::<String>(rest)?;
        let (_, raw, after) = one::<IgnoredAny>(after.trim_start().strip_prefix(':')?)?;
        found.push((name, raw));
        let after = after.trim_start();
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.strip_prefix('}').filter(|end| end.trim().is_empty()).map(|_| found),
        }
    }
}

/// Reads the value that `text` begins with; hands back its bytes, and what comes after it.
fn one<'a, T: Deserialize<'a>>(text: &'a str) -> Option<(T, &'a str, &'a str)> {
    let text = text.trim_start();
    let mut values = serde_json::Deserializer::from_str(text).into_iter();
    let value = values.next()?.ok()?;
    let (raw, after) = text.split_at_checked(values.byte_offset())?;
    Some((value, raw, after))
}
