use std::path::Path;

use super::*;
use crate::plan::Plan;

fn plan() -> Plan {
    let departments = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../departments");
    let plan = Plan::load(&departments.join("traffic/140100.yaml"), &departments.join("schemas"));
    plan.unwrap_or_else(|problems| panic!("{problems}"))
}

const SERIAL: &str = "00000000000000000001";

fn vars() -> Vars {
    Vars::default()
        .with("settings", Value::from_pairs([("jgdm", "TYSANDBOX001")]))
        .with("serial", SERIAL)
        .with("now", "2026-11-22T01:30:00Z")
        .with("licence_no", "430102190503170035")
}

/// Text padded by bytes.
fn column(text: &str, bytes: usize) -> Vec<u8> {
    let mut encoded = Charset::Gb18030.encode(text).expect("encodes").into_owned();
    encoded.resize(bytes, b' ');
    encoded
}

/// A driver's points (2401), column by column.
fn columns() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("jydm", column("2401", 4)),
        ("lsh", column(SERIAL, 20)),
        ("fhm", column("AAAA", 4)),
        ("fhxx", column("交易成功", 60)),
        ("clsj", column("20261122093001", 14)),
        ("jszh", column("430102190503170035", 18)),
        ("xm", column("李䶮㼆𬭚", 30)),
        ("dabh", column("140100000035", 12)),
        ("zjcx", column("C1", 10)),
        ("jszt", column("A", 1)),
        ("ljjf", column("08", 2)),
        ("qsrq", column("20260401", 8)),
        ("jzrq", column("20270331", 8)),
        ("wcls", column("002", 3)),
    ]
}

fn frame(columns: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let payload: Vec<u8> = columns.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    [format!("{:06}", payload.len()).into_bytes(), payload].concat()
}

fn offset(name: &str) -> usize {
    columns().iter().take_while(|(known, _)| *known != name).map(|(_, bytes)| bytes.len()).sum()
}

fn read(plan: &Plan, bytes: Vec<u8>) -> Result<Answer, Unreadable> {
    let reply = Reply { bytes: bytes.into(), status: None, content_type: None };
    plan.codec.read(&plan.templates, "driver", &vars(), &reply)
}

fn read_with(plan: &Plan, name: &str, bytes: Vec<u8>) -> Result<Answer, Unreadable> {
    let mut changed = columns();
    for (known, value) in &mut changed {
        if *known == name {
            *value = bytes.clone();
        }
    }
    read(plan, frame(&changed))
}

#[test]
fn the_request_of_the_manual_byte_for_byte() {
    let written = plan().codec.write(&plan().templates, "driver", &vars()).expect("writes");
    assert_eq!(written.bytes, "0000682401TYSANDBOX0010000000000000000000120261122093000430102190503170035".as_bytes());
}

#[test]
fn a_reply_is_read_column_by_column() {
    let bytes = frame(&columns());
    let answer = read(&plan(), bytes.clone()).expect("reads");
    assert_eq!((answer.code.as_str(), answer.text.as_str(), answer.code_at), ("AAAA", "交易成功", 24));
    assert_eq!(answer.digest, sha256(&bytes));
    let body = answer.body.expect("a body");
    let record = Record::of(&body).expect("a record");
    assert_eq!(record.get("xm"), Some(&Value::from("李䶮㼆𬭚")), "one, two and four bytes a character");
    assert_eq!(record.get("qsrq"), Some(&Value::from("2026-04-01")));
    assert_eq!(record.offset("xm"), Some(120), "as the manual says");
}

#[test]
fn what_is_wrong_is_named_with_column_and_offset() {
    let plan = plan();
    let cases: [(&str, Vec<u8>); 11] = [
        ("jszt", b"Z".to_vec()),
        ("jszt", b" ".to_vec()),
        ("ljjf", b"XX".to_vec()),
        ("ljjf", b" 8".to_vec()),
        ("qsrq", b"20260431".to_vec()),
        ("qsrq", b"2026041 ".to_vec()),
        ("zjcx", b"          ".to_vec()),
        ("dabh", b"14010000003x".to_vec()),
        ("fhm", b"    ".to_vec()),
        ("jydm", b"2402".to_vec()),
        ("lsh", b"00000000000000000002".to_vec()),
    ];
    for (name, bytes) in cases {
        let flaw = read_with(&plan, name, bytes.clone()).expect_err(name);
        assert_eq!((flaw.field.as_str(), flaw.at), (name, offset(name)), "{bytes:?}: {flaw}");
    }
}

#[test]
fn half_a_character_is_an_error_at_its_byte() {
    let plan = plan();
    let mut cut = column("李", 30);
    cut[1] = b' ';
    let flaw = read_with(&plan, "xm", cut).expect_err("half of it");
    assert_eq!((flaw.field.as_str(), flaw.at), ("xm", offset("xm")));
    // The column ends in the middle of a character of four bytes.
    let full = column("一二三四五六七八九十甲乙丙丁㼆", 32);
    let flaw = read_with(&plan, "xm", full[..30].to_vec()).expect_err("cut by the column");
    assert_eq!((flaw.field.as_str(), flaw.at), ("xm", offset("xm") + 28));
    assert_eq!(flaw.flaw, ReadFlaw::Charset(crate::charset::Flaw::Cut));
    let mut stranger = column("李四", 30);
    stranger[2] = 0xFF;
    assert_eq!(read_with(&plan, "xm", stranger).expect_err("no character").at, offset("xm") + 2);
}

#[test]
fn lengths_must_be_right_to_the_byte() {
    let plan = plan();
    let good = frame(&columns());
    assert!(read(&plan, good[..good.len() - 1].to_vec()).is_err(), "a byte short");
    assert!(read(&plan, [good.clone(), b" ".to_vec()].concat()).is_err(), "a byte more than the length says");
    let mut longer = columns();
    longer.push(("x", b" ".to_vec()));
    let flaw = read(&plan, frame(&longer)).expect_err("a byte more than the columns");
    assert_eq!((flaw.field.as_str(), flaw.at), ("length", 194));
    let short: Vec<_> = columns().into_iter().take(12).collect();
    let flaw = read(&plan, frame(&short)).expect_err("a column less");
    assert_eq!((flaw.field.as_str(), flaw.at), ("jzrq", 183));
    for bad in [&b""[..], b"00019", b"00019x", b"+00194", b"-00001", b"000000"] {
        assert!(read(&plan, bad.to_vec()).is_err(), "{bad:?}");
    }
    // A refusal ends with the header; a body after it is no refusal of this department.
    let mut refused = columns();
    refused[2].1 = b"E202".to_vec();
    assert_eq!(read(&plan, frame(&refused)).expect_err("a body after a refusal").field, "length");
    let header: Vec<_> = refused.into_iter().take(5).collect();
    let answer = read(&plan, frame(&header)).expect("a refusal");
    assert_eq!((answer.code.as_str(), answer.body.is_some()), ("E202", false));
}

#[test]
fn a_count_is_bounded_before_it_is_believed() {
    let plan = plan();
    let ask = vars().with("plate", ()).with("plate_type", ()).with("wanted", ()).with("first", 1).with("size", 20);
    let header = |code: &str| {
        [column(code, 4), column(SERIAL, 20), column("AAAA", 4), column("", 60), column("20261122093001", 14)].concat()
    };
    let list = |body: &[u8]| {
        let payload = [header("2101"), body.to_vec()].concat();
        let bytes = [format!("{:06}", payload.len()).into_bytes(), payload].concat();
        let reply = Reply { bytes: bytes.into(), status: None, content_type: None };
        plan.codec.read(&plan.templates, "list", &ask, &reply)
    };
    assert!(list(b"000000").is_ok(), "an empty list");
    let flaw = list(b"999921").expect_err("more rows than a reply has");
    assert_eq!((flaw.field.as_str(), flaw.at), ("bcs", 106));
    let flaw = list(b"000102").expect_err("rows that are not there");
    assert_eq!((flaw.field.as_str(), flaw.at), ("rows.0.wfbh", 108));
}

#[test]
fn a_value_that_does_not_fit_its_column_is_not_cut() {
    let plan = plan();
    let ask = |plate: &str| {
        vars().with("plate", plate).with("plate_type", "SMALL").with("wanted", ()).with("first", 1).with("size", 20)
    };
    let write = |plate: &str| plan.codec.write(&plan.templates, "list", &ask(plate));
    let written = write("晋A8K2J6").expect("writes");
    assert_eq!(&written.bytes[..6], b"000093");
    assert_eq!(&written.bytes[6 + 50..6 + 53], b"PXX");
    assert_eq!(&written.bytes[6 + 53..6 + 61], b"\xBD\xFAA8K2J6");
    let flaw = write("㼆㼆㼆㼆").expect_err("sixteen bytes in a column of fifteen");
    assert_eq!((flaw.field.as_str(), flaw.at), ("hphm", 53));
    assert!(flaw.is_callers());
    let flaw = write("晋\u{E5E5}A8K2J").expect_err("a private-use character without bytes");
    assert_eq!((flaw.field.as_str(), flaw.at), ("hphm", 55), "behind the two bytes of the first character");
}
