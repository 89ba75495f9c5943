//! Alipay's business bill: GBK, remarks behind `#`, numbers padded with tabs, refunds negative; mostly in a zip archive whose names are
//! GBK and do not say so.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};

use encoding_rs::GBK;
use jiff::civil::DateTime;
use zip::ZipArchive;

use super::{BillError, Lines, error, unreadable, yuan};
use crate::reconcile::entry::{Entry, Money, Side, State, What};

/// The columns that are read, by their names: 商户订单号 our order, 业务类型 kind, 完成时间 time, 订单金额 amount, 退款批次号/请求号 our
/// refund.
const COLUMNS: [&str; 5] = ["商户订单号", "业务类型", "完成时间", "订单金额（元）", "退款批次号/请求号"];
const DETAILS: &str = "业务明细";
const SUMMARY: &str = "汇总";
const LAST_LINE: &str = "业务明细列表结束";
const PAYMENTS: &str = "#交易合计：";

/// Takes the details out of an archive, onto the disk.
pub(super) fn unpack<R: Read + Seek>(file: R) -> Result<Rows<BufReader<File>>, BillError> {
    let broken = |what: &str| BillError { line: 0, column: None, what: format!("{what}: the archive cannot be used") };
    let mut archive = ZipArchive::new(file).map_err(|error| broken(&error.to_string()))?;
    let details = (0..archive.len()).find(|index| {
        archive.by_index_raw(*index).is_ok_and(|member| {
            let (name, ..) = GBK.decode(member.name_raw());
            name.contains(DETAILS) && !name.contains(SUMMARY)
        })
    });
    let index = details.ok_or_else(|| broken("no file of details (业务明细) in it"))?;
    let mut member = archive.by_index(index).map_err(|error| broken(&error.to_string()))?;
    let mut plain = tempfile::tempfile().map_err(|error| unreadable(0, &error))?;
    io::copy(&mut member, &mut plain).map_err(|error| unreadable(0, &error))?;
    plain.rewind().map_err(|error| unreadable(0, &error))?;
    Ok(Rows::new(Lines::new(BufReader::new(plain))))
}

pub(super) struct Rows<R> {
    lines: Lines<R>,
    places: Option<[usize; 5]>,
    payments: u64,
    has_ended: bool,
    is_over: bool,
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(lines: Lines<R>) -> Self {
        Self { lines, places: None, payments: 0, has_ended: false, is_over: false }
    }

    fn row(&mut self) -> Result<Option<Entry>, BillError> {
        loop {
            let line = self.lines.next()?.map(|line| GBK.decode_without_bom_handling(line));
            let line = line.map(|(line, has_error)| (line.into_owned(), has_error));
            let number = self.lines.number;
            let Some((line, has_error)) = line else {
                let cut = "the file ends before its last line (业务明细列表结束): it was cut";
                return if self.has_ended { Ok(None) } else { Err(self.lines.error(None, cut)) };
            };
            if has_error {
                return Err(self.lines.error(None, "is not GBK"));
            }
            if line.starts_with('#') {
                self.remark(&line)?;
                continue;
            }
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let Some(places) = self.places else {
                self.places = Some(places(&cells, number)?);
                continue;
            };
            let [order, kind, at, amount, refund] = places.map(|place| cells.get(place).copied());
            let cell =
                |cell: Option<&'_ str>, column| cell.map(str::to_owned).ok_or_else(|| error(number, column, "is missing"));
            let at = cell(at, COLUMNS[2])?;
            let at = at.parse::<DateTime>().map_err(|_| error(number, COLUMNS[2], "is not a time as 2026-11-22 09:30:00"))?;
            let fen = yuan(number, COLUMNS[3], &cell(amount, COLUMNS[3])?)?;
            let (what, name, sign) = match cell(kind, COLUMNS[1])?.as_str() {
                "交易" => (What::Payment, cell(order, COLUMNS[0])?, 1),
                "退款" => (What::Refund, cell(refund, COLUMNS[4])?, -1),
                _ => return Err(error(number, COLUMNS[1], "is neither 交易 (payment) nor 退款 (refund)")),
            };
            let Some(minor) = fen.minor.checked_mul(sign).filter(|minor| *minor >= 0) else {
                return Err(error(number, COLUMNS[3], "has the sign of another kind of movement"));
            };
            self.payments = self.payments.saturating_add(u64::from(what == What::Payment));
            let amount = Money { minor, ..fen };
            return Ok(Some(Entry { what, number: name, side: Side::Channel, amount, state: State::Done, at, age_days: 0 }));
        }
    }

    fn remark(&mut self, line: &str) -> Result<(), BillError> {
        self.has_ended |= line.contains(LAST_LINE);
        let Some(told) = line.strip_prefix(PAYMENTS).and_then(|rest| rest.split_once('笔')) else { return Ok(()) };
        if told.0.parse() == Ok(self.payments) {
            Ok(())
        } else {
            Err(error(self.lines.number, "交易合计", "is not the number of payments: the file was changed or cut"))
        }
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Entry, BillError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let row = self.row();
        self.is_over |= !matches!(row, Ok(Some(_)));
        row.transpose()
    }
}

fn places(columns: &[&str], line: u64) -> Result<[usize; 5], BillError> {
    let mut places = [0; 5];
    for (place, name) in places.iter_mut().zip(COLUMNS) {
        let at = columns.iter().position(|column| *column == name);
        *place = at.ok_or_else(|| error(line, name, "is missing among the columns of the details"))?;
    }
    Ok(places)
}
