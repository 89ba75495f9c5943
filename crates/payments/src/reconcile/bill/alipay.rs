//! Alipay's business bill: GBK, remarks behind `#`, numbers padded with tabs, refunds negative; mostly in a zip archive whose names are
//! GBK and do not say so.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use encoding_rs::GBK;
use jiff::civil::DateTime;
use zip::ZipArchive;

use super::{BillError, Lines, Sum, error, fee, number, unreadable, yuan};
use crate::reconcile::entry::{Entry, Money, Side, State, What};
use crate::reconcile::fee::Fee;

pub(super) const CHANNEL: &str = "alipay";
/// The columns that are read, by their names: 商户订单号 our order, 业务类型 kind, 完成时间 time, 订单金额 amount, 退款批次号/请求号 our
/// refund, 商家实收 what the merchant received, 服务费 fee.
const COLUMNS: [&str; 7] =
    ["商户订单号", "业务类型", "完成时间", "订单金额（元）", "退款批次号/请求号", "商家实收（元）", "服务费（元）"];
/// The one column whose text anybody writes: the name of the goods. Commas in it are not told from those between cells.
const GOODS: &str = "商品名称";
const DETAILS: &str = "业务明细";
const SUMMARY: &str = "汇总";
const LAST_LINE: &str = "业务明细列表结束";
const PAYMENTS: &str = "#交易合计：";
const RECEIVED: &str = "商家实收共";

/// Takes the details out of an archive, onto the disk.
pub(super) fn unpack<R: Read + Seek>(file: R, scratch: Option<&Path>) -> Result<Rows<BufReader<File>>, BillError> {
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
    let plain = scratch.map_or_else(tempfile::tempfile, tempfile::tempfile_in);
    let mut plain = plain.map_err(|error| unreadable(0, &error))?;
    io::copy(&mut member, &mut plain).map_err(|error| unreadable(0, &error))?;
    plain.rewind().map_err(|error| unreadable(0, &error))?;
    Ok(Rows::new(Lines::new(BufReader::new(plain))))
}

pub(super) struct Rows<R> {
    lines: Lines<R>,
    channel: Arc<str>,
    head: Option<Head>,
    payments: Sum,
    refunds: Sum,
    charged: Fee,
    /// The sign with which the file writes what is charged, once a row has told.
    fee_sign: i128,
    has_total: bool,
    has_ended: bool,
    is_over: bool,
}

struct Head {
    columns: usize,
    goods: usize,
    places: [usize; 7],
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(lines: Lines<R>) -> Self {
        let (payments, refunds, channel) = (Sum::default(), Sum::default(), CHANNEL.into());
        Self {
            lines,
            channel,
            head: None,
            payments,
            refunds,
            charged: Fee::default(),
            fee_sign: 0,
            has_total: false,
            has_ended: false,
            is_over: false,
        }
    }

    /// Adds a row's fee. A payment is charged and a refund gives back, whichever sign the file writes for which: it keeps to one.
    fn charge(&mut self, fee: Fee, sign: i64, at_line: u64) -> Result<(), BillError> {
        let told = fee.sign().saturating_mul(sign.into());
        if told == 0 {
            return Ok(());
        }
        if self.fee_sign == 0 {
            self.fee_sign = told;
        }
        if told != self.fee_sign {
            return Err(error(at_line, COLUMNS[6], "has the sign of another kind of movement"));
        }
        self.charged = self.charged.plus(if told < 0 { fee.back() } else { fee });
        Ok(())
    }

    fn row(&mut self) -> Result<Option<Entry>, BillError> {
        loop {
            let at_line = self.lines.following();
            let Some(line) = self.lines.next()? else {
                let cut = "the file ends before its totals (交易合计): it was cut";
                let is_whole = self.has_ended && self.has_total;
                return if is_whole { Ok(None) } else { Err(self.lines.error(None, cut)) };
            };
            let (line, has_error) = GBK.decode_without_bom_handling(line);
            if has_error {
                return Err(BillError { line: at_line, column: None, what: "is not GBK".to_owned() });
            }
            if line.starts_with('#') {
                self.has_ended |= line.contains(LAST_LINE);
                if let Some(told) = line.strip_prefix(PAYMENTS) {
                    total(told, self.payments, self.refunds, at_line)?;
                    self.has_total = true;
                }
                continue;
            }
            let Some(head) = &self.head else {
                self.head = Some(Head::read(&line, at_line)?);
                continue;
            };
            let [order, kind, at, amount, refund, received, charged] = head.cells(&line, at_line)?;
            let at = at.parse::<DateTime>();
            let at = at.map_err(|_| error(at_line, COLUMNS[2], "is not a time as 2026-11-22 09:30:00"))?;
            let fen = yuan(at_line, COLUMNS[3], amount, "CNY")?;
            let received = yuan(at_line, COLUMNS[5], received, "CNY")?;
            let charged = fee(at_line, COLUMNS[6], charged)?;
            let (what, number, sign, sum) = match kind {
                "交易" => (What::Payment, number(at_line, COLUMNS[0], order)?, 1, &mut self.payments),
                "退款" => (What::Refund, number(at_line, COLUMNS[4], refund)?, -1, &mut self.refunds),
                _ => return Err(error(at_line, COLUMNS[1], "is neither 交易 (payment) nor 退款 (refund)")),
            };
            let Some(minor) = fen.minor.checked_mul(sign).filter(|minor| *minor >= 0) else {
                return Err(error(at_line, COLUMNS[3], "has the sign of another kind of movement"));
            };
            sum.add(received.minor);
            self.charge(charged, sign, at_line)?;
            let (amount, party) = (Money { minor, ..fen }, Arc::clone(&self.channel));
            let (side, state) = (Side::Channel, State::Done);
            return Ok(Some(Entry { what, party, number, side, amount, state, at, age_days: 0 }));
        }
    }
}

impl Head {
    fn read(line: &str, at_line: u64) -> Result<Self, BillError> {
        let place = |name: &'static str| {
            let at = line.split(',').position(|column| column.trim() == name);
            at.ok_or_else(|| error(at_line, name, "is missing among the columns of the details"))
        };
        let mut places = [0; 7];
        for (slot, name) in places.iter_mut().zip(COLUMNS) {
            *slot = place(name)?;
        }
        Ok(Self { columns: line.split(',').count(), goods: place(GOODS)?, places })
    }

    /// The cells that are read, without their padding.
    fn cells<'a>(&self, line: &'a str, at_line: u64) -> Result<[&'a str; 7], BillError> {
        let count = line.split(',').count();
        let Some(commas) = count.checked_sub(self.columns) else {
            let what = format!("has {count} cells where the head has {} columns", self.columns);
            return Err(BillError { line: at_line, column: None, what });
        };
        Ok(self.places.map(|place| {
            let place = if place > self.goods { place.saturating_add(commas) } else { place };
            line.split(',').nth(place).unwrap_or_default().trim()
        }))
    }
}

/// Holds the line of totals against the rows. Whether it counts refunds is not told by every source: either is right.
fn total(told: &str, payments: Sum, refunds: Sum, at_line: u64) -> Result<(), BillError> {
    const COLUMN: &str = "交易合计";
    let both = Sum {
        count: payments.count.saturating_add(refunds.count),
        minor: payments.minor.saturating_add(refunds.minor),
    };
    let received = told.split_once(RECEIVED).and_then(|(_, rest)| rest.split_once('元')).map(|(yuan, _)| yuan);
    let count = told.split_once('笔').map(|(count, _)| count);
    let (Some(count), Some(received)) = (count.and_then(|count| count.parse().ok()), received) else {
        return Err(error(at_line, COLUMN, "does not say how many payments there are and what was received"));
    };
    let told = Sum { count, minor: yuan(at_line, COLUMN, received, "CNY")?.minor.into() };
    if told == payments || told == both {
        Ok(())
    } else {
        Err(error(at_line, COLUMN, "is not that of the rows: the file was changed or cut"))
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
