use std::io::Read as _;

use runtime::Timestamp;
use serde_json::json;

use super::super::event::{Event, Product, RefundTerms, Terms};
use super::*;
use crate::kept::State as _;

const PID: &str = "2088000000430100";

fn at(text: &str) -> Timestamp {
    beijing::parse_spaced(text).expect("a time")
}

fn period(date: &str, now: &str, waits: bool) -> Result<Period, ApiError> {
    Period::read(&json!({ "bill_type": "trade", "bill_date": date }), at(now), waits)
}

/// A book with two payments of 20.00 and 16.80 yuan on one day, a refund of 5.00 on it, and another refund on the next.
fn book() -> Book {
    let mut book = Book::default();
    let mut apply = |event: Event, text: &str| book.apply(&event, at(text));
    for (number, subject, amount_minor) in [("A1", "交通违法罚款", 2_000), ("B2", "罚款,二\n㼆", 1_680)] {
        let terms = Terms {
            pid: PID.into(),
            app_id: "2021000000430100".into(),
            out_trade_no: number.into(),
            product: Product::Code,
            subject: subject.into(),
            body: None,
            passback_params: None,
            notify_url: None,
            return_url: None,
            amount_minor,
            expires_at: None,
            buyer_id: Some("2088111122223333".into()),
            digest: String::new(),
        };
        let trade_no = format!("2026060522001{number:0>15}");
        let opened = terms.opened((trade_no.clone(), String::new()), false);
        apply(Event::Offered { terms, token: number.into() }, "2026-06-04 23:59:58");
        apply(opened, "2026-06-04 23:59:59");
        let (pid, out_trade_no) = (PID.to_owned(), number.to_owned());
        apply(Event::Paid { pid, out_trade_no, trade_no, amount_minor }, "2026-06-05 00:00:00");
    }
    for (number, amount_minor, day) in [("R1", 500, "2026-06-05 23:59:59"), ("R2", 300, "2026-06-06 00:00:00")] {
        let terms = RefundTerms {
            pid: PID.into(),
            out_trade_no: "A1".into(),
            out_request_no: number.into(),
            amount_minor,
            reason: None,
            due: None,
        };
        let (pid, out_trade_no, out_request_no) = (PID.to_owned(), "A1".to_owned(), number.to_owned());
        apply(Event::RefundTaken(terms), day);
        apply(Event::RefundDone { pid, out_trade_no, out_request_no, amount_minor }, day);
    }
    book
}

#[test]
fn a_days_bill_has_what_moved_on_that_day() {
    let book = book();
    let day = period("2026-06-05", "2026-06-06 12:00:00", true).expect("a day");
    let movements = book.movements(PID, day.first, day.last);
    let text = details(PID, &day, &movements);
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(
        lines[..4],
        [
            "#支付宝业务明细查询",
            "#账号：[20880000004301000156]",
            "#起始日期：[2026年06月05日 00:00:00]   终止日期：[2026年06月06日 00:00:00]",
            "#----业务明细列表----",
        ]
    );
    assert_eq!(lines[4].split(',').count(), 25);
    assert_eq!(
        lines[5],
        "20260605220010000000000000A1\t,A1\t,交易\t,交通违法罚款,2026-06-04 23:59:59,2026-06-05 00:00:00,,,,,2088****3333,\
         20.00,20.00,0.00,0.00,0.00,0.00,0.00,,0.00,0.00,,0.00,0.00,"
    );
    assert!(lines[6].contains("\t,罚款 二 㼆,"), "a comma does not move columns: {}", lines[6]);
    assert!(lines[7].contains("\t,退款\t,") && lines[7].contains(",-5.00,-5.00,"), "{}", lines[7]);
    assert!(lines[7].contains(",R1\t,"), "the refund has its own number: {}", lines[7]);
    assert!(lines[5..8].iter().all(|line| line.split(',').count() == 25));
    assert_eq!(lines[8..], ["#----业务明细列表结束----", "#交易合计：2笔，商家实收共36.80元，商家优惠共0.00元", ""]);

    let month = period("2026-06", "2026-07-04 10:00:00", true).expect("a month");
    assert_eq!(book.movements(PID, month.first, month.last).len(), 4);
    assert!(book.movements("2088000000140100", month.first, month.last).is_empty(), "another merchant's");
    let told = summary(PID, &month, &book.movements(PID, month.first, month.last));
    assert!(told.contains("\r\n2,2,36.80,-8.00,28.80\r\n"), "{told}");
}

/// Read by hand, since no reader of this language gives a name's bytes.
#[test]
fn the_archive_is_deflated_and_its_names_are_gbk_without_saying_so() {
    let day = period("2026-06-05", "2026-06-06 12:00:00", false).expect("a day");
    let packed = archive(&book(), PID, &day, at("2026-06-06 12:00:01")).expect("packs");
    let number = |at: usize, bytes: usize| {
        packed[at..at + bytes].iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte))
    };
    assert_eq!((number(0, 4), number(6, 2), number(8, 2)), (0x0403_4B50, 0, 8), "no flag, deflated");
    assert_eq!((number(10, 2), number(12, 2)), (12 << 11, (2026 - 1980) << 9 | 6 << 5 | 6));
    let name = &packed[30..30 + number(26, 2)];
    assert_eq!(GBK.decode(name).0, "20880000004301000156_20260605_业务明细.csv");
    assert!(std::str::from_utf8(name).is_err());
    let content = &packed[30 + name.len()..][..number(18, 4)];
    let mut plain = Vec::new();
    flate2::read::DeflateDecoder::new(content).read_to_end(&mut plain).expect("inflates");
    assert_eq!(plain.len(), number(22, 4));
    let (text, _, broken) = GBK.decode(&plain);
    assert!(!broken && text.contains("罚款 二 ?"), "what GBK does not have: {text}");
    assert_eq!(number(packed.len() - 12, 2), 2, "two files");
}

#[test]
fn bills_that_are_not_there_are_refused() {
    let refused = |date: &str, now: &str, waits: bool| period(date, now, waits).map_err(|error| error.sub_code);
    assert_eq!(refused("2026-06-05", "2026-06-06 09:59:59", true), Err("isp.bill_not_exist"));
    assert!(refused("2026-06-05", "2026-06-06 10:00:00", true).is_ok());
    assert!(refused("2026-06-05", "2026-06-05 00:00:00", false).is_ok(), "today, where nothing waits");
    assert_eq!(refused("2026-06-06", "2026-06-05 23:59:59", false), Err("isp.bill_not_exist"));
    assert_eq!(refused("2026-06", "2026-07-04 09:59:59", true), Err("isp.bill_not_exist"));
    for date in ["20260605", "2026-6-5", "2026-13", "2026-02-30", ""] {
        assert_eq!(refused(date, "2026-07-01 00:00:00", false), Err("ACQ.INVALID_PARAMETER"), "{date}");
    }
    let other =
        Period::read(&json!({ "bill_type": "other", "bill_date": "2026-06-05" }), at("2026-06-06 00:00:00"), false);
    assert_eq!(other.map_err(|error| error.sub_code), Err("ACQ.INVALID_PARAMETER"));
}

#[test]
fn a_link_lives_for_half_a_minute() {
    let day = period("2026-06-05", "2026-06-06 12:00:00", false).expect("a day");
    let mut links = Links::default();
    links.add("token".into(), PID.into(), day.clone(), at("2026-06-06 12:00:00"));
    assert_eq!(links.find("token", at("2026-06-06 12:00:29")), Some((PID.into(), day)));
    assert_eq!(links.find("token", at("2026-06-06 12:00:30")), None);
    assert_eq!(links.find("other", at("2026-06-06 12:00:00")), None);
}
