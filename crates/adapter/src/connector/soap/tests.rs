use std::path::Path;

use super::*;
use crate::plan::Plan;

fn plan() -> Plan {
    let departments = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../departments");
    let plan = Plan::load(&departments.join("traffic/430100.yaml"), &departments.join("schemas"));
    plan.unwrap_or_else(|problems| panic!("{problems}"))
}

const GOOD: &str = "<?xml version=\"1.0\" encoding=\"GBK\"?>\n<soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\">\
    <soap:Body><w:cxJsrjfResponse xmlns:w=\"urn:csjj:wfcl:1\"><fhm>0000</fhm><fhxx>成功</fhxx><jszh>430102190503170035</jszh>\
    <dsr>李&#19886;</dsr><dabh>430100000035</dabh><zjcx>C1</zjcx><zt>A</zt><ljjf>8</ljjf><qsrq>2026-04-01</qsrq><jzrq>2027-03-31</jzrq>\
    <wcls>2</wcls></w:cxJsrjfResponse></soap:Body></soap:Envelope>";

fn reply(bytes: Vec<u8>) -> Reply {
    Reply { bytes: bytes.into(), status: Some(200), content_type: Some("text/xml; charset=GBK".into()) }
}

fn read_bytes(plan: &Plan, bytes: Vec<u8>) -> Result<Answer, Unreadable> {
    plan.codec.read(&plan.templates, "driver", &Vars::default(), &reply(bytes))
}

fn read(plan: &Plan, text: &str) -> Result<Answer, Unreadable> {
    read_bytes(plan, Charset::Gbk.encode_xml(text).expect("encodes").into_owned())
}

#[test]
fn a_reply_is_read_with_references_and_digested() {
    let answer = read(&plan(), GOOD).expect("reads");
    assert_eq!((answer.code.as_str(), answer.text.as_str()), ("0000", "成功"));
    let body = answer.body.expect("a body");
    let record = Record::of(&body).expect("a record");
    assert_eq!(record.get("dsr"), Some(&Value::from("李䶮")));
    assert_eq!(record.get("ljjf"), Some(&Value::from(8)));
    let bytes = Charset::Gbk.encode_xml(GOOD).expect("encodes");
    assert_eq!(answer.digest, sha256(&bytes));
    let at = record.offset("ljjf").expect("an offset");
    assert!(bytes[at..].starts_with(b"<ljjf>"), "offsets are those of the bytes, behind wide characters too");
}

#[test]
fn what_is_wrong_is_named_with_field_and_offset() {
    let plan = plan();
    let cases = [
        ("<zt>A</zt>", "<zt>Z</zt>", "zt"),
        ("<zt>A</zt>", "<zt></zt>", "zt"),
        ("<zt>A</zt>", "", "zt"),
        ("<zt>A</zt>", "<zt>A</zt><zt>A</zt>", "zt"),
        ("<zt>A</zt>", "<zt><b>A</b></zt>", "zt"),
        ("<ljjf>8</ljjf>", "<ljjf>eight</ljjf>", "ljjf"),
        ("<ljjf>8</ljjf>", "<ljjf>8000</ljjf>", "ljjf"),
        ("<qsrq>2026-04-01", "<qsrq>2026-04-31", "qsrq"),
        ("<fhm>0000</fhm>", "", "fhm"),
    ];
    for (from, to, field) in cases {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD);
        let flaw = read(&plan, &text).expect_err(to);
        assert_eq!(flaw.field, field, "{to}: {flaw}");
        let bytes = Charset::Gbk.encode_xml(&text).expect("encodes");
        assert!(bytes[flaw.at..].starts_with(b"<"), "{to}: offset {} is not at an element", flaw.at);
    }
}

#[test]
fn bytes_that_are_no_text_name_their_element() {
    let plan = plan();
    let good = Charset::Gbk.encode_xml(GOOD).expect("encodes").into_owned();
    let at = good.windows(5).position(|piece| piece == b"<dsr>").expect("the name") + 5;
    for (bad, what) in [
        (vec![0xFF], "no character"),
        (vec![0x81, b'<'], "cut"),
        (vec![0x82, 0x32, 0x8D, 0x37], "four bytes"),
        (vec![0x80], "no euro"),
    ] {
        let mut bytes = good.clone();
        bytes.splice(at..at, bad);
        let flaw = read_bytes(&plan, bytes).expect_err(what);
        assert_eq!((flaw.field.as_str(), flaw.at), ("dsr", at), "{what}: {flaw}");
        assert!(matches!(flaw.flaw, ReadFlaw::Charset(_)), "{what}: {flaw}");
    }
    let cut = good[..good.len() - 1].to_vec();
    assert!(read_bytes(&plan, cut).is_err());
}

/// The attacks of XML, and what only looks like an answer.
#[test]
fn attacks_and_strangers_are_refused() {
    let plan = plan();
    let envelope = |inner: &str| GOOD.replace("<soap:Body>", &format!("<soap:Body>{inner}"));
    let body = |inner: &str| {
        format!("<soap:Envelope xmlns:soap=\"{ENVELOPE}\"><soap:Body>{inner}</soap:Body></soap:Envelope>")
    };
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    let attributes: String = (0..300_000).map(|n| format!(" a{n}=\"\"")).collect();
    let bindings: String = (0..10_000).map(|n| format!(" xmlns:n{n}=\"u{n}\"")).collect();
    let laughs = "<!DOCTYPE l [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\">]>";
    let attacks = [
        ("doctype", GOOD.replace("<soap:Envelope", "<!DOCTYPE x><soap:Envelope")),
        (
            "external entity",
            GOOD.replace("<soap:Envelope", "<!DOCTYPE x [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><soap:Envelope")
                .replace("C1", "&x;"),
        ),
        (
            "parameter entity",
            GOOD.replace(
                "<soap:Envelope",
                "<!DOCTYPE x [<!ENTITY % p SYSTEM \"http://127.0.0.1/\">%p;]><soap:Envelope",
            ),
        ),
        ("laughs", GOOD.replace("<soap:Envelope", &format!("{laughs}<soap:Envelope")).replace("C1", "&b;")),
        ("undeclared entity", GOOD.replace("C1", "&nbsp;")),
        ("character zero", GOOD.replace("C1", "&#0;")),
        ("surrogate", GOOD.replace("C1", "&#xD800;")),
        ("control character", GOOD.replace("C1", "&#7;")),
        ("processing instruction", GOOD.replace("<soap:Body>", "<?php x ?><soap:Body>")),
        ("depth", body(&deep)),
        ("attributes", body(&format!("<a{attributes}/>"))),
        ("an attribute twice", GOOD.replace("<soap:Body>", "<soap:Body a=\"1\" a=\"2\">")),
        ("namespaces", body(&format!("<a{bindings}/>"))),
        ("elements", body(&"<a/>".repeat(30_000))),
        ("prefix without a namespace", body("<x:y/>")),
        ("another namespace", GOOD.replace("urn:csjj:wfcl:1", "urn:csjj:wfcl:2")),
        ("another operation", GOOD.replace("cxJsrjfResponse", "cxWfxqResponse")),
        ("SOAP 1.2", GOOD.replace(ENVELOPE, "http://www.w3.org/2003/05/soap-envelope")),
        ("two answers", envelope("<w:cxJsrjfResponse xmlns:w=\"urn:csjj:wfcl:1\"/>")),
        ("two bodies", GOOD.replace("</soap:Envelope>", "<soap:Body/></soap:Envelope>")),
        ("a stranger beside the body", GOOD.replace("</soap:Envelope>", "<x/></soap:Envelope>")),
        ("no body", format!("<soap:Envelope xmlns:soap=\"{ENVELOPE}\"/>")),
        ("an empty body", body("")),
        ("text between elements", GOOD.replace("<zt>", "x<zt>")),
        ("text after the end", format!("{GOOD}x")),
        ("a second root", format!("{GOOD}<x/>")),
        ("a qualified field", GOOD.replace("<zt>A</zt>", "<w:zt>A</w:zt>")),
        ("another encoding", GOOD.replace("encoding=\"GBK\"", "encoding=\"UTF-8\"")),
        ("a second declaration", GOOD.replace("<soap:Envelope", "<?xml version=\"1.0\"?><soap:Envelope")),
        ("a byte order mark", format!("\u{FEFF}{GOOD}")),
        ("an open element", GOOD.replace("</soap:Envelope>", "")),
        ("crossed elements", GOOD.replace("</zt><ljjf>", "<ljjf></zt>")),
        ("HTML", "<html><body>502 Bad Gateway</body></html>".to_owned()),
        ("nothing", String::new()),
    ];
    for (name, attack) in attacks {
        let begun = tokio::time::Instant::now();
        let refused = read(&plan, &attack);
        assert!(refused.is_err(), "{name} was taken");
        // Far above what it takes, also in a debug build on a busy machine; a blow-up would take minutes.
        assert!(begun.elapsed().as_secs() < 20, "{name} took {:?}", begun.elapsed());
    }
}

#[test]
fn utf_16_and_other_content_types_are_refused() {
    let plan = plan();
    let utf16: Vec<u8> = GOOD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(read_bytes(&plan, utf16).is_err());
    let good = Charset::Gbk.encode_xml(GOOD).expect("encodes").into_owned();
    for content_type in ["text/html", "application/json", "text/xml; charset=UTF-8", "text/xml;charset=\"big5\""] {
        let reply = Reply { content_type: Some(content_type.into()), ..reply(good.clone()) };
        let flaw = plan.codec.read(&plan.templates, "driver", &Vars::default(), &reply).expect_err(content_type);
        assert_eq!(flaw.field, "Content-Type");
    }
    let quiet = Reply { content_type: None, ..reply(good) };
    assert!(plan.codec.read(&plan.templates, "driver", &Vars::default(), &quiet).is_ok());
}

#[test]
fn faults_read_as_codes() {
    let plan = plan();
    let fault = |code: &str| {
        format!(
            "<s:Envelope xmlns:s=\"{ENVELOPE}\"><s:Body><s:Fault><faultcode>{code}</faultcode><faultstring>错误</faultstring>\
             </s:Fault></s:Body></s:Envelope>"
        )
    };
    for (written, code) in [
        ("s:Server", "soap:Server"),
        ("SOAP-ENV:Client", "soap:Client"),
        ("Client.Auth", "soap:Client"),
        ("x", "soap:x"),
    ] {
        let answer = read(&plan, &fault(written)).expect(written);
        assert_eq!((answer.code.as_str(), answer.text.as_str(), answer.body.is_some()), (code, "错误", false));
    }
    let bytes = Charset::Gbk.encode_xml(GOOD).expect("encodes").into_owned();
    let odd = Reply { status: Some(500), ..reply(bytes) };
    let flaw = plan.codec.read(&plan.templates, "driver", &Vars::default(), &odd).expect_err("an error status");
    assert_eq!(flaw.field, "status");
}

#[test]
fn a_request_names_the_element_that_cannot_be_written() {
    let mut plan = plan();
    let vars = |plate: &str| {
        Vars::default()
            .with("settings", Value::from_pairs([("jkxlh", "X")]))
            .with("plate", plate)
            .with("plate_type", "SMALL")
            .with("licence_no", ())
            .with("handled", ())
            .with("page", 1)
            .with("size", 20)
    };
    let write = |plan: &Plan, vars: &Vars| plan.codec.write(&plan.templates, "list", vars);
    let frame = write(&plan, &vars("湘A8K2J6")).expect("writes");
    assert_eq!(frame.action.as_deref(), Some("urn:csjj:wfcl:1/cxWfxx"));
    assert!(frame.bytes.windows(6).any(|piece| piece == b"\xCF\xE6A8K2"));
    let flaw = write(&plan, &vars("湘A8K2J6湘A8K2J6")).expect_err("too long for its type");
    assert_eq!(flaw.field, "hphm");
    assert!(flaw.is_callers());
    assert!(frame.bytes[..flaw.at].ends_with(b"<hphm>"), "offset {} is where it would stand", flaw.at);
    let flaw = write(&plan, &vars("湘A8K2J6").with("plate_type", "BICYCLE")).expect_err("not in the table");
    assert_eq!(flaw.field, "hpzl");
    let injected = write(&plan, &vars("湘</hphm><x>")).expect_err("longer than a plate");
    assert!(injected.is_callers());

    // A reference where the profile allows it, an error where it does not.
    assert!(
        String::from_utf8_lossy(&write(&plan, &vars("䶮A8K2J6")).expect("writes").bytes).contains("&#19886;A8K2J6")
    );
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../departments/traffic/430100.yaml"));
    let text = text.expect("the profile").replace("unmappable: character_reference", "unmappable: error");
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../departments/schemas");
    plan = Plan::parse(Path::new("p.yaml"), &text, &schemas).unwrap_or_else(|problems| panic!("{problems}"));
    let flaw = write(&plan, &vars("湘䶮A8K2J")).expect_err("GBK has no such character");
    assert_eq!((flaw.field.as_str(), flaw.is_callers()), ("hphm", true));
    assert!(frame.bytes[..flaw.at].ends_with(b"<hphm>\xCF\xE6"), "offset {} is behind two bytes", flaw.at);
    assert!(matches!(flaw.flaw, crate::connector::WriteFlaw::Charset(_)));
}
