//! WeChat Pay's trade bill: UTF-8 with a byte order mark, cells behind backticks, yuan, two lines of totals at the end.
//!
//! A refund stands in it from the day it was asked for, and is not mentioned again: the bill does not tell what came of it.

use std::io::BufRead;
use std::sync::Arc;

use jiff::civil::DateTime;

use super::{BillError, Lines, Sum, error, fee, number, yuan};
use crate::reconcile::entry::{Entry, Side, State, What};
use crate::reconcile::fee::Fee;

pub(super) const CHANNEL: &str = "wechatpay";
pub(super) const FIRST_COLUMN: &str = "交易时间";
/// The columns that are read, by their names: 交易时间 time, 商户订单号 our order, 交易状态 state, 货币种类 currency, 商户退款单号 our
/// refund, 订单金额 amount, 申请退款金额 amount refunded, 手续费 fee.
const COLUMNS: [&str; 8] =
    [FIRST_COLUMN, "商户订单号", "交易状态", "货币种类", "商户退款单号", "订单金额", "申请退款金额", "手续费"];
const TOTALS: &str = "总交易单数";
const TOTAL_COLUMNS: [&str; 4] = [TOTALS, "订单总金额", "申请退款总金额", "手续费总金额"];
const NO_SUM: &str = "is not the sum of the rows: the file was changed or cut";

pub(super) struct Rows<R> {
    lines: Lines<R>,
    channel: Arc<str>,
    columns: usize,
    places: [usize; 8],
    paid: Sum,
    refunded: Sum,
    charged: Fee,
    is_over: bool,
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(mut lines: Lines<R>) -> Result<Self, BillError> {
        let head = text(lines.next()?.unwrap_or_default(), 1)?;
        let (places, columns) = (places(head, COLUMNS, 1)?, cells(head).count());
        let (channel, sum) = (CHANNEL.into(), Sum::default());
        Ok(Self { lines, channel, columns, places, paid: sum, refunded: sum, charged: Fee::default(), is_over: false })
    }

    fn row(&mut self) -> Result<Option<Entry>, BillError> {
        let at_line = self.lines.following();
        let Some(line) = self.lines.next()? else {
            return Err(BillError {
                line: at_line,
                column: None,
                what: "the file ends before its totals: it was cut".into(),
            });
        };
        let line = text(line, at_line)?;
        if line.starts_with(TOTALS) {
            let places = places(line, TOTAL_COLUMNS, at_line)?;
            return self.totals(places).map(|()| None);
        }
        let mut cells_of = [""; 8];
        let mut count = 0_usize;
        for (place, cell) in cells(line).enumerate() {
            count = count.saturating_add(1);
            for (wanted, slot) in self.places.iter().zip(&mut cells_of) {
                if place == *wanted {
                    *slot = cell;
                }
            }
        }
        if count != self.columns {
            let what = format!("has {count} cells where the head has {} columns", self.columns);
            return Err(BillError { line: at_line, column: None, what });
        }
        let [at, order, state, currency, refund, paid, refunded, charged] = cells_of;
        let at =
            at.parse::<DateTime>().map_err(|_| error(at_line, COLUMNS[0], "is not a time as 2026-11-22 09:30:00"))?;
        let paid = yuan(at_line, COLUMNS[5], paid, currency)?;
        let refunded = yuan(at_line, COLUMNS[6], refunded, currency)?;
        let (what, number, amount, state) = match state {
            "SUCCESS" => (What::Payment, number(at_line, COLUMNS[1], order)?, paid, State::Done),
            "REFUND" => (What::Refund, number(at_line, COLUMNS[4], refund)?, refunded, State::Asked),
            "REVOKED" => (What::Payment, number(at_line, COLUMNS[1], order)?, paid, State::Undone),
            _ => return Err(error(at_line, COLUMNS[2], "is none of SUCCESS, REFUND, REVOKED")),
        };
        // Its sign is that of the total: what a refund gives back is below zero there.
        self.charged = self.charged.plus(fee(at_line, COLUMNS[7], charged)?);
        self.paid.add(paid.minor);
        self.refunded.add(refunded.minor);
        let party = Arc::clone(&self.channel);
        Ok(Some(Entry { what, party, number, side: Side::Channel, amount, state, at, age_days: 0 }))
    }

    /// The last two lines: what the bill says it has.
    fn totals(&mut self, places: [usize; 4]) -> Result<(), BillError> {
        let at_line = self.lines.following();
        let line = text(self.lines.next()?.unwrap_or_default(), at_line)?;
        let [count, paid, refunded, charged] = places.map(|place| cells(line).nth(place).unwrap_or_default());
        if count.parse() != Ok(self.paid.count) {
            return Err(error(at_line, TOTALS, "is not the number of rows: the file was changed or cut"));
        }
        for (cell, column, sum) in [(paid, TOTAL_COLUMNS[1], self.paid), (refunded, TOTAL_COLUMNS[2], self.refunded)] {
            if i128::from(yuan(at_line, column, cell, "CNY")?.minor) != sum.minor {
                return Err(error(at_line, column, NO_SUM));
            }
        }
        let is_sum = fee(at_line, TOTAL_COLUMNS[3], charged)? == self.charged;
        if is_sum { Ok(()) } else { Err(error(at_line, TOTAL_COLUMNS[3], NO_SUM)) }
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

impl<R: BufRead + Send> super::Rows for Rows<R> {
    fn charged(&self) -> Fee {
        self.charged
    }
}

fn text(line: &[u8], number: u64) -> Result<&str, BillError> {
    str::from_utf8(line).map_err(|_| BillError { line: number, column: None, what: "is not UTF-8".to_owned() })
}

/// Cells stand behind backticks; a comma within one has none after it.
fn cells(line: &str) -> impl Iterator<Item = &str> {
    let (line, between) = line.strip_prefix('`').map_or((line, ","), |line| (line, ",`"));
    line.split(between)
}

/// Where columns are, by their names.
fn places<const COUNT: usize>(
    head: &str,
    names: [&'static str; COUNT],
    line: u64,
) -> Result<[usize; COUNT], BillError> {
    let mut places = [0; COUNT];
    for (place, name) in places.iter_mut().zip(names) {
        let at = cells(head).position(|column| column == name);
        *place = at.ok_or_else(|| error(line, name, "is missing among the columns: is it a bill of bill_type=ALL?"))?;
    }
    Ok(places)
}
