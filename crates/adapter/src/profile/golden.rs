//! Golden cases: what was sent, what came back, and what it must become.

use schemars::JsonSchema;
use serde::Deserialize;

/// One case.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// What it shows, in a sentence.
    pub name: String,
    /// The item.
    pub item: String,
    /// The operation: `query`, `list_bills`, `lock`, `release`, `settle` or `inquire`.
    pub operation: String,
    /// The time it happens, RFC 3339.
    pub now: String,
    /// The request, with the field names of the contract in JSON. Bytes are lower hexadecimal.
    pub request: serde_json::Value,
    /// The citizen: invented, never a real one.
    pub applicant: Option<GoldenApplicant>,
    /// What goes over the wire, in order.
    pub exchanges: Vec<GoldenExchange>,
    /// The reply, with the field names of the contract in JSON; or `{error: {reason, field, offset}}`.
    pub reply: serde_json::Value,
}

/// An invented citizen.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoldenApplicant {
    /// Name.
    pub name: String,
    /// Document number.
    pub document_number: String,
    /// Plates, where the assertion has them.
    pub plates: Option<Vec<String>>,
}

/// One call as it goes over the wire.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GoldenExchange {
    /// The exchange.
    pub call: String,
    /// The bytes that must be sent.
    pub sent: LegacyBytes,
    /// The bytes that come back.
    pub reply: LegacyBytes,
    /// HTTP status of the reply, where there is such a thing; 200 when absent.
    pub status: Option<u16>,
}

/// Legacy bytes; exactly one form.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LegacyBytes {
    /// Text that the profile's charset writes. A last line feed is not part of it.
    pub text: Option<String>,
    /// Hexadecimal digits; white space is ignored.
    pub hex: Option<String>,
    /// A file beside the profile.
    pub file: Option<String>,
}
