//! Identity documents: which number can be one at all.
//!
//! The checks refuse what no authority has ever issued, so that a mistyped number fails here and not at a department. A number that
//! passes is well formed, nothing more: whose it is, the entry point's real-name check has said. An error names the rule that was
//! broken and never the number.

mod regions;

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use runtime::secret::Pii;

/// Weights of the first seventeen digits. Source: GB 11643-1999, 4.5 (ISO 7064 MOD 11-2).
const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
/// The check character by remainder.
const CHECK: [char; 11] = ['1', '0', 'X', '9', '8', '7', '6', '5', '4', '3', '2'];
/// Where the region, the birth date and the check character of an 18-digit number stand.
const REGION_END: usize = 6;
const BIRTH_END: usize = 14;
const BODY: usize = 17;
/// Nobody who was born before has a document to show.
const BIRTH_YEAR_MIN: i16 = 1850;
/// Longest number of any document, in characters.
const NUMBER_LENGTH_MAX: usize = 32;

/// The kind of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentType {
    /// Resident identity card (居民身份证), 18 digits, or 15 on those issued before October 1999.
    ResidentId,
    /// Residence permit of people from Hong Kong, Macao and Taiwan (港澳台居民居住证), region 810000, 820000 or 830000.
    ResidencePermit,
    /// Permanent resident card of foreigners (外国人永久居留身份证), the form of 2023 or the one before.
    PermanentResident,
    /// Mainland travel permit of people from Hong Kong and Macao (港澳居民来往内地通行证).
    HongKongMacaoPermit,
    /// Mainland travel permit of people from Taiwan (台湾居民来往大陆通行证).
    TaiwanPermit,
    /// Passport of any state.
    Passport,
}

impl DocumentType {
    /// Every type.
    pub const ALL: [Self; 6] = [
        Self::ResidentId,
        Self::ResidencePermit,
        Self::PermanentResident,
        Self::HongKongMacaoPermit,
        Self::TaiwanPermit,
        Self::Passport,
    ];

    /// The name in assertions and sealed attributes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ResidentId => "resident_id",
            Self::ResidencePermit => "residence_permit",
            Self::PermanentResident => "permanent_resident",
            Self::HongKongMacaoPermit => "hong_kong_macao_permit",
            Self::TaiwanPermit => "taiwan_permit",
            Self::Passport => "passport",
        }
    }
}

impl fmt::Display for DocumentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is not that of a document type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known document type")]
pub struct UnknownDocumentType;

impl FromStr for DocumentType {
    type Err = UnknownDocumentType;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or(UnknownDocumentType)
    }
}

/// The rule that a number breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Rule {
    /// The type is none that is known.
    #[error("the document type is not known")]
    DocumentType,
    /// Too short or too long for its type.
    #[error("the number has a wrong length")]
    Length,
    /// A character that the type does not have, or in a wrong place.
    #[error("the number has a wrong character")]
    Character,
    /// No region has ever had this code (GB/T 2260), or not one for this type.
    #[error("no region has had the number's code")]
    Region,
    /// No such day, or one still to come.
    #[error("the number's birth date is not possible")]
    BirthDate,
    /// The check character does not fit the rest.
    #[error("the number's check character is wrong")]
    CheckCharacter,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 6] =
        [Self::DocumentType, Self::Length, Self::Character, Self::Region, Self::BirthDate, Self::CheckCharacter];

    /// As it is written in error metadata `rule`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DocumentType => "document_type",
            Self::Length => "length",
            Self::Character => "character",
            Self::Region => "region",
            Self::BirthDate => "birth_date",
            Self::CheckCharacter => "check_character",
        }
    }
}

/// A document whose number keeps the rules of its type.
///
/// Shape: normalised, so that one document is one value however it was typed: letters upper case, a resident number of 15 digits in
/// its form of 18.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    kind: DocumentType,
    number: Pii<String>,
}

impl Document {
    /// Checks a number against the rules of its type.
    ///
    /// Shape: `today` bounds the birth date and the regions.
    /// Errors: the first rule that is broken, in the order of [`Rule`].
    pub fn check(kind: &str, number: &str, today: Date) -> Result<Self, Rule> {
        let kind: DocumentType = kind.parse().map_err(|_| Rule::DocumentType)?;
        if !number.is_ascii() {
            return Err(Rule::Character);
        }
        if number.is_empty() || number.len() > NUMBER_LENGTH_MAX {
            return Err(Rule::Length);
        }
        let number = number.to_ascii_uppercase();
        let number = match kind {
            DocumentType::ResidentId => resident(number, today)?,
            DocumentType::ResidencePermit => residence_permit(number, today)?,
            DocumentType::PermanentResident => permanent_resident(number, today)?,
            DocumentType::HongKongMacaoPermit => lettered(number, &["H", "M"], &[8, 10])?,
            DocumentType::TaiwanPermit => lettered(number, &[""], &[8, 10])?,
            DocumentType::Passport => passport(number)?,
        };
        Ok(Self { kind, number: Pii::new(number) })
    }

    /// The type.
    pub fn kind(&self) -> DocumentType {
        self.kind
    }

    /// The number, normalised.
    pub fn number(&self) -> &Pii<String> {
        &self.number
    }
}

/// Source: GB 11643-1999; the form of 15 digits is that of GB 11643-1989, where the century is always the twentieth.
fn resident(number: String, today: Date) -> Result<String, Rule> {
    let number = match number.len() {
        18 => number,
        15 => lengthen(&number)?,
        _ => return Err(Rule::Length),
    };
    let code = eighteen(&number)?;
    if !regions::existed(code, today.year()) || is_permit_region(code) {
        return Err(Rule::Region);
    }
    birth(&number, REGION_END..BIRTH_END, today)?;
    check(&number)?;
    Ok(number)
}

/// Source: the permit's rules of 2018: as a resident's number, under the region codes 810000, 820000 and 830000.
fn residence_permit(number: String, today: Date) -> Result<String, Rule> {
    let code = eighteen(&number)?;
    if !is_permit_region(code) {
        return Err(Rule::Region);
    }
    birth(&number, REGION_END..BIRTH_END, today)?;
    check(&number)?;
    Ok(number)
}

/// The form of 2023: 9, two digits of a province, three of a nationality (ISO 3166), birth date, three of a sequence, one to check.
///
/// The check character is not demanded: of the two specimens that were published, one keeps the rule of GB 11643 and one does not,
/// and a card that its holder has must not be refused. The form before: three letters and twelve digits.
fn permanent_resident(number: String, today: Date) -> Result<String, Rule> {
    match number.len() {
        15 => {
            let (letters, digits) = number.split_at(3);
            let sound = letters.bytes().all(|b| b.is_ascii_uppercase()) && is_digits(digits);
            if sound { Ok(number) } else { Err(Rule::Character) }
        }
        18 => {
            eighteen(&number)?;
            let province = number.get(1..3).and_then(|two| two.parse().ok()).unwrap_or(0);
            if !number.starts_with('9') || !regions::is_province(province) {
                return Err(Rule::Region);
            }
            birth(&number, REGION_END..BIRTH_END, today)?;
            Ok(number)
        }
        _ => Err(Rule::Length),
    }
}

/// A letter out of a few (or none), then a number of digits out of a few.
fn lettered(number: String, letters: &[&str], lengths: &[usize]) -> Result<String, Rule> {
    let digits = letters.iter().find_map(|letter| number.strip_prefix(letter)).ok_or(Rule::Character)?;
    if !lengths.contains(&digits.len()) {
        return Err(Rule::Length);
    }
    if !is_digits(digits) {
        return Err(Rule::Character);
    }
    Ok(number)
}

/// Issuers differ; what is common to all is letters and digits (ICAO 9303 has nine in its machine-readable zone, some print more).
fn passport(number: String) -> Result<String, Rule> {
    if !(5..=15).contains(&number.len()) {
        return Err(Rule::Length);
    }
    let sound = number.bytes().all(|b| b.is_ascii_alphanumeric()) && number.bytes().any(|b| b.is_ascii_digit());
    if sound { Ok(number) } else { Err(Rule::Character) }
}

/// Checks the characters of an 18-digit number and returns its region code.
fn eighteen(number: &str) -> Result<u32, Rule> {
    if number.len() != 18 {
        return Err(Rule::Length);
    }
    let (body, last) = number.split_at(BODY);
    if !is_digits(body) || !(is_digits(last) || last == "X") {
        return Err(Rule::Character);
    }
    body.get(..REGION_END).and_then(|code| code.parse().ok()).ok_or(Rule::Character)
}

fn is_permit_region(code: u32) -> bool {
    matches!(code, 810_000 | 820_000 | 830_000)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// Writes a number of 15 digits in its form of 18.
fn lengthen(number: &str) -> Result<String, Rule> {
    if !is_digits(number) {
        return Err(Rule::Character);
    }
    let (region, rest) = number.split_at(REGION_END);
    let body = format!("{region}19{rest}");
    let last = check_character(&body);
    Ok(format!("{body}{last}"))
}

fn birth(number: &str, at: std::ops::Range<usize>, today: Date) -> Result<(), Rule> {
    let digits = number.get(at).ok_or(Rule::BirthDate)?;
    let (year, day) = digits.split_at(4);
    let (month, day) = day.split_at(2);
    let field = |text: &str| text.parse::<i16>().unwrap_or(0);
    let part = |text: &str| i8::try_from(field(text)).unwrap_or(0);
    let date = Date::new(field(year), part(month), part(day)).map_err(|_| Rule::BirthDate)?;
    if date.year() < BIRTH_YEAR_MIN || date > today { Err(Rule::BirthDate) } else { Ok(()) }
}

fn check(number: &str) -> Result<(), Rule> {
    let (body, last) = number.split_at(BODY);
    if last.starts_with(check_character(body)) { Ok(()) } else { Err(Rule::CheckCharacter) }
}

/// Computes the check character of seventeen digits.
fn check_character(body: &str) -> char {
    let sum: u32 = body.chars().zip(WEIGHTS).map(|(digit, weight)| digit.to_digit(10).unwrap_or(0) * weight).sum();
    let remainder = usize::try_from(sum % 11).unwrap_or(0);
    CHECK.get(remainder).copied().unwrap_or('?')
}

#[cfg(test)]
mod tests;
