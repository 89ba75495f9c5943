//! What Taiyuan answers: codes, groups, and how a reply is spoilt.

use super::columns::{Column, DoesNotFit, Frame, Kind, Mark, Value};
use super::layout::{EVIDENCE, PAY_REPLY, RECORD, REPLY_HEAD};
use crate::charset::decode_gb18030;
use crate::faults::Fault;
use crate::police::event::{Payment, PaymentState, Refusal};
use crate::police::office::No;
use crate::police::people;
use crate::police::registry::{City, Evidence};
use crate::police::view::Record;
use runtime::Timestamp;

/// What a frame of 6 length digits can promise at most; more than any reply is allowed to have.
const LENGTH_OF_TOO_LONG: &[u8] = b"999999";

/// What goes back on the wire.
#[derive(Debug)]
pub(crate) enum Answer {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, then the connection is closed.
    LastBytes(Vec<u8>),
    /// These bytes, and then more and more.
    Endless(Vec<u8>),
    /// Nothing: the connection is closed.
    HangUp,
}

/// A return code with its text.
pub(super) type Code = (&'static str, &'static str);

pub(super) const DONE: Code = ("AAAA", "交易成功");
pub(super) const IN_PROCESS: Code = ("P001", "处理中");
pub(super) const UNKNOWN_TRANSACTION: Code = ("E101", "交易码不存在");
pub(super) const BAD_INSTITUTION: Code = ("E103", "机构代码无效");
pub(super) const INTERNAL: Code = ("E999", "系统异常");

/// The code of a call that has no answer of its own.
pub(super) fn code_of(no: No) -> Code {
    match no {
        No::Refused(refusal) => code_of_refusal(refusal),
        No::Busy => ("E998", "系统忙"),
        No::Closed => ("E104", "非服务时间"),
        No::Internal => INTERNAL,
    }
}

/// The code of a refusal.
pub(super) fn code_of_refusal(refusal: Refusal) -> Code {
    match refusal {
        Refusal::NoRecord => ("E201", "无此违法记录"),
        Refusal::NoDriver => ("E202", "无此驾驶人"),
        Refusal::NotConfirmed => ("E301", "违法未核实"),
        Refusal::Disputed => ("E302", "违法有异议"),
        Refusal::AlreadyPaid => ("E303", "已缴款"),
        Refusal::WrongAmount => ("E304", "金额不符"),
        Refusal::NoLock => ("E305", "锁定号无效"),
        Refusal::LockedByOther => ("E306", "已被锁定"),
        Refusal::KeyReused => ("E307", "流水号重复"),
        Refusal::Rejected => ("E308", "不予受理：请到窗口办理"),
        Refusal::NoPayment => ("E401", "无此缴款"),
    }
}

/// This system's own coding of plate types, beside GA's.
const PLATE_TYPES: [(&str, &str); 8] =
    [("DX", "01"), ("XX", "02"), ("MT", "07"), ("GC", "15"), ("JL", "16"), ("LS", "22"), ("DN", "51"), ("XN", "52")];

/// Reads a plate type of this system into GA's coding.
pub(super) fn plate_type(own: &str) -> Option<&'static str> {
    PLATE_TYPES.iter().find(|(code, _)| *code == own).map(|(_, class)| *class)
}

fn own_plate_type(class: &str) -> &'static str {
    PLATE_TYPES.iter().find(|(_, ga)| *ga == class).map_or("", |(code, _)| code)
}

/// The status letter of a record.
pub(super) fn letter(record: &Record) -> &'static str {
    match () {
        () if record.is_warning() => "M",
        () if record.paid && record.handled_at.is_some() => "J",
        () if record.paid => "D",
        () if record.disputed => "Y",
        () if record.decided_at.is_some() => "Q",
        () => "W",
    }
}

/// Columns with their values: a header, or a group of a body.
pub(super) type Group = (&'static [Column], Vec<(&'static str, Value)>);

/// Writes a reply: its header, and the groups of its body.
pub(super) fn frame(head: Group, body: Vec<Group>) -> Result<Frame, DoesNotFit> {
    let mut frame = Frame::default();
    for (columns, values) in std::iter::once(head).chain(body) {
        frame.put(columns, values)?;
    }
    Ok(frame)
}

/// The header of a reply.
pub(super) fn head(transaction: &str, serial: &str, code: Code, detail: &str, now: Timestamp) -> Group {
    let text = if detail.is_empty() { code.1.to_owned() } else { format!("{}：{detail}", code.1) };
    let values = vec![
        ("jydm", transaction.into()),
        ("lsh", serial.into()),
        ("fhm", code.0.into()),
        ("fhxx", text.into()),
        ("clsj", Value::Time(Some(now))),
    ];
    (REPLY_HEAD, values)
}

/// The record group.
pub(super) fn record(city: City, record: &Record) -> Group {
    let base = &record.base;
    let (name, number) = people::person(base.id.person).map(|person| (person.name, person.number)).unwrap_or_default();
    let values = vec![
        ("wfbh", base.number.clone().into()),
        ("hpzl", own_plate_type(base.vehicle.class).into()),
        ("hphm", base.vehicle.plate.clone().into()),
        ("wfsj", Value::Time(Some(base.occurred_at))),
        ("wfdd", base.place.into()),
        ("wfdm", base.offence.code.into()),
        ("wfnr", base.offence.text.into()),
        ("fkje", Value::Money(record.fine_minor)),
        ("wfjf", Value::Number(base.offence.points as usize)),
        ("znj", Value::Money(record.late_minor)),
        ("zje", Value::Money(record.total_minor())),
        ("jdsh", record.decided_at.map_or(String::new(), |_| base.decision.0.clone()).into()),
        ("jdsj", Value::Time(record.decided_at)),
        ("zt", letter(record).into()),
        ("clsj", Value::Time(record.handled_at)),
        ("dsr", name.into()),
        ("jszh", number.into()),
        ("dabh", city.archive_number(base.id.person).into()),
        ("cjjg", city.unit().1.into()),
        ("zjs", Value::Number(city.evidence(base).len())),
    ];
    (RECORD, values)
}

/// The evidence group.
pub(super) fn evidence(evidence: &Evidence) -> Group {
    let values = vec![
        ("zjh", evidence.number.clone().into()),
        ("zjlx", if evidence.video { "V" } else { "P" }.into()),
        ("pssj", Value::Time(Some(evidence.taken_at))),
        ("zjdz", evidence.reference.clone().into()),
        ("zjzy", evidence.digest.clone().into()),
    ];
    (EVIDENCE, values)
}

/// What became of a payment.
pub(super) fn payment(payment: &Payment, record: Option<&Record>) -> Group {
    let (state, posted_at, before, after) = match payment.state {
        PaymentState::Posted { posted_at, points_before, points_after, .. } => {
            ("S", Some(posted_at), points_before, points_after)
        }
        PaymentState::Taken { .. } => ("P", None, 0, 0),
        PaymentState::Refused { .. } => ("F", None, 0, 0),
    };
    let values = vec![
        ("jyzt", state.into()),
        ("jflsh", payment.serial.clone().into()),
        ("rzsj", Value::Time(posted_at)),
        ("wfbh", payment.record.clone().into()),
        ("je", Value::Money(payment.amount_minor)),
        ("zt", record.map_or("", letter).into()),
        ("jfq", Value::Number(before as usize)),
        ("jfh", Value::Number(after as usize)),
    ];
    (PAY_REPLY, values)
}

/// The bytes of a reply on the wire.
pub(super) fn framed(frame: &Frame) -> Vec<u8> {
    [format!("{:06}", frame.bytes.len()).as_bytes(), &frame.bytes].concat()
}

/// The bytes of a reply that a fault has spoilt.
pub(super) fn spoilt(mut frame: Frame, fault: Fault) -> Answer {
    match fault {
        Fault::GarbleValue => undefined_values(&mut frame),
        Fault::GarbleCut => set_last_text(&mut frame, |mark| (mark.offset + mark.filled - 1, b' ')),
        Fault::GarbleUnmappable => set_last_text(&mut frame, |mark| (mark.offset, 0xFF)),
        Fault::GarbleDoctype => letters_for_digits(&mut frame),
        Fault::TooLong => return Answer::Endless([LENGTH_OF_TOO_LONG, &frame.bytes].concat()),
        Fault::Duplicate => return Answer::Bytes([framed(&frame), framed(&frame)].concat()),
        Fault::Fault => {
            let mut bytes = framed(&frame);
            bytes.truncate(bytes.len() / 2);
            return Answer::LastBytes(bytes);
        }
        _ => {}
    }
    Answer::Bytes(framed(&frame))
}

fn undefined_values(frame: &mut Frame) {
    let states: Vec<Mark> =
        frame.marks.iter().filter(|mark| matches!(mark.column.name, "zt" | "jyzt" | "jszt")).copied().collect();
    let code = frame.marks.iter().filter(|mark| mark.column.name == "fhm").copied().collect();
    for mark in if states.is_empty() { code } else { states } {
        fill(frame, mark, b'Z');
    }
}

fn letters_for_digits(frame: &mut Frame) {
    let numbers = frame.marks.iter().find(|mark| matches!(mark.column.kind, Kind::Number | Kind::Money));
    let times = frame.marks.iter().find(|mark| mark.column.kind == Kind::Time);
    if let Some(mark) = numbers.or(times).copied() {
        fill(frame, mark, b'X');
    }
}

fn fill(frame: &mut Frame, mark: Mark, byte: u8) {
    if let Some(cell) = frame.bytes.get_mut(mark.offset..mark.offset + mark.column.width) {
        cell.fill(byte);
    }
}

/// Changes one byte of the last text that has a character of more than one byte at its end.
fn set_last_text(frame: &mut Frame, change: impl Fn(&Mark) -> (usize, u8)) {
    let is_wide = |mark: &&Mark| {
        let value = frame.bytes.get(mark.offset..mark.offset + mark.filled).unwrap_or_default();
        let ends_wide = |text: String| text.chars().last().is_some_and(|c| !c.is_ascii());
        mark.column.kind == Kind::Text && decode_gb18030(value).is_ok_and(ends_wide)
    };
    let Some((at, byte)) = frame.marks.iter().rev().find(is_wide).map(change) else { return };
    if let Some(cell) = frame.bytes.get_mut(at) {
        *cell = byte;
    }
}
