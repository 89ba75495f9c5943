//! Every id that crosses a service boundary, with its printed prefix. Append only; alphabetical.

use std::fmt;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseIdError {
    /// The prefix that was expected.
    pub prefix: &'static str,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected `{}` followed by 32 lower-case hexadecimal digits", self.prefix)
    }
}

impl std::error::Error for ParseIdError {}

/// Parses `prefix` + 32 hexadecimal digits into the 128 bits that they write.
fn parse(prefix: &'static str, text: &str) -> Result<u128, ParseIdError> {
    let error = ParseIdError { prefix };
    let digits = text.strip_prefix(prefix).ok_or(error.clone())?;
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if digits.len() != 32 || !digits.bytes().all(lower_hex) {
        return Err(error);
    }
    u128::from_str_radix(digits, 16).map_err(|_| error)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// What every printed id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id of 128 bits (a UUID's, so that ids sort by age).
            #[must_use]
            pub const fn new(bits: u128) -> Self {
                Self(bits)
            }

            /// The 128 bits.
            #[must_use]
            pub const fn bits(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{:032x}", Self::PREFIX, self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse(Self::PREFIX, text).map(Self)
            }
        }
    };
}

id!(
    /// A case.
    CaseId,
    "case_"
);
id!(
    /// A combined order at payments.
    CombinedOrderId,
    "cmb_"
);
id!(
    /// An order at payments.
    OrderId,
    "ord_"
);
id!(
    /// A refund at payments.
    RefundId,
    "rfd_"
);
id!(
    /// The reconciliation of an account for a day at payments.
    RunId,
    "run_"
);
id!(
    /// A settlement of a payee at payments.
    SettlementId,
    "stl_"
);
id!(
    /// A clerk's task.
    TaskId,
    "tsk_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        let id = CaseId::new(0x0192_0000_0000_7000_8000_0000_0000_002a);
        assert_eq!(id.to_string(), "case_0192000000007000800000000000002a");
        assert_eq!(id.to_string().parse::<CaseId>(), Ok(id));
    }

    #[test]
    fn refuses_what_is_not_an_id() {
        for text in
            ["", "case_", "case_zz", "ord_0192000000007000800000000000002a", "case_0192000000007000800000000000002A"]
        {
            assert_eq!(text.parse::<CaseId>(), Err(ParseIdError { prefix: "case_" }), "{text}");
        }
    }
}
