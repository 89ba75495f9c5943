//! Mixed orders in the book. The cash leg is an order like any other; the insurance's leg stands here.

use std::collections::BTreeMap;

use runtime::Timestamp;

use super::{About, Book, Order, Paid, TradeState, key, payable};
use crate::wechatpay::event::{Event, RefundStatus};
use crate::wechatpay::mixed::{Funds, Leg, LegEnd, LegState, MixedTerms, Returned, Standing};
use crate::wechatpay::outcome::{self, ApiError};

/// A mixed order.
#[derive(Clone, Debug)]
pub(in crate::wechatpay) struct Mixed {
    pub terms: MixedTerms,
    /// When every leg was paid.
    pub paid_at: Option<Timestamp>,
    insurance_paid: bool,
    failed: Option<Leg>,
    /// What the insurance centre gave back, by the merchant's number of the refund.
    returned: BTreeMap<String, Funds>,
}

/// What becomes of the legs when the citizen pays.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::wechatpay) struct Ends {
    pub cash: LegEnd,
    pub insurance: LegEnd,
    /// The cash leg is paid also when its order is closed.
    pub although_closed: bool,
}

impl Book {
    // === reading ===

    /// Returns a merchant's mixed order by its number.
    pub(in crate::wechatpay) fn mixed(&self, mchid: &str, out_trade_no: &str) -> Result<&Mixed, ApiError> {
        self.mixed.get(&key(mchid, out_trade_no)).ok_or(outcome::NO_MIXED)
    }

    /// Returns a merchant's mixed order by WeChat's number.
    pub(in crate::wechatpay) fn mixed_of_number(&self, mchid: &str, mix_trade_no: &str) -> Result<&Mixed, ApiError> {
        let is_meant = |terms: &MixedTerms| terms.mchid == mchid && terms.mix_trade_no == mix_trade_no;
        self.mixed_of_any(is_meant).ok_or(outcome::NO_MIXED)
    }

    /// Finds the one mixed order that is meant, of whatever merchant.
    pub(in crate::wechatpay) fn mixed_of_any(&self, is_meant: impl Fn(&MixedTerms) -> bool) -> Option<&Mixed> {
        let mut found = self.mixed.values().filter(|mixed| is_meant(&mixed.terms));
        let first = found.next();
        first.filter(|_| found.next().is_none())
    }

    /// Returns the mixed orders without a cash leg that wait for their payment.
    pub(in crate::wechatpay) fn mixed_without_cash(&self) -> impl Iterator<Item = &MixedTerms> {
        let waits = |mixed: &&Mixed| !mixed.terms.mix.has_cash() && !mixed.insurance_paid && mixed.failed.is_none();
        self.mixed.values().filter(waits).map(|mixed| &mixed.terms)
    }

    /// Returns a mixed order with how it stands at a moment.
    pub(in crate::wechatpay) fn seen(&self, mixed: &Mixed, now: Timestamp) -> (Mixed, Standing) {
        (mixed.clone(), self.standing(mixed, now))
    }

    /// Returns WeChat's number of the cash leg's payment; the whole's number where there is none.
    pub(in crate::wechatpay) fn transaction_of(&self, mixed: &Mixed) -> String {
        let paid = self.cash_leg(mixed).and_then(|order| order.paid.as_ref());
        paid.map_or_else(|| mixed.terms.mix_trade_no.clone(), |paid| paid.transaction_id.clone())
    }

    fn cash_leg(&self, mixed: &Mixed) -> Option<&Order> {
        let terms = &mixed.terms;
        self.order(&terms.mchid, &terms.out_trade_no).ok().filter(|_| terms.mix.has_cash())
    }

    fn standing(&self, mixed: &Mixed, now: Timestamp) -> Standing {
        let cash = self.cash_leg(mixed).map_or(LegState::Absent, |order| match order.state(now) {
            _ if mixed.failed == Some(Leg::Cash) => LegState::Fail,
            TradeState::Notpay => LegState::Created,
            TradeState::Closed => LegState::Fail,
            TradeState::Success | TradeState::Refund => {
                let went_back = self.refunds_of(order).any(|refund| refund.status == RefundStatus::Success);
                if went_back { LegState::Refund } else { LegState::Success }
            }
        });
        let insurance = match () {
            () if !mixed.terms.mix.has_insurance() => LegState::Absent,
            () if !mixed.returned.is_empty() => LegState::Refund,
            () if mixed.insurance_paid => LegState::Success,
            () if mixed.failed == Some(Leg::Insurance) => LegState::Fail,
            () => LegState::Created,
        };
        Standing::new(cash, insurance, mixed.paid_at)
    }

    // === deciding ===

    /// Decides a mixed order. A number is used up by the first, whatever it was: the same again is refused too.
    pub(in crate::wechatpay) fn create_mixed(
        &self,
        terms: &MixedTerms,
        now: Timestamp,
    ) -> Result<Vec<Event>, ApiError> {
        if self.mixed(&terms.mchid, &terms.out_trade_no).is_ok() {
            return Err(outcome::MIXED_ALREADY);
        }
        let order = self.order(&terms.mchid, &terms.out_trade_no);
        match (&terms.prepay_id, order) {
            (Some(session), Ok(order)) => {
                let of_session = self.order_of_session(session).map(|order| &order.terms.out_trade_no);
                let is_other = of_session != Some(&terms.out_trade_no) || order.terms.appid != terms.appid;
                if is_other || order.terms.part_of.is_some() {
                    return Err(outcome::bad_parameter("prepay_id"));
                }
                if order.terms.amount_minor != terms.cash_minor {
                    return Err(outcome::MIXED_SUMS);
                }
                payable(order, now, false)?;
            }
            (Some(_), Err(_)) => return Err(outcome::bad_parameter("prepay_id")),
            (None, Ok(_)) => return Err(outcome::OTHER_PARAMETERS),
            (None, Err(_)) => {}
        }
        Ok(vec![Event::MixedCreated(terms.clone())])
    }

    /// Decides the payment by the citizen of what is not paid yet. `notice` tells the cash leg's, `notice_of_whole` that all is paid.
    pub(in crate::wechatpay) fn pay_mixed(
        &self,
        mixed: &Mixed,
        paid: Paid,
        ends: Ends,
        notice: String,
        notice_of_whole: String,
    ) -> Result<Vec<Event>, ApiError> {
        let (mchid, out_trade_no) = key(&mixed.terms.mchid, &mixed.terms.out_trade_no);
        if mixed.paid_at.is_some() {
            return Err(outcome::PAID_ALREADY);
        }
        if mixed.failed.is_some() {
            return Err(outcome::CLOSED);
        }
        let failed = |leg| Event::LegFailed { mchid: mchid.clone(), out_trade_no: out_trade_no.clone(), leg };
        let (mut events, mut open) = (Vec::new(), 0);
        if let Some(order) = self.cash_leg(mixed).filter(|order| order.paid.is_none()) {
            payable(order, paid.at, ends.although_closed)?;
            match ends.cash {
                LegEnd::Success => events.extend(self.pay(order, paid, notice, ends.although_closed)?),
                LegEnd::Fail => events.push(failed(Leg::Cash)),
                LegEnd::Wait => open += 1,
            }
        }
        if mixed.terms.mix.has_insurance() && !mixed.insurance_paid {
            match ends.insurance {
                LegEnd::Success => events.push(Event::InsurancePaid {
                    mchid: mchid.clone(),
                    out_trade_no: out_trade_no.clone(),
                    amount_minor: mixed.terms.funds.sum(),
                }),
                LegEnd::Fail => events.push(failed(Leg::Insurance)),
                LegEnd::Wait => open += 1,
            }
        }
        let has_failed = events.iter().any(|event| matches!(event, Event::LegFailed { .. }));
        if open == 0 && !has_failed {
            events.push(Event::MixedPaid { mchid, out_trade_no, notice: notice_of_whole });
        }
        Ok(events)
    }

    /// Decides what is told of a return. The latest word of a refund number counts.
    pub(in crate::wechatpay) fn take_returned(&self, mchid: &str, returned: &Returned) -> Result<Vec<Event>, ApiError> {
        let mixed = self.mixed_of_number(mchid, &returned.mix_trade_no)?;
        if !mixed.insurance_paid {
            return Err(outcome::REFUND_OF_UNPAID);
        }
        if mixed.returned.get(&returned.out_refund_no) == Some(&returned.funds) {
            return Ok(Vec::new());
        }
        let others = mixed.returned.iter().filter(|(number, _)| **number != returned.out_refund_no);
        let sum = others.fold(returned.funds, |sum, (_, funds)| sum.plus(*funds));
        if !sum.fits_in(mixed.terms.funds) {
            return Err(outcome::TOO_MUCH);
        }
        Ok(vec![Event::InsuranceReturned {
            mchid: mixed.terms.mchid.clone(),
            out_trade_no: mixed.terms.out_trade_no.clone(),
            out_refund_no: returned.out_refund_no.clone(),
            amount_minor: returned.funds.sum(),
            funds: returned.funds,
        }])
    }

    // === changing ===

    /// Applies an event of a mixed order; others change nothing.
    pub(super) fn apply_mixed(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::MixedCreated(terms) => {
                let mixed = Mixed {
                    terms: terms.clone(),
                    paid_at: None,
                    insurance_paid: false,
                    failed: None,
                    returned: BTreeMap::new(),
                };
                self.mixed.insert(key(&terms.mchid, &terms.out_trade_no), mixed);
            }
            Event::InsurancePaid { mchid, out_trade_no, .. } => {
                self.change_mixed(mchid, out_trade_no, |mixed| mixed.insurance_paid = true);
            }
            Event::LegFailed { mchid, out_trade_no, leg } => {
                self.change_mixed(mchid, out_trade_no, |mixed| mixed.failed = Some(*leg));
            }
            Event::MixedPaid { mchid, out_trade_no, notice } => {
                self.change_mixed(mchid, out_trade_no, |mixed| mixed.paid_at = Some(at));
                self.notify(notice, About::Mixed(mchid.clone(), out_trade_no.clone()), at);
            }
            Event::InsuranceReturned { mchid, out_trade_no, out_refund_no, funds, .. } => {
                let given = (out_refund_no.clone(), *funds);
                self.change_mixed(mchid, out_trade_no, |mixed| mixed.returned.extend([given]));
            }
            _ => {}
        }
    }

    fn change_mixed(&mut self, mchid: &str, out_trade_no: &str, change: impl FnOnce(&mut Mixed)) {
        if let Some(mixed) = self.mixed.get_mut(&key(mchid, out_trade_no)) {
            change(mixed);
        }
    }
}

#[cfg(test)]
mod tests;
