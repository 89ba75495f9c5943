//! What makes a receipt hard to forge: the key of its check code, and how often one can be guessed at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use runtime::config::Problem;
use runtime::{Ids, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::ledger::is_part;
use crate::domain::receipt::{CHECK_DIGITS, Due, Receipt, is_prefix, printed};
use crate::vault::{VaultError, key_bytes};

/// Wrong tries on one number until it rests.
pub(crate) const TRIES_MAX: u32 = 10;
/// How long a try counts at least; twice as long at most.
const WINDOW: Duration = Duration::from_secs(3_600);
/// Numbers whose tries are remembered at most, twice over; beyond it the oldest are forgotten.
const REMEMBERED_MAX: usize = 50_000;
/// How many values a check code has.
const CHECKS: u64 = 1_000_000;
/// What every check code is made for, so that the key is good for nothing else.
const PURPOSE: &[u8] = b"lastmile payments receipt v1\n";

/// Who has receipts, and what is printed on them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Holds the 32 bytes that check codes are made with; made when it is missing; below the data directory unless absolute.
    pub key_file: PathBuf,
    /// The page at which a receipt's QR code ends; it gets what is printed on the receipt as its query.
    pub verify_url: String,
    /// Payees with receipts.
    pub payees: Vec<Series>,
}

/// The receipts of a payee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Who.
    pub payee_id: String,
    /// The first six digits of the code: supervising region, class and kind, two each. The year is that of the day.
    pub code_prefix: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { key_file: "keys/payments/receipt.key".into(), verify_url: String::new(), payees: Vec::new() }
    }
}

impl Settings {
    /// What the code of a payee's receipts begins with; None where it has none.
    pub(crate) fn prefix(&self, payee_id: &str) -> Option<String> {
        self.payees.iter().find(|series| series.payee_id == payee_id).map(|series| series.code_prefix.clone())
    }

    /// The content of a receipt's QR code.
    pub(crate) fn address(&self, receipt: &Receipt) -> String {
        let Due { code, amount, .. } = &receipt.due;
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("code", code)
            .append_pair("number", &receipt.printed_number())
            .append_pair("check", &receipt.check_code)
            .append_pair("amount", &amount.amount_minor().to_string())
            .append_pair("currency", amount.currency().as_str())
            .append_pair("day", &receipt.due.day().to_string())
            .finish();
        format!("{}?{query}", self.verify_url)
    }

    pub(crate) fn validate(&self, path: &str, is_payee: impl Fn(&str) -> bool, problems: &mut Vec<Problem>) {
        if self.key_file.as_os_str().is_empty() {
            // Also without payees: receipts that were issued are verified, and orders that promise one are posted.
            problems.push(Problem::new(format!("{path}.key_file"), "must not be empty"));
        }
        if self.payees.is_empty() {
            return;
        }
        let is_address = self.verify_url.starts_with("https://") && self.verify_url.len() <= 256;
        if !is_address || self.verify_url.contains(['?', '#', ' ']) || !self.verify_url.is_ascii() {
            let problem = "must be an https address of at most 256 characters, without a query";
            problems.push(Problem::new(format!("{path}.verify_url"), problem));
        }
        for (index, series) in self.payees.iter().enumerate() {
            let mut note = |key: &str, message: &str| {
                problems.push(Problem::new(format!("{path}.payees.{index}.{key}"), message));
            };
            if !is_part(&series.payee_id) || !is_payee(&series.payee_id) {
                note("payee_id", "is not in the list of payees");
            }
            if self.payees.iter().take(index).any(|other| other.payee_id == series.payee_id) {
                note("payee_id", "is there twice");
            }
            if !is_prefix(&series.code_prefix) {
                note("code_prefix", "must be six digits: supervising region, class and kind");
            }
        }
    }
}

/// The key of check codes.
#[derive(Clone)]
pub(crate) struct Seal {
    key: hmac::Key,
    /// Names the key, and tells nothing of it.
    id: String,
}

impl Seal {
    /// Reads the key, or makes it where the file is missing.
    pub(crate) fn open(path: &Path, ids: &Ids) -> Result<Self, VaultError> {
        let bytes = key_bytes(path, ids)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, bytes.expose());
        let id = hmac::sign(&key, b"lastmile payments receipt key id");
        Ok(Self { id: hex::encode(id.as_ref().get(..8).unwrap_or_default()), key })
    }

    /// Gives a receipt that is due its number.
    pub(crate) fn issue(&self, due: Due, number: i64) -> Receipt {
        let check_code = self.check_code(&due, number);
        Receipt { due, number, key_id: self.id.clone(), check_code }
    }

    /// The check code over all that is printed.
    fn check_code(&self, due: &Due, number: i64) -> String {
        let Due { code, payee_id, amount, .. } = due;
        let (number, minor, currency) = (printed(number), amount.amount_minor(), amount.currency());
        let text = format!("{code}\n{number}\n{minor}\n{currency}\n{}\n{payee_id}", due.day());
        let mut context = hmac::Context::with_key(&self.key);
        context.update(PURPOSE);
        context.update(text.as_bytes());
        let tag = context.sign();
        let first = tag.as_ref().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        format!("{:0CHECK_DIGITS$}", first % CHECKS)
    }

    /// Whether a receipt has this check code, and was not changed since it was issued. It takes as long whatever is wrong.
    ///
    /// A receipt of a key that was replaced keeps the check code that it was issued with.
    pub(crate) fn is_true(&self, receipt: &Receipt, check_code: &str) -> bool {
        let made = self.check_code(&receipt.due, receipt.number);
        let has = same(&receipt.check_code, check_code);
        let is_unchanged = same(&made, &receipt.check_code) | (receipt.key_id != self.id);
        has & is_unchanged
    }
}

fn same(one: &str, other: &str) -> bool {
    constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// Counts wrong tries on numbers, so that no check code can be found by trying.
///
/// In memory: each replica allows as many again, which is still nothing against a million, and the public can write no rows.
#[derive(Default)]
pub(crate) struct Tries(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    began: Timestamp,
    recent: BTreeMap<String, u32>,
    older: BTreeMap<String, u32>,
}

impl Tries {
    /// Counts a try as a wrong one, until it is [`forgiven`](Self::forgive). Counting comes first: tries that run at once count too.
    ///
    /// Errors: how long the number rests.
    pub(crate) fn begin(&self, name: &str, now: Timestamp) -> Result<(), Duration> {
        let mut counted = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ends = counted.began.plus(WINDOW);
        if now >= ends.plus(WINDOW) {
            *counted = Counted { began: now, ..Counted::default() };
        } else if now >= ends || counted.recent.len() >= REMEMBERED_MAX {
            counted.older = std::mem::take(&mut counted.recent);
            counted.began = now.min(ends);
        }
        let of = |tries: &BTreeMap<String, u32>| tries.get(name).copied().unwrap_or(0);
        let (recent, older) = (of(&counted.recent), of(&counted.older));
        if recent.saturating_add(older) >= TRIES_MAX {
            let older_go = counted.began.plus(WINDOW);
            let enough_go = if recent < TRIES_MAX { older_go } else { older_go.plus(WINDOW) };
            return Err(enough_go.since(now));
        }
        let tries = counted.recent.entry(name.to_owned()).or_insert(0);
        *tries = tries.saturating_add(1);
        Ok(())
    }

    /// Takes back a try that was right.
    pub(crate) fn forgive(&self, name: &str) {
        let mut counted = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(tries) = counted.recent.get_mut(name) {
            *tries = tries.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
