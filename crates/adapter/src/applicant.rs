//! For whom a profile works, and whether a request is about them.

use minijinja::Value;
use rpc::token::Attributes;
use runtime::secret::Pii;

use crate::error::Error;
use crate::plan::ItemPlan;
use crate::profile::{self, Attribute, Otherwise};

/// The citizen of a call, as identity sealed them for this profile.
#[derive(Clone, Debug, Default)]
pub struct Citizen {
    attributes: Attributes,
}

/// What a request's bound fields came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Every bound field is the citizen's own.
    Bound,
    /// Some field is bound only by what the department answers: every record must be the citizen's own.
    ByOwner,
}

impl Citizen {
    /// Takes what identity sealed.
    #[must_use]
    pub fn new(attributes: Attributes) -> Self {
        Self { attributes }
    }

    /// Hands name and document number to the templates of this profile alone.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let shown = |value: &Option<Pii<String>>| {
            value.as_ref().map_or(Value::from(()), |value| Value::from(value.expose().as_str()))
        };
        Value::from_pairs([("name", shown(&self.attributes.name)), ("document_number", shown(&self.attributes.doc_no))])
    }

    /// Tells whether a document number is the citizen's.
    #[must_use]
    pub fn is(&self, document_number: &str) -> bool {
        self.attributes.doc_no.as_ref().is_some_and(|own| own.expose().eq_ignore_ascii_case(document_number))
    }

    /// Compares the bound fields of an input with the sealed attributes.
    ///
    /// Errors: SubjectMismatch with the field's name; AssertionInvalid when the item needs to know the citizen and nothing is sealed.
    pub fn bind(&self, item: &ItemPlan, input: &serde_json::Value) -> Result<Binding, Error> {
        if item.item.applicant == profile::Applicant::Anyone {
            return Ok(Binding::Bound);
        }
        if self.attributes.doc_no.is_none() {
            return Err(Error::AssertionInvalid("attributes"));
        }
        let mut binding = Binding::Bound;
        for (field, subject) in item.input.subjects() {
            let Some(given) = input.get(field).and_then(serde_json::Value::as_str) else { continue };
            let mismatch = || Error::SubjectMismatch(field.clone());
            let rule = item.item.subjects.get(subject).ok_or_else(mismatch)?;
            match (self.owns(rule.attribute, given), rule.otherwise) {
                (Some(true), _) => {}
                (Some(false), _) | (None, Otherwise::Refuse) => return Err(mismatch()),
                (None, Otherwise::Owner) => binding = Binding::ByOwner,
            }
        }
        Ok(binding)
    }

    /// Whether a value is among an attribute of the citizen; `None` when identity sealed no such attribute.
    fn owns(&self, attribute: Attribute, given: &str) -> Option<bool> {
        let one = |value: &Option<Pii<String>>| Some(value.as_ref()?.expose().eq_ignore_ascii_case(given));
        let list = |values: &[Pii<String>]| {
            (!values.is_empty()).then(|| values.iter().any(|value| value.expose().eq_ignore_ascii_case(given)))
        };
        match attribute {
            Attribute::DocumentNumber => one(&self.attributes.doc_no),
            Attribute::Phone => one(&self.attributes.phone),
            Attribute::Plates => list(&self.attributes.plates),
            Attribute::Licences => list(&self.attributes.licences),
        }
    }

    /// Everything that must not stand in a text that leaves: what is sealed of the citizen.
    #[must_use]
    pub fn identifiers(&self) -> Vec<&str> {
        let Attributes { name, doc_no, phone, plates, licences, .. } = &self.attributes;
        let single = [name, doc_no, phone].into_iter().flatten();
        single
            .chain(plates)
            .chain(licences)
            .map(|value| value.expose().as_str())
            .filter(|text| !text.is_empty())
            .collect()
    }
}
