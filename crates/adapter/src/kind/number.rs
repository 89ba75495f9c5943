//! Numbers and money: digits alone, never a float.

use minijinja::Value;

use super::{AMOUNT_MINOR_MAX, Misfit, MoneyUnit};

/// Longest run of digits that is looked at; more cannot be in any bounds.
const DIGITS_MAX: usize = 18;

pub(super) fn read_number(text: &str, min: u32, max: u32) -> Result<u32, Misfit> {
    let number = digits(text).and_then(|number| u32::try_from(number).ok());
    number.filter(|number| (min..=max).contains(number)).ok_or(Misfit::Number { min, max })
}

pub(super) fn write_number(value: &Value, min: u32, max: u32) -> Result<String, Misfit> {
    let number = whole(value).and_then(|number| u32::try_from(number).ok());
    let number = number.filter(|number| (min..=max).contains(number)).ok_or(Misfit::Number { min, max })?;
    Ok(number.to_string())
}

pub(super) fn read_money(text: &str, unit: MoneyUnit) -> Result<i64, Misfit> {
    let minor = match unit {
        MoneyUnit::Fen => digits(text),
        MoneyUnit::Yuan => yuan(text),
    };
    minor.filter(|minor| *minor <= AMOUNT_MINOR_MAX).ok_or(Misfit::Money(unit))
}

/// Writes fen in the unit; no sign, so negative amounts are refused.
pub(super) fn write_money(value: &Value, unit: MoneyUnit) -> Result<String, Misfit> {
    let minor = whole(value).filter(|minor| (0..=AMOUNT_MINOR_MAX).contains(minor)).ok_or(Misfit::Money(unit))?;
    Ok(match unit {
        MoneyUnit::Fen => minor.to_string(),
        MoneyUnit::Yuan => format!("{}.{:02}", minor / 100, minor % 100),
    })
}

/// A whole number that was given as one: a string of digits or a fraction is not taken.
fn whole(value: &Value) -> Option<i64> {
    value.is_integer().then(|| i64::try_from(value.clone()).ok()).flatten()
}

fn digits(text: &str) -> Option<i64> {
    let is_number = (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// `200.00`: no sign, no separators, no leading zeros, exactly two decimals.
fn yuan(text: &str) -> Option<i64> {
    let (whole, cents) = text.split_once('.')?;
    let is_plain = cents.len() == 2 && (whole == "0" || !whole.starts_with('0'));
    let minor = digits(whole)?.checked_mul(100)?.checked_add(digits(cents)?)?;
    is_plain.then_some(minor)
}
