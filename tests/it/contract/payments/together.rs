//! Combined orders through the contract: one payment for two departments, each of which has an order of its own.

use contracts::payments::v1 as pb;
use invariants::Deed;
use pb::{EventKind, OrderState, RefundState};
use rpc::{Effect, RemoteFault};
use runtime::config::Duration as Span;
use sandbox::{Fault, Operation};

use super::on_each_engine;
use super::rig::{AMOUNT, CHANGSHA, Engine, OTHERS, Rig, STRANGER, in_seconds, jsapi, money, native, refund, until};

on_each_engine!(
    one_payment_pays_two_departments_and_each_goes_its_own_way,
    every_way_to_pay_pays_all_parts,
    callbacks_lost_doubled_late_and_forged_book_once,
    every_bad_answer_to_a_creation_ends_with_one_combined_order,
    closing_a_part_closes_all_through_bad_answers,
    money_that_comes_after_the_closing_is_late_for_every_part,
    what_nobody_pays_is_closed_at_its_end,
    fifty_at_once_are_one_combined_order,
    a_key_is_not_reused_and_nothing_is_half_made,
    what_is_wrong_with_a_part_is_named,
    a_restart_forgets_nothing,
);

/// What the part of another department costs.
const OTHER: i64 = 5_000;
/// The number that a part has among them, from 0, and what it costs.
const AMOUNTS: [i64; 2] = [AMOUNT, OTHER];

/// One order for Changsha and one for Taiyuan, paid inside the app.
fn together(request_id: &str) -> pb::CreateCombinedOrderRequest {
    let part = |number: usize, alone: pb::CreateOrderRequest| pb::CombinedPart {
        request_id: alone.request_id,
        case_id: alone.case_id,
        payee_id: alone.payee_id,
        amount: money(AMOUNTS[number]),
        description: alone.description,
        payment_code: alone.payment_code,
    };
    let alone = jsapi(request_id);
    pb::CreateCombinedOrderRequest {
        request_id: request_id.into(),
        channel: alone.channel,
        trade_type: alone.trade_type,
        entry_point: alone.entry_point,
        payer_reference: alone.payer_reference,
        expire_time: alone.expire_time,
        parts: vec![part(0, jsapi(&format!("{request_id}-0"))), part(1, native(&format!("{request_id}-1")))],
    }
}

impl Rig {
    async fn combine(&self, request: pb::CreateCombinedOrderRequest) -> Result<pb::CombinedOrder, RemoteFault> {
        let names: Vec<_> = request.parts.iter().map(|part| part.request_id.clone()).collect();
        let answer = self.client.clone().create_combined_order(request).await;
        let answer =
            answer.map(|answer| answer.into_inner().combined_order.expect("an order")).map_err(RemoteFault::from);
        for (number, name) in names.into_iter().enumerate() {
            let part = answer.as_ref().map(|combined| combined.parts[number].order_id.clone());
            self.note(Deed::Order, name, part);
        }
        answer
    }

    async fn combine_at_last(&self, request: &pb::CreateCombinedOrderRequest) -> pb::CombinedOrder {
        until("a combined order", async || match self.combine(request.clone()).await {
            Ok(combined) => Some(combined),
            Err(fault) => {
                assert_eq!((fault.reason(), fault.effect()), ("CHANNEL_UNAVAILABLE", Effect::Possible));
                None
            }
        })
        .await
    }

    /// The citizen pays all of it.
    async fn pay_together(&self, combined: &pb::CombinedOrder) {
        let sheet = combined.pay_sheet.clone().expect("a sheet");
        let field = |name: &str| sheet.jsapi.get(name).map(|text| text.trim_start_matches("prepay_id=").to_owned());
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let pay = sandbox::Pay {
            prepay_id: field("prepayid").or_else(|| field("package")),
            code_url: given(&sheet.code_url),
            h5_url: given(&sheet.page_url),
            ..sandbox::Pay::default()
        };
        self.sandbox.pay(&pay).await.expect("pays");
    }

    async fn all_in_state(&self, combined: &pb::CombinedOrder, state: OrderState) -> Vec<pb::Order> {
        let parts = combined.parts.iter().map(|part| self.in_state(&part.order_id, state));
        futures::future::join_all(parts).await
    }

    async fn kinds(&self) -> Vec<EventKind> {
        self.events(0, 0).await.iter().map(pb::Event::kind).collect()
    }
}

/// Whether a refusal says in its details what it is about.
fn names(status: &tonic::Status, what: &str) -> bool {
    String::from_utf8_lossy(status.details()).contains(what)
}

fn in_alipay(asked: &mut pb::CreateCombinedOrderRequest) {
    (asked.channel, asked.entry_point) = ("alipay".into(), "alipay".into());
    on_a_desk(asked);
}

fn on_a_desk(asked: &mut pb::CreateCombinedOrderRequest) {
    asked.trade_type = pb::TradeType::Web.into();
    asked.payer_reference = String::new();
}

/// When the capture of each part was committed.
async fn captured_at(rig: &Rig, combined: &pb::CombinedOrder) -> Vec<Option<prost_types::Timestamp>> {
    let mut times = Vec::new();
    for part in &combined.parts {
        let request = pb::ListTransfersRequest { order_id: part.order_id.clone(), ..Default::default() };
        let transfers = rig.operators.clone().list_transfers(request).await.expect("lists").into_inner().transfers;
        let capture = transfers.iter().find(|transfer| transfer.transfer_id.ends_with("/capture"));
        times.push(capture.expect("a capture").commit_time);
    }
    times
}

async fn one_payment_pays_two_departments_and_each_goes_its_own_way(engine: Engine) {
    let rig = Rig::new(engine).await;
    let combined = rig.combine(together("w")).await.expect("creates");
    assert!(combined.combined_order_id.starts_with("cmb_") && combined.channel_order_no.len() == 32);
    for (number, part) in combined.parts.iter().enumerate() {
        assert_eq!((part.state(), part.amount.clone()), (OrderState::Waiting, money(AMOUNTS[number])));
        assert_eq!(part.combined_order_id, combined.combined_order_id);
        assert_eq!((part.part_number as usize, part.pay_sheet.is_none()), (number + 1, true));
        let by_request = pb::GetOrderRequest { order_id: String::new(), request_id: format!("w-{number}") };
        let found =
            rig.client.clone().get_order(by_request).await.expect("found").into_inner().order.expect("an order");
        assert_eq!((&found.order_id, &found.pay_sheet), (&part.order_id, &combined.pay_sheet));
    }
    assert_eq!((rig.journalled("combine_created"), rig.journalled("order_created")), (1, 0));

    rig.pay_together(&combined).await;
    let paid = rig.all_in_state(&combined, OrderState::Paid).await;
    assert_ne!(
        paid[0].channel_transaction, paid[1].channel_transaction,
        "each has a payment of its own at the channel"
    );
    let times = captured_at(&rig, &combined).await;
    assert!(times[0].is_some() && times[0] == times[1], "booked in one transaction: {times:?}");
    assert_eq!(rig.kinds().await, [EventKind::OrderPaid; 2]);
    for (mchid, amount) in [(CHANGSHA, AMOUNT), (OTHERS, OTHER)] {
        assert_eq!(rig.balance(&format!("channel/wechatpay/{mchid}")).await, (amount, 0));
    }
    assert_eq!(rig.combine(together("w")).await.expect("answers"), combined, "for ever");

    // The first department refuses: its money goes back. The second has done it: the money is its own.
    let back = rig.refund(refund("f", &paid[0], AMOUNT)).await.expect("accepts");
    let other = rig.refund(refund("g", &paid[1], AMOUNT)).await.expect_err("more than this part has");
    assert_eq!(other.reason(), "REFUND_EXCEEDS_CAPTURE");
    rig.post("p", &paid[1].order_id).await.expect("posts");
    rig.refund_in_state(&back.refund_id, RefundState::Succeeded).await;
    rig.in_state(&paid[0].order_id, OrderState::Refunded).await;
    assert_eq!(rig.order(&paid[1].order_id).await.state(), OrderState::Posted);
    assert_eq!(rig.balance("payee/traffic-140100").await, (0, OTHER));
    assert_eq!(rig.balance(&format!("channel/wechatpay/{CHANGSHA}")).await, (AMOUNT, AMOUNT));
    rig.assert_held().await;
}

async fn every_way_to_pay_pays_all_parts(engine: Engine) {
    let rig = Rig::new(engine).await;
    for (trade_type, payer) in
        [(pb::TradeType::Native, ""), (pb::TradeType::App, ""), (pb::TradeType::H5, "203.0.113.7")]
    {
        let name = trade_type.as_str_name();
        let request = pb::CreateCombinedOrderRequest {
            trade_type: trade_type.into(),
            payer_reference: payer.into(),
            ..together(name)
        };
        let combined = rig.combine(request).await.expect("creates");
        rig.pay_together(&combined).await;
        rig.all_in_state(&combined, OrderState::Paid).await;
    }
    rig.assert_held().await;
}

async fn callbacks_lost_doubled_late_and_forged_book_once(engine: Engine) {
    let rig = Rig::new(engine).await;
    let faults = [Fault::Lost, Fault::Doubled, Fault::Forged, Fault::WrongSerial, Fault::Probe, Fault::Late];
    for fault in faults {
        let delay = (fault == Fault::Late).then(|| Span::from_secs(1));
        rig.stage(Operation::Notify, fault, delay);
        let combined = rig.combine(together(&format!("{fault:?}"))).await.expect("creates");
        rig.pay_together(&combined).await;
        rig.all_in_state(&combined, OrderState::Paid).await;
        let times = captured_at(&rig, &combined).await;
        assert_eq!(times[0], times[1], "{fault:?}: booked in one transaction, whoever tells");
    }
    assert_eq!(rig.kinds().await, [EventKind::OrderPaid; 12]);
    rig.assert_held().await;
}

async fn every_bad_answer_to_a_creation_ends_with_one_combined_order(engine: Engine) {
    let rig = Rig::new(engine).await;
    let faults = [
        Fault::ErrorAfter,
        Fault::ErrorBefore,
        Fault::Busy,
        Fault::Hang,
        Fault::DropAfter,
        Fault::DropBefore,
        Fault::GarbleValue,
        Fault::GarbleCut,
        Fault::Unsigned,
        Fault::BadSignature,
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        rig.stage(Operation::Order, fault, None);
        let request = together(&format!("{fault:?}"));
        let first = rig.combine(request.clone()).await.expect_err("no usable answer");
        assert_eq!((first.reason(), first.effect()), ("CHANNEL_UNAVAILABLE", Effect::Possible), "{fault:?}");
        let combined = rig.combine_at_last(&request).await;
        assert_eq!(rig.journalled("combine_created"), number + 1, "{fault:?}: one there");
        rig.stage(Operation::Query, fault, None);
        rig.stage(Operation::Notify, Fault::Lost, None);
        rig.pay_together(&combined).await;
        rig.all_in_state(&combined, OrderState::Paid).await;
        rig.sandbox.faults().clear();
    }
    rig.assert_held().await;
}

async fn closing_a_part_closes_all_through_bad_answers(engine: Engine) {
    let rig = Rig::new(engine).await;
    let faults =
        [None, Some(Fault::DropAfter), Some(Fault::DropBefore), Some(Fault::ErrorAfter), Some(Fault::BadSignature)];
    for (number, fault) in faults.into_iter().enumerate() {
        let combined = rig.combine(together(&format!("w{number}"))).await.expect("creates");
        if let Some(fault) = fault {
            rig.stage(Operation::Close, fault, None);
            rig.stage(Operation::Query, fault, None);
        }
        let (close, part) = (format!("c{number}"), &combined.parts[1].order_id);
        let closed = until("closed", async || {
            Some(rig.close(&close, part).await).filter(|order| order.state() == OrderState::Closed)
        });
        let closed = closed.await;
        assert_eq!(rig.close(&close, part).await, closed, "{fault:?}: the final answer is kept");
        assert_eq!(rig.order(&combined.parts[0].order_id).await.state(), OrderState::Closed, "{fault:?}");
        rig.sandbox.faults().clear();
    }
    assert_eq!((rig.journalled("combine_closed"), rig.journalled("order_closed")), (5, 0));
    assert_eq!(rig.kinds().await, [EventKind::OrderClosed; 10]);
    // Paid first: then closing says so, of every part.
    let combined = rig.combine(together("paid")).await.expect("creates");
    rig.stage(Operation::Notify, Fault::Lost, None);
    rig.pay_together(&combined).await;
    assert_eq!(rig.close("c", &combined.parts[0].order_id).await.state(), OrderState::Paid);
    rig.all_in_state(&combined, OrderState::Paid).await;
    rig.assert_held().await;
}

async fn money_that_comes_after_the_closing_is_late_for_every_part(engine: Engine) {
    let rig = Rig::new(engine).await;
    let combined = rig.combine(together("w")).await.expect("creates");
    assert_eq!(rig.close("c", &combined.parts[0].order_id).await.state(), OrderState::Closed);
    let pay = sandbox::Pay {
        out_trade_no: Some(combined.parts[0].channel_order_no.clone()),
        mchid: Some(CHANGSHA.into()),
        although_closed: true,
        ..sandbox::Pay::default()
    };
    rig.sandbox.pay(&pay).await.expect("pays");
    for part in &combined.parts {
        until("late money", async || Some(rig.order(&part.order_id).await).filter(|order| order.late_money)).await;
    }
    let kinds = [EventKind::OrderClosed, EventKind::OrderClosed, EventKind::LateMoney, EventKind::LateMoney];
    assert_eq!(rig.kinds().await, kinds);
    for (number, part) in combined.parts.iter().enumerate() {
        let back = rig.refund(refund(&format!("f{number}"), part, AMOUNTS[number])).await.expect("accepts");
        rig.refund_in_state(&back.refund_id, RefundState::Succeeded).await;
        rig.in_state(&part.order_id, OrderState::Refunded).await;
    }
    rig.assert_held().await;
}

async fn what_nobody_pays_is_closed_at_its_end(engine: Engine) {
    let rig = Rig::new(engine).await;
    let now = runtime::Clock::system().now().seconds_nanos().0;
    let end = prost_types::Timestamp { seconds: now + 3, nanos: 0 };
    let request = pb::CreateCombinedOrderRequest { expire_time: Some(end), ..together("w") };
    let combined = rig.combine(request).await.expect("creates");
    rig.all_in_state(&combined, OrderState::Closed).await;
    rig.assert_held().await;
}

async fn fifty_at_once_are_one_combined_order(engine: Engine) {
    let rig = Rig::new(engine).await;
    let answers = futures::future::join_all((0..50).map(|_| rig.combine(together("same")))).await;
    let first = answers[0].as_ref().expect("creates");
    assert!(answers.iter().all(|answer| answer.as_ref().expect("answers") == first));
    assert_eq!(rig.journalled("combine_created"), 1);
    rig.pay_together(first).await;
    rig.all_in_state(first, OrderState::Paid).await;
    rig.assert_held().await;
}

async fn a_key_is_not_reused_and_nothing_is_half_made(engine: Engine) {
    let rig = Rig::new(engine).await;
    rig.combine(together("w")).await.expect("creates");
    rig.create(jsapi("alone")).await.expect("creates");
    let reused = async |request: pb::CreateCombinedOrderRequest| {
        let status = rig.client.clone().create_combined_order(request).await.expect_err("refused");
        let fault = RemoteFault::from(&status);
        assert_eq!((fault.domain(), fault.reason()), ("common.lastmile", "REQUEST_ID_REUSED"));
        assert_eq!(fault.effect(), Effect::None);
        names(&status, "parts[1].request_id")
    };
    let mut other = together("w");
    other.parts[0].amount = money(1);
    assert!(!reused(other).await, "it is of all of it");
    for taken in ["w-0", "alone"] {
        let mut other = together("v");
        other.parts[1].request_id = taken.into();
        assert!(reused(other).await, "{taken}");
    }
    let part = rig.client.clone().create_order(jsapi("w-0")).await.expect_err("it is a part's");
    assert_eq!(RemoteFault::from(&part).reason(), "REQUEST_ID_REUSED");
    assert_eq!(rig.journalled("combine_created"), 1);
    let report = payments::audit::check(&rig.db).await.expect("reads");
    assert!(report.is_sound() && report.orders == 3, "{report:?}");
    rig.combine(together("v")).await.expect("the keys of what was refused are free");
    rig.assert_sound().await;
}

async fn what_is_wrong_with_a_part_is_named(engine: Engine) {
    let rig = Rig::new(engine).await;
    let refused = async |spoil: fn(&mut pb::CreateCombinedOrderRequest)| {
        let mut request = together("w");
        spoil(&mut request);
        let status = rig.client.clone().create_combined_order(request).await.expect_err("refused");
        assert_eq!(RemoteFault::from(&status).effect(), Effect::None);
        status
    };
    let reason = |status: &tonic::Status| RemoteFault::from(status).reason().to_owned();
    let payee = refused(|asked| asked.parts[1].payee_id = "traffic-999999".into()).await;
    assert!(reason(&payee) == "PAYEE_UNKNOWN" && names(&payee, "parts[1].payee_id"), "{payee:?}");
    let stranger = refused(|asked| asked.entry_point = "weibo".into()).await;
    assert!(reason(&stranger) == "MERCHANT_UNKNOWN" && names(&stranger, "parts[0].payee_id"), "{stranger:?}");
    // At this entry point only the first department's account is of another app.
    let apart = refused(|asked| asked.entry_point = STRANGER.into()).await;
    assert!(reason(&apart) == "PARTS_APART" && names(&apart, "parts[1].payee_id"), "{apart:?}");
    // Alipay combines nothing, and WeChat Pay nothing on a desk.
    for spoil in [in_alipay, on_a_desk] {
        assert_eq!(reason(&refused(spoil).await), "CHANNEL_NOT_OFFERED");
    }
    let invalid = async |spoil: fn(&mut pb::CreateCombinedOrderRequest)| {
        let fault = RemoteFault::from(&refused(spoil).await);
        assert_eq!(fault.reason(), "INVALID_REQUEST");
        fault.violations().iter().map(|violation| violation.field.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(invalid(|asked| drop(asked.parts.pop())).await, "parts");
    assert!(invalid(|asked| asked.parts = vec![asked.parts[0].clone(); 51]).await.starts_with("parts "));
    let twice = invalid(|asked| asked.parts[1].request_id = asked.parts[0].request_id.clone());
    assert_eq!(twice.await, "parts[1].request_id");
    let several = invalid(|asked| {
        asked.parts[0].case_id = "case".into();
        asked.parts[0].amount = money(0);
        asked.parts[1].description = "a\nb".into();
        asked.payer_reference = String::new();
    });
    let fields = "parts[0].case_id parts[0].amount.amount_minor payer_reference parts[1].description";
    assert_eq!(several.await, fields);
    assert_eq!(invalid(|asked| asked.parts[1].description = "x".repeat(128)).await, "parts[1].description");
    assert_eq!(invalid(|asked| asked.parts[1].payment_code = "1".repeat(20)).await, "parts[1].payment_code");
    assert_eq!(invalid(|asked| asked.expire_time = Some(in_seconds(-60))).await, "expire_time");
    assert_eq!(invalid(|asked| *asked = Default::default()).await, "request_id parts");
    assert_eq!(rig.journalled("combine_created"), 0);
    rig.combine(together("w")).await.expect("every key is still free");
    rig.assert_sound().await;
}

async fn a_restart_forgets_nothing(engine: Engine) {
    let mut rig = Rig::new(engine).await;
    rig.stage_times(Operation::Order, Fault::DropAfter, 1);
    rig.combine(together("w")).await.expect_err("no answer");
    rig.restart().await;
    let combined = rig.combine_at_last(&together("w")).await;
    rig.stage(Operation::Notify, Fault::Lost, None);
    rig.pay_together(&combined).await;
    rig.restart().await;
    rig.all_in_state(&combined, OrderState::Paid).await;
    assert_eq!(rig.combine(together("w")).await.expect("answers"), combined);
    rig.assert_held().await;
}
