use std::time::Duration;

use super::*;
use crate::kept::State as _;
use crate::wechatpay::event::{RefundTerms, Session, Terms, TradeType};
use crate::wechatpay::mixed::MixType;

const MERCHANT: &str = "1900000001";
const FUNDS: Funds = Funds { government_minor: 100_000, personal_minor: 45_000, other_minor: 5_000 };
const CASH: i64 = 42_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_seconds_nanos(1_700_000_000, 0).plus(Duration::from_secs(seconds))
}

fn cash_terms() -> Terms {
    Terms {
        mchid: MERCHANT.into(),
        out_trade_no: "one".into(),
        appid: "wx".into(),
        trade_type: TradeType::Jsapi,
        description: "挂号".into(),
        attach: None,
        notify_url: "http://127.0.0.1/n".into(),
        amount_minor: CASH,
        currency: "CNY".into(),
        openid: Some("o".into()),
        expires_at: None,
        digest: "d".into(),
        part_of: None,
    }
}

fn mixed_terms(mix: MixType) -> MixedTerms {
    MixedTerms {
        mchid: MERCHANT.into(),
        out_trade_no: "one".into(),
        appid: "wx".into(),
        mix_trade_no: "2026".into(),
        mix,
        callback_url: "http://127.0.0.1/n".into(),
        funds: if mix.has_insurance() { FUNDS } else { Funds::default() },
        cash_minor: if mix.has_cash() { CASH } else { 0 },
        prepay_id: mix.has_cash().then(|| "wx1".into()),
        sent: serde_json::json!({}),
    }
}

/// A book that applies what it decides, and remembers the events for a replay.
#[derive(Default)]
struct Till {
    book: Book,
    events: Vec<(Timestamp, Event)>,
}

impl Till {
    /// A mixed order that is made, and its cash leg before it.
    fn with(mix: MixType) -> Self {
        let mut till = Self::default();
        if mix.has_cash() {
            let session = Session { prepay_id: "wx1".into(), ..Session::default() };
            let events = till.book.create(&cash_terms(), session, at(0));
            till.take(events, 0).expect("made");
        }
        let events = till.book.create_mixed(&mixed_terms(mix), at(0));
        till.take(events, 0).expect("made");
        till
    }

    fn take(&mut self, events: Result<Vec<Event>, ApiError>, seconds: u64) -> Result<usize, &'static str> {
        let events = events.map_err(|error| error.code)?;
        for event in &events {
            self.book.apply(event, at(seconds));
            self.events.push((at(seconds), event.clone()));
        }
        Ok(events.len())
    }

    fn pay(&mut self, cash: LegEnd, insurance: LegEnd) -> Result<usize, &'static str> {
        let mixed = self.book.mixed(MERCHANT, "one").expect("a mixed order").clone();
        let paid = Paid { transaction_id: "t".into(), openid: "o".into(), at: at(1) };
        let ends = Ends { cash, insurance, although_closed: false };
        let events = self.book.pay_mixed(&mixed, paid, ends, "notice-cash".into(), "notice-whole".into());
        self.take(events, 1)
    }

    fn returned(&mut self, number: &str, government_minor: i64) -> Result<usize, &'static str> {
        let funds = Funds { government_minor, ..Funds::default() };
        let returned = Returned { mix_trade_no: "2026".into(), out_refund_no: number.into(), funds };
        let events = self.book.take_returned(MERCHANT, &returned);
        self.take(events, 2)
    }

    fn refund_cash(&mut self) {
        let terms = RefundTerms {
            mchid: MERCHANT.into(),
            out_refund_no: "r1".into(),
            out_trade_no: "one".into(),
            refund_id: "id".into(),
            amount_minor: CASH,
            reason: None,
            notify_url: None,
            digest: "d".into(),
            due: at(3),
            ends: RefundStatus::Success,
            notice: "notice-refund".into(),
        };
        let events = self.book.create_refund(&terms, CASH);
        self.take(events, 2).expect("taken");
        let events = self.book.due(at(3));
        self.take(Ok(events), 3).expect("ended");
    }

    fn legs(&self) -> (LegState, LegState, LegState) {
        let (_, standing) = self.book.seen(self.book.mixed(MERCHANT, "one").expect("a mixed order"), at(3));
        (standing.whole(), standing.cash, standing.insurance)
    }

    fn notices(&self) -> Vec<&str> {
        self.book.notices().map(|notice| notice.id.as_str()).collect()
    }
}

#[test]
fn both_legs_are_paid_once_told_once_and_go_back_each_by_itself() {
    use LegState::{Created, Refund, Success};
    let mut till = Till::with(MixType::CashAndInsurance);
    assert_eq!(till.legs(), (Created, Created, Created));
    assert_eq!(till.pay(LegEnd::Success, LegEnd::Wait), Ok(1));
    assert_eq!((till.legs(), till.notices()), ((Created, Success, Created), vec!["notice-cash"]));
    assert_eq!(till.returned("r1", 1), Err("TRADE_ERROR"), "nothing is paid that could go back");
    assert_eq!(till.pay(LegEnd::Success, LegEnd::Success), Ok(2), "the insurance's leg and the whole");
    assert_eq!((till.legs(), till.notices()), ((Success, Success, Success), vec!["notice-cash", "notice-whole"]));
    assert_eq!(till.pay(LegEnd::Success, LegEnd::Success), Err("OUT_TRADE_NO_USED"), "once");

    till.refund_cash();
    assert_eq!(till.legs(), (Success, Refund, Success));
    assert_eq!(till.returned("r1", 60_000), Ok(1));
    assert_eq!(till.returned("r1", 60_000), Ok(0), "the same again changes nothing");
    assert_eq!(till.returned("r2", 40_001), Err("INVALID_REQUEST"), "more than the fund paid");
    assert_eq!(till.returned("r1", 100_000), Ok(1), "the latest word of a number counts");
    assert_eq!(till.returned("r2", 1), Err("INVALID_REQUEST"));
    assert_eq!(till.legs(), (Refund, Refund, Refund));
    let mut replayed = Book::default();
    for (moment, event) in &till.events {
        let text = serde_json::to_string(event).expect("JSON");
        replayed.apply(&serde_json::from_str(&text).expect("an event"), *moment);
    }
    assert_eq!(format!("{replayed:?}"), format!("{:?}", till.book));
}

#[test]
fn a_leg_that_fails_takes_the_whole_with_it_and_leaves_the_other_paid() {
    use LegState::{Absent, Created, Fail, Success};
    for (cash, insurance, expected) in [
        (LegEnd::Success, LegEnd::Fail, (Fail, Success, Fail)),
        (LegEnd::Fail, LegEnd::Success, (Fail, Fail, Success)),
        (LegEnd::Fail, LegEnd::Fail, (Fail, Fail, Fail)),
        (LegEnd::Wait, LegEnd::Fail, (Fail, Fail, Fail)),
        (LegEnd::Wait, LegEnd::Wait, (Created, Created, Created)),
    ] {
        let mut till = Till::with(MixType::CashAndInsurance);
        till.pay(cash, insurance).expect("acted");
        assert_eq!(till.legs(), expected);
        assert!(!till.notices().contains(&"notice-whole"), "only a paid order is called back");
        let again = till.pay(LegEnd::Success, LegEnd::Success);
        assert_eq!(again.is_err(), expected.0 == Fail, "{again:?}");
    }
    let mut closed = Till::with(MixType::CashAndInsurance);
    closed.pay(LegEnd::Wait, LegEnd::Success).expect("acted");
    let events = closed.book.close(MERCHANT, "one", at(2));
    closed.take(events, 2).expect("closed");
    assert_eq!(closed.legs(), (Fail, Fail, Success), "without its cash leg the whole comes to nothing");
    let mut alone = Till::with(MixType::InsuranceOnly);
    assert_eq!((alone.pay(LegEnd::Success, LegEnd::Success), alone.legs()), (Ok(2), (Success, Absent, Success)));
    let mut cash = Till::with(MixType::CashOnly);
    assert_eq!((cash.pay(LegEnd::Success, LegEnd::Success), cash.legs()), (Ok(2), (Success, Success, Absent)));
}

#[test]
fn a_mixed_order_is_made_once_of_its_own_cash_leg() {
    let mut till = Till::with(MixType::CashAndInsurance);
    let again = till.book.create_mixed(&mixed_terms(MixType::CashAndInsurance), at(1));
    assert_eq!(till.take(again, 1), Err("ALREADY_EXISTS"), "the same values too");
    for (terms, code) in [
        (MixedTerms { out_trade_no: "other".into(), ..mixed_terms(MixType::CashOnly) }, "PARAM_ERROR"),
        (MixedTerms { appid: "wx9".into(), ..mixed_terms(MixType::CashOnly) }, "PARAM_ERROR"),
        (MixedTerms { prepay_id: Some("wx9".into()), ..mixed_terms(MixType::CashOnly) }, "PARAM_ERROR"),
        (MixedTerms { cash_minor: CASH + 1, ..mixed_terms(MixType::CashOnly) }, "RULE_LIMIT"),
        (mixed_terms(MixType::InsuranceOnly), "OUT_TRADE_NO_USED"),
    ] {
        let mut book = Book::default();
        let session = Session { prepay_id: "wx1".into(), ..Session::default() };
        for event in book.create(&cash_terms(), session, at(0)).expect("made") {
            book.apply(&event, at(0));
        }
        assert_eq!(book.create_mixed(&terms, at(0)).map_err(|error| error.code), Err(code), "{terms:?}");
    }
}
