use super::{Case, Step};

impl Case {
    /// The idempotency key of a step: the same in every try, after every crash, on every replica.
    ///
    /// A closing and a refund that were answered for good get a new key with their next round, since the old key would bring the old
    /// answer for ever. A settlement never does: its key is what the department knows the payment by.
    #[must_use]
    pub fn key(&self, step: Step) -> String {
        let id = self.id;
        match step {
            Step::Lock => format!("{id}-lock"),
            Step::Order | Step::Payment => format!("{id}-order"),
            Step::Close => format!("{id}-close-{}", self.close_round),
            Step::Settle => format!("{id}-settle"),
            Step::Post => format!("{id}-post"),
            Step::Refund => format!("{id}-refund-{}", self.refund.round),
            Step::Release => format!("{id}-release"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Policy, open};
    use contracts::ids::CaseId;
    use contracts::money::{Currency, Money};
    use runtime::Timestamp;

    #[test]
    fn keys_fit_into_the_narrowest_field_and_differ() {
        let amount = Money::new(1, Currency::CNY).expect("in range");
        let mut case = open(CaseId::new(u128::MAX), amount, &Policy::default(), Timestamp::default()).case;
        case.close_round = u32::MAX;
        case.refund.round = u32::MAX;
        let keys: std::collections::BTreeSet<_> = Step::ALL.map(|step| case.key(step)).into();
        assert_eq!(keys.len(), Step::ALL.len() - 1, "payment is the order's");
        for key in keys {
            assert!(key.len() <= 64, "{key}");
            assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{key}");
        }
    }
}
