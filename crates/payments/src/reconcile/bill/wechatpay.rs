//! WeChat Pay's trade bill: UTF-8 with a byte order mark, cells behind backticks, yuan, two lines of totals at the end.
//!
//! A refund stands in it from the day it was asked for, and is not mentioned again; so it is done as far as a bill can tell.

use std::io::BufRead;

use jiff::civil::DateTime;

use super::{BillError, Lines, Sum, error, yuan};
use crate::reconcile::entry::{Entry, Money, Side, State, What};

pub(super) const FIRST_COLUMN: &str = "交易时间";
/// The columns that are read, by their names: 交易时间 time, 商户订单号 our order, 交易状态 state, 货币种类 currency, 商户退款单号 our
/// refund, 订单金额 amount, 申请退款金额 amount refunded.
const COLUMNS: [&str; 7] = [FIRST_COLUMN, "商户订单号", "交易状态", "货币种类", "商户退款单号", "订单金额", "申请退款金额"];
const TOTALS: &str = "总交易单数";
const TOTAL_COLUMNS: [&str; 3] = [TOTALS, "订单总金额", "申请退款总金额"];

pub(super) struct Rows<R> {
    lines: Lines<R>,
    places: [usize; 7],
    count: u64,
    paid: Sum,
    refunded: Sum,
    is_over: bool,
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(mut lines: Lines<R>) -> Result<Self, BillError> {
        let head = text(lines.next()?.unwrap_or_default(), 1)?;
        let places = places(&head, COLUMNS, 1)?;
        Ok(Self { lines, places, count: 0, paid: Sum::default(), refunded: Sum::default(), is_over: false })
    }

    fn row(&mut self) -> Result<Option<Entry>, BillError> {
        let line = self.lines.next()?.map(<[u8]>::to_owned);
        let number = self.lines.number;
        let Some(line) = line else {
            return Err(self.lines.error(None, "the file ends before its totals: it was cut"));
        };
        let line = text(&line, number)?;
        if line.starts_with(TOTALS) {
            return self.totals(&line).map(|()| None);
        }
        let cells = cells(&line);
        let [at, order, state, currency, refund, paid, refunded] = self.places.map(|place| cells.get(place).copied());
        let cell = |cell: Option<&'_ str>, column| cell.map(str::to_owned).ok_or_else(|| error(number, column, "is missing"));
        let at = cell(at, COLUMNS[0])?;
        let at = at.parse::<DateTime>().map_err(|_| error(number, COLUMNS[0], "is not a time as 2026-11-22 09:30:00"))?;
        let currency = cell(currency, COLUMNS[3])?;
        let (what, name, amount, state) = match cell(state, COLUMNS[2])?.as_str() {
            "SUCCESS" => (What::Payment, cell(order, COLUMNS[1])?, (paid, COLUMNS[5]), State::Done),
            "REFUND" => (What::Refund, cell(refund, COLUMNS[4])?, (refunded, COLUMNS[6]), State::Done),
            "REVOKED" => (What::Payment, cell(order, COLUMNS[1])?, (paid, COLUMNS[5]), State::Undone),
            _ => return Err(error(number, COLUMNS[2], "is none of SUCCESS, REFUND, REVOKED")),
        };
        let fen = yuan(number, amount.1, &cell(amount.0, amount.1)?)?;
        let amount = Money { currency: currency.as_bytes().try_into().unwrap_or(*b"???"), ..fen };
        self.count = self.count.saturating_add(1);
        match what {
            What::Refund => self.refunded.add(amount),
            What::Payment | What::Settlement => self.paid.add(amount),
        }
        Ok(Some(Entry { what, number: name, side: Side::Channel, amount, state, at, age_days: 0 }))
    }

    /// The last two lines: what the bill says it has.
    fn totals(&mut self, head: &str) -> Result<(), BillError> {
        let places = places(head, TOTAL_COLUMNS, self.lines.number)?;
        let line = self.lines.next()?.map(<[u8]>::to_owned).unwrap_or_default();
        let number = self.lines.number;
        let line = text(&line, number)?;
        let cells = cells(&line);
        let [count, paid, refunded] = places.map(|place| cells.get(place).copied().unwrap_or_default());
        if count.parse() != Ok(self.count) {
            return Err(error(number, TOTALS, "is not the number of rows: the file was changed or cut"));
        }
        for (cell, column, sum) in [(paid, TOTAL_COLUMNS[1], self.paid), (refunded, TOTAL_COLUMNS[2], self.refunded)] {
            if yuan(number, column, cell)?.minor != sum.minor {
                return Err(error(number, column, "is not the sum of the rows: the file was changed or cut"));
            }
        }
        self.is_over = true;
        Ok(())
    }
}

impl<R: BufRead> Iterator for Rows<R> {
    type Item = Result<Entry, BillError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let row = self.row();
        self.is_over |= row.is_err();
        row.transpose()
    }
}

fn text(line: &[u8], number: u64) -> Result<String, BillError> {
    let text = str::from_utf8(line);
    text.map(str::to_owned).map_err(|_| BillError { line: number, column: None, what: "is not UTF-8".to_owned() })
}

/// Cells stand behind backticks; a comma within one has none after it.
fn cells(line: &str) -> Vec<&str> {
    line.strip_prefix('`').map_or_else(|| line.split(',').collect(), |line| line.split(",`").collect())
}

/// Where columns are, by their names.
fn places<const COUNT: usize>(head: &str, names: [&'static str; COUNT], line: u64) -> Result<[usize; COUNT], BillError> {
    let columns = cells(head);
    let mut places = [0; COUNT];
    for (place, name) in places.iter_mut().zip(names) {
        let at = columns.iter().position(|column| *column == name);
        *place = at.ok_or_else(|| error(line, name, "is missing among the columns: is it a bill of bill_type=ALL?"))?;
    }
    Ok(places)
}
