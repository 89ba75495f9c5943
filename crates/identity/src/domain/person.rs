//! People without their names: what identity keeps of a person, and what it tells others.
//!
//! A person is an HMAC over the document's type and number, an account is one over the entry point and its own id of the person. Both
//! under keys derived from a pepper that is in no database, so a stolen table cannot be turned back by trying all numbers. To the
//! outside a person is a subject: a different one in every sector, so that two sectors that lay their subjects side by side learn
//! nothing.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::document::Document;

/// How much of an HMAC is a subject: 144 bits, 24 characters.
const SUBJECT_BYTES: usize = 18;

/// A person, as identity knows one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersonKey([u8; 32]);

/// An account at an entry point, as identity knows one.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountKey([u8; 32]);

/// Who shares one view of a person's subject, and nobody else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sector<'a> {
    /// An entry point.
    EntryPoint(&'a str),
    /// A department's profile.
    Profile(&'a str),
    /// The cases of all entry points, so that one person's cases join.
    Cases,
}

/// The keys under which people become numbers.
///
/// Shape: three keys derived from one pepper of 32 bytes. Losing the pepper loses every link between old and new subjects.
pub struct Pepper {
    person: hmac::Key,
    account: hmac::Key,
    subject: hmac::Key,
    fingerprint: [u8; 32],
}

impl Pepper {
    /// Derives the keys.
    pub fn new(pepper: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, pepper);
        let derive = |label: &str| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, label.as_bytes()).as_ref());
        let fingerprint = sign(&derive("lastmile identity fingerprint 1"), &[]);
        Self {
            fingerprint,
            person: derive("lastmile identity person 1"),
            account: derive("lastmile identity account 1"),
            subject: derive("lastmile identity subject 1"),
        }
    }

    /// Tells one pepper from another, and nothing else of it.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Returns the person whose document it is.
    pub fn person(&self, document: &Document) -> PersonKey {
        let kind = document.kind().as_str().as_bytes();
        PersonKey(sign(&self.person, &[kind, document.number().expose().as_bytes()]))
    }

    /// Returns the account with the entry point's own id `sub`.
    pub fn account(&self, entry_point: &str, sub: &str) -> AccountKey {
        AccountKey(sign(&self.account, &[entry_point.as_bytes(), sub.as_bytes()]))
    }

    /// Returns the person's subject in a sector: 24 characters of `[A-Za-z0-9_-]`.
    pub fn subject(&self, person: &PersonKey, sector: Sector<'_>) -> String {
        let (kind, name): (&[u8], &str) = match sector {
            Sector::EntryPoint(name) => (b"entry point", name),
            Sector::Profile(name) => (b"profile", name),
            Sector::Cases => (b"cases", ""),
        };
        let tag = sign(&self.subject, &[kind, name.as_bytes(), &person.0]);
        URL_SAFE_NO_PAD.encode(tag.split_at(SUBJECT_BYTES).0)
    }
}

/// Signs parts, each preceded by its length: no two lists of parts are one text.
fn sign(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut tag = [0; 32];
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

impl PersonKey {
    /// Reads what [`PersonKey::bytes`] gave.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As it is stored.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl AccountKey {
    /// As it is stored.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PersonKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonKey")
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountKey")
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn document(kind: &str, number: &str) -> Document {
        Document::check(kind, number, jiff::civil::date(2026, 8, 1)).expect("keeps the rules")
    }

    #[test]
    fn one_document_is_one_person_however_it_is_typed() {
        let pepper = Pepper::new(&[7; 32]);
        let long = pepper.person(&document("resident_id", "610104196209276908"));
        assert_eq!(pepper.person(&document("resident_id", "610104620927690")), long);
        assert_ne!(pepper.person(&document("resident_id", "11010519491231002x")), long);
        assert_ne!(Pepper::new(&[8; 32]).person(&document("resident_id", "610104196209276908")), long);
    }

    #[test]
    fn the_same_number_of_two_types_is_two_people() {
        let pepper = Pepper::new(&[7; 32]);
        let permit = pepper.person(&document("taiwan_permit", "12345678"));
        assert_ne!(permit, pepper.person(&document("passport", "12345678")));
    }

    #[test]
    fn no_two_sectors_share_a_subject_and_each_keeps_its_own() {
        let pepper = Pepper::new(&[7; 32]);
        let people = [document("resident_id", "11010519491231002X"), document("passport", "E12345678")];
        let sectors = [
            Sector::EntryPoint("wechat"),
            Sector::EntryPoint("alipay"),
            Sector::Profile("wechat"),
            Sector::Profile("traffic/430100"),
            Sector::Profile("traffic/140100"),
            Sector::Cases,
        ];
        let mut seen = BTreeSet::new();
        for person in people.map(|document| pepper.person(&document)) {
            for sector in sectors {
                let subject = pepper.subject(&person, sector);
                assert_eq!(subject.len(), 24);
                assert_eq!(pepper.subject(&person, sector), subject);
                assert!(seen.insert(subject), "{sector:?}");
            }
        }
    }

    #[test]
    fn accounts_of_two_entry_points_never_meet() {
        let pepper = Pepper::new(&[7; 32]);
        assert_ne!(pepper.account("wechat", "abc").bytes(), pepper.account("qq", "abc").bytes());
        assert_ne!(pepper.account("a", "bc").bytes(), pepper.account("ab", "c").bytes());
    }
}
