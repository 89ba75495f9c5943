//! What is known of a person, as it travels sealed.

use runtime::secret::Pii;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

/// What an entry point asserts of a person, and what identity seals for a profile: only what the consented items need.
///
/// Written in clear only inside of a sealed token; `Debug` shows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// Name, as on the document.
    #[serde(serialize_with = "shown_if_any", skip_serializing_if = "Option::is_none")]
    pub name: Option<Pii<String>>,
    /// Kind of document, for example "resident_id" (居民身份证).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc_type: Option<String>,
    /// Number of the document.
    #[serde(serialize_with = "shown_if_any", skip_serializing_if = "Option::is_none")]
    pub doc_no: Option<Pii<String>>,
    /// Mobile number.
    #[serde(serialize_with = "shown_if_any", skip_serializing_if = "Option::is_none")]
    pub phone: Option<Pii<String>>,
    /// Number plates of the person's vehicles, as on the plate.
    #[serde(serialize_with = "shown_list", skip_serializing_if = "Vec::is_empty")]
    pub plates: Vec<Pii<String>>,
    /// Driving licence numbers.
    #[serde(serialize_with = "shown_list", skip_serializing_if = "Vec::is_empty")]
    pub licences: Vec<Pii<String>>,
    /// Accounts at departments: social security, housing fund, water meter, …
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<Account>,
    /// GB/T 2260 code of the region the person lives in; six digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_region: Option<String>,
}

/// An account at a department.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Kind, for example "housing_fund".
    pub kind: String,
    /// Number.
    #[serde(serialize_with = "shown")]
    pub number: Pii<String>,
}

fn shown<S: Serializer>(value: &Pii<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.expose())
}

#[expect(clippy::ref_option, reason = "the shape that serde's derive asks for")]
fn shown_if_any<S: Serializer>(value: &Option<Pii<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => shown(value, serializer),
        None => serializer.serialize_none(),
    }
}

fn shown_list<S: Serializer>(values: &[Pii<String>], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(values.len()))?;
    for value in values {
        list.serialize_element(value.expose())?;
    }
    list.end()
}
