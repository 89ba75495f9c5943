//! Bills: what WeChat writes down of a day for a merchant, as the CSV that it hands out.
//!
//! UTF-8 with a byte order mark, lines end with CRLF, every cell of a row begins with a backtick, money is yuan. Behind the rows stand
//! the head of the sums and the sums. A refund stands in the bill of the day on which it was asked for, as it stood when that day ended.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::civil::{Date, DateTime};
use runtime::Timestamp;

use super::book::{Book, Order, Paid, Refund};
use super::event::RefundStatus;
use super::messages;
use crate::beijing;

/// How long an address to download from is good.
const ADDRESS_LIFE: Duration = Duration::from_secs(300);
/// Files that are kept to be downloaded.
const FILES_MAX: usize = 32;
const ORDERS: &str = "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,代金券金额";
const REFUND_TIMES: &str = ",退款申请时间,退款成功时间";
const REFUNDS: &str = ",微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态";
const GOODS: &str = ",商品名称,商户数据包,手续费,费率,订单金额";
const ASKED: &str = ",申请退款金额";
const RATE_NOTE: &str = ",费率备注";
const TRADE_SUMS: &str = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额";
const FLOWS: &str = "记账时间,微信支付业务单号,资金流水单号,业务名称,业务类型,收支类型,收支金额(元),账户结余(元),资金变更提交申请人,备注,业务凭证号";
const FLOW_SUMS: &str = "资金流水总笔数,收入笔数,收入金额,支出笔数,支出金额";

/// Which rows a trade bill has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trades {
    /// Payments and refunds.
    All,
    /// Payments.
    Success,
    /// Refunds.
    Refund,
}

/// The files that may be downloaded now, oldest first.
#[derive(Debug, Default)]
pub(super) struct Files(Mutex<VecDeque<File>>);

#[derive(Debug)]
struct File {
    token: String,
    mchid: String,
    until: Timestamp,
    bytes: Bytes,
}

impl Files {
    /// Keeps a file for a merchant under a token.
    pub(super) fn keep(&self, token: &str, mchid: &str, bytes: Vec<u8>, now: Timestamp) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= FILES_MAX {
            files.pop_front();
        }
        let (token, mchid, until) = (token.to_owned(), mchid.to_owned(), now.plus(ADDRESS_LIFE));
        files.push_back(File { token, mchid, until, bytes: bytes.into() });
    }

    /// Finds a merchant's file by its token, while that is good.
    pub(super) fn find(&self, token: &str, mchid: &str, now: Timestamp) -> Option<Bytes> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.iter().find(|file| file.token == token && file.mchid == mchid && now < file.until);
        file.map(|file| file.bytes.clone())
    }
}

/// A line of a bill that is to come, with what it adds to the sums.
struct Row {
    at: Timestamp,
    number: String,
    cells: Vec<String>,
    paid_minor: i64,
    refunded_minor: i64,
}

/// Writes a merchant's trade bill of a day; None when nothing happened.
pub(super) fn trades(book: &Book, mchid: &str, day: Date, which: Trades) -> Option<Vec<u8>> {
    let (from, until) = (beijing::moment(day.into()), beijing::moment(next(day)?));
    let is_of_day = |at: Timestamp| (from..until).contains(&at);
    let mut rows = Vec::new();
    for order in book.orders_of(mchid) {
        let Some(paid) = order.paid.as_ref() else { continue };
        if which != Trades::Refund && is_of_day(paid.at) {
            rows.push(payment(order, paid, which));
        }
        let refunds = book.refunds_of(order).filter(|refund| which != Trades::Success && is_of_day(refund.created_at));
        rows.extend(refunds.map(|refund| refunded(order, paid, refund, which, until)));
    }
    rows.sort_by(|one, other| (one.at, &one.number).cmp(&(other.at, &other.number)));
    let head = match which {
        Trades::All => [ORDERS, REFUNDS, GOODS, ASKED, RATE_NOTE].concat(),
        Trades::Success => [ORDERS, GOODS, RATE_NOTE].concat(),
        Trades::Refund => [ORDERS, REFUND_TIMES, REFUNDS, GOODS, ASKED, RATE_NOTE].concat(),
    };
    let paid: i64 = rows.iter().map(|row| row.paid_minor).sum();
    let back: i64 = rows.iter().map(|row| row.refunded_minor).sum();
    let sums = [yuan(paid), yuan(back), yuan(0), no_fee(), yuan(paid), yuan(back)];
    file(&head, &rows, TRADE_SUMS, &sums)
}

fn payment(order: &Order, paid: &Paid, which: Trades) -> Row {
    let amount = yuan(order.terms.amount_minor);
    let mut cells = order_cells(order, paid, paid.at, "SUCCESS", &amount);
    if which == Trades::All {
        cells.extend(["0".into(), "0".into(), yuan(0), yuan(0), String::new(), String::new()]);
    }
    cells.extend(goods_cells(order, &amount));
    if which == Trades::All {
        cells.push(yuan(0));
    }
    cells.push(String::new());
    let (paid_minor, number) = (order.terms.amount_minor, paid.transaction_id.clone());
    Row { at: paid.at, number, cells, paid_minor, refunded_minor: 0 }
}

/// `seen`: when the day ended, and with it what the bill knows.
fn refunded(order: &Order, paid: &Paid, refund: &Refund, which: Trades, seen: Timestamp) -> Row {
    let amount = yuan(refund.terms.amount_minor);
    let ended_at = refund.ended_at.filter(|at| *at < seen);
    let status = if ended_at.is_some() { refund.status } else { RefundStatus::Processing };
    let at = if which == Trades::All { refund.created_at } else { paid.at };
    let mut cells = order_cells(order, paid, at, "REFUND", &yuan(0));
    if which == Trades::Refund {
        let succeeded_at = ended_at.filter(|_| status == RefundStatus::Success);
        cells.extend([beijing::spaced(refund.created_at), succeeded_at.map(beijing::spaced).unwrap_or_default()]);
    }
    cells.extend([refund.terms.refund_id.clone(), refund.terms.out_refund_no.clone(), amount.clone(), yuan(0)]);
    cells.extend(["ORIGINAL".into(), messages::status(status).into()]);
    cells.extend(goods_cells(order, &yuan(0)));
    cells.extend([amount, String::new()]);
    let (number, refunded_minor) = (refund.terms.refund_id.clone(), refund.terms.amount_minor);
    Row { at: refund.created_at, number, cells, paid_minor: 0, refunded_minor }
}

fn order_cells(order: &Order, paid: &Paid, at: Timestamp, state: &str, amount: &str) -> Vec<String> {
    let terms = &order.terms;
    let trade_type = serde_json::json!(terms.trade_type).as_str().unwrap_or_default().to_owned();
    let texts = [&terms.appid, &terms.mchid].map(Clone::clone);
    let mut cells = vec![beijing::spaced(at)];
    cells.extend(texts);
    cells.extend(["0".into(), String::new(), paid.transaction_id.clone(), terms.out_trade_no.clone()]);
    cells.extend([paid.openid.clone(), trade_type, state.into(), "OTHERS".into(), terms.currency.clone()]);
    cells.extend([amount.into(), yuan(0)]);
    cells
}

fn goods_cells(order: &Order, amount: &str) -> [String; 5] {
    let attach = order.terms.attach.clone().unwrap_or_default();
    [order.terms.description.clone(), attach, no_fee(), "0.00%".into(), amount.into()]
}

/// Writes the bill of what moved on a merchant's basic account on a day; None when nothing did.
///
/// Payments come in when they are made, refunds go out when they succeed. The sandbox takes no fee.
pub(super) fn flows(book: &Book, mchid: &str, day: Date) -> Option<Vec<u8>> {
    let (from, until) = (beijing::moment(day.into()), beijing::moment(next(day)?));
    let mut rows = Vec::new();
    for order in book.orders_of(mchid) {
        let Some(paid) = order.paid.as_ref() else { continue };
        let amount_minor = order.terms.amount_minor;
        let texts = ["交易", "交易", "收入", "system", "结算总金额"];
        rows.push(flow(
            paid.at,
            texts,
            [&paid.transaction_id, &paid.transaction_id, &order.terms.out_trade_no],
            amount_minor,
        ));
        for refund in book.refunds_of(order).filter(|refund| refund.status == RefundStatus::Success) {
            let Some(at) = refund.ended_at else { continue };
            let (api, amount_minor) = (format!("{mchid}API"), refund.terms.amount_minor);
            let numbers = [&refund.terms.refund_id, &refund.transaction_id, &refund.terms.out_refund_no];
            rows.push(flow(at, ["退款", "退款", "支出", &api, "退款总金额"], numbers, -amount_minor));
        }
    }
    rows.sort_by(|one, other| (one.at, &one.number).cmp(&(other.at, &other.number)));
    let mut balance = 0;
    for row in &mut rows {
        balance += row.paid_minor - row.refunded_minor;
        row.cells.insert(7, yuan(balance));
    }
    rows.retain(|row| (from..until).contains(&row.at));
    let count = |is_in: bool| rows.iter().filter(|row| (row.paid_minor > 0) == is_in).count().to_string();
    let paid: i64 = rows.iter().map(|row| row.paid_minor).sum();
    let back: i64 = rows.iter().map(|row| row.refunded_minor).sum();
    let sums = [count(true), yuan(paid), count(false), yuan(back)];
    file(FLOWS, &rows, FLOW_SUMS, &sums)
}

/// A flow without the balance behind it. `texts`: name, kind, direction, who asked, remark; `numbers`: business, flow, voucher.
fn flow(at: Timestamp, texts: [&str; 5], numbers: [&String; 3], amount_minor: i64) -> Row {
    let [name, kind, direction, who, remark] = texts;
    let [business, flow, voucher] = numbers;
    let amount = yuan(amount_minor.abs());
    let remark = format!("{remark}{amount}元;含手续费{}元", yuan(0));
    let texts = [business, flow, name, kind, direction, amount.as_str(), who, remark.as_str(), voucher];
    let cells = [beijing::spaced(at)].into_iter().chain(texts.map(str::to_owned)).collect();
    let (paid_minor, refunded_minor) = (amount_minor.max(0), (-amount_minor).max(0));
    Row { at, number: business.clone(), cells, paid_minor, refunded_minor }
}

fn file(head: &str, rows: &[Row], sums_head: &str, sums: &[String]) -> Option<Vec<u8>> {
    if rows.is_empty() {
        return None;
    }
    let mut text = format!("\u{feff}{head}\r\n");
    for row in rows {
        line(&mut text, &row.cells);
    }
    let _ = write!(text, "{sums_head}\r\n");
    line(&mut text, &[&[rows.len().to_string()], sums].concat());
    Some(text.into_bytes())
}

fn line(text: &mut String, cells: &[String]) {
    for (index, cell) in cells.iter().enumerate() {
        text.push_str(if index == 0 { "`" } else { ",`" });
        // What would end the cell or the line cannot stand in it.
        text.extend(cell.chars().map(|c| if c.is_control() || c == '`' { ' ' } else { c }));
    }
    text.push_str("\r\n");
}

fn next(day: Date) -> Option<DateTime> {
    day.tomorrow().ok().map(Into::into)
}

fn yuan(fen: i64) -> String {
    let (sign, fen) = (if fen < 0 { "-" } else { "" }, fen.unsigned_abs());
    format!("{sign}{}.{:02}", fen / 100, fen % 100)
}

fn no_fee() -> String {
    "0.00000".to_owned()
}

#[cfg(test)]
mod tests;
