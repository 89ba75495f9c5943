//! A channel's bill beside the ledger: runs, breaks, what closes by itself and what persons say.

use std::fmt::Write as _;
use std::time::Duration;

use contracts::payments::v1::{
    self as pb, BreakKind, BreakResolution, BreakState, ListBreaksRequest, OrderState, RunState,
};
use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use payments::reconcile::bill::movements::Writer;
use payments::reconcile::{Entry, Money, Side, State, What};
use rpc::RemoteFault;
use runtime::config::Duration as Span;
use sandbox::{Fault, Operation, Staged};
use store::{Tx, params};
use tonic::Request;

use super::rig::{AMOUNT, APPS, CHANGSHA, Engine, OTHERS, Rig, jsapi};
use super::{alipay, on_each_engine};

on_each_engine!(
    what_does_not_match_is_told_and_what_can_be_is_repaired,
    a_doubled_row_is_no_repair,
    a_refund_that_the_bill_has_is_asked_about,
    moved_money_takes_two_persons,
    a_bill_that_cannot_be_used_is_a_failed_run,
    days_may_be_looked_at_in_any_order,
    a_channel_that_knows_of_nothing_is_asked_again,
    one_word_said_many_times_at_once_is_said_once,
);

const HEAD: &str = "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注";
const TOTAL: &str = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额";

/// Nothing is found by asking of itself, and bills lie in a directory.
pub(super) fn settings(config: &mut payments::Config, dir: &std::path::Path) {
    config.reconcile.bills_dir = dir.join("bills");
    config.reconcile.departments_dir = dir.join("departments");
    // Tests move what was posted back in time, behind cuts that would have been made.
    config.settlement.daily = false;
    config.reconcile.days_back = 3;
    config.worker.first_look = Span::from_secs(600);
    config.worker.longest_pause = Span::from_secs(600);
}

pub(in crate::contract) fn today() -> Date {
    let seconds = runtime::Clock::system().now().seconds_nanos().0;
    Offset::constant(8).to_datetime(jiff::Timestamp::from_second(seconds).expect("a time")).date()
}

pub(in crate::contract) fn day_before(day: Date) -> Date {
    day.yesterday().expect("a day")
}

pub(in crate::contract) fn bill(rows: &[(&str, i64, DateTime)]) -> String {
    let mut text = format!("\u{feff}{HEAD}\r\n");
    let yuan = |minor: i64| format!("{}.{:02}", minor / 100, minor % 100);
    for (number, minor, at) in rows {
        let (at, paid) = (at.strftime("%Y-%m-%d %H:%M:%S"), yuan(*minor));
        write!(
            text,
            "`{at},`wx0,`{CHANGSHA},`0,`,`4200000001,`{number},`o1,`JSAPI,`SUCCESS,`OTHERS,`CNY,`{paid},`0.00,`0,`0,`0.00,`0.00,`,`,`罚款,`,`0.00,`0.60%,`{paid},`0.00,`\r\n"
        )
        .expect("writes");
    }
    let (count, sum) = (rows.len(), yuan(rows.iter().map(|row| row.1).sum()));
    write!(text, "{TOTAL}\r\n`{count},`{sum},`0.00,`0.00,`0.00,`{sum},`0.00\r\n").expect("writes");
    text
}

impl Rig {
    pub(super) fn put_bill(&self, merchant: &str, day: Date, text: &str) {
        let folder = self.directory().join("bills/wechatpay").join(merchant);
        std::fs::create_dir_all(&folder).expect("a directory");
        std::fs::write(folder.join(format!("{day}.csv")), text).expect("writes");
    }

    /// Puts a payment back in time: the channel's clock is not ours to turn.
    pub(super) async fn paid_at(&self, order: &pb::Order, at: DateTime) {
        let at = Offset::constant(8).to_timestamp(at).expect("a time").as_microsecond();
        let id = order.order_id.clone();
        let moved = self.db.transact(async |mut tx: Tx| {
            tx.execute("UPDATE orders SET paid_at = $2 WHERE order_id = $1", params![id, at]).await?;
            tx.execute("UPDATE transfers SET booked_at = $2 WHERE order_id = $1", params![id, at]).await
        });
        moved.await.map_err(|error: store::Error| error).expect("moves it");
    }

    pub(super) async fn reconcile(&self, request_id: &str, day: Date) -> pb::ReconcileResponse {
        let request = pb::ReconcileRequest {
            request_id: request_id.into(),
            day: day.to_string(),
            channel: "wechatpay".into(),
            ..Default::default()
        };
        super::rig::until("the runs", async || {
            let answer = self.operators.clone().reconcile(request.clone()).await.expect("answers").into_inner();
            Some(answer).filter(|answer| answer.runs.iter().all(|run| run.state() != RunState::Waiting))
        })
        .await
    }

    async fn breaks(&self, request: ListBreaksRequest) -> pb::ListBreaksResponse {
        self.operators.clone().list_breaks(request).await.expect("answers").into_inner()
    }

    pub(super) async fn found(&self) -> Vec<pb::Break> {
        self.breaks(ListBreaksRequest { page_size: 100, ..ListBreaksRequest::default() }).await.breaks
    }

    pub(super) async fn resolve(
        &self,
        person: &'static str,
        request_id: &str,
        one: &pb::Break,
        resolution: BreakResolution,
    ) -> Result<pb::ResolveBreakResponse, RemoteFault> {
        let mut request = Request::new(pb::ResolveBreakRequest {
            request_id: request_id.into(),
            break_id: one.break_id.clone(),
            note: "与渠道核对".into(),
            resolution: resolution.into(),
        });
        request.metadata_mut().insert("played", person.parse().expect("a header"));
        let answer = self.operators.clone().resolve_break(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| RemoteFault::from(&status))
    }
}

fn of<'a>(breaks: &'a [pb::Break], number: &str) -> &'a pb::Break {
    breaks.iter().find(|one| one.number == number).unwrap_or_else(|| panic!("no break of {number}: {breaks:#?}"))
}

async fn what_does_not_match_is_told_and_what_can_be_is_repaired(engine: Engine) {
    let rig = Rig::with(engine, settings).await;
    let (second, first) = (day_before(today()), day_before(day_before(today())));
    let noon = first.at(12, 0, 0, 0);
    let edge = first.at(23, 59, 58, 0);
    let mut orders = Vec::new();
    for name in ["good", "off", "missing", "edge"] {
        let order = rig.paid(jsapi(name)).await;
        rig.paid_at(&order, noon).await;
        orders.push(order);
    }
    let [good, off, missing, late] = &orders[..] else { panic!("four orders") };
    rig.paid_at(late, edge.checked_add(SignedDuration::from_secs(3)).expect("a time")).await;
    // It is paid, and no callback ever arrives.
    let unheard = rig.create(jsapi("unheard")).await.expect("creates");
    let lost = Staged {
        system: "wechatpay".into(),
        operation: Operation::Notify,
        fault: Fault::Lost,
        times: 100,
        delay: None,
    };
    rig.sandbox.faults().stage(lost).expect("staged");
    rig.pay(&unheard, CHANGSHA).await;
    let stranger = "0123456789abcdef0123456789abcdef";
    rig.put_bill(
        CHANGSHA,
        first,
        &bill(&[
            (&good.channel_order_no, AMOUNT, noon),
            (&off.channel_order_no, AMOUNT + 1, noon),
            (&late.channel_order_no, AMOUNT, edge),
            (&unheard.channel_order_no, AMOUNT, noon),
            (stranger, 1, noon),
        ]),
    );
    rig.put_bill(OTHERS, first, &bill(&[]));

    assert_eq!(rig.order(&unheard.order_id).await.state(), OrderState::Waiting);
    let told = rig.reconcile("r1", first).await;
    assert_eq!((told.matched, told.breaks, told.runs.len()), (1, 4, 2), "{told:#?}");
    assert!(told.runs.iter().all(|run| run.state() == RunState::Done && run.day == first.to_string()), "{told:#?}");
    assert_eq!(rig.reconcile("r1", first).await, told, "the same request starts nothing");

    // When a run is over, what can be repaired is.
    let found = rig.found().await;
    assert_eq!(of(&found, &unheard.channel_order_no).state(), BreakState::Repaired);
    assert_eq!(found.len(), 5, "{found:#?}");
    assert_eq!(rig.order(&unheard.order_id).await.state(), OrderState::Paid, "the channel was asked");
    let is = |number: &str, kind, state, order_id: &str| {
        let one = of(&found, number);
        assert_eq!((one.break_kind(), one.state(), one.order_id.as_str()), (kind, state, order_id), "{one:#?}");
        assert_eq!((one.day.clone(), one.age_days, one.merchant.as_str()), (first.to_string(), one.age_days, CHANGSHA));
    };
    is(&off.channel_order_no, BreakKind::Amount, BreakState::Open, &off.order_id);
    is(&missing.channel_order_no, BreakKind::Short, BreakState::Open, &missing.order_id);
    is(&late.channel_order_no, BreakKind::Long, BreakState::RolledOver, &late.order_id);
    is(stranger, BreakKind::Long, BreakState::Open, "");
    let theirs = of(&found, &off.channel_order_no).theirs.clone().expect("the bill's word");
    let ours = of(&found, &off.channel_order_no).ours.clone().expect("our word");
    let minor = |told: pb::Told| told.amount.map(|amount| amount.amount_minor);
    assert_eq!((minor(theirs), minor(ours)), (Some(AMOUNT + 1), Some(AMOUNT)));
    assert_eq!(of(&found, stranger).age_days, 2);

    // The next day has what stood at the edge, and of the first day's breaks nothing.
    for merchant in [CHANGSHA, OTHERS] {
        rig.put_bill(merchant, second, &bill(&[]));
    }
    let told = rig.reconcile("r2", second).await;
    assert_eq!((told.matched, told.breaks), (1, 0), "{told:#?}");
    assert_eq!(of(&rig.found().await, &late.channel_order_no).state(), BreakState::Repaired);

    // To look at the first day again does not make it wait anew.
    rig.reconcile("r2b", first).await;
    assert_eq!(of(&rig.found().await, &late.channel_order_no).state(), BreakState::Repaired);

    // The channel mends its bill; what is then right closes by itself.
    rig.paid_at(&unheard, noon).await;
    let mended = [good, off, missing, &unheard].map(|order| (order.channel_order_no.as_str(), AMOUNT, noon));
    rig.put_bill(CHANGSHA, first, &bill(&mended));
    rig.reconcile("r3", first).await;
    let open = ListBreaksRequest { state: BreakState::Open.into(), ..ListBreaksRequest::default() };
    assert_eq!(rig.breaks(open.clone()).await.breaks, [], "nothing is left");

    // Pages by key, one list each.
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            ListBreaksRequest { page_size: 2, page_token, channel: "wechatpay".into(), ..ListBreaksRequest::default() };
        let page = rig.breaks(request).await;
        pages.extend(page.breaks);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        let other = ListBreaksRequest { page_token: page_token.clone(), ..open.clone() };
        rig.operators.clone().list_breaks(other).await.expect_err("a token of another list");
    }
    assert_eq!(pages, rig.found().await);
    let kind =
        ListBreaksRequest { kind: BreakKind::Short.into(), day: first.to_string(), ..ListBreaksRequest::default() };
    assert_eq!(rig.breaks(kind).await.breaks.len(), 1);
    let none = ListBreaksRequest { day: second.to_string(), ..ListBreaksRequest::default() };
    assert_eq!(rig.breaks(none).await.breaks, []);
    rig.assert_sound().await;
}

/// What was booked before the day was looked at explains no second row.
async fn a_doubled_row_is_no_repair(engine: Engine) {
    let rig = Rig::with(engine, settings).await;
    let day = day_before(today());
    let noon = day.at(12, 0, 0, 0);
    let twice = rig.paid(jsapi("twice")).await;
    rig.paid_at(&twice, noon).await;
    // Paid long before: the day's ledger says nothing of it.
    let old = rig.paid(jsapi("old")).await;
    rig.paid_at(&old, day.checked_sub(jiff::Span::new().days(40)).expect("a day").at(12, 0, 0, 0)).await;
    let rows = [&twice, &twice, &old].map(|order| (order.channel_order_no.as_str(), AMOUNT, noon));
    rig.put_bill(CHANGSHA, day, &bill(&rows));
    rig.put_bill(OTHERS, day, &bill(&[]));
    let told = rig.reconcile("r1", day).await;
    assert_eq!((told.matched, told.breaks), (1, 2), "{told:#?}");
    let found = rig.found().await;
    for order in [&twice, &old] {
        let one = of(&found, &order.channel_order_no);
        assert_eq!((one.break_kind(), one.state()), (BreakKind::Long, BreakState::Open), "{one:#?}");
    }
    rig.assert_sound().await;
}

async fn a_refund_that_the_bill_has_is_asked_about(engine: Engine) {
    let rig = Rig::with(engine, settings).await;
    let (day, seller) = (day_before(today()), APPS[0].1);
    let order = rig.create(alipay::ask("a", "traffic-430100", pb::TradeType::Native)).await.expect("creates");
    alipay::pay(&rig, &order).await;
    rig.in_state(&order.order_id, OrderState::Paid).await;
    // The money goes back, and nobody says so.
    for (operation, fault) in [(Operation::Refund, Fault::DropAfter), (Operation::Notify, Fault::Lost)] {
        let staged = Staged { system: "alipay".into(), operation, fault, times: 1, delay: None };
        rig.sandbox.faults().stage(staged).expect("staged");
    }
    let refund = rig.refund(super::rig::refund("f", &order, AMOUNT / 2)).await.expect("accepted");
    let number = refund.refund_id.trim_start_matches("rfd_").to_owned();
    let folder = rig.directory().join("bills/alipay").join(seller);
    std::fs::create_dir_all(&folder).expect("a directory");
    let mut writer = Writer::create(&folder.join(format!("{day}.csv")), day, &["channel/alipay"]).expect("writes");
    let row = Entry {
        side: Side::Channel,
        what: What::Refund,
        party: "alipay".into(),
        number: number.clone(),
        amount: Money { minor: AMOUNT / 2, currency: *b"CNY" },
        state: State::Done,
        at: day.at(12, 0, 0, 0),
        age_days: 0,
    };
    writer.write(&row).expect("writes");
    writer.finish().expect("writes");
    // A day that is looked at before the refund was sent at all finds nothing to book.
    let mut tries = 0;
    super::rig::until("the break to close", async || {
        tries += 1;
        let request_id = format!("r{tries}");
        let request =
            pb::ReconcileRequest { request_id, day: day.to_string(), channel: "alipay".into(), ..Default::default() };
        rig.operators.clone().reconcile(request).await.expect("answers");
        let found = rig.found().await;
        let one = of(&found, &number);
        assert_eq!((one.break_kind(), &one.refund_id), (BreakKind::Long, &refund.refund_id), "{one:#?}");
        (one.state() == BreakState::Repaired).then_some(())
    })
    .await;
    rig.refund_in_state(&refund.refund_id, pb::RefundState::Succeeded).await;
    rig.assert_sound().await;
}

async fn days_may_be_looked_at_in_any_order(engine: Engine) {
    let rig = Rig::with(engine, settings).await;
    let (second, first) = (day_before(today()), day_before(day_before(today())));
    let edge = first.at(23, 59, 58, 0);
    let mut rows = Vec::new();
    for (name, billed) in [("alike", AMOUNT), ("off", AMOUNT - 1)] {
        let order = rig.paid(jsapi(name)).await;
        rig.paid_at(&order, edge.checked_add(SignedDuration::from_secs(3)).expect("a time")).await;
        rows.push((order.channel_order_no, billed, edge));
    }
    let rows: Vec<_> = rows.iter().map(|(number, minor, at)| (number.as_str(), *minor, *at)).collect();
    let [(alike, ..), (off, ..)] = rows[..] else { panic!("two orders") };
    rig.put_bill(CHANGSHA, first, &bill(&rows));
    rig.put_bill(CHANGSHA, second, &bill(&[]));
    for day in [first, second] {
        rig.put_bill(OTHERS, day, &bill(&[]));
    }
    assert_eq!(rig.reconcile("r1", second).await.breaks, 2);
    assert!(rig.found().await.iter().all(|one| one.break_kind() == BreakKind::Short && one.theirs.is_none()));
    rig.reconcile("r2", first).await;
    let told = |found: &[pb::Break]| {
        [alike, off].map(|number| {
            let one = of(found, number);
            (one.state(), one.break_kind(), one.ours.is_some() && one.theirs.is_some())
        })
    };
    let expected = [(BreakState::Repaired, BreakKind::Short, true), (BreakState::Open, BreakKind::Amount, true)];
    assert_eq!(told(&rig.found().await), expected);
    for (number, day) in [second, first, second].into_iter().enumerate() {
        rig.reconcile(&format!("again{number}"), day).await;
        assert_eq!(told(&rig.found().await), expected, "{number}");
    }
}

async fn a_channel_that_knows_of_nothing_is_asked_again(engine: Engine) {
    for (doubted, state, kinds) in [(3 * 86_400, RunState::Waiting, &[][..]), (0, RunState::Done, &[BreakKind::Short])]
    {
        let rig = Rig::with(engine, |config, dir| {
            settings(config, dir);
            // The channel itself: its day before today is empty.
            config.reconcile.bills_dir = std::path::PathBuf::new();
            config.reconcile.days_back = 0;
            config.reconcile.ready_after = Span::from_secs(0);
            config.reconcile.doubt_empty = Span::from_secs(doubted);
            config.answer_timeout = Span::from_secs(3);
        })
        .await;
        let order = rig.paid(jsapi("r1")).await;
        let day = day_before(today());
        rig.paid_at(&order, day.at(12, 0, 0, 0)).await;
        let request = pb::ReconcileRequest {
            request_id: "r".into(),
            day: day.to_string(),
            channel: "wechatpay".into(),
            ..Default::default()
        };
        let run = super::rig::until("the run", async || {
            let told = rig.operators.clone().reconcile(request.clone()).await.expect("answers").into_inner();
            let run = told.runs.into_iter().find(|run| run.merchant == CHANGSHA).expect("its run");
            (run.state() != RunState::Waiting || !run.problem.is_empty()).then_some(run)
        })
        .await;
        assert_eq!(run.state(), state, "{run:?}");
        assert_eq!(run.problem.contains("the ledger has movements"), state == RunState::Waiting, "{run:?}");
        let found: Vec<_> = rig.found().await.iter().map(pb::Break::break_kind).collect();
        assert_eq!(found, kinds, "{doubted}");
    }
}

async fn one_word_said_many_times_at_once_is_said_once(engine: Engine) {
    let rig = Rig::with(engine, settings).await;
    let day = day_before(today());
    rig.put_bill(CHANGSHA, day, &bill(&[("a1", 100, day.at(12, 0, 0, 0))]));
    rig.put_bill(OTHERS, day, &bill(&[]));
    rig.reconcile("r", day).await;
    let found = rig.found().await;
    let one = of(&found, "a1");
    for (person, resolution) in [("operator-1", BreakResolution::Returned), ("operator-2", BreakResolution::Returned)] {
        let said = (0..16).map(|_| rig.resolve(person, "w", one, resolution));
        let answers = futures::future::join_all(said).await;
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("the same for all")).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
        assert_eq!(answers[0].needs_second_person, person == "operator-1");
    }
}

async fn moved_money_takes_two_persons(engine: Engine) {
    let rig = Rig::with(engine, settings).await;
    let day = day_before(today());
    let noon = day.at(12, 0, 0, 0);
    let strangers = ["a1", "a2"];
    rig.put_bill(CHANGSHA, day, &bill(&strangers.map(|number| (number, 100, noon))));
    rig.put_bill(OTHERS, day, &bill(&[]));
    assert_eq!(rig.reconcile("r", day).await.breaks, 2);
    let found = rig.found().await;
    let (one, two) = (of(&found, "a1"), of(&found, "a2"));

    let proposed = rig.resolve("operator-1", "1", one, BreakResolution::Returned).await.expect("is proposed");
    assert!(proposed.needs_second_person);
    let told = proposed.r#break.clone().expect("the break");
    assert_eq!((told.state(), told.proposed_resolution()), (BreakState::Open, BreakResolution::Returned));
    assert_eq!(told.resolved_by, "operator-1");
    assert_eq!(rig.resolve("operator-1", "1", one, BreakResolution::Returned).await.expect("the same"), proposed);
    let reason =
        |answer: Result<pb::ResolveBreakResponse, RemoteFault>| answer.expect_err("refused").reason().to_owned();
    let same = rig.resolve("operator-1", "2", one, BreakResolution::Returned).await;
    assert_eq!(reason(same), "SAME_PERSON");
    let reused = rig.resolve("operator-1", "1", one, BreakResolution::WrittenOff).await;
    assert_eq!(reason(reused), "REQUEST_ID_REUSED");
    // A request id is a person's own.
    let agreed = rig.resolve("operator-2", "1", one, BreakResolution::Returned).await.expect("is agreed");
    let told = agreed.r#break.expect("the break");
    assert!(!agreed.needs_second_person && told.close_time.is_some());
    assert_eq!((told.state(), told.resolution()), (BreakState::Resolved, BreakResolution::Returned));
    let again = rig.resolve("operator-3", "1", one, BreakResolution::Explained).await;
    assert_eq!(reason(again), "BREAK_NOT_OPEN");
    let alone = rig.resolve("operator-1", "3", two, BreakResolution::Explained).await.expect("is resolved");
    assert!(!alone.needs_second_person);
    let unknown = pb::Break { break_id: "brk_0".into(), ..pb::Break::default() };
    assert_eq!(reason(rig.resolve("operator-1", "4", &unknown, BreakResolution::Explained).await), "BREAK_NOT_FOUND");
    let unspecified = rig.resolve("operator-1", "5", two, BreakResolution::Unspecified).await;
    assert_eq!(reason(unspecified), "INVALID_REQUEST");

    // A person's word outlives another run.
    rig.reconcile("r2", day).await;
    assert!(rig.found().await.iter().all(|one| one.state() == BreakState::Resolved));
    // A role is nobody, and cases has no business here.
    let request =
        pb::ResolveBreakRequest { request_id: "x".into(), break_id: two.break_id.clone(), ..Default::default() };
    let refused = rig.client.clone().resolve_break(request.clone()).await.expect_err("refused");
    assert_eq!(RemoteFault::from(&refused).reason(), "CALLER_NOT_ALLOWED");
    let refused = rig.gateway.clone().resolve_break(request).await.expect_err("refused");
    assert_eq!(RemoteFault::from(&refused).reason(), "UNAUTHENTICATED");
    let refused = rig.gateway.clone().list_breaks(ListBreaksRequest::default()).await.expect_err("refused");
    assert_eq!(RemoteFault::from(&refused).reason(), "UNAUTHENTICATED");
}

async fn a_bill_that_cannot_be_used_is_a_failed_run(engine: Engine) {
    let rig = Rig::with(engine, settings).await;
    let day = day_before(today());
    let noon = day.at(12, 0, 0, 0);
    let cut = bill(&[("a1", 100, noon)]);
    let (cut, _) = cut.split_once(TOTAL).expect("totals");
    rig.put_bill(CHANGSHA, day, cut);
    rig.put_bill(OTHERS, day, &bill(&[("a2", 100, noon.checked_sub(Duration::from_secs(86_400)).expect("a day"))]));
    let told = rig.reconcile("r", day).await;
    let problems: Vec<_> = told.runs.iter().map(|run| (run.state(), run.problem.as_str())).collect();
    let expected = [
        (RunState::Failed, "the bill: has rows, and none of the day"),
        (RunState::Failed, "the bill: line 3: the file ends before its totals: it was cut"),
    ];
    assert_eq!(problems, expected);
    assert_eq!(rig.found().await, [], "nothing was decided");

    let refused = |channel: &str, day: Date| pb::ReconcileRequest {
        request_id: "x".into(),
        channel: channel.into(),
        day: day.to_string(),
        ..Default::default()
    };
    let status = rig.operators.clone().reconcile(refused("wechatpay", today())).await.expect_err("not over yet");
    assert_eq!(RemoteFault::from(&status).reason(), "INVALID_REQUEST");
    let status = rig.operators.clone().reconcile(refused("unionpay", day)).await.expect_err("no such channel");
    assert_eq!(RemoteFault::from(&status).reason(), "CHANNEL_NOT_OFFERED");
    let status = rig.operators.clone().reconcile(refused("wechatpay", day)).await;
    assert_eq!(status.expect("started").into_inner().runs.len(), 2);
}
