//! The state machines against the ledger, step by step and in every order that proptest thinks of.

mod combined;
mod mixed;

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::ids::{OrderId, RefundId};
use contracts::money::{Currency, Money};
use proptest::prelude::*;
use runtime::Timestamp;

use super::books;
use super::ledger::{Account, Ledger, Merchant};
use super::order::{Capture, Change, Happening, Order, Rule, State, Terms, TradeType};
use super::plan::{self, Known, OrderStep, Pace, RefundStep};
use super::refund::{self, Decided, Decision, Refund, State as RefundState};

const AMOUNT: i64 = 20_000;

fn fen(amount: i64) -> Money {
    Money::new(amount, Currency::CNY).expect("in range")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds_nanos(seconds, 0)
}

fn order() -> Order {
    let terms = Terms {
        id: OrderId::new(0x15),
        caller: "cases".into(),
        request_id: "r".into(),
        case_id: "case".into(),
        payee_id: "traffic-430100".into(),
        amount: fen(AMOUNT),
        merchant: Merchant { channel: "wechatpay".into(), number: "1900000001".into() },
        app_id: "wx0".into(),
        trade_type: TradeType::Jsapi,
        channel_order_no: "0".repeat(32),
        notify_url: "http://h/callbacks".into(),
        description: "fine".into(),
        created_at: at(0),
        expire_at: at(1_000),
        payment_code: None,
        receipt_prefix: None,
        insured: None,
    };
    Order::new(terms, Some(vec![1]))
}

fn order_of(decided: &Decided) -> &Order {
    &decided.change.as_ref().expect("changes the order").order
}

fn refund_of(number: u128, amount: i64) -> Refund {
    Refund {
        id: RefundId::new(number),
        order: OrderId::new(0x15),
        caller: "cases".into(),
        request_id: number.to_string(),
        amount: fen(amount),
        reason: "rejected".into(),
        created_at: at(0),
        send_by: at(500),
        is_after_settlement: false,
        legs: None,
        insurance_returned_at: None,
        version: 1,
        state: RefundState::Requested,
        is_sent: false,
        channel_refund: None,
        success_at: None,
        refusal: None,
    }
}

fn capture() -> Capture {
    Capture { amount: fen(AMOUNT), transaction: "tx-1".into(), at: at(5) }
}

fn paid() -> Order {
    let change = order().captured(&capture()).expect("allowed").expect("changes");
    assert_eq!(change.happenings, [Happening::Paid]);
    change.order
}

#[test]
fn words_round_trip() {
    for word in ["creating", "waiting", "paid", "posted", "closed", "refunding", "refunded", "refused"] {
        assert_eq!(word.parse::<State>().map(|state| state.to_string()), Ok(word.to_owned()));
    }
    for word in ["requested", "processing", "succeeded", "failed"] {
        assert_eq!(word.parse::<RefundState>().map(|state| state.to_string()), Ok(word.to_owned()));
    }
    assert!("PAID".parse::<State>().is_err() && "".parse::<RefundState>().is_err());
}

#[test]
fn creation_erases_the_payer_and_happens_once() {
    let waiting = order().created(vec![9]).expect("changes").order;
    assert_eq!((waiting.state, waiting.payer_sealed.as_ref()), (State::Waiting, None));
    assert_eq!(waiting.created(vec![8]), None);
    assert_eq!(waiting.refused("X".into()), None);
    assert_eq!(order().refused("X".into()).expect("changes").order.payer_sealed, None);
}

#[test]
fn what_does_not_fit_the_order_is_never_booked() {
    let dollars = "USD".parse().expect("a code");
    let other = |change: fn(&mut Capture)| {
        let mut capture = capture();
        change(&mut capture);
        capture
    };
    assert_eq!(order().captured(&other(|c| c.amount = fen(AMOUNT - 1))), Err(Rule::Differs("amount")));
    let foreign = Capture { amount: Money::new(AMOUNT, dollars).expect("in range"), ..capture() };
    assert_eq!(order().captured(&foreign), Err(Rule::Differs("currency")));
    assert_eq!(paid().captured(&other(|c| c.transaction = "tx-2".into())), Err(Rule::Differs("transaction")));
    assert_eq!(paid().captured(&capture()), Ok(None), "a duplicate is normal");
}

#[test]
fn late_money_stays_out_of_the_payees_reach_and_can_go_back() {
    let closed = order().closed().expect("changes").order;
    let late = closed.captured(&capture()).expect("allowed").expect("changes");
    assert_eq!((late.order.state, late.order.is_late), (State::Closed, true));
    assert_eq!(late.happenings, [Happening::LateMoney]);
    assert_eq!(late.order.posted("serial"), Err(Rule::NotPaid));
    let change = refund::accept(&late.order, &refund_of(1, AMOUNT)).expect("accepted");
    assert_eq!(change.order.state, State::Refunding);
    let failed = Decision::Failed { code: "CLOSED".into() };
    let decided = refund::decide(&change.order, &refund_of(1, AMOUNT), &failed).expect("allowed").expect("changes");
    assert_eq!(order_of(&decided).state, State::Closed, "late money that did not go back is still late money");
    assert_eq!(closed.posted("serial"), Err(Rule::NotPaid));
    assert_eq!(refund::accept(&closed, &refund_of(1, 1)), Err(Rule::NotPaid));
}

#[test]
fn posting_needs_money_and_one_proof() {
    assert_eq!(order().posted("a"), Err(Rule::NotPaid));
    let posted = paid().posted("a").expect("allowed").expect("changes").order;
    assert_eq!((posted.state, posted.tally.posted), (State::Posted, AMOUNT));
    assert_eq!(posted.posted("a"), Ok(None));
    assert_eq!(posted.posted("b"), Err(Rule::Posted));
    assert_eq!(refund::accept(&posted, &refund_of(1, 1)), Err(Rule::Posted));
}

fn given_back(number: u128, amount: i64) -> Refund {
    Refund { is_after_settlement: true, ..refund_of(number, amount) }
}

#[test]
fn a_payee_gives_back_what_it_got_and_no_more() {
    assert_eq!(refund::accept(&paid(), &given_back(1, 1)), Err(Rule::NotPosted));
    let posted = paid().posted("a").expect("allowed").expect("changes").order;
    let exceeds = Rule::ExceedsCapture { captured: AMOUNT, refunded: 0 };
    assert_eq!(refund::accept(&posted, &given_back(1, AMOUNT + 1)), Err(exceeds));
    let part = refund::accept(&posted, &given_back(1, 5_000)).expect("accepted").order;
    assert_eq!((part.state, part.tally.posted), (State::Refunding, AMOUNT - 5_000));
    assert_eq!(part.posted("a"), Ok(None), "it was posted, whatever goes back");
    let failed = Decision::Failed { code: "CLOSED".into() };
    let failed = refund::decide(&part, &given_back(1, 5_000), &failed).expect("allowed").expect("changes");
    assert_eq!((order_of(&failed).state, order_of(&failed).tally), (State::Posted, posted.tally));
    let done = Decision::Succeeded { channel_refund: "cr".into(), at: at(9) };
    let done = refund::decide(&part, &given_back(1, 5_000), &done).expect("allowed").expect("changes");
    assert_eq!(order_of(&done).state, State::Posted);
    let rest = refund::accept(order_of(&done), &given_back(2, AMOUNT - 5_000)).expect("accepted").order;
    let all = Decision::Succeeded { channel_refund: "cr2".into(), at: at(9) };
    let all = refund::decide(&rest, &given_back(2, AMOUNT - 5_000), &all).expect("allowed").expect("changes");
    assert_eq!((order_of(&all).state, order_of(&all).tally.posted), (State::Refunded, 0));
}

#[test]
fn what_is_left_after_a_partial_refund_can_be_posted() {
    let accepted = refund::accept(&paid(), &refund_of(1, 5_000)).expect("accepted").order;
    assert_eq!(accepted.posted("a"), Err(Rule::Refunding));
    let exceeds = Rule::ExceedsCapture { captured: AMOUNT, refunded: 5_000 };
    assert_eq!(refund::accept(&accepted, &refund_of(2, 15_001)), Err(exceeds));
    let done = Decision::Succeeded { channel_refund: "cr".into(), at: at(9) };
    let decided = refund::decide(&accepted, &refund_of(1, 5_000), &done).expect("allowed").expect("changes");
    assert_eq!((order_of(&decided).state, decided.refund.state), (State::Paid, RefundState::Succeeded));
    assert_eq!(refund::decide(order_of(&decided), &decided.refund, &done), Ok(None));
    let failed = Decision::Failed { code: "CLOSED".into() };
    let turned = refund::decide(order_of(&decided), &decided.refund, &failed);
    assert_eq!(turned, Err(Rule::Differs("refund status")));
    let posted = order_of(&decided).posted("a").expect("allowed").expect("changes").order;
    assert_eq!(posted.tally.posted, 15_000);
}

#[test]
fn the_plan_forgets_only_what_the_channel_cannot_have() {
    let pace =
        Pace { first: Duration::from_secs(2), longest: Duration::from_secs(60), quiet: Duration::from_secs(100) };
    let mut order = order();
    assert_eq!(plan::order_step(&order, at(5)), OrderStep::Create);
    assert_eq!(plan::order_step(&order, at(1_000)), OrderStep::Forget);
    order.is_closing = true;
    assert_eq!(plan::order_step(&order, at(5)), OrderStep::Forget);
    order.is_sent = true;
    assert_eq!(plan::order_step(&order, at(5)), OrderStep::Create, "first it must exist, then it can be closed");
    assert_eq!(plan::order_step(&order, at(1_000)), OrderStep::Query);
    for known in [Known::OnceCreated, Known::OnceOpened] {
        assert!(!plan::is_gone(&order, known, at(1_099), pace) && plan::is_gone(&order, known, at(1_100), pace));
    }
    order.state = State::Waiting;
    assert_eq!(plan::order_step(&order, at(5)), OrderStep::Close);
    assert!(
        !plan::is_gone(&order, Known::OnceCreated, at(9_999), pace),
        "an order that the channel had does not vanish"
    );
    let unopened = |now| plan::is_gone(&order, Known::OnceOpened, now, pace);
    assert!(!unopened(at(1_099)) && unopened(at(1_100)), "nobody opened it, and now nobody can");
    order.is_closing = false;
    assert_eq!(plan::order_step(&order, at(5)), OrderStep::Query);
    assert_eq!(plan::order_step(&order, at(1_000)), OrderStep::Close);
    order.state = State::Paid;
    assert_eq!(plan::order_step(&order, at(5)), OrderStep::Rest);
}

#[test]
fn a_refund_that_may_be_there_is_asked_for_first() {
    let mut refund = refund_of(1, 5);
    assert_eq!(plan::refund_step(&refund, at(5)), RefundStep::Send);
    assert_eq!(plan::refund_step(&refund, at(500)), RefundStep::Expire, "the channel never heard of it");
    refund.is_sent = true;
    assert_eq!(plan::refund_step(&refund, at(5)), RefundStep::Query);
    assert_eq!(plan::refund_step(&refund, at(9_999)), RefundStep::Query, "only the channel ends what it may have");
    refund.state = RefundState::Failed;
    assert_eq!(plan::refund_step(&refund, at(5)), RefundStep::Rest);
}

#[test]
fn pauses_grow_to_the_longest_and_end_with_the_order() {
    let pace = Pace { first: Duration::from_secs(2), longest: Duration::from_secs(60), quiet: Duration::ZERO };
    let pauses: Vec<_> = [0, 1, 2, 5, 40, u32::MAX].map(|n| plan::pause(n, pace).as_secs()).into();
    assert_eq!(pauses, [2, 4, 8, 60, 60, 60]);
    assert_eq!(plan::next_look(&order(), 5, at(990), pace), at(1_000));
    assert_eq!(plan::next_look(&order(), 5, at(1_000), pace), at(1_060));
}

/// What may happen to an order, in any order.
#[derive(Clone, Debug)]
enum Act {
    Created,
    Refused,
    Closed,
    Captured { amount_off: bool, transaction: u8 },
    Posted(u8),
    RefundAsked(i64, bool),
    RefundDecided { which: usize, succeeded: bool },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        1 => Just(Act::Created),
        1 => Just(Act::Refused),
        1 => Just(Act::Closed),
        3 => (prop::bool::weighted(0.1), 0..2_u8).prop_map(|(amount_off, transaction)| Act::Captured { amount_off, transaction }),
        2 => (0..2_u8).prop_map(Act::Posted),
        4 => (prop_oneof![1..AMOUNT / 2, AMOUNT - 1..AMOUNT + 2], any::<bool>()).prop_map(|(amount, after)| Act::RefundAsked(amount, after)),
        4 => (0..6_usize, any::<bool>()).prop_map(|(which, succeeded)| Act::RefundDecided { which, succeeded }),
    ];
    prop::collection::vec(act, 1..60)
}

struct World {
    order: Order,
    refunds: Vec<Refund>,
    ledger: Ledger,
}

impl World {
    fn take(&mut self, change: Option<Change>) {
        if let Some(change) = change {
            self.ledger.book(&change.entries).expect("what the rules allow, the ledger books");
            self.order = change.order;
        }
    }

    fn play(&mut self, act: &Act) {
        match act {
            Act::Created => self.take(self.order.created(vec![1])),
            Act::Refused => self.take(self.order.refused("NO".into())),
            Act::Closed => self.take(self.order.closed()),
            Act::Captured { amount_off, transaction } => {
                let amount = if *amount_off { fen(AMOUNT + 1) } else { fen(AMOUNT) };
                let capture = Capture { amount, transaction: transaction.to_string(), at: at(1) };
                if let Ok(change) = self.order.captured(&capture) {
                    self.take(change);
                }
            }
            Act::Posted(serial) => {
                if let Ok(change) = self.order.posted(&serial.to_string()) {
                    self.take(change);
                }
            }
            Act::RefundAsked(amount, after) => {
                let refund = refund_of(self.refunds.len() as u128, *amount);
                let refund = Refund { is_after_settlement: *after, ..refund };
                if let Ok(change) = refund::accept(&self.order, &refund) {
                    self.take(Some(change));
                    self.refunds.push(refund);
                }
            }
            Act::RefundDecided { which, succeeded } => {
                let Some(refund) = self.refunds.get(*which) else { return };
                let decision = if *succeeded {
                    Decision::Succeeded { channel_refund: "cr".into(), at: at(2) }
                } else {
                    Decision::Failed { code: "CLOSED".into() }
                };
                if let Ok(Some(decided)) = refund::decide(&self.order, refund, &decision) {
                    self.take(decided.change);
                    self.refunds[*which] = decided.refund;
                }
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let sums = |pick: fn(super::ledger::Balance) -> i64| self.ledger.balances().map(|(.., b)| pick(b)).sum::<i64>();
        prop_assert_eq!(sums(|b| b.debit_posted), sums(|b| b.credit_posted));
        prop_assert_eq!(sums(|b| b.debit_pending), sums(|b| b.credit_pending));

        let tally = self.order.tally;
        let refunds = |state: fn(RefundState) -> bool| {
            self.refunds.iter().filter(|r| state(r.state)).map(|r| r.amount.amount_minor()).sum::<i64>()
        };
        prop_assert_eq!(tally.refunded, refunds(|s| s == RefundState::Succeeded));
        prop_assert_eq!(tally.refunding, refunds(|s| matches!(s, RefundState::Requested | RefundState::Processing)));
        prop_assert!(tally.refunded + tally.refunding + tally.posted <= tally.captured);
        prop_assert!(tally.captured == 0 || tally.captured == AMOUNT);

        let suspense = self.ledger.balance(&self.order.suspense());
        prop_assert_eq!(suspense.available(), tally.free());
        let payee = self.ledger.balance(&Account::Payee(self.order.terms.payee_id.clone()));
        prop_assert_eq!(payee.credit_posted - payee.debit_posted - payee.debit_pending, tally.posted);
        let at_channel = self.ledger.balance(&Account::Receivable(self.order.terms.merchant.clone()));
        prop_assert_eq!(at_channel.debit_posted - at_channel.credit_posted, tally.captured - tally.refunded);

        let has_money = tally.captured > 0;
        prop_assert_eq!(has_money, self.order.channel_transaction.is_some());
        prop_assert!(self.order.is_posted() || tally.posted == 0);
        prop_assert!(self.order.state != State::Posted || tally.posted > 0);
        let transfers: BTreeMap<_, _> =
            self.ledger.transfers().map(|(it, standing)| (it.id.clone(), (it.clone(), standing))).collect();
        let expected = books::expected(&self.order, &self.refunds)
            .into_iter()
            .map(|(it, standing)| (it.id.clone(), (it, standing)));
        prop_assert_eq!(expected.collect::<BTreeMap<_, _>>(), transfers);
        prop_assert_eq!(books::contradictions(&self.order, &self.refunds), Vec::<&str>::new());
        prop_assert!(!has_money || !self.order.is_open());
        prop_assert!(self.order.state == State::Creating || self.order.payer_sealed.is_none());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Σdebit = Σcredit, refunds within the capture, sums equal to transfers: after every step of any history.
    #[test]
    fn the_books_balance_after_any_history(acts in acts()) {
        let mut world = World { order: order(), refunds: vec![], ledger: Ledger::default() };
        for act in &acts {
            world.play(act);
            world.check()?;
        }
    }
}
