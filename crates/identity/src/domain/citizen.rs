//! What an entry point says of a citizen, checked, and what a profile is told of it.

use std::collections::BTreeSet;

use jiff::civil::Date;
use rpc::token::{Account, Attributes, RealName};
use runtime::Timestamp;
use runtime::secret::Pii;

use super::document::{Document, Rule};
use super::level::Level;
use super::names;
use crate::config::Attribute;

/// Longest value of one attribute, in bytes of UTF-8.
const VALUE_BYTES_MAX: usize = 150;
/// Most plates, licences, accounts or consents.
const LIST_MAX: usize = 32;
/// China has one time zone, eight hours ahead of UTC: its date bounds a birth date.
const BEIJING_SECONDS: i64 = 8 * 3_600;
const DAY_SECONDS: i64 = 24 * 3_600;

/// A citizen whose assertion keeps the rules.
#[derive(Debug, PartialEq, Eq)]
pub struct Citizen {
    /// The document that tells who it is.
    pub document: Document,
    /// How sure we are.
    pub level: Level,
    /// Item codes consented to at the entry point.
    pub consents: Vec<String>,
    /// Everything that was asserted; the document's number normalised.
    pub attributes: Attributes,
}

/// What is wrong with an assertion whose signature holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// A value is missing, too long, or of a wrong form. Named, never quoted.
    #[error("{0} is missing or malformed")]
    Claim(&'static str),
    /// The document breaks a rule.
    #[error(transparent)]
    Document(#[from] Rule),
}

impl Citizen {
    /// Checks what was asserted.
    ///
    /// Shape: `level_max` is the highest level believed of the entry point; `now` bounds the birth date.
    pub fn check(asserted: RealName, level_max: Level, now: Timestamp) -> Result<Self, Unusable> {
        let RealName { level, consents, mut attributes, .. } = asserted;
        let level = Level::from_number(level.into()).ok_or(Unusable::Claim("level"))?.min(level_max);
        if consents.len() > LIST_MAX || !consents.iter().all(|item| is_item(item)) {
            return Err(Unusable::Claim("consents"));
        }
        check_attributes(&attributes)?;
        let (kind, number) = match (&attributes.doc_type, &attributes.doc_no) {
            (Some(kind), Some(number)) => (kind, number),
            (None, _) => return Err(Unusable::Claim("doc_type")),
            (Some(_), None) => return Err(Unusable::Claim("doc_no")),
        };
        let document = Document::check(kind, number.expose(), date_in_china(now))?;
        attributes.doc_no = Some(document.number().clone());
        Ok(Self { document, level, consents, attributes })
    }
}

fn check_attributes(attributes: &Attributes) -> Result<(), Unusable> {
    let Attributes { name, doc_type: _, doc_no: _, phone, plates, licences, accounts, home_region } = attributes;
    if !name.as_ref().is_some_and(is_value) {
        return Err(Unusable::Claim("name"));
    }
    if !phone.as_ref().is_none_or(is_phone) {
        return Err(Unusable::Claim("phone"));
    }
    if plates.len() > LIST_MAX || !plates.iter().all(is_value) {
        return Err(Unusable::Claim("plates"));
    }
    if licences.len() > LIST_MAX || !licences.iter().all(is_value) {
        return Err(Unusable::Claim("licences"));
    }
    let is_account = |account: &Account| is_item(&account.kind) && is_value(&account.number);
    if accounts.len() > LIST_MAX || !accounts.iter().all(is_account) {
        return Err(Unusable::Claim("accounts"));
    }
    if !home_region.as_deref().is_none_or(names::is_region) {
        return Err(Unusable::Claim("home_region"));
    }
    Ok(())
}

fn is_value(value: &Pii<String>) -> bool {
    let text = value.expose();
    (1..=VALUE_BYTES_MAX).contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control)
}

/// Digits, with or without a leading plus. Source: E.164, 15 digits at most.
fn is_phone(value: &Pii<String>) -> bool {
    let digits = value.expose().strip_prefix('+').unwrap_or(value.expose());
    (5..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Item codes and kinds of account: `[a-z0-9._-]`, as the catalogue writes them.
fn is_item(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(known)
}

fn date_in_china(now: Timestamp) -> Date {
    let (seconds, _) = now.seconds_nanos();
    let days = (seconds + BEIJING_SECONDS).div_euclid(DAY_SECONDS);
    let epoch = jiff::civil::date(1970, 1, 1);
    epoch.saturating_add(jiff::Span::new().days(days.clamp(0, 1_000_000)))
}

/// Leaves of a citizen's attributes what a profile may know.
pub fn narrow(attributes: &Attributes, allowed: &BTreeSet<Attribute>) -> Attributes {
    let may = |attribute| allowed.contains(&attribute);
    Attributes {
        name: attributes.name.clone().filter(|_| may(Attribute::Name)),
        doc_type: attributes.doc_type.clone().filter(|_| may(Attribute::DocumentType)),
        doc_no: attributes.doc_no.clone().filter(|_| may(Attribute::DocumentNumber)),
        phone: attributes.phone.clone().filter(|_| may(Attribute::Phone)),
        plates: if may(Attribute::Plates) { attributes.plates.clone() } else { Vec::new() },
        licences: if may(Attribute::Licences) { attributes.licences.clone() } else { Vec::new() },
        accounts: if may(Attribute::Accounts) { attributes.accounts.clone() } else { Vec::new() },
        home_region: attributes.home_region.clone().filter(|_| may(Attribute::HomeRegion)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        Timestamp::from_seconds_nanos(1_785_542_400, 0) // 2026-08-01T00:00:00Z
    }

    fn asserted(change: impl FnOnce(&mut Value)) -> RealName {
        let mut claims = json!({
            "iss": "wechat", "sub": "o1", "aud": "identity", "exp": 60, "iat": 1, "jti": "j", "level": 4,
            "consents": ["traffic.violation"], "name": "张三", "doc_type": "resident_id", "doc_no": "11010519491231002x",
            "phone": "+8613800008000", "plates": ["湘A12345"], "licences": ["11010519491231002X"],
            "accounts": [{"kind": "housing_fund", "number": "1234"}], "home_region": "430100"
        });
        change(&mut claims);
        serde_json::from_value(claims).expect("claims")
    }

    #[test]
    fn what_keeps_the_rules_is_normalised_and_the_level_is_what_is_believed() {
        let citizen = Citizen::check(asserted(|_| {}), Level::TwoWay, now()).expect("keeps the rules");
        assert_eq!(citizen.level, Level::TwoWay);
        assert_eq!(citizen.attributes.doc_no, Some(Pii::new("11010519491231002X".to_owned())));
        assert_eq!(citizen.consents, ["traffic.violation"]);
        let citizen = Citizen::check(asserted(|claims| claims["level"] = 1.into()), Level::Face, now());
        assert_eq!(citizen.expect("keeps the rules").level, Level::Phone);
    }

    #[test]
    fn each_malformed_claim_is_named() {
        let long = "长".repeat(51);
        for (claim, value) in [
            ("level", json!(0)),
            ("level", json!(5)),
            ("consents", json!(["Traffic Violation"])),
            ("consents", json!(vec!["a"; 33])),
            ("name", json!(null)),
            ("name", json!("")),
            ("name", json!(" 张三")),
            ("name", json!("张\n三")),
            ("name", json!(long)),
            ("doc_type", json!(null)),
            ("doc_no", json!(null)),
            ("phone", json!("13800008000x")),
            ("phone", json!("1")),
            ("plates", json!([""])),
            ("plates", json!(vec!["湘A12345"; 33])),
            ("licences", json!([" "])),
            ("accounts", json!([{"kind": "Housing Fund", "number": "1"}])),
            ("accounts", json!([{"kind": "housing_fund", "number": ""}])),
            ("home_region", json!("4301")),
        ] {
            let refused = Citizen::check(asserted(|claims| claims[claim] = value.clone()), Level::Face, now());
            assert_eq!(refused.map(drop), Err(Unusable::Claim(claim)), "{value}");
        }
        let refused = Citizen::check(asserted(|claims| claims["doc_no"] = "1".into()), Level::Face, now());
        assert_eq!(refused.map(drop), Err(Unusable::Document(Rule::Length)));
    }

    #[test]
    fn the_date_is_that_of_china() {
        for (seconds, date) in [
            (1_785_542_400, jiff::civil::date(2026, 8, 1)),
            (1_785_542_400 + 16 * 3_600 - 1, jiff::civil::date(2026, 8, 1)),
            (1_785_542_400 + 16 * 3_600, jiff::civil::date(2026, 8, 2)),
            (0, jiff::civil::date(1970, 1, 1)),
        ] {
            assert_eq!(date_in_china(Timestamp::from_seconds_nanos(seconds, 0)), date);
        }
    }

    #[test]
    fn a_profile_is_told_what_it_may_know_and_nothing_else() {
        let all = Citizen::check(asserted(|_| {}), Level::Face, now()).expect("keeps the rules").attributes;
        assert_eq!(narrow(&all, &BTreeSet::new()), Attributes::default());
        let three = crate::Config::default().attributes("traffic/430100");
        let told = serde_json::to_value(narrow(&all, &three)).expect("JSON");
        let members: Vec<_> = told.as_object().expect("an object").keys().cloned().collect();
        assert_eq!(members, ["doc_no", "doc_type", "name"]);
        let every = [
            Attribute::Name,
            Attribute::DocumentType,
            Attribute::DocumentNumber,
            Attribute::Phone,
            Attribute::Plates,
            Attribute::Licences,
            Attribute::Accounts,
            Attribute::HomeRegion,
        ];
        assert_eq!(narrow(&all, &every.into()), all);
    }
}
