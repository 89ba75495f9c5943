//! What Changsha answers: codes, elements, and how a reply is spoilt.

use runtime::Timestamp;

use super::envelope::{self, Node};
use crate::beijing;
use crate::faults::Fault;
use crate::police::book::Lock;
use crate::police::event::{Payment, PaymentState, Refusal};
use crate::police::office::No;
use crate::police::payment_code::payment_code;
use crate::police::people;
use crate::police::registry::{City, Evidence};
use crate::police::view::Record;

/// How much text `too_long` puts in, and behind which tag.
const TOO_LONG_BYTES: usize = 2 << 20;
const TEXT: &[u8] = b"<fhxx>";

/// A return code with its text.
pub(super) type Code = (&'static str, &'static str);

pub(super) const DONE: Code = ("0000", "成功");
pub(super) const IN_PROCESS: Code = ("0001", "处理中");
pub(super) const BAD_CALLER: Code = ("1001", "接口序列号无效");
pub(super) const BAD_PARAMETER: Code = ("1002", "参数错误");

/// The code of a call that has no answer of its own.
pub(super) fn code_of(no: No) -> Code {
    match no {
        No::Refused(refusal) => code_of_refusal(refusal),
        No::Busy => ("9998", "系统忙"),
        No::Closed => ("1003", "非服务时间"),
        No::Internal => ("9999", "系统异常"),
    }
}

/// The code of a refusal.
pub(super) fn code_of_refusal(refusal: Refusal) -> Code {
    match refusal {
        Refusal::NoRecord => ("2001", "无此违法记录"),
        Refusal::NoDriver => ("2002", "无此驾驶人"),
        Refusal::NotConfirmed => ("3001", "违法未核实"),
        Refusal::Disputed => ("3002", "违法有异议"),
        Refusal::AlreadyPaid => ("3003", "已缴款"),
        Refusal::WrongAmount => ("3004", "金额不符"),
        Refusal::NoLock => ("3005", "锁定编号无效"),
        Refusal::LockedByOther => ("3006", "已被锁定"),
        Refusal::KeyReused => ("3007", "流水号重复"),
        Refusal::Rejected => ("3009", "不予受理：请到窗口办理"),
        Refusal::NoPayment => ("4001", "无此缴款"),
    }
}

/// Return code and text, which every reply starts with.
pub(super) fn head(code: Code, detail: &str) -> Vec<Node> {
    let text = if detail.is_empty() { code.1.to_owned() } else { format!("{}：{detail}", code.1) };
    vec![Node::Text("fhm", code.0.into()), Node::Text("fhxx", text)]
}

/// Yuan with two decimals.
pub(super) fn yuan(fen: i64) -> String {
    format!("{}.{:02}", fen / 100, fen % 100)
}

/// Reads yuan with two decimals into fen.
pub(super) fn fen(yuan: &str) -> Option<i64> {
    let (whole, cents) = yuan.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole)
        || !digits(cents)
        || cents.len() != 2
        || whole.len() > 10
        || (whole.len() > 1 && whole.starts_with('0'))
    {
        return None;
    }
    Some(whole.parse::<i64>().ok()? * 100 + cents.parse::<i64>().ok()?)
}

fn time(at: Option<Timestamp>) -> String {
    at.map(beijing::spaced).unwrap_or_default()
}

fn flag(set: bool) -> String {
    if set { "1" } else { "0" }.into()
}

fn paid_flag(record: &Record) -> String {
    if record.is_warning() { "9".into() } else { flag(record.paid) }
}

/// The `wfxx` element.
pub(super) fn record(city: City, record: &Record) -> Node {
    let base = &record.base;
    let (name, number) = people::person(base.id.person).map(|person| (person.name, person.number)).unwrap_or_default();
    let decision =
        record.decided_at.map(|_| (base.decision.0.clone(), base.decision.1.to_string())).unwrap_or_default();
    let (unit_code, unit) = city.unit();
    let code = |decided| payment_code(city.region, beijing::day(decided), &base.number);
    let fields = [
        ("xh", base.number.clone()),
        ("hphm", base.vehicle.plate.clone()),
        ("hpzl", base.vehicle.class.into()),
        ("wfsj", beijing::spaced(base.occurred_at)),
        ("wfdz", base.place.into()),
        ("wfdd", base.place_code.clone()),
        ("wfxw", base.offence.code.into()),
        ("wfms", base.offence.text.into()),
        ("fkje", yuan(record.fine_minor)),
        ("wfjfs", base.offence.points.to_string()),
        ("znj", yuan(record.late_minor)),
        ("zje", yuan(record.total_minor())),
        ("jdsbh", decision.0),
        ("wsjyw", decision.1),
        ("jdsj", time(record.decided_at)),
        ("qrbj", flag(record.decided_at.is_some())),
        ("yybj", flag(record.disputed)),
        ("jkbj", paid_flag(record)),
        ("clbj", flag(record.handled_at.is_some())),
        ("clsj", time(record.handled_at)),
        ("dsr", name),
        ("jszh", number),
        ("dabh", city.archive_number(base.id.person)),
        ("cjjg", unit_code.into()),
        ("cjjgmc", unit.into()),
        ("zjsl", city.evidence(base).len().to_string()),
        ("jkm", record.decided_at.map(code).unwrap_or_default()),
    ];
    Node::Group("wfxx", fields.into_iter().map(|(name, text)| Node::Text(name, text)).collect())
}

/// The `zj` element.
pub(super) fn evidence(evidence: &Evidence) -> Node {
    let fields = [
        ("zjbh", evidence.number.clone()),
        ("zjlx", if evidence.video { "2" } else { "1" }.into()),
        ("zjdz", evidence.reference.clone()),
        ("pssj", beijing::spaced(evidence.taken_at)),
        ("zjzy", evidence.digest.clone()),
    ];
    Node::Group("zj", fields.into_iter().map(|(name, text)| Node::Text(name, text)).collect())
}

/// What a lock adds to its record.
pub(super) fn lock(lock: &Lock) -> Vec<Node> {
    vec![Node::Text("sdbh", lock.number.clone()), Node::Text("sdyxq", beijing::spaced(lock.until))]
}

/// What became of a payment.
pub(super) fn payment(payment: &Payment, record: Option<&Record>) -> Vec<Node> {
    let (state, posted_at, points) = match payment.state {
        PaymentState::Posted { posted_at, points_before, points_after, .. } => {
            ("1", Some(posted_at), (points_before.to_string(), points_after.to_string()))
        }
        PaymentState::Taken { .. } => ("0", None, Default::default()),
        PaymentState::Refused { .. } => ("2", None, Default::default()),
    };
    let fields = [
        ("jkzt", state.into()),
        ("jflsh", payment.serial.clone()),
        ("rzsj", time(posted_at)),
        ("xh", payment.record.clone()),
        ("jfje", yuan(payment.amount_minor)),
        ("jkbj", record.map(paid_flag).unwrap_or_default()),
        ("clbj", record.map(|record| flag(record.handled_at.is_some())).unwrap_or_default()),
        ("ljjfq", points.0),
        ("ljjfh", points.1),
    ];
    fields.into_iter().map(|(name, text)| Node::Text(name, text)).collect()
}

/// The bytes of a reply that a fault has spoilt.
pub(super) fn spoilt(operation: &str, mut nodes: Vec<Node>, fault: Fault) -> Vec<u8> {
    match fault {
        Fault::GarbleValue => undefined_values(&mut nodes),
        Fault::Duplicate => doubled(&mut nodes),
        _ => {}
    }
    let text = envelope::reply(operation, &nodes);
    match fault {
        Fault::GarbleCut => broken_at_last_wide(&text, |pair| pair.get(..1).unwrap_or_default().to_vec()),
        Fault::GarbleUnmappable => broken_at_last_wide(&text, |_| vec![0xFF]),
        Fault::TooLong => {
            let mut bytes = envelope::encoded(&text);
            let wide = envelope::encoded("长");
            let at = bytes.windows(TEXT.len()).position(|tag| tag == TEXT).map_or(0, |tag| tag + TEXT.len());
            bytes.splice(at..at, wide.repeat(TOO_LONG_BYTES / wide.len()));
            bytes
        }
        Fault::GarbleDoctype => {
            let doctype = "<!DOCTYPE soap:Envelope [<!ENTITY cs \"长沙\">]>\n<soap:Envelope";
            envelope::encoded(&text.replacen("<soap:Envelope", doctype, 1))
        }
        _ => envelope::encoded(&text),
    }
}

/// Flags that no table has; where there are none, such a return code.
fn undefined_values(nodes: &mut [Node]) {
    if !undefined_flags(nodes) {
        replace(nodes, "fhm", "ZZZZ");
    }
}

fn undefined_flags(nodes: &mut [Node]) -> bool {
    let mut any = false;
    for node in nodes {
        match node {
            Node::Text("jkbj" | "jkzt", text) => {
                *text = "7".into();
                any = true;
            }
            Node::Text("clbj" | "zt", text) => {
                *text = "Z".into();
                any = true;
            }
            Node::Text(..) => {}
            Node::Group(_, children) => any |= undefined_flags(children),
        }
    }
    any
}

fn replace(nodes: &mut [Node], wanted: &str, value: &str) {
    for node in nodes {
        match node {
            Node::Text(name, text) if *name == wanted => *text = value.into(),
            Node::Text(..) | Node::Group(..) => {}
        }
    }
}

/// Every record of a list twice; without a list, everything but the codes twice.
fn doubled(nodes: &mut Vec<Node>) {
    let list = nodes.iter_mut().find_map(|node| match node {
        Node::Group("wfxxlb", records) => Some(records),
        _ => None,
    });
    match list {
        Some(records) => *records = records.iter().flat_map(|record| [record.clone(), record.clone()]).collect(),
        None => nodes.extend(nodes.get(2..).unwrap_or_default().to_vec()),
    }
}

/// Encodes with the last character of two bytes broken.
fn broken_at_last_wide(text: &str, broken: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let is_pair = |c: char| !c.is_ascii() && envelope::encoded(c.encode_utf8(&mut [0; 4])).len() == 2;
    let Some((at, c)) = text.char_indices().rev().find(|(_, c)| is_pair(*c)) else { return envelope::encoded(text) };
    let (before, rest) = text.split_at(at);
    let (wide, after) = rest.split_at(c.len_utf8());
    [envelope::encoded(before), broken(&envelope::encoded(wide)), envelope::encoded(after)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_yuan_with_two_decimals_and_nothing_else() {
        for (text, minor) in [("200.00", 20_000), ("0.00", 0), ("0.05", 5), ("1234567.89", 123_456_789)] {
            assert_eq!(fen(text), Some(minor));
            assert_eq!(yuan(minor), text);
        }
        for text in [
            "",
            "200",
            "200.0",
            "200.000",
            "-1.00",
            "+1.00",
            "01.00",
            ".50",
            "1,000.00",
            " 1.00",
            "1.0a",
            "99999999999.00",
        ] {
            assert_eq!(fen(text), None, "{text}");
        }
    }

    #[test]
    fn spoilt_replies_are_spoilt_in_one_place() {
        let nodes = || {
            let mut nodes = head(DONE, "");
            nodes.push(Node::Group(
                "wfxxlb",
                vec![Node::Group("wfxx", vec![Node::Text("dsr", "王䶮".into()), Node::Text("jkbj", "0".into())])],
            ));
            nodes
        };
        let plain = envelope::encoded(&envelope::reply("cxWfxx", &nodes()));
        let spoil = |fault| spoilt("cxWfxx", nodes(), fault);
        assert!(crate::charset::decode_gbk(&plain).is_ok());
        assert_eq!(spoil(Fault::GarbleCut).len(), plain.len() - 1);
        assert!(crate::charset::decode_gbk(&spoil(Fault::GarbleCut)).is_err());
        assert!(spoil(Fault::GarbleUnmappable).contains(&0xFF));
        let text = |fault| crate::charset::decode_gbk(&spoil(fault)).expect("GBK");
        assert!(text(Fault::GarbleValue).contains("<jkbj>7</jkbj>"));
        assert!(text(Fault::GarbleDoctype).contains("<!DOCTYPE soap:Envelope ["));
        assert_eq!(text(Fault::Duplicate).matches("<wfxx>").count(), 2);
        assert!(spoil(Fault::TooLong).len() > TOO_LONG_BYTES);
    }
}
