//! What a channel charged, as its bill writes it.

use super::entry::BadMoney;

/// Decimals of a yuan that a bill may write.
const DECIMALS: usize = 5;
/// Parts of a fen.
const PARTS: i128 = 1_000;

/// A fee (手续费, 服务费), exactly: a hundred-thousandth of a yuan is the least that a bill writes. Below zero it is given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fee(i128);

impl Fee {
    /// Reads a fee in yuan, with at most five decimals and perhaps a sign.
    pub fn from_yuan(text: &str) -> Result<Self, BadMoney> {
        let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
        let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || decimals.len() > DECIMALS || !is_number(whole) || !is_number(decimals) {
            return Err(BadMoney);
        }
        let parts = format!("{whole}{decimals:0<DECIMALS$}").parse::<i64>().map_err(|_| BadMoney)?;
        Ok(Self(i128::from(parts).saturating_mul(sign)))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The same with the other sign.
    #[must_use]
    pub fn back(self) -> Self {
        Self(self.0.saturating_neg())
    }

    /// -1, 0 or 1.
    pub fn sign(self) -> i128 {
        self.0.signum()
    }

    /// In fen; None where it is no whole number of them.
    pub fn minor(self) -> Option<i64> {
        let is_whole = self.0.checked_rem(PARTS) == Some(0);
        self.0.checked_div(PARTS).filter(|_| is_whole).and_then(|minor| minor.try_into().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_are_read_and_summed_exactly_or_not_at_all() {
        let fee = |text| Fee::from_yuan(text).expect("a fee");
        for (text, minor) in
            [("0", Some(0)), ("0.12000", Some(12)), ("-0.12", Some(-12)), ("1.2", Some(120)), ("0.00600", None)]
        {
            assert_eq!(fee(text).minor(), minor, "{text}");
        }
        assert_eq!(fee("0.00600").plus(fee("0.00400")).minor(), Some(1), "parts of a fen add up");
        assert_eq!(fee("1.20").plus(fee("-0.60").back().back()).minor(), Some(60));
        assert_eq!((fee("-0.00001").sign(), fee("-0.00000").sign(), fee("7").sign()), (-1, 0, 1));
        for text in ["", "-", ".5", "0.000001", "1,0", "1e3", "--1", " 1", "99999999999999999999"] {
            assert!(Fee::from_yuan(text).is_err(), "{text}");
        }
    }
}
