//! Mixed orders through the contract: a hospital's bill of which the medical insurance pays a part, and the citizen the rest.

use contracts::payments::v1 as pb;
use pb::{OrderState, PayMix, RefundState};
use rpc::{Effect, RemoteFault};
use sandbox::{Fault, LegEnd, Operation};

use super::on_each_engine;
use super::rig::{CHANGSHA, Engine, Rig, in_seconds, jsapi, money, native, refund};

on_each_engine!(
    every_wrong_sum_is_refused_with_the_identities_that_it_breaks,
    who_cannot_have_one_is_refused,
    what_is_wrong_with_one_is_named,
    every_mix_is_paid_whole_and_posted,
    a_leg_that_waits_keeps_the_whole_waiting,
    each_leg_goes_back_in_parts_and_never_more_than_came_on_it,
    what_came_of_a_half_goes_back_by_itself,
    every_bad_answer_to_the_whole_ends_with_one_order,
    closing_the_cash_leg_closes_the_whole,
    a_restart_forgets_nothing,
);

/// What the bill comes to; the hospital takes 100.00 of it off.
const TOTAL: i64 = 202_000;
/// What the citizen pays of it.
const CASH: i64 = 42_000;
/// What the pooled fund, the personal account and another fund pay.
const FUNDS: [i64; 3] = [100_000, 45_000, 5_000];
const INSTITUTION: &str = "1217752501201407033233368318";

fn detail(amount_minor: i64, kind: &str) -> pb::CashDetail {
    pb::CashDetail { amount_minor, kind: kind.into() }
}

fn person(name: &str) -> pb::InsuredPerson {
    let id_digest = "09eb26e839ff3a2e3980352ae45ef09e".into();
    pb::InsuredPerson { name: name.into(), id_digest, card_type: "ID_CARD".into() }
}

/// The published example, cut down to the legs of `mix`.
fn insurance(mix: PayMix) -> (i64, pb::Insurance) {
    let has_insurance = mix != PayMix::CashOnly;
    let [government, personal, other] = if has_insurance { FUNDS } else { [0; 3] };
    let has_cash = mix != PayMix::InsuranceOnly;
    let (cash, paid) = if has_cash { (50_000, CASH) } else { (0, 0) };
    let split = pb::InsuranceSplit {
        government_minor: government,
        personal_minor: personal,
        other_minor: other,
        cash_minor: cash,
        additions: if has_cash { vec![detail(2_000, "FREIGHT")] } else { vec![] },
        reductions: if has_cash { vec![detail(10_000, "DEFAULT_REDUCE_TYPE")] } else { vec![] },
        paid_in_cash_minor: paid,
    };
    let paper = |text: &str| if has_insurance { text.to_owned() } else { String::new() };
    let insurance = pb::Insurance {
        pay_mix: mix.into(),
        order_type: "REG_PAY".into(),
        split: Some(split),
        institution_no: INSTITUTION.into(),
        institution_name: "人民医院".into(),
        city_id: "530100".into(),
        serial_no: "1217752501201".into(),
        payer: Some(person("张三")),
        relative: None,
        pay_order_id: paper("ORD530100202204022006350000021"),
        pay_auth_no: paper("AUTH530100202204022006310000034"),
        geo_location: paper("102.682296,25.054260"),
        med_ins_order_create_time: has_insurance.then(|| in_seconds(-60)),
    };
    let total = government + personal + other + if has_cash { 52_000 } else { 0 };
    (total, insurance)
}

/// An order for Changsha, of which insurance pays a part.
fn mixed(request_id: &str, mix: PayMix) -> pb::CreateOrderRequest {
    let (total, insurance) = insurance(mix);
    pb::CreateOrderRequest { amount: money(total), insurance: Some(insurance), ..jsapi(request_id) }
}

/// The same, spoilt.
fn spoilt(spoil: impl FnOnce(&mut pb::Insurance)) -> pb::CreateOrderRequest {
    let mut request = mixed("r", PayMix::CashAndInsurance);
    spoil(request.insurance.as_mut().expect("has it"));
    request
}

async fn refused(rig: &Rig, request: pb::CreateOrderRequest) -> RemoteFault {
    let fault = rig.create(request).await.expect_err("refused");
    assert_eq!(fault.effect(), Effect::None, "{fault:?}");
    fault
}

async fn every_wrong_sum_is_refused_with_the_identities_that_it_breaks(engine: Engine) {
    type Spoil = fn(&mut pb::InsuranceSplit);
    /// An identity and its two sides.
    type Broken = (&'static str, i64, i64);
    let rig = Rig::new(engine).await;
    let (payment, settlement, cash) = ("total_by_payment", "total_by_settlement", "cash");
    let sums: [(Spoil, [Broken; 2]); 7] = [
        (|it| it.government_minor += 1, [(payment, TOTAL, TOTAL + 1), (settlement, TOTAL, TOTAL + 1)]),
        (|it| it.personal_minor -= 1, [(payment, TOTAL, TOTAL - 1), (settlement, TOTAL, TOTAL - 1)]),
        (|it| it.other_minor += 7, [(payment, TOTAL, TOTAL + 7), (settlement, TOTAL, TOTAL + 7)]),
        (|it| it.cash_minor += 1, [(settlement, TOTAL, TOTAL + 1), (cash, CASH, CASH + 1)]),
        (|it| it.paid_in_cash_minor += 1, [(payment, TOTAL, TOTAL + 1), (cash, CASH + 1, CASH)]),
        (|it| it.additions[0].amount_minor += 1, [(settlement, TOTAL, TOTAL + 1), (cash, CASH, CASH + 1)]),
        (|it| it.reductions.clear(), [(payment, TOTAL, TOTAL - 10_000), (cash, CASH, CASH + 10_000)]),
    ];
    for (spoil, broken) in sums {
        let fault = refused(&rig, spoilt(|insurance| spoil(insurance.split.as_mut().expect("has it")))).await;
        let broken = broken.map(|(identity, left, right)| format!("{identity} ({left} is not {right})"));
        assert_eq!(fault.reason(), "INSURANCE_SPLIT_WRONG");
        assert_eq!(fault.metadata("broken"), Some(broken.join(", ").as_str()));
    }
    let mut other_total = mixed("r", PayMix::CashAndInsurance);
    other_total.amount = money(TOTAL + 1);
    let fault = refused(&rig, other_total).await;
    let both = format!("{payment} ({} is not {TOTAL}), {settlement} ({} is not {TOTAL})", TOTAL + 1, TOTAL + 1);
    assert_eq!(fault.metadata("broken"), Some(both.as_str()));
    assert_eq!(rig.assert_sound().await, 0);
}

async fn who_cannot_have_one_is_refused(engine: Engine) {
    let rig = Rig::new(engine).await;
    let with = |asked: pb::CreateOrderRequest| {
        let (total, insurance) = insurance(PayMix::CashAndInsurance);
        pb::CreateOrderRequest { amount: money(total), insurance: Some(insurance), ..asked }
    };
    let by_code = pb::CreateOrderRequest { payee_id: "traffic-430100".into(), ..native("code") };
    assert_eq!(refused(&rig, with(by_code)).await.reason(), "CHANNEL_NOT_OFFERED");
    let alipay = super::alipay::ask("alipay", "traffic-430100", pb::TradeType::Native);
    assert_eq!(refused(&rig, with(alipay)).await.reason(), "CHANNEL_NOT_OFFERED");
    // It verifies with certificates, and who is treated is sealed for a public key alone.
    let certificates = pb::CreateOrderRequest { payee_id: "traffic-140100".into(), ..jsapi("certificates") };
    let fault = refused(&rig, with(certificates)).await;
    assert_eq!((fault.reason(), fault.metadata("channelCode")), ("CHANNEL_REFUSED", Some("PUBLIC_KEY_NEEDED")));
    // An order that no insurance has to do with has no legs to give back on.
    let order = rig.paid(jsapi("plain")).await;
    let legs = Some(pb::RefundLegs { cash_minor: 1, ..Default::default() });
    let fault = rig.refund(pb::RefundRequest { legs, ..refund("f", &order, 1) }).await.expect_err("refused");
    assert_eq!((fault.reason(), fault.effect()), ("INVALID_REQUEST", Effect::None));
    assert_eq!(rig.assert_sound().await, 0);
}

async fn what_is_wrong_with_one_is_named(engine: Engine) {
    type Spoil = fn(&mut pb::Insurance);
    let rig = Rig::new(engine).await;
    let spoils: [(&str, Spoil); 13] = [
        ("insurance.pay_mix", |it| it.pay_mix = 0),
        ("insurance.order_type", |it| it.order_type = "reg pay".into()),
        ("insurance.split", |it| it.split = None),
        ("insurance.split", |it| it.split.as_mut().expect("has it").government_minor = -1),
        ("insurance.split.additions[0].kind", |it| it.split.as_mut().expect("has it").additions[0].kind = "TIP".into()),
        ("insurance.institution_no", |it| it.institution_no = "a/b".into()),
        ("insurance.city_id", |it| it.city_id = String::new()),
        ("insurance.payer", |it| it.payer = None),
        ("insurance.payer.id_digest", |it| it.payer.as_mut().expect("has it").id_digest = "44030019000101123X".into()),
        ("insurance.pay_order_id", |it| it.pay_order_id = String::new()),
        ("insurance.geo_location", |it| it.geo_location = String::new()),
        ("insurance.med_ins_order_create_time", |it| it.med_ins_order_create_time = None),
        ("insurance.split", |it| it.pay_mix = PayMix::InsuranceOnly.into()),
    ];
    for (field, spoil) in spoils {
        let status = rig.client.clone().create_order(spoilt(spoil)).await.expect_err("refused");
        assert_eq!(RemoteFault::from(&status).reason(), "INVALID_REQUEST", "{field}");
        let details = String::from_utf8_lossy(status.details()).into_owned();
        assert!(details.contains(field), "{field}: {details}");
        assert!(!details.contains("张三") && !details.contains("44030019000101123X"), "{field}: a person is named");
    }
    let mut cash = mixed("cash", PayMix::CashOnly);
    cash.insurance.as_mut().expect("has it").pay_auth_no = "AUTH".into();
    assert_eq!(refused(&rig, cash).await.reason(), "INVALID_REQUEST");
    assert_eq!(rig.assert_sound().await, 0);
}

impl Rig {
    /// The citizen pays, and the legs end so.
    async fn pay_mixed(&self, order: &pb::Order, cash: LegEnd, insurance: LegEnd) {
        let mix_trade_no = order.pay_sheet.clone().expect("a sheet").jsapi.get("mix_trade_no").cloned();
        assert!(mix_trade_no.is_some(), "the client needs it");
        let pay = sandbox::Pay { mix_trade_no, cash, insurance, ..sandbox::Pay::default() };
        self.sandbox.pay(&pay).await.expect("pays");
    }

    async fn paid_mixed(&self, request_id: &str, mix: PayMix) -> pb::Order {
        let order = self.create(mixed(request_id, mix)).await.expect("creates");
        self.pay_mixed(&order, LegEnd::Success, LegEnd::Success).await;
        self.in_state(&order.order_id, OrderState::Paid).await
    }

    /// What the channel owes, and what the insurance owes.
    async fn owed(&self) -> (i64, i64) {
        let mut owed = Vec::new();
        for account in [format!("channel/wechatpay/{CHANGSHA}"), format!("insurance/{INSTITUTION}")] {
            let request = pb::GetAccountRequest { account };
            let told = self.operators.clone().get_account(request).await;
            owed.push(told.map_or(0, |told| told.get_ref().debit_minor - told.get_ref().credit_minor));
        }
        (owed[0], owed[1])
    }
}

/// What each leg of `mix` asks, in the order of the contract.
fn asked(mix: PayMix) -> Vec<(pb::LegKind, i64)> {
    use pb::LegKind::{Cash, Government, Other, Personal};
    let legs = [(Cash, CASH), (Government, FUNDS[0]), (Personal, FUNDS[1]), (Other, FUNDS[2])];
    let has = |leg: pb::LegKind| match mix {
        PayMix::CashOnly => leg == Cash,
        PayMix::InsuranceOnly => leg != Cash,
        _ => true,
    };
    legs.into_iter().filter(|(leg, _)| has(*leg)).collect()
}

fn in_all(mix: PayMix) -> (i64, i64) {
    let of = |is_cash: bool| {
        asked(mix).iter().filter(|(leg, _)| (*leg == pb::LegKind::Cash) == is_cash).map(|(_, minor)| minor).sum()
    };
    (of(true), of(false))
}

fn legs(cash_minor: i64, government_minor: i64, personal_minor: i64, other_minor: i64) -> pb::RefundLegs {
    pb::RefundLegs { cash_minor, government_minor, personal_minor, other_minor }
}

fn back(request_id: &str, order: &pb::Order, legs: pb::RefundLegs) -> pb::RefundRequest {
    let insurance = legs.government_minor + legs.personal_minor + legs.other_minor;
    pb::RefundRequest {
        legs: Some(legs),
        insurance_return_time: (insurance > 0).then(|| in_seconds(-1)),
        ..refund(request_id, order, legs.cash_minor + insurance)
    }
}

async fn every_mix_is_paid_whole_and_posted(engine: Engine) {
    for mix in [PayMix::CashAndInsurance, PayMix::CashOnly, PayMix::InsuranceOnly] {
        let rig = Rig::new(engine).await;
        let order = rig.create(mixed("m", mix)).await.expect("creates");
        let told: Vec<_> =
            order.legs.iter().map(|leg| (leg.leg(), leg.asked.clone().expect("asks").amount_minor)).collect();
        assert_eq!((order.pay_mix(), told, order.institution_no.as_str()), (mix, asked(mix), INSTITUTION));
        assert!(order.legs.iter().all(|leg| leg.state() == pb::LegState::Pending));
        assert_eq!(rig.create(mixed("m", mix)).await.expect("answers"), order, "for ever");
        rig.pay_mixed(&order, LegEnd::Success, LegEnd::Success).await;
        let paid = rig.in_state(&order.order_id, OrderState::Paid).await;
        assert!(paid.legs.iter().all(|leg| leg.state() == pb::LegState::Paid));
        let (cash, insurance) = in_all(mix);
        assert_eq!(rig.owed().await, (cash, insurance));
        assert_eq!(rig.balance(&format!("suspense/{}", order.order_id)).await, (0, cash + insurance));
        assert_eq!(rig.assert_sound().await, 0);
        let posted = rig.post("p", &order.order_id).await.expect("posts");
        assert_eq!(posted.state(), OrderState::Posted);
        assert_eq!(rig.balance("payee/traffic-430100").await, (0, cash + insurance));
        if cash > 0 {
            rig.assert_held().await;
        } else {
            // Nothing of it was at the channel, so that there are no books of it to hold against ours.
            assert_eq!(rig.assert_sound().await, 0);
        }
    }
}

async fn a_leg_that_waits_keeps_the_whole_waiting(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.create(mixed("m", PayMix::CashAndInsurance)).await.expect("creates");
    rig.pay_mixed(&order, LegEnd::Success, LegEnd::Wait).await;
    // The channel has told of the cash leg, and was asked about the whole since.
    let request = pb::RefreshOrderRequest { order_id: order.order_id.clone() };
    let told = rig.client.clone().refresh_order(request).await.expect("asks").into_inner().order.expect("an order");
    assert_eq!(told.state(), OrderState::Waiting, "a half is not booked");
    assert_eq!(rig.owed().await, (0, 0));
    rig.assert_sound().await;
    rig.pay_mixed(&order, LegEnd::Success, LegEnd::Success).await;
    rig.in_state(&order.order_id, OrderState::Paid).await;
    rig.assert_held().await;
}

async fn each_leg_goes_back_in_parts_and_never_more_than_came_on_it(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.paid_mixed("m", PayMix::CashAndInsurance).await;
    let cash = rig.refund(back("c", &order, legs(12_000, 0, 0, 0))).await.expect("accepts");
    let insurance = rig.refund(back("i", &order, legs(0, 60_000, 45_000, 0))).await.expect("accepts");
    for (request, leg, asked, rest) in [
        (back("x1", &order, legs(30_001, 0, 0, 0)), "cash", "30001", "30000"),
        (back("x2", &order, legs(0, 40_001, 0, 0)), "government", "40001", "40000"),
        (back("x3", &order, legs(1, 0, 1, 0)), "personal", "1", "0"),
        (back("x4", &order, legs(0, 0, 0, 5_001)), "other", "5001", "5000"),
    ] {
        let fault = rig.refund(request).await.expect_err("refused");
        let told = (fault.metadata("leg"), fault.metadata("askedMinor"), fault.metadata("restMinor"));
        assert_eq!((fault.reason(), fault.effect()), ("REFUND_EXCEEDS_LEG", Effect::None));
        assert_eq!(told, (Some(leg), Some(asked), Some(rest)));
    }
    for refund in [&cash, &insurance] {
        let done = rig.refund_in_state(&refund.refund_id, RefundState::Succeeded).await;
        assert_eq!(done.returned, done.legs);
    }
    rig.in_state(&order.order_id, OrderState::Paid).await;
    assert_eq!(rig.owed().await, (30_000, 45_000));
    rig.assert_sound().await;
    // Both legs under one number; the answer to what is told of the insurance's is lost once.
    rig.stage(Operation::MixedReturn, Fault::DropAfter, None);
    let rest = rig.refund(back("rest", &order, legs(30_000, 40_000, 0, 5_000))).await.expect("accepts");
    rig.refund_in_state(&rest.refund_id, RefundState::Succeeded).await;
    let over = rig.in_state(&order.order_id, OrderState::Refunded).await;
    let refunded: Vec<_> = over.legs.iter().map(|leg| leg.refunded.clone().expect("is told").amount_minor).collect();
    assert_eq!(refunded, [CASH, FUNDS[0], FUNDS[1], FUNDS[2]]);
    assert_eq!(rig.owed().await, (0, 0));
    rig.assert_held().await;
}

async fn what_came_of_a_half_goes_back_by_itself(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.create(mixed("m", PayMix::CashAndInsurance)).await.expect("creates");
    rig.pay_mixed(&order, LegEnd::Success, LegEnd::Fail).await;
    let over = rig.in_state(&order.order_id, OrderState::Refunded).await;
    let states: Vec<_> = over.legs.iter().map(pb::OrderLeg::state).collect();
    let (paid, failed) = (pb::LegState::Paid, pb::LegState::Failed);
    assert_eq!(states, [paid, failed, failed, failed]);
    assert_eq!(rig.owed().await, (0, 0));
    assert_eq!(rig.post("p", &order.order_id).await.expect_err("it was never paid").reason(), "ORDER_REFUNDING");
    let kinds: Vec<_> = rig.events(0, 0).await.iter().map(pb::Event::kind).collect();
    assert_eq!(kinds, [pb::EventKind::OrderClosed, pb::EventKind::RefundSucceeded]);
    let alone = rig.create(mixed("n", PayMix::CashAndInsurance)).await.expect("creates");
    rig.pay_mixed(&alone, LegEnd::Fail, LegEnd::Success).await;
    rig.in_state(&alone.order_id, OrderState::Closed).await;
    assert_eq!(rig.owed().await, (0, 0), "what insurance paid never was here");
    rig.assert_held().await;
}

async fn every_bad_answer_to_the_whole_ends_with_one_order(engine: Engine) {
    let rig = Rig::new(engine).await;
    for (number, fault) in [Fault::DropBefore, Fault::DropAfter, Fault::GarbleCut].into_iter().enumerate() {
        rig.stage(Operation::MixedOrder, fault, None);
        let order = rig.create_at_last(&mixed(&format!("m{number}"), PayMix::CashAndInsurance)).await;
        assert_eq!(order.state(), OrderState::Waiting, "{fault:?}");
        rig.pay_mixed(&order, LegEnd::Success, LegEnd::Success).await;
        rig.in_state(&order.order_id, OrderState::Paid).await;
    }
    rig.assert_held().await;
}

async fn closing_the_cash_leg_closes_the_whole(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.create(mixed("m", PayMix::CashAndInsurance)).await.expect("creates");
    assert_eq!(rig.close("c", &order.order_id).await.state(), OrderState::Closed);
    let told = rig.order(&order.order_id).await;
    assert!(told.legs.iter().all(|leg| leg.state() == pb::LegState::Failed));
    rig.assert_held().await;
}

async fn a_restart_forgets_nothing(engine: Engine) {
    let mut rig = Rig::new(engine).await;
    let order = rig.create(mixed("m", PayMix::CashAndInsurance)).await.expect("creates");
    rig.restart().await;
    rig.pay_mixed(&order, LegEnd::Success, LegEnd::Success).await;
    let order = rig.in_state(&order.order_id, OrderState::Paid).await;
    let asked = rig.refund(back("f", &order, legs(1_000, 1_000, 0, 0))).await.expect("accepts");
    rig.restart().await;
    rig.refund_in_state(&asked.refund_id, RefundState::Succeeded).await;
    rig.assert_held().await;
}
