use std::time::Duration;

use proptest::prelude::*;
use runtime::Timestamp;

use super::*;
use crate::wechatpay::event::TradeType;

const MERCHANT: &str = "1900000001";
const TOTAL: i64 = 20_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000).plus(Duration::from_secs(seconds))
}

fn terms(number: &str, digest: &str) -> Terms {
    Terms {
        mchid: MERCHANT.into(),
        out_trade_no: number.into(),
        appid: "wx".into(),
        trade_type: TradeType::Native,
        description: "fine".into(),
        attach: None,
        notify_url: "http://127.0.0.1/n".into(),
        amount_minor: TOTAL,
        currency: "CNY".into(),
        openid: None,
        expires_at: None,
        digest: digest.into(),
        part_of: None,
    }
}

fn whole() -> Whole {
    Whole { mchid: MERCHANT.into(), out_trade_no: "whole".into() }
}

fn combine_terms(digest: &str) -> CombineTerms {
    let part = |mchid: &str, number: &str, amount_minor| Terms {
        mchid: mchid.into(),
        amount_minor,
        part_of: Some(whole()),
        ..terms(number, "")
    };
    CombineTerms {
        whole: whole(),
        appid: "wx".into(),
        trade_type: TradeType::Native,
        notify_url: "http://127.0.0.1/n".into(),
        digest: digest.into(),
        parts: vec![part(MERCHANT, "part1", TOTAL), part("1900000002", "part2", 5_000)],
    }
}

fn session(number: &str) -> Session {
    Session { prepay_id: format!("wx{number}"), link: format!("weixin://{number}") }
}

fn refund_terms(order: &str, number: &str, amount_minor: i64, ends: RefundStatus) -> RefundTerms {
    RefundTerms {
        mchid: MERCHANT.into(),
        out_refund_no: number.into(),
        out_trade_no: order.into(),
        refund_id: format!("id-{number}"),
        amount_minor,
        reason: None,
        notify_url: Some("http://127.0.0.1/n".into()),
        digest: format!("{order} {amount_minor}"),
        due: at(1),
        ends,
        notice: format!("notice-{number}"),
    }
}

/// A book that applies what it decides, and remembers the events for a replay.
#[derive(Default)]
struct Till {
    book: Book,
    events: Vec<(Timestamp, Event)>,
}

impl Till {
    fn take(&mut self, events: Result<Vec<Event>, ApiError>, now: Timestamp) -> Result<usize, &'static str> {
        let events = events.map_err(|error| error.code)?;
        for event in &events {
            self.book.apply(event, now);
            self.events.push((now, event.clone()));
        }
        Ok(events.len())
    }

    fn create(&mut self, number: &str, digest: &str, now: Timestamp) -> Result<usize, &'static str> {
        let session = session(&format!("{number}-{}", self.events.len()));
        let events = self.book.create(&terms(number, digest), session, now);
        self.take(events, now)
    }

    fn pay(&mut self, number: &str, now: Timestamp) -> Result<usize, &'static str> {
        let order = self.book.order(MERCHANT, number).map_err(|error| error.code)?.clone();
        let paid = Paid { transaction_id: format!("t-{number}"), openid: "o".into(), at: now };
        let events = self.book.pay(&order, paid, format!("notice-{number}"), false);
        self.take(events, now)
    }

    fn pay_although_closed(&mut self, number: &str, now: Timestamp) -> Result<usize, &'static str> {
        let order = self.book.order(MERCHANT, number).map_err(|error| error.code)?.clone();
        let paid = Paid { transaction_id: format!("t-{number}"), openid: "o".into(), at: now };
        let events = self.book.pay(&order, paid, format!("notice-{number}"), true);
        self.take(events, now)
    }

    fn close(&mut self, number: &str, now: Timestamp) -> Result<usize, &'static str> {
        let events = self.book.close(MERCHANT, number, now);
        self.take(events, now)
    }

    fn refund(
        &mut self,
        order: &str,
        number: &str,
        amount_minor: i64,
        ends: RefundStatus,
    ) -> Result<usize, &'static str> {
        let events = self.book.create_refund(&refund_terms(order, number, amount_minor, ends), TOTAL);
        self.take(events, at(0))
    }

    fn due(&mut self, now: Timestamp) -> usize {
        let events = self.book.due(now);
        self.take(Ok(events), now).expect("never refused")
    }

    fn state(&self, number: &str, now: Timestamp) -> TradeState {
        self.book.order(MERCHANT, number).expect("an order").state(now)
    }
}

#[test]
fn a_number_is_one_order_for_ever() {
    let mut till = Till::default();
    assert_eq!(till.create("one", "d", at(0)), Ok(1));
    assert_eq!(till.create("one", "d", at(1)), Ok(0), "the same again changes nothing");
    assert_eq!(till.create("one", "other", at(1)), Err("OUT_TRADE_NO_USED"));
    let first = till.book.order(MERCHANT, "one").expect("an order").session.clone();
    assert_eq!(till.create("one", "d", at(7_200)), Ok(1), "the session ran out: another one");
    let second = till.book.order(MERCHANT, "one").expect("an order").session.clone();
    assert_ne!(first, second);
    assert!(
        till.book.order_of_session(&second.link).is_some() && till.book.order_of_session(&first.prepay_id).is_some()
    );
    assert_eq!(till.pay("one", at(7_300)), Ok(1));
    assert_eq!(till.create("one", "d", at(7_301)), Err("OUT_TRADE_NO_USED"));
    assert_eq!(till.pay("one", at(7_302)), Err("OUT_TRADE_NO_USED"), "nobody pays twice");
}

#[test]
fn an_order_is_paid_or_closed_and_never_both() {
    let mut till = Till::default();
    for number in ["closed", "late", "paid", "dear"] {
        till.create(number, "d", at(0)).expect("made");
    }
    assert_eq!(till.close("closed", at(1)), Ok(1));
    assert_eq!(till.close("closed", at(2)), Ok(0), "closed is closed");
    assert_eq!(till.pay("closed", at(3)), Err("ORDER_CLOSED"));
    assert_eq!(till.create("closed", "d", at(3)), Err("ORDER_CLOSED"));
    assert_eq!(till.pay_although_closed("closed", at(3)), Ok(1), "but for a word that was under way");
    assert_eq!(till.state("closed", at(3)), TradeState::Success);
    assert_eq!(till.pay_although_closed("closed", at(3)), Err("OUT_TRADE_NO_USED"), "once");
    assert_eq!(till.pay("paid", at(3)), Ok(1));
    assert_eq!(till.close("paid", at(4)), Err("TRADE_ERROR"));
    assert_eq!(till.close("nobody", at(4)), Err("ORDER_NOT_EXIST"));
    assert_eq!(till.pay("late", at(7_200)), Err("ORDER_CLOSED"), "the session ran out");
    assert_eq!(till.state("dear", at(7 * 86_400 - 1)), TradeState::Notpay);
    assert_eq!(till.state("dear", at(7 * 86_400)), TradeState::Closed, "after a week by itself");
    let short = Terms { expires_at: Some(at(60)), ..terms("short", "d") };
    let events = till.book.create(&short, session("short"), at(0));
    till.take(events, at(0)).expect("made");
    assert_eq!(till.pay("short", at(60)), Err("ORDER_CLOSED"), "after its own end");
    let stillborn = Terms { expires_at: Some(at(60)), ..terms("stillborn", "d") };
    assert_eq!(till.book.create(&stillborn, session("s"), at(60)).map_err(|error| error.code), Err("PARAM_ERROR"));
    assert_eq!(till.book.create(&short, session("s"), at(60)).map_err(|error| error.code), Err("ORDER_CLOSED"));
}

#[test]
fn refunds_never_give_back_more_than_was_paid() {
    let mut till = Till::default();
    till.create("one", "d", at(0)).expect("made");
    assert_eq!(till.refund("one", "r1", 1, RefundStatus::Success), Err("TRADE_ERROR"), "nothing is paid");
    assert_eq!(till.refund("nobody", "r1", 1, RefundStatus::Success), Err("RESOURCE_NOT_EXISTS"));
    till.pay("one", at(0)).expect("paid");
    assert_eq!(till.refund("one", "r1", 15_000, RefundStatus::Closed), Ok(1));
    assert_eq!(till.refund("one", "r1", 15_000, RefundStatus::Closed), Ok(0), "the same again changes nothing");
    assert_eq!(till.refund("one", "r1", 1, RefundStatus::Success), Err("INVALID_REQUEST"), "with other parameters");
    assert_eq!(till.refund("one", "r2", 5_001, RefundStatus::Success), Err("INVALID_REQUEST"));
    assert_eq!(till.state("one", at(0)), TradeState::Refund);
    assert_eq!((till.due(at(0)), till.due(at(1)), till.due(at(2))), (0, 1, 0), "it ends once");
    assert_eq!(till.book.refund(MERCHANT, "r1").expect("a refund").status, RefundStatus::Closed);
    assert_eq!(till.refund("one", "r2", TOTAL, RefundStatus::Success), Ok(1), "what was closed is free again");
    assert_eq!(till.due(at(1)), 1);
    let waiting: Vec<_> = till.book.notices().map(|notice| notice.id.as_str()).collect();
    assert_eq!(waiting, ["notice-one", "notice-r1", "notice-r2"]);
    let ended = Event::NoticeEnded { notice: "notice-r1".into(), delivered: true, attempts: 1 };
    till.take(Ok(vec![ended]), at(2)).expect("applied");
    assert_eq!(till.book.notices().count(), 2);
}

#[test]
fn a_combined_order_is_paid_and_closed_as_a_whole_and_refunded_in_its_parts() {
    let mut till = Till::default();
    let now = at(0);
    let create = |till: &mut Till, digest: &str, number: &str, now| {
        let events = till.book.create_combine(&combine_terms(digest), session(number), now);
        till.take(events, now)
    };
    let pay = |till: &mut Till, now| {
        let paid = Paid { transaction_id: "t-1".into(), openid: "o".into(), at: now };
        let events = till.book.pay_combine(&whole(), &paid, || "t-2".into(), "notice-whole".into(), false);
        till.take(events, now)
    };
    let both = [(MERCHANT.to_owned(), "part1".to_owned()), ("1900000002".to_owned(), "part2".to_owned())];
    assert_eq!(create(&mut till, "d", "s1", now), Ok(1));
    assert_eq!(create(&mut till, "d", "s2", now), Ok(0), "the same again changes nothing");
    assert_eq!(create(&mut till, "other", "s2", now), Err("OUT_TRADE_NO_USED"));
    assert_eq!(create(&mut till, "d", "s2", at(7_200)), Ok(1), "the session ran out: another one for every part");
    assert_eq!(till.book.combine(&whole()).expect("a combined order").session(), session("s2"));
    assert!(till.book.own_order(MERCHANT, "part1").is_err(), "a part is not asked for alone");
    let partly = till.book.close_combine(&whole(), &both[..1], now);
    assert_eq!(till.take(partly, now), Err("PARAM_ERROR"), "nor closed alone");
    assert_eq!(pay(&mut till, at(7_201)), Ok(1));
    assert_eq!(pay(&mut till, at(7_202)), Err("OUT_TRADE_NO_USED"), "once");
    assert_eq!(till.book.statement("t-2"), Some((5_000, 0)));
    let closing = till.book.close_combine(&whole(), &both, at(7_203));
    assert_eq!(till.take(closing, at(7_203)), Err("TRADE_ERROR"));

    assert_eq!(till.refund("part1", "r1", TOTAL, RefundStatus::Success), Ok(1), "by the ordinary refund");
    assert_eq!(till.due(at(1)), 1);
    let states: Vec<_> =
        till.book.combine(&whole()).expect("a combined order").parts.iter().map(|p| p.state(at(2))).collect();
    assert_eq!(states, [TradeState::Refund, TradeState::Success]);
    assert_eq!(till.book.statement("t-1"), Some((TOTAL, TOTAL)));

    let mut till = Till::default();
    create(&mut till, "d", "s1", now).expect("made");
    let closing = till.book.close_combine(&whole(), &both, now);
    assert_eq!(till.take(closing, now), Ok(1));
    assert_eq!(pay(&mut till, now), Err("ORDER_CLOSED"));
    let mut used = Till::default();
    used.create("part1", "d", now).expect("made");
    assert_eq!(create(&mut used, "d", "s1", now), Err("OUT_TRADE_NO_USED"), "a part's number is used already");
}

#[test]
fn a_refund_may_be_closed_or_stay_in_process_until_somebody_ends_it() {
    let mut till = Till::default();
    till.create("one", "d", at(0)).expect("made");
    till.pay("one", at(0)).expect("paid");
    assert_eq!(till.refund("one", "r1", TOTAL, RefundStatus::Closed), Ok(1));
    assert_eq!(till.due(at(1)), 1);
    let stuck = RefundTerms { due: Timestamp::MAX, ..refund_terms("one", "r2", TOTAL, RefundStatus::Processing) };
    let events = till.book.create_refund(&stuck, TOTAL);
    assert_eq!(till.take(events, at(1)), Ok(1), "what was closed is free again");
    assert_eq!(till.due(at(1_000_000)), 0);
    let ended = till.book.end_refund(MERCHANT, "r2", RefundStatus::Success);
    assert_eq!(till.take(ended, at(2)), Ok(1));
    assert_eq!(till.book.end_refund(MERCHANT, "r2", RefundStatus::Closed).map_err(|e| e.code), Err("INVALID_REQUEST"));
    assert_eq!(
        till.book.end_refund(MERCHANT, "r9", RefundStatus::Closed).map_err(|e| e.code),
        Err("RESOURCE_NOT_EXISTS")
    );
    assert_eq!((till.due(Timestamp::MAX), till.book.statement("t-one")), (0, Some((TOTAL, TOTAL))));

    till.create("two", "d", at(2)).expect("made");
    till.pay("two", at(2)).expect("paid");
    assert_eq!(till.refund("two", "r3", TOTAL, RefundStatus::Abnormal), Ok(1));
    assert_eq!(till.due(at(3)), 1);
    assert_eq!(till.refund("two", "r4", 1, RefundStatus::Success), Err("INVALID_REQUEST"), "it may still go back");
    let closed = till.book.end_refund(MERCHANT, "r3", RefundStatus::Closed);
    assert_eq!(closed.map_err(|e| e.code), Err("INVALID_REQUEST"));
    let sent = till.book.end_refund(MERCHANT, "r3", RefundStatus::Success);
    assert_eq!((till.take(sent, at(4)), till.book.statement("t-two")), (Ok(1), Some((TOTAL, TOTAL))));
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8),
    Pay(u8),
    Close(u8),
    Refund { order: u8, number: u8, amount: i64, fails: bool },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u8).prop_map(Step::Create),
        (0..4_u8).prop_map(Step::Pay),
        (0..4_u8).prop_map(Step::Close),
        (0..4_u8, 0..12_u8, 1..TOTAL, any::<bool>()).prop_map(|(order, number, amount, fails)| Step::Refund {
            order,
            number,
            amount,
            fails
        }),
        (0..10_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #[test]
    fn money_goes_in_once_and_out_at_most_as_much_and_a_replay_knows_the_same(steps in prop::collection::vec(step(), 1..80)) {
        let mut till = Till::default();
        let mut seconds = 0;
        for step in steps {
            till.due(at(seconds));
            let _ = match step {
                Step::Create(n) => till.create(&format!("order{n}"), "d", at(seconds)),
                Step::Pay(n) => till.pay(&format!("order{n}"), at(seconds)),
                Step::Close(n) => till.close(&format!("order{n}"), at(seconds)),
                Step::Refund { order, number, amount, fails } => {
                    let ends = if fails { RefundStatus::Closed } else { RefundStatus::Success };
                    till.refund(&format!("order{order}"), &format!("r{number}"), amount, ends)
                }
                Step::Pass(more) => { seconds += more; Ok(0) }
            };
        }
        till.due(at(seconds + 1));
        for n in 0..4 {
            let number = format!("order{n}");
            let of = |wanted: &dyn Fn(&Event) -> bool| till.events.iter().filter(|(_, event)| wanted(event)).count();
            let paid = of(&|e| matches!(e, Event::OrderPaid { out_trade_no, .. } if *out_trade_no == number));
            let closed = of(&|e| matches!(e, Event::OrderClosed { out_trade_no, .. } if *out_trade_no == number));
            prop_assert!(paid + closed <= 1);
            let back: i64 = till.events.iter().filter_map(|(_, event)| match event {
                Event::RefundEnded { out_refund_no, amount_minor, status: RefundStatus::Success, .. } => {
                    let refund = till.book.refund(MERCHANT, out_refund_no).expect("a refund");
                    (refund.terms.out_trade_no == number).then_some(*amount_minor)
                }
                _ => None,
            }).sum();
            prop_assert!(back <= TOTAL * i64::try_from(paid).expect("small"));
        }
        let mut replayed = Book::default();
        for (moment, event) in &till.events {
            let text = serde_json::to_string(event).expect("JSON");
            replayed.apply(&serde_json::from_str(&text).expect("an event"), *moment);
        }
        prop_assert_eq!(format!("{replayed:?}"), format!("{:?}", till.book));
    }
}
