use runtime::Timestamp;

use super::*;
use crate::kept::State as _;
use crate::wechatpay::event::{Event, RefundTerms, Session, Terms, TradeType};

const MERCHANT: &str = "1900000001";
/// 2026-07-19 11:00:00 in Beijing.
const NOON: &str = "2026-07-19 11:00:00";

fn at(seconds: u64) -> Timestamp {
    beijing::parse_spaced(NOON).expect("a time").plus(Duration::from_secs(seconds))
}

fn day(text: &str) -> Date {
    text.parse().expect("a day")
}

/// One payment of 200 yuan, two refunds of it (one succeeds at once, one on the next day), a payment of another merchant, an order
/// that nobody paid.
fn book() -> Book {
    let mut book = Book::default();
    let terms = |mchid: &str, number: &str| Terms {
        mchid: mchid.into(),
        out_trade_no: number.into(),
        appid: "wx0".into(),
        trade_type: TradeType::Jsapi,
        description: "罚款,`\r\n第1项".into(),
        attach: None,
        notify_url: "http://127.0.0.1/n".into(),
        amount_minor: 20_000,
        currency: "CNY".into(),
        openid: Some("o".into()),
        expires_at: None,
        digest: String::new(),
        part_of: None,
    };
    let session = |number: &str| Session { prepay_id: format!("wx{number}"), link: String::new() };
    for (mchid, number) in [(MERCHANT, "PAY-1"), (MERCHANT, "OPEN-1"), ("1900000002", "PAY-1")] {
        book.apply(&Event::OrderCreated { terms: terms(mchid, number), session: session(number) }, at(0));
    }
    for mchid in [MERCHANT, "1900000002"] {
        let paid = Event::OrderPaid {
            mchid: mchid.into(),
            out_trade_no: "PAY-1".into(),
            transaction_id: format!("42-{mchid}"),
            amount_minor: 20_000,
            openid: "o".into(),
            notice: mchid.into(),
        };
        book.apply(&paid, at(1));
    }
    for (number, amount_minor, ended_at) in [("RF-1", 5_001, 3_601), ("RF-2", 99, 86_400)] {
        let terms = RefundTerms {
            mchid: MERCHANT.into(),
            out_refund_no: number.into(),
            out_trade_no: "PAY-1".into(),
            refund_id: format!("50-{number}"),
            amount_minor,
            reason: None,
            notify_url: None,
            digest: String::new(),
            due: Timestamp::MAX,
            ends: RefundStatus::Success,
            notice: number.into(),
        };
        book.apply(&Event::RefundCreated(terms), at(3_600));
        let (mchid, out_refund_no) = (MERCHANT.to_owned(), number.to_owned());
        let ended = Event::RefundEnded { mchid, out_refund_no, amount_minor, status: RefundStatus::Success };
        book.apply(&ended, at(ended_at));
    }
    book
}

fn text(bill: Option<Vec<u8>>) -> String {
    String::from_utf8(bill.expect("a bill")).expect("UTF-8")
}

#[test]
fn the_bill_of_all_trades_is_byte_for_byte_what_wechat_writes() {
    let expected = "\u{feff}交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,\
        应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,\
        申请退款金额,费率备注\r\n\
        `2026-07-19 11:00:01,`wx0,`1900000001,`0,`,`42-1900000001,`PAY-1,`o,`JSAPI,`SUCCESS,`OTHERS,`CNY,`200.00,`0.00,`0,`0,`0.00,\
        `0.00,`,`,`罚款,   第1项,`,`0.00000,`0.00%,`200.00,`0.00,`\r\n\
        `2026-07-19 12:00:00,`wx0,`1900000001,`0,`,`42-1900000001,`PAY-1,`o,`JSAPI,`REFUND,`OTHERS,`CNY,`0.00,`0.00,`50-RF-1,`RF-1,\
        `50.01,`0.00,`ORIGINAL,`SUCCESS,`罚款,   第1项,`,`0.00000,`0.00%,`0.00,`50.01,`\r\n\
        `2026-07-19 12:00:00,`wx0,`1900000001,`0,`,`42-1900000001,`PAY-1,`o,`JSAPI,`REFUND,`OTHERS,`CNY,`0.00,`0.00,`50-RF-2,`RF-2,\
        `0.99,`0.00,`ORIGINAL,`PROCESSING,`罚款,   第1项,`,`0.00000,`0.00%,`0.00,`0.99,`\r\n\
        总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额\r\n\
        `3,`200.00,`51.00,`0.00,`0.00000,`200.00,`51.00\r\n";
    assert_eq!(text(trades(&book(), MERCHANT, day("2026-07-19"), Trades::All)), expected);
}

#[test]
fn each_kind_has_its_own_columns_and_rows() {
    for (which, columns, rows) in [(Trades::All, 27, 3), (Trades::Success, 20, 1), (Trades::Refund, 29, 2)] {
        let text = text(trades(&book(), MERCHANT, day("2026-07-19"), which));
        let lines: Vec<_> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), rows + 3, "{which:?}");
        assert_eq!(lines[0].split(',').count(), columns, "{which:?}");
        for row in &lines[1..=rows] {
            assert_eq!(row.split(",`").count(), columns, "{which:?}");
        }
        assert_eq!(lines[rows + 2].split(",`").count(), 7);
    }
    assert_eq!(trades(&book(), MERCHANT, day("2026-07-20"), Trades::All), None, "a refund's end is not its day");
    assert_eq!(trades(&book(), "1900000002", day("2026-07-19"), Trades::Refund), None);
    assert_eq!(trades(&book(), "1900000003", day("2026-07-19"), Trades::All), None);
}

#[test]
fn the_bill_of_an_account_says_what_moved_and_what_is_left() {
    let first = text(flows(&book(), MERCHANT, day("2026-07-19")));
    let lines: Vec<_> = first.split_terminator("\r\n").collect();
    assert_eq!(lines[0].split(',').count(), 11);
    assert_eq!(
        lines[1],
        "`2026-07-19 11:00:01,`42-1900000001,`42-1900000001,`交易,`交易,`收入,`200.00,`200.00,`system,\
         `结算总金额200.00元;含手续费0.00元,`PAY-1"
    );
    assert_eq!(
        lines[2],
        "`2026-07-19 12:00:01,`50-RF-1,`42-1900000001,`退款,`退款,`支出,`50.01,`149.99,`1900000001API,\
         `退款总金额50.01元;含手续费0.00元,`RF-1"
    );
    assert_eq!(lines[4], "`2,`1,`200.00,`1,`50.01");
    let second = text(flows(&book(), MERCHANT, day("2026-07-20")));
    assert!(second.contains(",`支出,`0.99,`149.00,") && second.ends_with("\r\n`1,`0,`0.00,`1,`0.99\r\n"), "{second}");
}

#[test]
fn a_file_is_its_merchants_and_for_five_minutes() {
    let files = Files::default();
    files.keep("t", MERCHANT, vec![1], at(0));
    assert_eq!(files.find("t", MERCHANT, at(299)).as_deref(), Some(&[1][..]));
    assert_eq!(files.find("t", MERCHANT, at(300)), None);
    assert_eq!(files.find("t", "1900000002", at(0)), None);
    assert_eq!(files.find("x", MERCHANT, at(0)), None);
    for number in 0..FILES_MAX {
        files.keep(&number.to_string(), MERCHANT, vec![], at(0));
    }
    assert_eq!(files.find("t", MERCHANT, at(0)), None, "the oldest makes room");
}
