//! Combined orders: made, closed and paid as one; refunded and posted part by part.

use contracts::ids::OrderId;
use contracts::payments::v1 as pb;
use futures::future::join_all;
use prost::Message;
use rpc::{Effect, Fault};

use super::channel::{Call, Mishap};
use super::steps::merchant;
use super::*;
use crate::channel::{Notice, PartPaid};
use crate::convert::CombineAsk;
use crate::domain::order::{Order, State};
use crate::domain::refund::State as RefundState;
use crate::error::Error;
use crate::repo::work;
use crate::till::NoticeError;

type Created = Result<pb::CombinedOrder, Error>;

/// A combined order of three parts: two for one merchant account, one for another.
pub(super) fn combine_ask(request_id: &str, expire_at: Timestamp) -> CombineAsk {
    let key = key(Method::CreateCombinedOrder, request_id);
    let part = |number: usize, payee_id: &str| {
        let ask = create_ask(&format!("{request_id}-{number}"), expire_at);
        let amount = fen(AMOUNT + i64::try_from(number).expect("few"));
        CreateAsk { key: key.of_part(&ask.key.request_id), payee_id: payee_id.into(), amount, ..ask }
    };
    let parts = vec![part(0, "traffic-430100"), part(1, "traffic-140100"), part(2, "traffic-430100")];
    CombineAsk { channel: super::channel::NAME.into(), key, parts }
}

impl Stage {
    async fn combine(&self, ask: CombineAsk) -> Created {
        let answer = self.till.create_combined(ask).await?;
        let told = pb::CreateCombinedOrderResponse::decode(answer.as_slice()).expect("decodes");
        Ok(told.combined_order.expect("a combined order"))
    }

    async fn combined(&self, request_id: &str) -> pb::CombinedOrder {
        self.combine(combine_ask(request_id, EPOCH.plus(LIFE))).await.expect("creates")
    }

    async fn parts(&self, request_id: &str) -> Vec<Order> {
        join_all((0..3).map(async |number| self.order_of(&format!("{request_id}-{number}")).await)).await
    }

    async fn part_states(&self, request_id: &str) -> Vec<State> {
        self.parts(request_id).await.iter().map(|part| part.state).collect()
    }

    async fn heed_combined(&self, whole_no: &str, spoil: impl FnOnce(&mut Vec<PartPaid>)) -> Result<(), NoticeError> {
        let (_, notice) = self.played.notice_together(whole_no).expect("paid");
        let Notice::PaidTogether { channel_order_no, app_id, mut parts } = notice else { panic!("of all parts") };
        spoil(&mut parts);
        self.till.heed(&merchant(), Notice::PaidTogether { channel_order_no, app_id, parts }).await
    }

    async fn paid_combined(&self, request_id: &str) -> pb::CombinedOrder {
        let combined = self.combined(request_id).await;
        assert!(self.played.pay_together(&combined.channel_order_no, self.till.now()));
        self.heed_combined(&combined.channel_order_no, |_| {}).await.expect("heeds");
        combined
    }
}

fn id(order: &pb::Order) -> OrderId {
    order.order_id.parse().expect("an id")
}

#[tokio::test(start_paused = true)]
async fn parts_are_made_at_once_and_paid_with_one_sheet() {
    let stage = Stage::new().await;
    let before = stage.till.db.meter().counts().commits;
    let combined = stage.combined("w").await;
    let sheet = combined.pay_sheet.clone().expect("a sheet");
    assert_eq!(sheet.jsapi["package"], format!("prepay_id={}", combined.channel_order_no));
    assert_eq!((combined.request_id.as_str(), combined.parts.len()), ("w", 3));
    for (number, part) in (1..).zip(&combined.parts) {
        assert_eq!((part.state(), part.part_number), (pb::OrderState::Waiting, number));
        assert_eq!((&part.combined_order_id, &part.pay_sheet), (&combined.combined_order_id, &None));
        assert_eq!(part.request_id, format!("w-{}", number - 1));
    }
    assert_eq!(stage.till.db.meter().counts().commits - before, 2, "claimed in one transaction, answered in another");
    let kept = stage.parts("w").await;
    assert!(kept.iter().all(|part| part.payer_sealed.is_none()), "the payer is erased");
    let merchants: Vec<_> = kept.iter().map(|part| part.terms.merchant.number.as_str()).collect();
    assert_eq!(merchants, ["1900000001", "1900000002", "1900000001"]);
    let told = crate::convert::order(&kept[1]).expect("tells");
    assert_eq!(told.pay_sheet, Some(sheet), "a part is paid with all of it");
    assert_eq!(stage.played.books().payers, ["oUpF8"]);

    assert!(stage.played.pay_together(&combined.channel_order_no, stage.till.now()));
    stage.heed_combined(&combined.channel_order_no, |_| {}).await.expect("heeds");
    assert_eq!(stage.till.db.meter().counts().commits - before, 3, "all parts in one transaction");
    stage.heed_combined(&combined.channel_order_no, |_| {}).await.expect("a duplicate is normal");
    assert_eq!(stage.part_states("w").await, [State::Paid; 3]);
    assert_eq!(stage.events().await, [pb::EventKind::OrderPaid; 3]);
    let report = stage.assert_sound().await;
    assert_eq!((report.orders, report.transfers, report.open), (3, 3, 0));
    let far = stage.till.now().plus(LIFE * 100);
    assert!(
        !work::is_due(&mut stage.till.db.read().await.expect("reads"), far).await.expect("reads"),
        "no work is left"
    );
}

#[tokio::test(start_paused = true)]
async fn fifty_at_once_are_one_combined_order_and_fifty_equal_answers() {
    let stage = Stage::new().await;
    let answers = join_all((0..50).map(|_| stage.combine(combine_ask("same", EPOCH.plus(LIFE))))).await;
    let first = answers[0].as_ref().expect("creates");
    assert!(answers.iter().all(|answer| answer.as_ref().expect("answers") == first));
    assert_eq!(stage.played.count(Call::CreateTogether), 1);
    assert!(stage.played.pay_together(&first.channel_order_no, stage.till.now()));
    stage.heed_combined(&first.channel_order_no, |_| {}).await.expect("heeds");
    assert_eq!(&stage.combined("same").await, first, "for ever");
    assert_eq!(stage.assert_sound().await.orders, 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_stands_for_one_request_and_a_parts_key_for_one_part() {
    let stage = Stage::new().await;
    let end = EPOCH.plus(LIFE);
    stage.combined("w").await;
    let mut other = combine_ask("w", end);
    other.key.digest = [8; 32];
    assert!(matches!(stage.combine(other).await, Err(Error::RequestIdReused)));
    // A part of another combined order, an order by itself, and the same request under another name.
    stage.till.create(create_ask("alone", end)).await.expect("creates");
    let taken = async |request_id: &str, digest: [u8; 32]| {
        let mut ask = combine_ask("v", end);
        ask.parts[1].key = Key { request_id: request_id.into(), digest, ..ask.parts[1].key.clone() };
        let error = stage.combine(ask).await.expect_err("refused");
        (error.reason(), error.effect(), error.details().subject)
    };
    let refused = ("REQUEST_ID_REUSED", Effect::None, Some("parts[1].request_id".to_owned()));
    assert_eq!(taken("w-0", [9; 32]).await, refused);
    assert_eq!(taken("alone", [7; 32]).await, refused);
    let mut part = create_ask("w-0", end);
    part.key.digest = [9; 32];
    assert!(matches!(stage.till.create(part).await, Err(Error::RequestIdReused)));
    assert_eq!(stage.assert_sound().await.orders, 4, "nothing is half made");
    stage.combined("v").await;
    assert_eq!(stage.assert_sound().await.orders, 7);
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_part_is_named_before_anything_is_kept() {
    let stage = Stage::new().await;
    let refused = async |spoil: fn(&mut CombineAsk)| {
        let mut ask = combine_ask("w", EPOCH.plus(LIFE));
        spoil(&mut ask);
        let error = stage.combine(ask).await.expect_err("refused");
        assert_eq!(error.effect(), Effect::None);
        let details = error.details();
        let fields = details.violations.into_iter().map(|violation| violation.field);
        (error.reason(), details.subject.into_iter().chain(fields).collect::<Vec<_>>().join(" "))
    };
    let named = |reason, what: &str| (reason, what.to_owned());
    let payee = refused(|ask| ask.parts[2].payee_id = "x".into()).await;
    assert_eq!(payee, named("PAYEE_UNKNOWN", "parts[2].payee_id"));
    let stranger = refused(|ask| ask.parts[1].entry_point = "weibo".into()).await;
    assert_eq!(stranger, named("MERCHANT_UNKNOWN", "parts[1].payee_id"));
    let apart = refused(|ask| ask.parts[1].payee_id = "traffic-110000".into()).await;
    assert_eq!(apart, named("PARTS_APART", "parts[1].payee_id"));
    let amount = refused(|ask| ask.parts[1].amount = fen(1_000_001)).await;
    assert_eq!(amount, named("INVALID_REQUEST", "parts[1].amount.amount_minor"));
    let end = refused(|ask| ask.parts[0].expire_at = EPOCH).await;
    assert_eq!(end, named("INVALID_REQUEST", "expire_time"));
    let many = refused(|ask| ask.parts.push(create_ask("w-3", EPOCH.plus(LIFE)))).await;
    assert_eq!(many, named("INVALID_REQUEST", "parts"));
    assert_eq!(refused(|ask| ask.channel = "alipay".into()).await, named("CHANNEL_NOT_OFFERED", "channel"));
    assert_eq!(stage.assert_sound().await.orders, 0);
    assert_eq!(stage.combined("w").await.parts.len(), 3, "every key is still free");
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_does_not_fit_one_part_books_none() {
    let stage = Stage::new().await;
    let combined = stage.combined("w").await;
    let whole_no = combined.channel_order_no.clone();
    assert!(stage.played.pay_together(&whole_no, stage.till.now()));
    let unfit = async |spoil: fn(&mut Vec<PartPaid>)| match stage.heed_combined(&whole_no, spoil).await {
        Err(NoticeError::Differs(what)) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(unfit(|parts| parts[2].capture.amount = fen(AMOUNT)).await, "amount");
    assert_eq!(unfit(|parts| parts[1].merchant = "1900000001".into()).await, "merchant");
    assert_eq!(unfit(|parts| parts[1].channel_order_no = "f".repeat(32)).await, "sub_orders");
    assert_eq!(unfit(|parts| drop(parts.pop())).await, "sub_orders");
    assert_eq!(unfit(|parts| parts[1] = parts[0].clone()).await, "sub_orders");
    assert_eq!(unfit(|parts| parts.push(parts[0].clone())).await, "sub_orders");
    let heed = async |merchant: &str, notice: Notice| {
        let merchant = crate::domain::ledger::Merchant { number: merchant.into(), ..merchant_of(&stage).await };
        stage.till.heed(&merchant, notice).await
    };
    let (_, notice) = stage.played.notice_together(&whole_no).expect("paid");
    let to_another = heed("1900000002", notice.clone()).await;
    assert!(matches!(to_another, Err(NoticeError::Differs("combine_mchid"))), "{to_another:?}");
    let Notice::PaidTogether { parts, .. } = notice else { panic!("of all parts") };
    let of = |channel_order_no: &str, app_id: &str| Notice::PaidTogether {
        channel_order_no: channel_order_no.into(),
        app_id: app_id.into(),
        parts: parts.clone(),
    };
    assert!(matches!(heed("1900000001", of(&whole_no, "wx1")).await, Err(NoticeError::Differs("app_id"))));
    for nothing in ["f".repeat(32), whole_no.to_uppercase(), combined.parts[0].channel_order_no.clone(), "w".into()] {
        assert!(matches!(heed("1900000001", of(&nothing, "wx0")).await, Err(NoticeError::Unknown)), "{nothing}");
    }
    // A part alone is nothing that the channel tells.
    let alone = stage.played.notice(&combined.parts[0].channel_order_no).expect("paid");
    let alone = heed("1900000001", alone).await;
    assert!(matches!(alone, Err(NoticeError::Differs("combine_out_trade_no"))), "{alone:?}");
    assert_eq!(stage.part_states("w").await, [State::Waiting; 3]);
    assert_eq!(stage.assert_sound().await.transfers, 0);
    stage.heed_combined(&whole_no, |_| {}).await.expect("and the good one is booked");
    assert_eq!(stage.part_states("w").await, [State::Paid; 3]);
    // The same money told once more under other numbers is refused, for each part that has its own.
    assert_eq!(unfit(|parts| parts[1].capture.transaction = "tx-other".into()).await, "transaction");
    assert_eq!(stage.assert_sound().await.transfers, 3);
}

async fn merchant_of(stage: &Stage) -> crate::domain::ledger::Merchant {
    stage.parts("w").await.remove(0).terms.merchant.clone()
}

#[tokio::test(start_paused = true)]
async fn a_lost_notice_is_found_by_asking_for_all_parts_at_once() {
    let stage = Stage::new().await;
    let combined = stage.combined("w").await;
    stage.pass(Duration::from_secs(60)).await;
    let asked = stage.played.count(Call::QueryTogether);
    assert!((2..10).contains(&asked), "with growing pauses: {asked}");
    assert!(stage.played.pay_together(&combined.channel_order_no, stage.till.now()));
    stage.played.mishap(Call::QueryTogether, Mishap::LostBefore);
    stage.pass(Duration::from_secs(180)).await;
    assert_eq!(stage.part_states("w").await, [State::Paid; 3]);
    assert_eq!((stage.played.count(Call::Query), stage.played.count(Call::Close)), (0, 0), "never part by part");
    assert_eq!(stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn asking_for_a_part_tells_of_all() {
    let stage = Stage::new().await;
    let combined = stage.combined("w").await;
    assert!(stage.played.pay_together(&combined.channel_order_no, stage.till.now()));
    stage.played.mishap(Call::QueryTogether, Mishap::Busy);
    let error = stage.till.refresh(id(&combined.parts[1])).await.expect_err("not now");
    assert_eq!((error.reason(), error.effect()), ("CHANNEL_UNAVAILABLE", Effect::None));
    let part = stage.till.refresh(id(&combined.parts[1])).await.expect("asks");
    assert_eq!((part.terms.request_id.as_str(), part.state), ("w-1", State::Paid));
    assert_eq!(stage.part_states("w").await, [State::Paid; 3]);
    stage.assert_sound().await;
}

#[tokio::test(start_paused = true)]
async fn closing_one_part_closes_all_on_the_channels_word_alone() {
    for mishap in [None, Some(Mishap::LostAfter), Some(Mishap::LostBefore), Some(Mishap::Busy)] {
        let stage = Stage::new().await;
        let combined = stage.combined("w").await;
        if let Some(mishap) = mishap {
            stage.played.mishap(Call::CloseTogether, mishap);
            let state = stage.close("c", id(&combined.parts[1])).await;
            assert_eq!(state, pb::OrderState::Waiting, "{mishap:?}: not confirmed");
            assert_eq!(stage.part_states("w").await, [State::Waiting; 3], "{mishap:?}");
            stage.pass(Duration::from_secs(30)).await;
        }
        assert_eq!(stage.close("c", id(&combined.parts[1])).await, pb::OrderState::Closed, "{mishap:?}");
        assert_eq!(stage.part_states("w").await, [State::Closed; 3], "{mishap:?}");
        assert_eq!(stage.close("d", id(&combined.parts[2])).await, pb::OrderState::Closed);
        assert_eq!(stage.events().await, [pb::EventKind::OrderClosed; 3]);
        assert_eq!(stage.combined("w").await, combined, "the creation's answer stays");
        assert_eq!(stage.assert_sound().await.open, 0);
    }
    let stage = Stage::new().await;
    let combined = stage.combined("w").await;
    assert!(stage.played.pay_together(&combined.channel_order_no, stage.till.now()));
    assert_eq!(stage.close("c", id(&combined.parts[0])).await, pb::OrderState::Paid, "the money came first");
    assert_eq!(stage.part_states("w").await, [State::Paid; 3]);
    assert_eq!(stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn late_money_is_late_for_every_part_and_goes_back_part_by_part() {
    let stage = Stage::new().await;
    let combined = stage.combined("w").await;
    stage.close("c", id(&combined.parts[0])).await;
    for part in &combined.parts {
        stage.played.pay_late(&part.channel_order_no, stage.till.now());
    }
    stage.heed_combined(&combined.channel_order_no, |_| {}).await.expect("heeds");
    let parts = stage.parts("w").await;
    assert!(parts.iter().all(|part| part.is_late && part.state == State::Closed));
    for (number, part) in parts.iter().enumerate() {
        let amount = part.terms.amount.amount_minor();
        stage.till.refund(&refund_ask(&format!("f{number}"), part.terms.id, amount)).await.expect("accepts");
    }
    stage.pass(Duration::from_secs(5)).await;
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(30)).await;
    assert_eq!(stage.part_states("w").await, [State::Refunded; 3]);
    assert_eq!(stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn one_part_is_refunded_while_another_is_posted() {
    let stage = Stage::new().await;
    let combined = stage.paid_combined("w").await;
    let [first, second, third] = &combined.parts[..] else { panic!("three") };
    stage.till.refund(&refund_ask("f", id(first), AMOUNT)).await.expect("accepts");
    let too_much = stage.till.refund(&refund_ask("g", id(second), AMOUNT + 2)).await.expect_err("of another part");
    assert_eq!(too_much.reason(), "REFUND_EXCEEDS_CAPTURE");
    stage.till.post(&key(Method::PostOrder, "p"), id(second), "serial").await.expect("posts");
    stage.pass(Duration::from_secs(5)).await;
    stage.played.decide(true, stage.till.now());
    stage.pass(Duration::from_secs(30)).await;
    assert_eq!(stage.refund_state("f").await, RefundState::Succeeded);
    assert_eq!(stage.part_states("w").await, [State::Refunded, State::Posted, State::Paid]);
    assert_eq!(stage.close("c", id(third)).await, pb::OrderState::Paid);
    assert_eq!(stage.assert_sound().await.open, 0);
}

#[tokio::test(start_paused = true)]
async fn a_creation_without_an_answer_is_repeated_unchanged_until_there_is_one() {
    for mishap in [Mishap::Unreachable, Mishap::LostBefore, Mishap::LostAfter, Mishap::Busy] {
        let stage = Stage::new().await;
        stage.played.mishap(Call::CreateTogether, mishap);
        let error = stage.combine(combine_ask("w", EPOCH.plus(LIFE))).await.expect_err("no answer");
        assert_eq!((error.reason(), error.effect()), ("CHANNEL_UNAVAILABLE", Effect::Possible), "{mishap:?}");
        assert_eq!(stage.part_states("w").await, [State::Creating; 3], "{mishap:?}");
        stage.pass(Duration::from_secs(5)).await;
        let combined = stage.combined("w").await;
        assert_eq!(stage.part_states("w").await, [State::Waiting; 3], "{mishap:?}");
        assert!(stage.played.pay_together(&combined.channel_order_no, stage.till.now()));
        stage.heed_combined(&combined.channel_order_no, |_| {}).await.expect("heeds");
        stage.assert_sound().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_for_every_part_and_told_again() {
    let stage = Stage::new().await;
    stage.played.mishap(Call::CreateTogether, Mishap::Refused);
    for _ in 0..2 {
        let error = stage.combine(combine_ask("w", EPOCH.plus(LIFE))).await.expect_err("refused");
        assert!(matches!(error, Error::ChannelRefused { code } if code == "PARAM_ERROR"));
    }
    let parts = stage.parts("w").await;
    assert!(parts.iter().all(|part| part.state == State::Refused && part.payer_sealed.is_none()));
    assert_eq!(stage.played.count(Call::CreateTogether), 1);
    assert_eq!(stage.assert_sound().await.open, 0);
}

/// A repetition that is refused says nothing of the first attempt: how it stands decides, and what nobody has a sheet of is closed.
#[tokio::test(start_paused = true)]
async fn a_refused_repetition_ends_what_the_first_attempt_made() {
    for (first, end) in [(Mishap::LostAfter, State::Closed), (Mishap::LostBefore, State::Refused)] {
        let stage = Stage::new().await;
        stage.played.mishap(Call::CreateTogether, first);
        stage.played.mishap(Call::CreateTogether, Mishap::Refused);
        stage.combine(combine_ask("w", EPOCH.plus(LIFE))).await.expect_err("no answer");
        stage.pass(Duration::from_secs(10)).await;
        assert_eq!(stage.part_states("w").await, [end; 3], "{first:?}");
        assert_eq!(stage.assert_sound().await.open, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_pays_is_closed_at_its_end() {
    let stage = Stage::new().await;
    stage.combined("w").await;
    // One that the channel has and we do not know of, one that it never heard of, and one that never left.
    for (name, mishap) in [("x", Mishap::LostAfter), ("y", Mishap::LostBefore), ("z", Mishap::Unreachable)] {
        for _ in 0..40 {
            stage.played.mishap(Call::CreateTogether, mishap);
        }
        stage.combine(combine_ask(name, EPOCH.plus(LIFE))).await.expect_err("no answer");
        stage.played.calm();
        // No other attempt before the end.
        for _ in 0..40 {
            stage.played.mishap(Call::CreateTogether, Mishap::Unreachable);
        }
    }
    stage.pass(LIFE + Duration::from_secs(600)).await;
    for name in ["w", "x", "y", "z"] {
        assert_eq!(stage.part_states(name).await, [State::Closed; 3], "{name}");
    }
    assert_eq!(stage.assert_sound().await.open, 0);
}

/// What the channel says of one part and not of the others is booked for that one, and the others are asked for on.
#[tokio::test(start_paused = true)]
async fn a_part_that_the_channel_has_otherwise_holds_up_no_money() {
    let stage = Stage::new().await;
    let combined = stage.combined("w").await;
    stage.played.pay(&combined.parts[1].channel_order_no, stage.till.now()).expect("pays");
    stage.pass(Duration::from_secs(10)).await;
    assert_eq!(stage.part_states("w").await, [State::Waiting, State::Paid, State::Waiting]);
    for part in [0, 2] {
        stage.played.pay(&combined.parts[part].channel_order_no, stage.till.now()).expect("pays");
    }
    stage.pass(Duration::from_secs(60)).await;
    assert_eq!(stage.part_states("w").await, [State::Paid; 3]);
    assert_eq!(stage.assert_sound().await.open, 0);
}

/// A part is told the payment of another order, which the store's index refuses: of its whole nothing is kept, and of its neighbours in
/// the batch everything.
#[tokio::test(start_paused = true)]
async fn a_whole_that_the_store_refuses_fails_alone_and_entirely() {
    let stage = Stage::new().await;
    let wholes = join_all((0..12).map(async |number| stage.combined(&format!("w{number}")).await)).await;
    for whole in &wholes {
        assert!(stage.played.pay_together(&whole.channel_order_no, stage.till.now()));
    }
    let taken = format!("tx-{}", wholes[3].parts[1].channel_order_no);
    let told = wholes.iter().enumerate().map(|(at, whole)| {
        let taken = taken.clone();
        stage.heed_combined(&whole.channel_order_no, move |parts| {
            if at == 7 {
                parts[1].capture.transaction = taken;
            }
        })
    });
    let told = join_all(told).await;
    let refused: Vec<_> = told.iter().enumerate().filter(|(_, told)| told.is_err()).map(|(at, _)| at).collect();
    assert_eq!(refused, [7]);
    for at in 0..12 {
        let state = if at == 7 { State::Waiting } else { State::Paid };
        assert_eq!(stage.part_states(&format!("w{at}")).await, [state; 3], "w{at}");
    }
    stage.assert_sound().await;
}
