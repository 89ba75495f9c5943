//! Orders of which insurance pays a part: both legs come in at once, each goes back by itself, and a half goes back alone.

use super::*;
use crate::domain::insurance::{Funds, Insured, Leg, Legs, MixType, ReduceType, Split};

/// 100 of a bill of 130: the hospital waives 30. The citizen pays 40, the pooled fund 50 and the personal account 10.
const LEGS: Legs = Legs { cash: 40, funds: Funds { government: 50, personal: 10, other: 0 } };
const INSTITUTION: &str = "H44030001";

fn insured() -> Insured {
    Insured {
        mix: MixType::CashAndInsurance,
        order_type: "DIAG_PAY".into(),
        split: Split {
            total: 130,
            funds: LEGS.funds,
            cash: 70,
            added: vec![],
            reduced: vec![(ReduceType::Hospital, 30)],
            paid_in_cash: LEGS.cash,
        },
        serial_no: "S1".into(),
        pay_order_id: Some("P1".into()),
        insurance_created_at: Some(at(0)),
        city_id: "530100".into(),
        institution_no: INSTITUTION.into(),
        institution_name: "Hospital".into(),
    }
}

fn mixed() -> Order {
    let order = order();
    let terms = Terms { amount: fen(130), insured: Some(insured()), ..(*order.terms).clone() };
    Order::new(terms, Some(vec![1]))
}

fn whole() -> Capture {
    Capture { amount: fen(100), transaction: "mix-1".into(), at: at(5) }
}

fn cash() -> Capture {
    Capture { amount: fen(LEGS.cash), transaction: "tx-1".into(), at: at(5) }
}

fn legs(cash: i64, government: i64, personal: i64) -> Legs {
    Legs { cash, funds: Funds { government, personal, other: 0 } }
}

fn back(number: u128, legs: Legs) -> Refund {
    let amount = legs.sum().expect("small");
    Refund { legs: Some(legs), insurance_returned_at: Some(at(1)), ..refund_of(number, amount) }
}

fn world(order: Order) -> World {
    World { order, refunds: vec![], ledger: Ledger::default() }
}

impl World {
    fn give(&mut self, refund: Refund) -> Result<(), Rule> {
        let change = refund::accept(&self.order, &refund)?;
        self.take(Some(change));
        self.refunds.push(refund);
        Ok(())
    }

    fn end(&mut self, which: usize, decision: &Decision) {
        let refund = &self.refunds[which];
        let Some(decided) = refund::decide(&self.order, refund, decision).expect("allowed") else { return };
        self.take(decided.change);
        self.refunds[which] = decided.refund;
    }

    /// What is posted on an account: debits without credits.
    fn owed(&self, account: &Account) -> i64 {
        let balance = self.ledger.balance(account);
        balance.debit_posted - balance.credit_posted
    }

    fn agrees(&self) {
        let by_id = |transfers: Vec<_>| transfers.into_iter().collect::<BTreeMap<_, _>>();
        let named =
            |(transfer, standing): (super::super::ledger::Transfer, _)| (transfer.id.clone(), (transfer, standing));
        let booked = self.ledger.transfers().map(|(it, standing)| named((it.clone(), standing))).collect();
        let expected = books::expected(&self.order, &self.refunds).into_iter().map(named).collect();
        assert_eq!(by_id(expected), by_id(booked));
        assert_eq!(books::contradictions(&self.order, &self.refunds), Vec::<&str>::new());
        for ((leg, given), (_, came)) in self.order.given.each().into_iter().zip(self.order.came().each()) {
            assert!((0..=came).contains(&given), "{leg}: {given} of {came}");
        }
        assert_eq!(self.ledger.balance(&self.order.suspense()).available(), self.order.tally.free());
    }
}

fn insurance() -> Account {
    Account::Insurance(INSTITUTION.into())
}

fn channel() -> Account {
    Account::Receivable(order().terms.merchant.clone())
}

fn succeeded() -> Decision {
    Decision::Succeeded { channel_refund: "cr".into(), at: at(9) }
}

fn half() -> Decision {
    Decision::Half { channel_refund: "cr".into(), at: at(9), code: "NO".into() }
}

fn failed() -> Decision {
    Decision::Failed { code: "NO".into() }
}

#[test]
fn both_legs_come_in_together_or_not_at_all() {
    let mut world = world(mixed());
    assert_eq!(world.order.captured(&Capture { amount: fen(130), ..whole() }), Err(Rule::Differs("amount")));
    assert_eq!(world.order.captured(&cash()), Err(Rule::Differs("amount")), "a leg alone is not the order");
    let told = world.order.told_paid(&world.order.terms.merchant, "wx0", &cash());
    assert_eq!(told, Ok(None), "what the channel says of the cash leg books nothing");
    world.take(world.order.captured(&whole()).expect("allowed"));
    assert_eq!((world.order.state, world.order.tally.captured), (State::Paid, 100));
    assert_eq!((world.owed(&channel()), world.owed(&insurance())), (40, 60));
    world.agrees();
    world.take(world.order.posted("S-1").expect("allowed"));
    assert_eq!(world.owed(&Account::Payee("traffic-430100".into())), -100);
    world.agrees();
}

#[test]
fn each_leg_gives_back_what_came_on_it_and_a_refusal_names_it() {
    let mut world = world(mixed());
    world.take(world.order.captured(&whole()).expect("allowed"));
    world.give(back(1, legs(30, 0, 0))).expect("there is as much");
    let refused = |leg, asked, rest| Err(Rule::ExceedsLeg { leg, asked, rest });
    assert_eq!(world.give(back(2, legs(11, 0, 0))), refused(Leg::Cash, 11, 10));
    assert_eq!(world.give(back(2, legs(10, 50, 11))), refused(Leg::Personal, 11, 10));
    assert_eq!(world.give(refund_of(2, 10)), Err(Rule::Legs), "it has to say which");
    assert_eq!(world.give(Refund { amount: fen(11), ..back(2, legs(10, 0, 0)) }), Err(Rule::Legs));
    world.give(back(2, legs(10, 50, 10))).expect("the rest");
    assert_eq!(world.give(back(3, legs(1, 0, 0))), refused(Leg::Cash, 1, 0));
    world.end(0, &failed());
    world.give(back(3, legs(30, 0, 0))).expect("what failed is free again");
    world.end(1, &succeeded());
    world.agrees();
    world.end(2, &succeeded());
    assert_eq!(world.order.state, State::Refunded);
    assert_eq!((world.owed(&channel()), world.owed(&insurance())), (0, 0));
    world.agrees();
    let ordinary = paid();
    assert_eq!(refund::accept(&ordinary, &back(4, legs(1, 0, 0))), Err(Rule::Legs), "it has none");
}

#[test]
fn a_refund_whose_insurance_leg_is_refused_keeps_that_leg() {
    let mut world = world(mixed());
    world.take(world.order.captured(&whole()).expect("allowed"));
    world.give(back(1, legs(40, 50, 0))).expect("allowed");
    world.end(0, &half());
    let refund = world.refunds[0].clone();
    assert_eq!((refund.state, refund.went(), refund.given()), (RefundState::Failed, 40, legs(40, 0, 0)));
    assert_eq!((world.order.state, world.order.tally.refunded), (State::Paid, 40));
    assert_eq!((world.owed(&channel()), world.owed(&insurance())), (0, 60));
    world.agrees();
    world.end(0, &half());
    assert_eq!(refund::decide(&world.order, &refund, &succeeded()), Err(Rule::Differs("refund status")));
    assert_eq!(refund::decide(&world.order, &refund, &failed()), Err(Rule::Differs("refund status")));
    world.give(back(2, legs(0, 50, 10))).expect("it can be asked for again");
    assert_eq!(
        refund::decide(&world.order, &world.refunds[1], &half()),
        Err(Rule::Differs("legs of the refund")),
        "nothing of it went through the channel"
    );
}

#[test]
fn what_came_of_a_half_goes_back_by_itself_and_nothing_else_comes_of_it() {
    let refund = back(1, legs(40, 0, 0));
    let mut half = world(mixed());
    assert_eq!(half.order.half_paid(&whole(), &refund), Err(Rule::Differs("amount")));
    let change = half.order.half_paid(&cash(), &refund).expect("allowed").expect("changes");
    assert_eq!(change.happenings, [Happening::Closed]);
    half.take(Some(change));
    half.refunds.push(refund.clone());
    assert_eq!((half.order.state, half.order.payer_sealed.clone()), (State::Refunding, None));
    assert_eq!(half.order.half_paid(&cash(), &refund), Ok(None), "once");
    assert_eq!(half.order.captured(&whole()), Err(Rule::Differs("transaction")), "it is over");
    assert_eq!(half.order.posted("S-1"), Err(Rule::Refunding));
    half.agrees();
    half.end(0, &failed());
    assert_eq!(half.order.state, State::Closed, "it was never paid");
    assert_eq!(half.order.posted("S-1"), Err(Rule::NotPaid));
    half.agrees();
    half.give(back(2, legs(40, 0, 0))).expect("a person asks again");
    assert_eq!(half.give(back(3, legs(0, 1, 0))), Err(Rule::ExceedsLeg { leg: Leg::Government, asked: 1, rest: 0 }));
    half.end(1, &succeeded());
    assert_eq!((half.order.state, half.owed(&channel()), half.owed(&insurance())), (State::Refunded, 0, 0));
    half.agrees();
}

#[test]
fn a_half_of_a_closed_order_and_one_without_another_leg_are_no_news_twice() {
    let closed = mixed().closed().expect("changes").order;
    let change = closed.half_paid(&cash(), &back(1, legs(40, 0, 0))).expect("allowed").expect("changes");
    assert_eq!(change.happenings, [], "it was told closed before");
    let split = Split { total: 40, cash: 40, paid_in_cash: 40, ..Split::default() };
    let alone = Insured { mix: MixType::CashOnly, split, ..insured() };
    let order = order();
    let terms = Terms { amount: fen(40), insured: Some(alone), ..(*order.terms).clone() };
    let order = Order::new(terms, None);
    let change = order.half_paid(&cash(), &back(1, legs(40, 0, 0))).expect("allowed").expect("changes");
    assert_eq!((change.order.is_late, change.happenings), (true, vec![Happening::LateMoney]));
}

/// What may happen to a mixed order, in any order.
#[derive(Clone, Debug)]
enum MixedAct {
    Paid,
    Half,
    Closed,
    Posted,
    Asked(Legs, bool),
    Ended(usize, u8),
}

fn mixed_acts() -> impl Strategy<Value = Vec<MixedAct>> {
    let asked =
        (0..45_i64, 0..55_i64, 0..12_i64).prop_map(|(cash, government, personal)| legs(cash, government, personal));
    let act = prop_oneof![
        2 => Just(MixedAct::Paid),
        1 => Just(MixedAct::Half),
        1 => Just(MixedAct::Closed),
        1 => Just(MixedAct::Posted),
        6 => (asked, any::<bool>()).prop_map(|(legs, after)| MixedAct::Asked(legs, after)),
        6 => (0..8_usize, 0..3_u8).prop_map(|(which, how)| MixedAct::Ended(which, how)),
    ];
    prop::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// No leg gives back more than came in on it, and the books hold what they must, after every step of any history.
    #[test]
    fn the_legs_balance_after_any_history(acts in mixed_acts()) {
        let mut world = world(mixed());
        for act in acts {
            let number = world.refunds.len() as u128 + 100;
            match act {
                MixedAct::Paid => {
                    if let Ok(change) = world.order.captured(&whole()) {
                        world.take(change);
                    }
                }
                MixedAct::Half => {
                    let refund = back(number, legs(40, 0, 0));
                    if let Ok(Some(change)) = world.order.half_paid(&cash(), &refund) {
                        world.take(Some(change));
                        world.refunds.push(refund);
                    }
                }
                MixedAct::Closed => world.take(world.order.closed()),
                MixedAct::Posted => {
                    if let Ok(change) = world.order.posted("S-1") {
                        world.take(change);
                    }
                }
                MixedAct::Asked(legs, is_after_settlement) => {
                    let _ = world.give(Refund { is_after_settlement, ..back(number, legs) });
                }
                MixedAct::Ended(which, how) => {
                    let Some(refund) = world.refunds.get(which) else { continue };
                    let decision = [succeeded(), failed(), half()][usize::from(how)].clone();
                    if refund::decide(&world.order, refund, &decision).is_ok() {
                        world.end(which, &decision);
                    }
                }
            }
            world.agrees();
        }
    }
}
