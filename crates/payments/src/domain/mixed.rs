//! A mixed order in the books: what comes in on its legs, and what becomes of a half.

use contracts::money::Money;

use super::insurance::Legs;
use super::ledger::{Account, Entry, Transfer, TransferId};
use super::order::{Capture, Change, Happening, Order, Rule};
use super::refund::{self, Refund};

impl Order {
    /// What has to come in: what is asked, or of a mixed order what its legs ask. None where the sums make no sense.
    pub fn due(&self) -> Option<i64> {
        match self.legs() {
            Some(legs) => legs.sum(),
            None => Some(self.terms.amount.amount_minor()),
        }
    }

    /// What the legs of a mixed order ask.
    pub fn legs(&self) -> Option<Legs> {
        self.terms.insured.as_ref().map(|insured| Legs::of(&insured.split))
    }

    /// Whether it is a mixed order that came to nothing while its cash leg was paid.
    pub fn is_half(&self) -> bool {
        self.terms.insured.is_some() && self.tally.captured > 0 && Some(self.tally.captured) != self.due()
    }

    /// What came in on the legs of a mixed order.
    pub fn came(&self) -> Legs {
        let legs = self.legs().unwrap_or_default();
        match self.tally.captured {
            0 => Legs::default(),
            _ if self.is_half() => legs.cash_alone(),
            _ => legs,
        }
    }

    /// What the citizen pays through the channel: what its bills tell of the order.
    pub fn in_cash(&self) -> i64 {
        self.legs().map_or(self.terms.amount.amount_minor(), |legs| legs.cash)
    }

    /// How `captured` comes in: through the channel and, beyond the cash leg of a mixed order, from the insurance.
    pub(super) fn captures(&self, captured: i64) -> Vec<Transfer> {
        let cash = self.in_cash().min(captured);
        let of = |id, debit, minor| {
            let amount = Money::new(minor, self.terms.amount.currency()).ok().filter(|_| minor > 0)?;
            Some(Transfer { id, subject: self.terms.id.into(), debit, credit: self.suspense(), amount })
        };
        let (receivable, id) = (Account::Receivable(self.terms.merchant.clone()), self.terms.id);
        let insurance = self.terms.insured.as_ref().and_then(|insured| {
            let insurance = Account::Insurance(insured.institution_no.clone());
            of(TransferId::insured_capture(id), insurance, captured.saturating_sub(cash))
        });
        of(TransferId::capture(id), receivable, cash).into_iter().chain(insurance).collect()
    }

    /// The whole failed and its cash leg was paid: what came goes back by itself, with `refund`, and nothing else ever comes of the order.
    ///
    /// Errors: Differs when amount, currency or transaction do not fit.
    pub fn half_paid(&self, cash: &Capture, refund: &Refund) -> Result<Option<Change>, Rule> {
        let Some(legs) = self.legs() else { return Err(Rule::Differs("legs")) };
        if cash.amount.currency() != self.terms.amount.currency() {
            return Err(Rule::Differs("currency"));
        }
        if cash.amount.amount_minor() != legs.cash {
            return Err(Rule::Differs("amount"));
        }
        if let Some(known) = &self.channel_transaction {
            return if *known == cash.transaction { Ok(None) } else { Err(Rule::Differs("transaction")) };
        }
        // Where there is no other leg, what came is all of it: money for an order that is over.
        let is_late = self.is_late || legs == legs.cash_alone();
        let happenings = match (is_late, self.is_open()) {
            (true, _) => vec![Happening::LateMoney],
            (false, true) => vec![Happening::Closed],
            (false, false) => vec![],
        };
        let mut half = Self {
            is_late,
            is_sent: true,
            payer_sealed: None,
            sheet: None,
            channel_transaction: Some(cash.transaction.clone()),
            paid_at: Some(cash.at),
            ..self.clone()
        };
        half.tally.captured = legs.cash;
        half.state = half.resting(half.tally);
        let mut entries: Vec<_> = half.captures(legs.cash).into_iter().map(Entry::Post).collect();
        let accepted = refund::accept(&half, refund)?;
        entries.extend(accepted.entries);
        Ok(Some(accepted.order.with(entries, happenings)))
    }
}
