//! Orders of which insurance pays a part: booked whole or not at all, given back leg by leg.

use contracts::ids::OrderId;
use contracts::payments::v1 as pb;
use futures::future::join_all;
use prost::Message;
use rpc::Fault;

use super::channel::{Call, Mishap};
use super::steps::merchant;
use super::*;
use crate::channel::{Notice, Patient, Person};
use crate::convert::InsuranceAsk;
use crate::domain::insurance::{AddType, Funds, Insured, Leg, Legs, MixType, Split};
use crate::domain::ledger::{Account, Balance};
use crate::domain::order::{Order, Rule, State};
use crate::domain::refund::State as RefundState;
use crate::error::Error;
use crate::repo::ledger;

const INSTITUTION: &str = "H44030001";
/// What names the patient, and must be found nowhere once the channel has it.
const PATIENT: &str = "Zhang-San-the-patient";

/// What each leg asks: by the citizen 42.00, of which 2.00 are for delivery; by insurance 150.00.
pub(super) fn legs_of(mix: MixType) -> Legs {
    let cash = if mix.has_cash() { 4_200 } else { 0 };
    let funds = Funds { government: 10_000, personal: 4_500, other: 500 };
    Legs { cash, funds: if mix.has_insurance() { funds } else { Funds::default() } }
}

/// A fourth of each.
pub(super) fn a_part_of(mix: MixType) -> Legs {
    let Legs { cash, funds: Funds { government, personal, other } } = legs_of(mix);
    Legs { cash: cash / 4, funds: Funds { government: government / 4, personal: personal / 4, other: other / 4 } }
}

fn insured(mix: MixType) -> Insured {
    let Legs { cash, funds } = legs_of(mix);
    let (added, left) = if cash > 0 { (vec![(AddType::Freight, 200)], cash - 200) } else { (vec![], 0) };
    let has_insurance = mix.has_insurance();
    Insured {
        mix,
        order_type: "DIAG_PAY".into(),
        split: Split {
            total: legs_of(mix).sum().expect("small"),
            funds,
            cash: left,
            added,
            reduced: vec![],
            paid_in_cash: cash,
        },
        serial_no: "S1".into(),
        pay_order_id: has_insurance.then(|| "P1".into()),
        insurance_created_at: has_insurance.then_some(EPOCH),
        city_id: "530100".into(),
        institution_no: INSTITUTION.into(),
        institution_name: "Hospital".into(),
    }
}

pub(super) fn mixed_ask(request_id: &str, mix: MixType, expire_at: Timestamp) -> CreateAsk {
    let payer = Person {
        name: Pii::new(PATIENT.into()),
        id_digest: Pii::new("09eb26e839ff3a2e3980352ae45ef09e".into()),
        card_type: "ID_CARD".into(),
    };
    let patient = Patient { payer, relative: None, pay_auth_no: None, geo_location: None };
    let insured = insured(mix);
    let amount = fen(insured.split.total);
    CreateAsk { amount, insurance: Some(InsuranceAsk { insured, patient }), ..create_ask(request_id, expire_at) }
}

pub(super) fn mixed_refund(request_id: &str, order: OrderId, legs: Legs) -> RefundAsk {
    let insurance_returned_at = (legs != legs.cash_alone()).then_some(EPOCH);
    let amount = legs.sum().expect("small");
    RefundAsk { legs: Some(legs), insurance_returned_at, ..refund_ask(request_id, order, amount) }
}

fn cash(minor: i64) -> Legs {
    Legs { cash: minor, ..Legs::default() }
}

fn personal(minor: i64) -> Legs {
    Legs { cash: 0, funds: Funds { personal: minor, ..Funds::default() } }
}

impl Stage {
    async fn mixed(&self, request_id: &str, mix: MixType) -> pb::Order {
        let answer = self.till.create(mixed_ask(request_id, mix, EPOCH.plus(LIFE))).await.expect("creates");
        pb::CreateOrderResponse::decode(answer.as_slice()).expect("decodes").order.expect("an order")
    }

    async fn hint(&self, order: &pb::Order) {
        let notice = Notice::Mixed { channel_order_no: order.channel_order_no.clone() };
        self.till.heed(&merchant(), notice).await.expect("heeds");
        self.pass(Duration::from_secs(2)).await;
    }

    async fn paid_mixed(&self, request_id: &str, mix: MixType) -> OrderId {
        let order = self.mixed(request_id, mix).await;
        self.played.pay(&order.channel_order_no, self.till.now()).expect("pays");
        self.hint(&order).await;
        order.order_id.parse().expect("an id")
    }

    async fn now_of(&self, id: OrderId) -> Order {
        self.till.order_now(id).await.expect("is there")
    }

    async fn balance(&self, account: Account) -> Balance {
        let sum = ledger::sum(&mut self.till.db.read().await.expect("reads"), &account).await.expect("reads");
        sum.map(|(_, balance)| balance).unwrap_or_default()
    }

    /// What the insurance owes.
    async fn insurance(&self) -> i64 {
        let balance = self.balance(Account::Insurance(INSTITUTION.into())).await;
        balance.debit_posted - balance.credit_posted
    }

    /// What the channel owes.
    async fn channel(&self) -> i64 {
        let balance = self.balance(Account::Receivable(merchant())).await;
        balance.debit_posted - balance.credit_posted
    }
}

#[tokio::test(start_paused = true)]
async fn every_mix_is_made_booked_whole_in_one_transaction_and_posted() {
    for mix in [MixType::CashAndInsurance, MixType::CashOnly, MixType::InsuranceOnly] {
        let stage = Stage::new().await;
        let order = stage.mixed("m", mix).await;
        let id: OrderId = order.order_id.parse().expect("an id");
        assert!(order.pay_sheet.is_some() && order.legs.iter().all(|leg| leg.state() == pb::LegState::Pending));
        assert!(stage.played.books().payers[0].contains(PATIENT), "the channel knows who is treated");
        assert_eq!(stage.now_of(id).await.payer_sealed, None, "and nobody else any longer");

        stage.played.pay(&order.channel_order_no, stage.till.now()).expect("pays");
        let alone = stage.played.notice(&order.channel_order_no).expect("paid");
        let before = stage.till.db.meter().counts().commits;
        stage.till.heed(&merchant(), alone).await.expect("a notice of the cash leg is normal");
        assert_eq!(stage.now_of(id).await.state, State::Waiting, "it books nothing");
        stage.hint(&order).await;
        let legs = legs_of(mix);
        let funds = legs.funds.sum().expect("small");
        assert_eq!(stage.now_of(id).await.state, State::Paid);
        assert!(stage.till.db.meter().counts().commits > before);
        assert_eq!((stage.channel().await, stage.insurance().await), (legs.cash, funds));
        let told = crate::convert::order(&stage.now_of(id).await).expect("tells");
        assert!(told.legs.iter().all(|leg| leg.state() == pb::LegState::Paid), "{:?}", told.legs);
        assert_eq!(
            (told.legs.len(), told.institution_no.as_str()),
            (legs.each().iter().filter(|leg| leg.1 > 0).count(), INSTITUTION)
        );
        stage.assert_sound().await;
        stage.till.post(&key(Method::PostOrder, "p"), id, "serial").await.expect("posts");
        assert_eq!(
            stage.balance(Account::Payee("traffic-430100".into())).await.credit_posted,
            legs.sum().expect("small")
        );
        assert_eq!(stage.events().await, [pb::EventKind::OrderPaid, pb::EventKind::OrderPosted]);
        stage.assert_sound().await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_leg_goes_back_by_itself_and_never_more_than_came_on_it() {
    let stage = Stage::new().await;
    let id = stage.paid_mixed("m", MixType::CashAndInsurance).await;
    stage.till.refund(&mixed_refund("c", id, cash(1_000))).await.expect("accepts");
    stage.till.refund(&mixed_refund("i", id, personal(4_500))).await.expect("accepts");
    let error = stage.till.refund(&mixed_refund("more", id, cash(3_201))).await.expect_err("refused");
    assert!(matches!(error, Error::Rule(Rule::ExceedsLeg { leg: Leg::Cash, asked: 3_201, rest: 3_200 })), "{error:?}");
    assert_eq!(error.reason(), "REFUND_EXCEEDS_LEG");
    let error = stage.till.refund(&mixed_refund("more", id, personal(1))).await.expect_err("refused");
    assert_eq!(error.metadata(), [("leg", "personal".into()), ("askedMinor", "1".into()), ("restMinor", "0".into())]);
    let whole = stage.till.refund(&refund_ask("whole", id, 100)).await.expect_err("which leg?");
    assert_eq!((whole.reason(), whole.details().violations[0].field.as_str()), ("INVALID_REQUEST", "legs"));
    stage.pass(Duration::from_secs(5)).await;
    assert_eq!(stage.refund_state("i").await, RefundState::Succeeded, "it was told");
    assert_eq!(stage.refund_state("c").await, RefundState::Processing, "the channel has not decided");
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(300)).await;
    assert_eq!(stage.refund_state("c").await, RefundState::Succeeded);
    assert_eq!((stage.channel().await, stage.insurance().await), (3_200, 10_500));
    stage.assert_sound().await;
    stage.till.post(&key(Method::PostOrder, "p"), id, "serial").await.expect("posts the rest");
    let after = RefundAsk { is_after_settlement: true, ..mixed_refund("a", id, cash(3_200)) };
    stage.till.refund(&after).await.expect("the payee gives back");
    stage.pass(Duration::from_secs(5)).await;
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(300)).await;
    assert_eq!((stage.channel().await, stage.insurance().await), (0, 10_500));
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn what_competes_never_gives_more_on_a_leg_than_came() {
    let stage = Stage::new().await;
    let id = stage.paid_mixed("m", MixType::CashAndInsurance).await;
    let asks: Vec<_> = (0..40)
        .map(|n| mixed_refund(&format!("f{n}"), id, if n % 2 == 0 { cash(500) } else { personal(400) }))
        .collect();
    let answers = join_all(asks.iter().map(|ask| stage.till.refund(ask))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 8 + 11);
    let order = stage.now_of(id).await;
    assert_eq!((order.given.cash, order.given.funds.personal), (4_000, 4_400));
    stage.pass(Duration::from_secs(5)).await;
    stage.played.decide(false, stage.till.now());
    stage.pass(Duration::from_secs(300)).await;
    assert_eq!(stage.now_of(id).await.given, Legs { cash: 0, funds: Funds { personal: 4_400, ..Funds::default() } });
    stage.till.refund(&mixed_refund("again", id, cash(4_200))).await.expect("what failed is free again");
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn the_cash_leg_of_a_half_goes_back_by_itself() {
    for has_insurance in [false, true] {
        let stage = Stage::new().await;
        let order = stage.mixed("m", MixType::CashAndInsurance).await;
        let id: OrderId = order.order_id.parse().expect("an id");
        stage.played.break_off(&order.channel_order_no, true, has_insurance, stage.till.now());
        stage.hint(&order).await;
        let half = stage.now_of(id).await;
        assert_eq!((half.state, half.tally.captured, half.tally.refunding), (State::Refunding, 4_200, 4_200));
        assert!(matches!(
            stage.till.post(&key(Method::PostOrder, "p"), id, "serial").await,
            Err(Error::Rule(Rule::Refunding))
        ));
        stage.assert_sound().await;
        stage.played.decide(true, stage.till.now());
        stage.pass(Duration::from_secs(300)).await;
        assert_eq!(stage.now_of(id).await.state, State::Refunded);
        assert_eq!((stage.channel().await, stage.insurance().await), (0, 0));
        assert_eq!(stage.events().await, [pb::EventKind::OrderClosed, pb::EventKind::RefundSucceeded]);
        let told = crate::convert::order(&stage.now_of(id).await).expect("tells");
        let states: Vec<_> = told.legs.iter().map(pb::OrderLeg::state).collect();
        assert_eq!(states[0], pb::LegState::Paid);
        assert!(states[1..].iter().all(|state| *state == pb::LegState::Failed), "{states:?}");
        let refund = stage.till.refund_by_request("payments", &order.channel_order_no).await.expect("is there");
        assert_eq!((refund.order, refund.legs), (id, Some(cash(4_200))));
        assert_eq!(stage.assert_sound().await.refunds, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_of_which_insurance_alone_paid_is_closed_and_books_nothing() {
    let stage = Stage::new().await;
    let order = stage.mixed("m", MixType::CashAndInsurance).await;
    stage.played.break_off(&order.channel_order_no, false, true, stage.till.now());
    stage.hint(&order).await;
    let id: OrderId = order.order_id.parse().expect("an id");
    assert_eq!(stage.now_of(id).await.state, State::Closed);
    assert_eq!(stage.assert_sound().await.transfers, 0);
}

#[tokio::test(start_paused = true)]
async fn a_half_that_cannot_go_back_waits_closed_for_a_person() {
    let stage = Stage::new().await;
    let order = stage.mixed("m", MixType::CashAndInsurance).await;
    let id: OrderId = order.order_id.parse().expect("an id");
    stage.played.break_off(&order.channel_order_no, true, false, stage.till.now());
    stage.played.mishap(Call::Refund, Mishap::Refused);
    stage.hint(&order).await;
    stage.pass(Duration::from_secs(60)).await;
    assert_eq!(stage.now_of(id).await.state, State::Closed, "it was never paid");
    stage.assert_sound().await;
    stage.till.refund(&mixed_refund("again", id, cash(4_200))).await.expect("accepts");
    stage.pass(Duration::from_secs(5)).await;
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(300)).await;
    assert_eq!(stage.now_of(id).await.state, State::Refunded);
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn a_refund_of_which_the_channel_hears_only_the_cash_leg_fails_and_keeps_what_went() {
    let stage = Stage::new().await;
    let id = stage.paid_mixed("m", MixType::CashAndInsurance).await;
    stage.played.be_deaf();
    let both = Legs { cash: 1_000, ..personal(500) };
    stage.till.refund(&mixed_refund("b", id, both)).await.expect("accepts");
    stage.pass(Duration::from_secs(5)).await;
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(300)).await;
    let refund = stage.till.refund_by_request("cases", "b").await.expect("is there");
    let told = crate::convert::refund_record(&refund);
    assert_eq!((told.state(), told.returned.map(|legs| legs.cash_minor)), (pb::RefundState::Failed, Some(1_000)));
    assert_eq!(stage.now_of(id).await.given, cash(1_000));
    assert_eq!((stage.channel().await, stage.insurance().await), (3_200, 15_000));
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_about_and_a_refused_one_ends_the_order() {
    let stage = Stage::new().await;
    stage.played.mishap(Call::Create, Mishap::LostAfter);
    let lost = stage.till.create(mixed_ask("m", MixType::CashAndInsurance, EPOCH.plus(LIFE))).await;
    assert!(matches!(lost, Err(Error::ChannelUnavailable { effect: rpc::Effect::Possible, .. })), "{lost:?}");
    stage.pass(Duration::from_secs(30)).await;
    assert_eq!(stage.order_of("m").await.state, State::Waiting, "made again, unchanged");
    stage.played.mishap(Call::Create, Mishap::Refused);
    let refused = stage.till.create(mixed_ask("n", MixType::CashAndInsurance, EPOCH.plus(LIFE))).await;
    assert!(matches!(refused, Err(Error::ChannelRefused { .. })), "{refused:?}");
    assert_eq!(stage.order_of("n").await.payer_sealed, None);
    stage.assert_sound().await;
}
