//! Verifies a file without the ledger: who signed it, that it is whole, and that its lines are what its totals say.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};

use rpc::jose::{self, Jwk, Jwks};
use serde::de::DeserializeOwned;

use super::file::{Claims, FORM, Head, Row, Tail, VERSION, digest};
use super::{LINE_BYTES_MAX, TYP};
use crate::beijing;

/// Bytes of a signature file at most.
const SIGNATURE_BYTES_MAX: usize = 4 * 1_024;

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub file: String,
    /// The settlement.
    pub settlement_id: String,
    /// Who is paid over.
    pub payee: String,
    /// ISO 4217.
    pub currency: String,
    /// Lines of each kind, by its word.
    pub lines: BTreeMap<String, i64>,
    /// What went to the payee, minor units.
    pub gross: i64,
    /// What it gave back.
    pub refunds: i64,
    /// What was taken over from the settlement before; 0 or less.
    pub carried: i64,
    /// What it comes to.
    pub net: i64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// The key that signed it.
    pub kid: String,
}

/// Why a file is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("cannot be read")]
    Io(#[from] std::io::Error),
    /// The keys.
    #[error("the keys: {0}")]
    Keys(String),
    /// The signature.
    #[error("the signature: {0}")]
    Signature(String),
    /// A line.
    #[error("line {line}: {problem}")]
    Line {
        /// Which one, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// All of it.
    #[error("{0}")]
    Whole(String),
}

/// Verifies a file against its signature, by the keys (a JWK or a JWKS).
///
/// `name` is the file's name where it lies, `sidecar` the content of its `.sha256` file where there is one.
/// Shape: one line at a time, in bounded memory.
/// Errors: the first thing that is wrong.
pub fn verify(
    name: &str,
    file: impl BufRead,
    signature: &str,
    keys: &str,
    sidecar: Option<&str>,
) -> Result<Report, VerifyError> {
    let (claims, kid) = signed(signature, keys)?;
    let whole = |holds: bool, problem: &str| {
        if holds { Ok(()) } else { Err(VerifyError::Whole(problem.to_owned())) }
    };
    let report = read(file)?;
    whole(report.sha256 == claims.sha256, "is not the file that was signed: the digests differ")?;
    whole(report.file == claims.file, "says another name than the one that was signed")?;
    whole(report.file == name, "lies under another name than its own")?;
    if let Some(sidecar) = sidecar {
        let wanted = format!("{}  {}", report.sha256, report.file);
        whole(sidecar.trim_end() == wanted, "is not what its .sha256 file says")?;
    }
    Ok(Report { kid, ..report })
}

fn signed(signature: &str, keys: &str) -> Result<(Claims, String), VerifyError> {
    let bad = |problem: &dyn std::fmt::Display| VerifyError::Keys(problem.to_string());
    let keys = match serde_json::from_str::<Jwks>(keys) {
        Ok(set) if !set.keys.is_empty() => set.keys,
        _ => vec![serde_json::from_str::<Jwk>(keys).map_err(|_| bad(&"are neither a JWK nor a JWKS"))?],
    };
    let bad_signature = |problem: &dyn std::fmt::Display| VerifyError::Signature(problem.to_string());
    let parsed = jose::parse(signature.trim_end(), SIGNATURE_BYTES_MAX).map_err(|error| bad_signature(&error))?;
    if parsed.header().typ.as_deref() != Some(TYP) {
        return Err(bad_signature(&format!("is not of the type {TYP}")));
    }
    for key in keys {
        let key = key.to_verifying_key().map_err(|error| bad(&error))?;
        if parsed.header().kid != key.kid() {
            continue;
        }
        let claims = parsed.verify(&key).map_err(|error| bad_signature(&error))?;
        let claims = serde_json::from_value(claims.into()).map_err(|_| bad_signature(&"is over something else"))?;
        return Ok((claims, key.kid()));
    }
    Err(bad_signature(&"is by none of the keys"))
}

/// Reads a file line by line; everything but the name of the key.
fn read(mut file: impl BufRead) -> Result<Report, VerifyError> {
    let mut digest = digest();
    let mut number = 0_u64;
    let mut next = |number: &mut u64| -> Result<Option<Vec<u8>>, VerifyError> {
        let mut line = Vec::new();
        let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        file.by_ref().take(most).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        *number = number.saturating_add(1);
        digest.update(&line);
        if line.pop() != Some(b'\n') {
            let problem = "has no end: the file was cut, or the line is too long".to_owned();
            return Err(VerifyError::Line { line: *number, problem });
        }
        Ok(Some(line))
    };
    let cut = || VerifyError::Whole("ends before its totals: it was cut".to_owned());
    let first = next(&mut number)?.ok_or_else(cut)?;
    let head: Head = parsed(&first, 1)?;
    demand(head.form == FORM && head.version == VERSION, 1, "is not the head of a settlement file of version 1")?;
    demand(beijing::is_stamp(&head.cut_at), 1, "cut_at is not a time to the microsecond")?;
    demand(head.carried_minor <= 0, 1, "carried_minor is above 0")?;
    demand((head.carried_minor == 0) || !head.carried_from.is_empty(), 1, "carried_from is missing")?;
    let mut lines: BTreeMap<String, i64> = BTreeMap::new();
    let (mut count, mut gross, mut refunds) = (0_i64, 0_i64, 0_i64);
    let mut last: Option<(String, String)> = None;
    let tail = loop {
        let text = next(&mut number)?.ok_or_else(cut)?;
        let row: Row = match serde_json::from_slice::<Tail>(&text) {
            Ok(tail) => break tail,
            Err(_) => parsed(&text, number)?,
        };
        demand(row.amount_minor > 0, number, "amount_minor is not above 0")?;
        demand(beijing::is_stamp(&row.at), number, "at is not a time to the microsecond")?;
        demand(row.at < head.cut_at, number, "at is not before the cut")?;
        let place = (row.at, row.transfer_id.clone());
        demand(last.is_none_or(|last| last < place), number, "is not behind the line before it, or there twice")?;
        last = Some(place);
        let (sum, is_named) = match row.what.as_str() {
            "posting" => (&mut gross, row.transfer_id == format!("{}/post", row.order_id)),
            "refund" => (&mut refunds, row.transfer_id.ends_with("/reserve")),
            _ => return Err(VerifyError::Line { line: number, problem: "what is neither posting nor refund".into() }),
        };
        demand(is_named, number, "transfer_id is not one of such a line")?;
        *sum = sum.checked_add(row.amount_minor).ok_or_else(|| out_of_range(number))?;
        count = count.saturating_add(1);
        let of_kind = lines.entry(row.what).or_default();
        *of_kind = of_kind.saturating_add(1);
    };
    let net = gross.checked_sub(refunds).and_then(|sum| sum.checked_add(head.carried_minor));
    let net = net.ok_or_else(|| out_of_range(number))?;
    let wanted = Tail {
        what: "total".to_owned(),
        lines: count,
        gross_minor: gross,
        refunds_minor: refunds,
        carried_minor: head.carried_minor,
        net_minor: net,
    };
    demand(tail == wanted, number, "the totals are not those of the lines")?;
    if next(&mut number)?.is_some() {
        return Err(VerifyError::Line { line: number, problem: "stands behind the totals".to_owned() });
    }
    Ok(Report {
        file: head.file,
        settlement_id: head.settlement_id,
        payee: head.payee,
        currency: head.currency,
        lines,
        gross,
        refunds,
        carried: head.carried_minor,
        net,
        sha256: hex::encode(digest.finish()),
        kid: String::new(),
    })
}

fn parsed<T: DeserializeOwned>(text: &[u8], line: u64) -> Result<T, VerifyError> {
    // What the parser says may quote a value; where it is enough.
    serde_json::from_slice(text).map_err(|error| VerifyError::Line {
        line,
        problem: format!("column {}: is not a line of a settlement file", error.column()),
    })
}

fn demand(holds: bool, line: u64, problem: &str) -> Result<(), VerifyError> {
    if holds { Ok(()) } else { Err(VerifyError::Line { line, problem: problem.to_owned() }) }
}

fn out_of_range(line: u64) -> VerifyError {
    VerifyError::Line { line, problem: "the sums leave their range".to_owned() }
}

#[cfg(test)]
mod tests {
    use contracts::ids::{OrderId, SettlementId};
    use contracts::money::Currency;
    use rpc::jose::SigningKey;
    use runtime::{Clock, Ids, Timestamp};

    use super::*;
    use crate::domain::ledger::TransferId;
    use crate::domain::settlement::{Line, Place, Settlement, Totals, What};
    use crate::settlement::{head, line, seal, tail};

    fn key() -> SigningKey {
        SigningKey::generate(&Ids::system(Clock::system())).expect("a key")
    }

    /// Two postings and a refund, and what one before came to.
    fn written() -> (String, String) {
        let place = Place {
            of_day: 0,
            day: jiff::civil::date(2026, 11, 22),
            cut_at: Timestamp::from_micros(1_000_000),
            currency: Currency::CNY,
        };
        let one = Settlement::after(None, "traffic-430100", place, |_| SettlementId::new(1)).expect("is the first");
        let (totals, carried) = (Totals { count: 3, gross: 500, refunds: 200 }, -50);
        let one = Settlement { totals, carried, carried_from: Some(SettlementId::new(9)), ..one };
        let mut text = head(&one).expect("writes");
        for (number, what, amount) in [(1, What::Posting, 300), (2, What::Posting, 200), (3, What::Refund, 200)] {
            let order = OrderId::new(number);
            let transfer = match what {
                What::Posting => TransferId::post(order),
                What::Refund => TransferId::refund(contracts::ids::RefundId::new(number)),
            };
            let at = Timestamp::from_micros(i64::try_from(number).expect("small"));
            let (channel, merchant) = ("wechatpay".to_owned(), "1900000001".to_owned());
            let (transaction, proof_serial, payment_code) = ("42".to_owned(), "罚, \"1\"".to_owned(), String::new());
            let row =
                Line { transfer, what, order, at, amount, channel, merchant, transaction, proof_serial, payment_code };
            text.extend(line(&row).expect("writes"));
        }
        text.extend(tail(&one).expect("writes"));
        (one.file_name(), String::from_utf8(text).expect("is text"))
    }

    fn sealed(name: &str, text: &str, key: &SigningKey) -> (String, String) {
        let mut digest = digest();
        digest.update(text.as_bytes());
        let seal = seal(name, digest, key).expect("signs");
        (seal.signature, seal.key)
    }

    #[test]
    fn a_file_says_what_it_comes_to() {
        let (name, text) = written();
        let (signature, jwk) = sealed(&name, &text, &key());
        let report = verify(&name, text.as_bytes(), &signature, &jwk, None).expect("is sound");
        assert_eq!((report.gross, report.refunds, report.carried, report.net), (500, 200, -50, 250));
        assert_eq!(report.lines, BTreeMap::from([("posting".to_owned(), 2), ("refund".to_owned(), 1)]));
        let set = format!("{{\"keys\":[{jwk}]}}");
        assert_eq!(verify(&name, text.as_bytes(), &signature, &set, None).expect("is sound"), report);
        let sidecar = format!("{}  {name}\n", report.sha256);
        verify(&name, text.as_bytes(), &signature, &jwk, Some(&sidecar)).expect("is sound");
        verify(&name, text.as_bytes(), &signature, &jwk, Some("0  x")).expect_err("another digest");
        verify("other.jsonl", text.as_bytes(), &signature, &jwk, None).expect_err("another name");
        let other = sealed(&name, &text, &key()).1;
        let error = verify(&name, text.as_bytes(), &signature, &other, None).expect_err("another key");
        assert!(matches!(error, VerifyError::Signature(_)), "{error}");
    }

    #[test]
    fn a_file_whose_bytes_were_changed_is_refused_wherever_it_was() {
        let (name, text) = written();
        let (signature, jwk) = sealed(&name, &text, &key());
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            verify(&name, &bytes[..], &signature, &jwk, None).expect_err(&format!("byte {at}"));
            verify(&name, &text.as_bytes()[..at], &signature, &jwk, None).expect_err(&format!("cut at {at}"));
        }
        let mut other = signature.clone().into_bytes();
        let last = other.len() - 2;
        other[last] = if other[last] == b'A' { b'B' } else { b'A' };
        let other = String::from_utf8(other).expect("is text");
        verify(&name, text.as_bytes(), &other, &jwk, None).expect_err("another signature");
    }

    /// Its lines must be right even where who wrote it has signed it.
    #[test]
    fn a_signed_file_that_breaks_a_rule_is_refused_with_its_line() {
        let (name, text) = written();
        let rows: Vec<&str> = text.lines().collect();
        let joined = |rows: &[&str]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
        let cases = [
            (joined(&[rows[0], rows[1], rows[2], rows[4]]), "line 4: the totals are not those of the lines"),
            (joined(&[rows[0], rows[1], rows[1], rows[3], rows[4]]), "line 3: is not behind the line before it"),
            (joined(&[rows[0], rows[2], rows[1], rows[3], rows[4]]), "line 3: is not behind the line before it"),
            (text.replace("\"amount_minor\":300", "\"amount_minor\":-300"), "line 2: amount_minor is not above 0"),
            (text.replace("\"amount_minor\":300", "\"amount_minor\":301"), "line 5: the totals"),
            (text.replace("\"net_minor\":250", "\"net_minor\":251"), "line 5: the totals"),
            (text.replace("\"what\":\"refund\"", "\"what\":\"gift\""), "line 4: what is neither"),
            (text.replacen("/post", "/capture", 1), "line 2: transfer_id is not one of such a line"),
            (text.replace("T08:00:01", "T08:00:00"), "line 2: at is not before the cut"),
            (text.replacen("\"version\":1", "\"version\":2", 1), "line 1: is not the head"),
            (format!("{text}{}\n", rows[3]), "line 6: stands behind the totals"),
            (joined(&rows[..4]), "ends before its totals"),
            (text.replacen("lastmile", &"x".repeat(LINE_BYTES_MAX), 1), "line 1: has no end"),
        ];
        for (text, expected) in cases {
            let (signature, jwk) = sealed(&name, &text, &key());
            let error = verify(&name, text.as_bytes(), &signature, &jwk, None).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}: not {expected}");
        }
    }
}
