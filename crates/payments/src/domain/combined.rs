//! A combined order (合单): orders that the citizen pays at once. It has no state of its own: how its parts stand is how it stands.

use contracts::ids::CombinedOrderId;
use runtime::Timestamp;

use super::ledger::Merchant;
use super::order::{Capture, Change, Order, Rule};
use super::plan::{OrderStep, order_step};

/// What makes an order a part of a combined one; never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The combined order.
    pub of: CombinedOrderId,
    /// Its number among the parts, from 1.
    pub number: u32,
    /// How many parts there are.
    pub count: u32,
    /// The key that the combined order was made under, by the order's own caller.
    pub request_id: String,
}

impl Order {
    /// What is followed at the channel: the order, or the combined order that it is a part of.
    pub fn followed_as(&self) -> String {
        match &self.part {
            None => self.terms.id.to_string(),
            Some(part) => part.of.to_string(),
        }
    }

    /// The channel reports it paid with all other parts of its combined order.
    ///
    /// Errors: Differs, also for an order that is paid by itself.
    pub fn told_paid_together(
        &self,
        of: CombinedOrderId,
        merchant: &Merchant,
        app_id: &str,
        capture: &Capture,
    ) -> Result<Option<Change>, Rule> {
        match &self.part {
            Some(part) if part.of == of => self.told_paid_as_its_own(merchant, app_id, capture),
            _ => Err(Rule::Differs("combine_out_trade_no")),
        }
    }
}

/// Chooses the next step of a combined order: that of its first open part. Whoever wants one part closed wants all of them closed.
pub fn combined_step(parts: &[Order], now: Timestamp) -> OrderStep {
    let is_closing = parts.iter().any(|part| part.is_closing);
    let open = parts.iter().find(|part| part.is_open());
    open.map_or(OrderStep::Rest, |part| order_step(&Order { is_closing, ..part.clone() }, now))
}

/// What of a combined order is read out of the books without its parts' own terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its parts.
    pub parts: i64,
    /// How many there should be, as the last of them says.
    pub made: i64,
    /// The first and the last of their numbers.
    pub numbers: (i64, i64),
    /// How many different counts, callers, keys, channels, apps, trade types and ends they have, all kinds taken together.
    pub kinds: i64,
}

impl Shape {
    /// One of each that all parts have in common.
    pub const KINDS: i64 = 7;

    /// What is wrong with it. That no two parts have one number is the store's to hold.
    pub fn contradiction(self) -> Option<&'static str> {
        if self.made < 2 || self.parts != self.made || self.numbers != (1, self.made) {
            return Some("its parts are not those it was made of");
        }
        (self.kinds != Self::KINDS).then_some("its parts cannot have been made at once")
    }
}
