//! How sure an entry point is of who the citizen is.

use contracts::common::v1::AssuranceLevel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The ladder of assurance. In assertions and tokens it is the number of the contract's `AssuranceLevel`, 1 to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A phone number was verified.
    Phone,
    /// Name and document number match.
    NameId,
    /// Name, document and a bank card, or a document check in both directions, match.
    TwoWay,
    /// The person was seen: face and document.
    Face,
}

impl Level {
    /// The number in tokens.
    pub fn number(self) -> i32 {
        let level = match self {
            Self::Phone => AssuranceLevel::Phone,
            Self::NameId => AssuranceLevel::NameId,
            Self::TwoWay => AssuranceLevel::TwoWay,
            Self::Face => AssuranceLevel::Face,
        };
        level.into()
    }

    /// The level of a number; `None` for a number that is none.
    pub fn from_number(number: i64) -> Option<Self> {
        [Self::Phone, Self::NameId, Self::TwoWay, Self::Face]
            .into_iter()
            .find(|level| i64::from(level.number()) == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_contract_and_grow_with_assurance() {
        let levels: Vec<_> = (0..=5).filter_map(Level::from_number).collect();
        assert_eq!(levels, [Level::Phone, Level::NameId, Level::TwoWay, Level::Face]);
        assert!(levels.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
