//! What becomes of orders when everything works.

use contracts::payments::v1 as pb;
use pb::{EventKind, OrderState, RefundState};

use super::on_each_engine;
use super::rig::{AMOUNT, APP, CHANGSHA, Engine, OTHERS, Rig, jsapi, native, refund, until};

on_each_engine!(
    an_order_is_paid_and_posted,
    a_qr_code_is_paid_under_platform_certificates,
    an_order_is_paid_in_a_native_app_and_in_a_phones_browser,
    an_order_is_closed_and_stays_closed,
    money_goes_back_in_parts,
    a_restart_forgets_nothing,
);

async fn an_order_is_paid_and_posted(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.create(jsapi("r1")).await.expect("creates");
    assert_eq!((order.state(), order.channel_order_no.len()), (OrderState::Waiting, 32));
    let sheet = order.pay_sheet.clone().expect("a sheet");
    assert_eq!(sheet.trade_type(), pb::TradeType::Jsapi);
    assert_sheet_is_signed(&sheet, &rig.certificate(CHANGSHA));

    let waiting = {
        let rig = &rig;
        async move { rig.events(0, 15_000).await }
    };
    let (events, transaction) = tokio::join!(waiting, rig.pay(&order, CHANGSHA));
    assert_eq!(events.iter().map(pb::Event::kind).collect::<Vec<_>>(), [EventKind::OrderPaid]);
    let event = &events[0];
    assert_eq!((event.sequence, &event.case_id, &event.order_id), (1, &order.case_id, &order.order_id));
    assert!(event.commit_time.is_some() && event.refund_id.is_empty());

    let paid = rig.order(&order.order_id).await;
    assert_eq!((paid.state(), paid.channel_transaction.as_str()), (OrderState::Paid, transaction.as_str()));
    assert!(paid.paid_time.is_some() && paid.pay_sheet.is_none());
    let suspense = format!("suspense/{}", order.order_id);
    assert_eq!(rig.balance(&suspense).await, (0, AMOUNT));
    assert_eq!(rig.balance(&format!("channel/wechatpay/{CHANGSHA}")).await, (AMOUNT, 0));

    let posted = rig.post("p1", &order.order_id).await.expect("posts");
    assert_eq!(posted.state(), OrderState::Posted);
    assert_eq!(rig.balance(&suspense).await, (AMOUNT, AMOUNT));
    assert_eq!(rig.balance("payee/traffic-430100").await, (0, AMOUNT));
    assert_eq!(rig.events(1, 0).await.iter().map(pb::Event::kind).collect::<Vec<_>>(), [EventKind::OrderPosted]);
    assert_eq!(rig.assert_sound().await, 0);
}

/// What the super app is handed must verify under the merchant's certificate, or it will not pay.
fn assert_sheet_is_signed(sheet: &pb::PaySheet, certificate: &str) {
    let field = |name: &str| sheet.jsapi.get(name).unwrap_or_else(|| panic!("{name} is missing")).as_str();
    assert_eq!(field("signType"), "RSA");
    assert!(field("package").starts_with("prepay_id=wx"));
    let message = format!("{}\n{}\n{}\n{}\n", field("appId"), field("timeStamp"), field("nonceStr"), field("package"));
    assert_signed(&message, field("paySign"), certificate);
}

fn assert_signed(message: &str, signature: &str, certificate: &str) {
    use base64::Engine as _;
    let signature = base64::engine::general_purpose::STANDARD.decode(signature).expect("base64");
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).expect("PEM");
    let certificate = pem.parse_x509().expect("a certificate");
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
        certificate.public_key().raw,
    );
    key.verify(message.as_bytes(), &signature).expect("the sheet's signature is the merchant's");
}

async fn a_qr_code_is_paid_under_platform_certificates(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.create(native("r1")).await.expect("creates");
    let code_url = order.pay_sheet.clone().expect("a sheet").code_url;
    let pay = sandbox::Pay { code_url: Some(code_url), ..sandbox::Pay::default() };
    rig.sandbox.pay(&pay).await.expect("pays");
    rig.in_state(&order.order_id, OrderState::Paid).await;
    assert_eq!(rig.balance(&format!("channel/wechatpay/{OTHERS}")).await, (AMOUNT, 0));
    assert_eq!(rig.assert_sound().await, 0);
}

async fn an_order_is_paid_in_a_native_app_and_in_a_phones_browser(engine: Engine) {
    let rig = Rig::new(engine).await;
    let of = |request_id: &str, trade_type: pb::TradeType, payer: &str| pb::CreateOrderRequest {
        trade_type: trade_type.into(),
        payer_reference: payer.into(),
        ..jsapi(request_id)
    };
    let order = rig.create(of("r1", pb::TradeType::App, "")).await.expect("creates");
    let sheet = order.pay_sheet.clone().expect("a sheet");
    let field = |name: &str| sheet.jsapi[name].as_str();
    assert_eq!((field("appid"), field("partnerid"), field("package")), (APP, CHANGSHA, "Sign=WXPay"));
    let message = format!("{}\n{}\n{}\n{}\n", field("appid"), field("timestamp"), field("noncestr"), field("prepayid"));
    assert_signed(&message, field("sign"), &rig.certificate(CHANGSHA));
    let pay = sandbox::Pay { prepay_id: Some(field("prepayid").into()), ..sandbox::Pay::default() };
    rig.sandbox.pay(&pay).await.expect("pays");
    rig.in_state(&order.order_id, OrderState::Paid).await;

    let refused = rig.create(of("r2", pb::TradeType::H5, "")).await.expect_err("WeChat must know the address");
    assert_eq!(refused.reason(), "INVALID_REQUEST");
    let order = rig.create(of("r3", pb::TradeType::H5, "2001:db8::7")).await.expect("creates");
    let sheet = order.pay_sheet.clone().expect("a sheet");
    assert!(sheet.jsapi.is_empty() && sheet.code_url.is_empty() && sheet.page_url.starts_with("https://"), "{sheet:?}");
    let life = sheet.expire_time.expect("an end").seconds - runtime::Clock::system().now().seconds_nanos().0;
    assert!(life <= 300, "the address works for five minutes");
    let pay = sandbox::Pay { h5_url: Some(sheet.page_url), ..sandbox::Pay::default() };
    rig.sandbox.pay(&pay).await.expect("pays");
    rig.in_state(&order.order_id, OrderState::Paid).await;
    assert_eq!(rig.assert_sound().await, 0);
}

async fn an_order_is_closed_and_stays_closed(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.create(jsapi("r1")).await.expect("creates");
    let closed = rig.close("c1", &order.order_id).await;
    assert_eq!((closed.state(), closed.pay_sheet.is_none()), (OrderState::Closed, true));
    assert_eq!(rig.close("c1", &order.order_id).await, closed);
    assert_eq!(rig.journalled("order_closed"), 1);
    let request = pb::RefreshOrderRequest { order_id: order.order_id.clone() };
    let refreshed = rig.client.clone().refresh_order(request).await.expect("asks").into_inner().order;
    assert_eq!(refreshed, Some(closed));
    assert_eq!(rig.events(0, 0).await.iter().map(pb::Event::kind).collect::<Vec<_>>(), [EventKind::OrderClosed]);
    // The creation's answer stays what it was.
    assert_eq!(rig.create(jsapi("r1")).await.expect("answers"), order);
    // Paid first: then closing says so.
    let order = rig.create(jsapi("r2")).await.expect("creates");
    rig.pay(&order, CHANGSHA).await;
    assert_eq!(rig.close("c2", &order.order_id).await.state(), OrderState::Paid);
    assert_eq!(rig.assert_sound().await, 0);
}

async fn money_goes_back_in_parts(engine: Engine) {
    let rig = Rig::new(engine).await;
    let order = rig.paid(jsapi("r1")).await;
    let first = rig.refund(refund("f1", &order, AMOUNT / 4)).await.expect("accepts");
    assert_eq!(first.state(), RefundState::Requested);
    let too_much = rig.refund(refund("f2", &order, AMOUNT)).await.expect_err("refused");
    assert_eq!((too_much.reason(), too_much.metadata("refundedMinor")), ("REFUND_EXCEEDS_CAPTURE", Some("5000")));
    let done = rig.refund_in_state(&first.refund_id, RefundState::Succeeded).await;
    assert!(done.success_time.is_some() && !done.channel_refund.is_empty());
    assert_eq!(rig.order(&order.order_id).await.refunded.map(|money| money.amount_minor), Some(AMOUNT / 4));
    let second = rig.refund(refund("f3", &order, AMOUNT * 3 / 4)).await.expect("accepts");
    rig.refund_in_state(&second.refund_id, RefundState::Succeeded).await;
    rig.in_state(&order.order_id, OrderState::Refunded).await;
    assert_eq!(rig.post("p1", &order.order_id).await.expect_err("refused").reason(), "ORDER_REFUNDING");
    assert_eq!(rig.refund(refund("f1", &order, AMOUNT / 4)).await.expect("answers"), first, "for ever");
    let merchant = format!("channel/wechatpay/{CHANGSHA}");
    assert_eq!(rig.balance(&merchant).await, (AMOUNT, AMOUNT));
    assert_eq!(rig.journalled("refund_created"), 2);
    assert_eq!(rig.assert_sound().await, 0);
}

async fn a_restart_forgets_nothing(engine: Engine) {
    let mut rig = Rig::new(engine).await;
    let waiting = rig.create(jsapi("r1")).await.expect("creates");
    let paid = rig.paid(jsapi("r2")).await;
    rig.stage(sandbox::Operation::Notify, sandbox::Fault::Lost, None);
    rig.pay(&waiting, CHANGSHA).await;
    let refunded = rig.refund(refund("f1", &paid, AMOUNT)).await.expect("accepts");
    rig.restart().await;
    assert_eq!(rig.create(jsapi("r1")).await.expect("answers"), waiting);
    rig.in_state(&waiting.order_id, OrderState::Paid).await;
    rig.refund_in_state(&refunded.refund_id, RefundState::Succeeded).await;
    let events = until("three events", async || Some(rig.events(0, 0).await).filter(|events| events.len() == 3)).await;
    assert!(events.iter().map(|event| event.sequence).eq(1..=3));
    assert_eq!(rig.assert_sound().await, 0);
}
