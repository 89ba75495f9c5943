//! Payment codes (缴款码): what a department knows a bill of non-tax revenue by. Their layout is each region's own; here they have a
//! length and an alphabet, and are never taken apart.

use runtime::config::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most characters that a code may have.
const LENGTH_MAX: usize = 64;

/// What the payment codes of a payee look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Whose.
    pub payee_id: String,
    /// How many characters they have.
    pub length: usize,
    /// Every character that they are made of.
    pub alphabet: String,
}

impl Shape {
    /// Whether a text has this shape.
    pub(crate) fn fits(&self, code: &str) -> bool {
        code.len() == self.length && code.chars().all(|letter| self.alphabet.contains(letter))
    }
}

pub(crate) fn validate(shapes: &[Shape], path: &str, is_payee: impl Fn(&str) -> bool, problems: &mut Vec<Problem>) {
    for (index, shape) in shapes.iter().enumerate() {
        let mut note = |key: &str, message: &str| problems.push(Problem::new(format!("{path}.{index}.{key}"), message));
        if !is_payee(&shape.payee_id) {
            note("payee_id", "is not in the list of payees");
        }
        if shapes.iter().take(index).any(|other| other.payee_id == shape.payee_id) {
            note("payee_id", "is there twice");
        }
        if !(1..=LENGTH_MAX).contains(&shape.length) {
            note("length", "must be from 1 to 64");
        }
        if shape.alphabet.is_empty() || !shape.alphabet.bytes().all(|byte| byte.is_ascii_graphic()) {
            note("alphabet", "must be printable ASCII without spaces");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape { payee_id: "traffic-430100".into(), length: 4, alphabet: "0123456789X".into() }
    }

    #[test]
    fn a_code_has_its_payees_length_and_letters() {
        assert!(shape().fits("0X90"));
        for other in ["", "0X9", "0X901", "0x90", "0 90", "０９0"] {
            assert!(!shape().fits(other), "{other:?}");
        }
    }

    #[test]
    fn shapes_that_mean_nothing_are_noted() {
        let unknown = Shape { payee_id: "nobody".into(), length: 65, alphabet: "缴".into() };
        let mut problems = Vec::new();
        validate(&[shape(), shape(), unknown], "x", |payee| payee == "traffic-430100", &mut problems);
        let paths: Vec<_> = problems.into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, ["x.1.payee_id", "x.2.payee_id", "x.2.length", "x.2.alphabet"]);
    }
}
