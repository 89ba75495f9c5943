use std::time::Duration;

use proptest::prelude::*;

use super::super::event::Product;
use super::*;

const PID: &str = "2088000000430100";
const TOTAL: i64 = 20_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000).plus(Duration::from_secs(seconds))
}

fn terms(number: &str) -> Terms {
    Terms {
        pid: PID.into(),
        app_id: "2021000000430100".into(),
        out_trade_no: number.into(),
        product: Product::Code,
        subject: "fine".into(),
        body: None,
        passback_params: None,
        notify_url: Some("http://127.0.0.1/n".into()),
        return_url: None,
        amount_minor: TOTAL,
        expires_at: None,
        buyer_id: None,
        digest: number.into(),
    }
}

fn named(number: &str) -> Selector {
    Selector { trade_no: None, out_trade_no: Some(number.into()) }
}

fn refund(number: &str, amount_minor: i64, due: Option<Timestamp>) -> RefundTerms {
    let (pid, out_trade_no) = (PID.into(), "A".into());
    RefundTerms { pid, out_trade_no, out_request_no: number.into(), amount_minor, reason: None, due }
}

/// A book that applies what it decides, and remembers the events for a replay.
#[derive(Default)]
struct Till {
    book: Book,
    events: Vec<(Timestamp, Event)>,
}

impl Till {
    /// Applies what a decision makes; returns how many events, or the code of the refusal.
    fn does(
        &mut self,
        now: Timestamp,
        decide: impl FnOnce(&Book) -> Result<Vec<Event>, ApiError>,
    ) -> Result<usize, &'static str> {
        let due = self.book.due(now);
        self.apply(now, due);
        let events = decide(&self.book).map_err(|error| error.sub_code)?;
        let count = events.len();
        self.apply(now, events);
        Ok(count)
    }

    fn apply(&mut self, now: Timestamp, events: Vec<Event>) {
        for event in events {
            self.book.apply(&event, now);
            self.events.push((now, event));
        }
    }

    fn offer(&mut self, terms: &Terms, now: Timestamp) -> Result<usize, &'static str> {
        self.does(now, |book| book.offer(terms, format!("token-{}", terms.out_trade_no), now))
    }

    fn open(&mut self, number: &str, now: Timestamp) -> Result<usize, &'static str> {
        let new = (format!("2088-{number}"), "2088111122223333".to_owned());
        self.does(now, |book| book.open(book.order(&(PID.into(), number.into())).expect("an order"), new, now))
    }

    fn pay(&mut self, number: &str, now: Timestamp, although_closed: bool) -> Result<usize, &'static str> {
        let new = (format!("2088-{number}"), "2088111122223333".to_owned());
        self.does(now, |book| {
            book.pay(book.order(&(PID.into(), number.into())).expect("an order"), new, now, although_closed)
        })
    }

    fn refund(&mut self, terms: &RefundTerms, now: Timestamp) -> Result<usize, &'static str> {
        self.does(now, |book| book.refund(book.trade(PID, &named("A"))?.0, terms, now))
    }

    fn status(&self, number: &str) -> Option<Status> {
        self.book.trade(PID, &named(number)).ok().map(|(order, trade)| trade.status(order.terms.amount_minor))
    }

    fn told(&self) -> Vec<&About> {
        self.book.notices().map(|(_, notice)| &notice.about).collect()
    }
}

/// A till with one order that is paid.
fn paid() -> Till {
    let mut till = Till::default();
    till.offer(&terms("A"), at(0)).expect("offered");
    till.pay("A", at(1), false).expect("paid");
    till
}

#[test]
fn a_code_that_nobody_scanned_is_no_trade_and_can_be_paid_after_it_was_closed_in_vain() {
    let mut till = Till::default();
    assert_eq!(till.offer(&terms("A"), at(0)), Ok(1));
    assert_eq!(till.status("A"), None);
    assert_eq!(till.does(at(1), |book| book.close(PID, &named("A"))), Err("ACQ.TRADE_NOT_EXIST"));
    assert_eq!(till.pay("A", at(2), false), Ok(2), "opened and paid");
    assert_eq!(till.status("A"), Some(Status::Success));
    assert_eq!(till.told(), [&About::Paid]);
}

#[test]
fn a_trade_is_closed_by_its_merchant_and_by_time() {
    let mut till = Till::default();
    till.offer(&terms("A"), at(0)).expect("offered");
    assert_eq!((till.open("A", at(1)), till.open("A", at(1))), (Ok(1), Ok(0)));
    assert_eq!(till.status("A"), Some(Status::WaitBuyerPay));
    assert_eq!(till.does(at(2), |book| book.close(PID, &named("A"))), Ok(1));
    assert_eq!(till.does(at(2), |book| book.close(PID, &named("A"))), Err("ACQ.TRADE_STATUS_ERROR"));
    assert_eq!(till.pay("A", at(3), false), Err("ACQ.TRADE_HAS_CLOSE"));
    assert_eq!(till.offer(&terms("A"), at(3)), Err("ACQ.TRADE_HAS_CLOSE"));

    let ends = Terms { expires_at: Some(at(60)), ..terms("B") };
    till.offer(&ends, at(3)).expect("offered");
    till.open("B", at(4)).expect("opened");
    assert_eq!(till.book.next_due(), Some(at(60)));
    assert_eq!(till.pay("B", at(60), false), Err("ACQ.TRADE_HAS_CLOSE"));
    assert_eq!((till.status("B"), till.book.next_due()), (Some(Status::Closed), None));
    assert_eq!(till.pay("B", at(61), true), Ok(1), "the citizen had agreed before");
    assert_eq!(till.status("B"), Some(Status::Success));

    till.offer(&terms("C"), at(0)).expect("offered");
    assert_eq!(till.open("C", at(7_200)), Err("ACQ.TRADE_HAS_CLOSE"), "a code lives for two hours");
    assert_eq!(till.offer(&terms("C"), at(7_200)), Ok(1), "and can be had anew");
}

#[test]
fn the_same_number_means_the_same_order() {
    let mut till = paid();
    assert_eq!(till.offer(&Terms { digest: "other".into(), ..terms("A") }, at(2)), Err("ACQ.CONTEXT_INCONSISTENT"));
    assert_eq!(till.offer(&terms("A"), at(2)), Err("ACQ.TRADE_HAS_SUCCESS"));
    assert_eq!(till.pay("A", at(2), true), Err("ACQ.TRADE_HAS_SUCCESS"));
    let expired = Terms { expires_at: Some(at(2)), ..terms("B") };
    assert_eq!(till.offer(&expired, at(2)), Err("ACQ.INVALID_PARAMETER"));
    till.offer(&terms("C"), at(2)).expect("offered");
    assert_eq!(till.offer(&terms("C"), at(3)), Ok(0));
}

#[test]
fn refunds_are_idempotent_partial_and_never_more_than_was_paid() {
    let mut till = paid();
    let first = refund("R1", 5_000, Some(at(2)));
    assert_eq!((till.refund(&first, at(2)), till.refund(&first, at(3))), (Ok(2), Ok(0)));
    assert_eq!(till.refund(&refund("R1", 5_001, Some(at(2))), at(3)), Err("ACQ.DISCORDANT_REPEAT_REQUEST"));
    assert_eq!(till.refund(&refund("R2", 15_001, Some(at(3))), at(3)), Err("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"));
    assert_eq!(till.status("A"), Some(Status::Success));
    let later = refund("R2", 15_000, Some(at(9)));
    assert_eq!((till.refund(&later, at(3)), till.book.next_due()), (Ok(1), Some(at(9))));
    assert_eq!(till.refund(&refund("R3", 1, Some(at(4))), at(4)), Err("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"), "on its way");
    assert_eq!(till.status("A"), Some(Status::Success));
    assert_eq!(till.refund(&later, at(9)), Ok(0), "done by itself");
    assert_eq!((till.status("A"), till.book.statement("2088-A")), (Some(Status::Closed), Some((TOTAL, TOTAL))));
    assert_eq!(till.refund(&refund("R3", 1, Some(at(9))), at(9)), Err("ACQ.TRADE_STATUS_ERROR"));
    assert_eq!(till.told().len(), 3, "the payment and each refund");
}

#[test]
fn a_refund_that_is_stuck_is_done_when_it_is_asked_for_again() {
    let mut till = paid();
    let stuck = refund("R1", 5_000, None);
    assert_eq!((till.refund(&stuck, at(2)), till.book.next_due()), (Ok(1), None));
    assert_eq!(till.book.statement("2088-A"), Some((TOTAL, 0)));
    assert_eq!((till.refund(&stuck, at(9)), till.book.statement("2088-A")), (Ok(1), Some((TOTAL, 5_000))));
}

#[test]
fn cancelling_closes_or_gives_everything_back() {
    let mut till = paid();
    till.refund(&refund("R1", 5_000, Some(at(2))), at(2)).expect("refunded");
    assert_eq!(till.does(at(3), |book| book.cancel(PID, &named("A"))), Ok(2));
    assert_eq!((till.status("A"), till.book.statement("2088-A")), (Some(Status::Closed), Some((TOTAL, TOTAL))));
    assert_eq!(till.does(at(3), |book| book.cancel(PID, &named("A"))), Ok(0));
    till.offer(&terms("B"), at(3)).expect("offered");
    till.open("B", at(3)).expect("opened");
    assert_eq!(till.does(at(3), |book| book.cancel(PID, &named("B"))), Ok(1));
    assert_eq!(till.status("B"), Some(Status::Closed));
}

#[test]
fn a_finished_trade_takes_no_refund() {
    let mut till = paid();
    assert_eq!(till.does(at(2), |book| book.finish(book.trade(PID, &named("A"))?.0)), Ok(1));
    assert_eq!(till.status("A"), Some(Status::Finished));
    assert_eq!(till.refund(&refund("R1", 1, Some(at(3))), at(3)), Err("ACQ.TRADE_HAS_FINISHED"));
    assert_eq!(till.does(at(3), |book| book.cancel(PID, &named("A"))), Err("ACQ.TRADE_HAS_FINISHED"));
    assert_eq!(till.offer(&terms("A"), at(3)), Err("ACQ.TRADE_HAS_SUCCESS"));
}

#[test]
fn a_notice_keeps_its_id_and_shares_it_with_none() {
    let mut till = paid();
    for number in ["R1", "R2"] {
        till.refund(&refund(number, 1, Some(at(2))), at(2)).expect("refunded");
    }
    let ids: BTreeSet<String> = till.book.notices().map(|(id, _)| id.clone()).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 34));
    let again = paid();
    assert!(ids.contains(again.book.notices().next().expect("a notice").0), "the same after a replay");
}

#[derive(Clone, Debug)]
enum Step {
    Offer,
    Open,
    Pay(bool),
    Close,
    Cancel,
    Finish,
    Refund(u8, i64, Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Offer),
        Just(Step::Open),
        any::<bool>().prop_map(Step::Pay),
        Just(Step::Close),
        Just(Step::Cancel),
        Just(Step::Finish),
        (0..4_u8, 1..=TOTAL, proptest::option::of(0..50_u64)).prop_map(|(n, amount, due)| Step::Refund(n, amount, due)),
    ]
}

proptest! {
    /// Whatever happens: money comes back at most once and at most whole, of paid trades alone; and a replay ends where life did.
    #[test]
    fn whatever_happens_the_money_adds_up(steps in proptest::collection::vec((step(), 0..30_u64), 1..40)) {
        let mut till = Till::default();
        till.offer(&terms("A"), at(0)).expect("offered");
        let mut clock = 0;
        for (step, seconds) in steps {
            clock += seconds;
            let now = at(clock);
            let _ = match step {
                Step::Offer => till.offer(&terms("A"), now),
                Step::Open => till.open("A", now),
                Step::Pay(although_closed) => till.pay("A", now, although_closed),
                Step::Close => till.does(now, |book| book.close(PID, &named("A"))),
                Step::Cancel => till.does(now, |book| book.cancel(PID, &named("A"))),
                Step::Finish => till.does(now, |book| book.finish(book.trade(PID, &named("A"))?.0)),
                Step::Refund(number, amount, due) => {
                    till.refund(&refund(&number.to_string(), amount, due.map(|due| at(clock + due))), now)
                }
            };
            let paid = till.book.statement("2088-A");
            if let Some((took, back)) = paid {
                prop_assert!(took == TOTAL && back <= took);
            }
            let given: i64 = till.events.iter().map(|(_, event)| match event {
                Event::RefundDone { amount_minor, .. } => *amount_minor,
                _ => 0,
            }).sum();
            prop_assert_eq!(given, paid.map_or(0, |(_, back)| back));
        }
        let count = till.events.iter().filter(|(_, event)| matches!(event, Event::Paid { .. })).count();
        prop_assert!(count <= 1);
        let mut replayed = Book::default();
        till.events.iter().for_each(|(at, event)| replayed.apply(event, *at));
        prop_assert_eq!(format!("{replayed:?}"), format!("{:?}", till.book));
    }
}
