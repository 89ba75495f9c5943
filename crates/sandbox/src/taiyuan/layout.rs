//! The columns of every Taiyuan frame, as docs/sandbox/police-140100.md prints them. A test holds the two together.

use super::columns::{Column, Kind};

const fn a(name: &'static str, width: usize) -> Column {
    Column { name, width, kind: Kind::Ascii }
}

const fn t(name: &'static str, width: usize) -> Column {
    Column { name, width, kind: Kind::Text }
}

const fn n(name: &'static str, width: usize) -> Column {
    Column { name, width, kind: Kind::Number }
}

const fn m(name: &'static str) -> Column {
    Column { name, width: 12, kind: Kind::Money }
}

const fn d(name: &'static str) -> Column {
    Column { name, width: 14, kind: Kind::Time }
}

const fn day(name: &'static str) -> Column {
    Column { name, width: 8, kind: Kind::Time }
}

pub(super) const REQUEST_HEAD: &[Column] = &[a("jydm", 4), a("jgdm", 12), a("lsh", 20), d("fssj")];

pub(super) const REPLY_HEAD: &[Column] = &[a("jydm", 4), a("lsh", 20), a("fhm", 4), t("fhxx", 60), d("clsj")];

pub(super) const RECORD: &[Column] = &[
    a("wfbh", 20),
    a("hpzl", 2),
    t("hphm", 15),
    d("wfsj"),
    t("wfdd", 60),
    a("wfdm", 5),
    t("wfnr", 80),
    m("fkje"),
    n("wfjf", 2),
    m("znj"),
    m("zje"),
    a("jdsh", 16),
    d("jdsj"),
    a("zt", 1),
    d("clsj"),
    t("dsr", 30),
    a("jszh", 18),
    a("dabh", 12),
    t("cjjg", 40),
    n("zjs", 2),
];

pub(super) const EVIDENCE: &[Column] = &[a("zjh", 24), a("zjlx", 1), d("pssj"), a("zjdz", 60), a("zjzy", 64)];

pub(super) const LIST: &[Column] =
    &[a("cxfs", 1), a("hpzl", 2), t("hphm", 15), a("jszh", 18), a("zt", 1), n("ksh", 4), n("jls", 2)];
pub(super) const LIST_REPLY: &[Column] = &[n("zjls", 4), n("bcs", 2)];

pub(super) const DETAIL: &[Column] = &[a("wfbh", 20)];
pub(super) const DETAIL_REPLY: &[Column] = &[t("wfgd", 120), t("fltw", 120), n("zjs", 2)];

pub(super) const LOCK: &[Column] = &[a("wfbh", 20), a("sdlsh", 64), n("sdfz", 4)];
pub(super) const LOCK_REPLY: &[Column] = &[a("sdh", 20), d("sdzz")];

pub(super) const RELEASE: &[Column] = &[a("sdh", 20), a("sdlsh", 64)];

pub(super) const PAY: &[Column] =
    &[a("ddh", 64), a("wfbh", 20), a("sdh", 20), m("je"), d("jfsj"), a("jfqd", 2), a("qdlsh", 32)];
pub(super) const PAY_REPLY: &[Column] =
    &[a("jyzt", 1), a("jflsh", 20), d("rzsj"), a("wfbh", 20), m("je"), a("zt", 1), n("jfq", 2), n("jfh", 2)];

pub(super) const INQUIRE: &[Column] = &[a("ddh", 64)];
pub(super) const INQUIRE_REPLY: &[Column] = &[a("jjm", 4), t("jjyy", 60)];

pub(super) const POINTS: &[Column] = &[a("jszh", 18)];
pub(super) const POINTS_REPLY: &[Column] = &[
    a("jszh", 18),
    t("xm", 30),
    a("dabh", 12),
    a("zjcx", 10),
    a("jszt", 1),
    n("ljjf", 2),
    day("qsrq"),
    day("jzrq"),
    n("wcls", 3),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::taiyuan::columns::width;

    const PAGE: &str = include_str!("../../../../docs/sandbox/police-140100.md");

    /// The tables of a section of the page as (offset, width, name, kind letter).
    fn tables(section: &str) -> Vec<Vec<(usize, usize, String, char)>> {
        let start = PAGE.find(&format!("\n{section}\n")).unwrap_or_else(|| panic!("no section {section}")) + 1;
        let body = PAGE[start..].split_once('\n').expect("a body").1;
        let level = section.split(' ').next().expect("hashes").len();
        let end = body
            .lines()
            .take_while(|line| !line.starts_with('#') || line.split(' ').next().unwrap_or("").len() > level);
        let mut tables = vec![Vec::new()];
        for line in end {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            match cells.as_slice() {
                ["", offset, width, name, kind, ..]
                    if offset.bytes().all(|b| b.is_ascii_digit()) && !offset.is_empty() =>
                {
                    let row =
                        (offset.parse().expect("offset"), width.parse().expect("width"), name.trim_matches('`').into());
                    tables.last_mut().expect("a table").push((row.0, row.1, row.2, kind.chars().next().expect("kind")));
                }
                _ if tables.last().is_some_and(|table| !table.is_empty()) => tables.push(Vec::new()),
                _ => {}
            }
        }
        tables.retain(|table| !table.is_empty());
        tables
    }

    fn drawn(start: usize, columns: &[Column]) -> Vec<(usize, usize, String, char)> {
        let letter = |kind| match kind {
            Kind::Ascii => 'A',
            Kind::Text => 'T',
            Kind::Number => 'N',
            Kind::Money => 'M',
            Kind::Time => 'D',
        };
        let mut offset = start;
        let mut rows = Vec::new();
        for column in columns {
            rows.push((offset, column.width, column.name.to_owned(), letter(column.kind)));
            offset += column.width;
        }
        rows
    }

    #[test]
    fn the_page_and_the_code_have_the_same_columns() {
        let head = width(REQUEST_HEAD);
        let reply = width(REPLY_HEAD);
        let inquire: Vec<Column> = PAY_REPLY.iter().chain(INQUIRE_REPLY).copied().collect();
        let expected = [
            ("## Request header", vec![drawn(0, REQUEST_HEAD)]),
            ("## Reply header", vec![drawn(0, REPLY_HEAD)]),
            ("## The record group", vec![drawn(0, RECORD)]),
            ("## The evidence group", vec![drawn(0, EVIDENCE)]),
            (
                "### 2101 violations by plate or licence, newest first",
                vec![drawn(head, LIST), drawn(reply, LIST_REPLY)],
            ),
            (
                "### 2102 one record with evidence",
                vec![drawn(head, DETAIL), drawn(reply + width(RECORD), DETAIL_REPLY)],
            ),
            ("### 2201 re-reads the record and holds its amount", vec![drawn(head, LOCK), drawn(reply, LOCK_REPLY)]),
            ("### 2202 releases a lock", vec![drawn(head, RELEASE)]),
            ("### 2301 takes a payment", vec![drawn(head, PAY), drawn(reply, PAY_REPLY)]),
            ("### 2302 what became of a payment", vec![drawn(head, INQUIRE), drawn(reply, &inquire)]),
            ("### 2401 a driver's points", vec![drawn(head, POINTS), drawn(reply, POINTS_REPLY)]),
        ];
        for (section, columns) in expected {
            assert_eq!(tables(section), columns, "{section}");
        }
    }
}
