//! Bills (业务明细): an archive of two files in GBK, behind a link that lives for half a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use encoding_rs::GBK;
use jiff::civil::Date;
use runtime::Timestamp;
use serde_json::Value;

use super::book::{Book, Movement};
use super::outcome::{self, ApiError};
use super::zip::{self, Member};
use super::{messages, yuan};
use crate::beijing;

/// The path of a download.
pub(super) const PATH: &str = "/downloadBillFile.resource";
/// How long a link lives.
const LINK: Duration = Duration::from_secs(30);
/// When the bill of a day is there on the next, and the day of the next month on which that of a month is.
const READY_HOUR: i8 = 10;
const READY_DAY: i8 = 4;
const LINKS_MAX: usize = 1_000;

const COLUMNS: [&str; 25] = [
    "支付宝交易号",
    "商户订单号",
    "业务类型",
    "商品名称",
    "创建时间",
    "完成时间",
    "门店编号",
    "门店名称",
    "操作员",
    "终端号",
    "对方账户",
    "订单金额（元）",
    "商家实收（元）",
    "支付宝红包（元）",
    "集分宝（元）",
    "支付宝优惠（元）",
    "商家优惠（元）",
    "券核销金额（元）",
    "券名称",
    "商家红包消费金额（元）",
    "卡消费金额（元）",
    "退款批次号/请求号",
    "服务费（元）",
    "分润（元）",
    "备注",
];

/// A day, or a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Period {
    first: Date,
    last: Date,
    /// As files are named after it.
    name: String,
}

/// Links that were given out lately.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<String, (Timestamp, String, Period)>);

impl Period {
    /// Reads which bill is asked for. Where bills wait, one is there as late as Alipay's.
    pub(super) fn read(biz: &Value, now: Timestamp, waits: bool) -> Result<Self, ApiError> {
        if messages::required(biz, "bill_type", 20)? != "trade" {
            return Err(outcome::bad_parameter("bill_type"));
        }
        let text = messages::required(biz, "bill_date", 10)?;
        let wrong = || outcome::bad_parameter("bill_date");
        let (period, ready) = match text.len() {
            10 => {
                let day = Date::strptime("%Y-%m-%d", &text).map_err(|_| wrong())?;
                let name = day.strftime("%Y%m%d").to_string();
                let ready = day.tomorrow().map_err(|_| wrong())?;
                (Self { first: day, last: day, name }, ready)
            }
            7 => {
                let first = Date::strptime("%Y-%m-%d", format!("{text}-01")).map_err(|_| wrong())?;
                let last = first.last_of_month();
                let next = last.tomorrow().map_err(|_| wrong())?;
                let ready = next.with().day(READY_DAY).build().map_err(|_| wrong())?;
                (Self { first, last, name: first.strftime("%Y%m").to_string() }, ready)
            }
            _ => return Err(wrong()),
        };
        let is_late = now < beijing::moment(ready.at(READY_HOUR, 0, 0, 0));
        if period.first > beijing::day(now) || (waits && is_late) { Err(outcome::no_bill()) } else { Ok(period) }
    }

    /// The name of a file for a merchant.
    pub(super) fn file_name(&self, pid: &str, ending: &str) -> String {
        format!("{pid}0156_{}.{ending}", self.name)
    }
}

impl Links {
    /// Gives a link out. The oldest makes room where there are too many.
    pub(super) fn add(&mut self, token: String, pid: String, period: Period, now: Timestamp) {
        self.0.retain(|_, (until, ..)| now < *until);
        if self.0.len() < LINKS_MAX {
            self.0.insert(token, (now.plus(LINK), pid, period));
        }
    }

    /// Finds what a link that still lives leads to.
    pub(super) fn find(&self, token: &str, now: Timestamp) -> Option<(String, Period)> {
        let (until, pid, period) = self.0.get(token)?;
        (now < *until).then(|| (pid.clone(), period.clone()))
    }
}

/// Writes a bill.
pub(super) fn archive(book: &Book, pid: &str, period: &Period, now: Timestamp) -> std::io::Result<Vec<u8>> {
    let movements = book.movements(pid, period.first, period.last);
    let member = |kind: &str, text: &str| Member {
        name: gbk(&format!("{pid}0156_{}_{kind}.csv", period.name)),
        content: gbk(text),
    };
    let members = [
        member("业务明细", &details(pid, period, &movements)),
        member("业务明细(汇总)", &summary(pid, period, &movements)),
    ];
    zip::archive(&members, beijing::civil(now))
}

fn details(pid: &str, period: &Period, movements: &[Movement<'_>]) -> String {
    let mut lines = head("业务明细", pid, period);
    lines.push(COLUMNS.join(","));
    lines.extend(movements.iter().map(row));
    let paid: Vec<i64> =
        movements.iter().filter(|moved| moved.refund.is_none()).map(|moved| moved.order.terms.amount_minor).collect();
    lines.push("#----业务明细列表结束----".to_owned());
    let sum = yuan::text(paid.iter().sum());
    lines.push(format!("#交易合计：{}笔，商家实收共{sum}元，商家优惠共0.00元", paid.len()));
    ended(&lines)
}

fn summary(pid: &str, period: &Period, movements: &[Movement<'_>]) -> String {
    let mut lines = head("业务明细(汇总)", pid, period);
    let refunds: Vec<i64> =
        movements.iter().filter_map(|moved| moved.refund).map(|refund| refund.amount_minor).collect();
    let paid: i64 =
        movements.iter().filter(|moved| moved.refund.is_none()).map(|moved| moved.order.terms.amount_minor).sum();
    lines.push("交易订单总笔数,退款订单总笔数,订单金额（元）,退款金额（元）,实收净额（元）".to_owned());
    let net = paid - refunds.iter().sum::<i64>();
    let (count, back) = (movements.len() - refunds.len(), -refunds.iter().sum::<i64>());
    let amounts = [paid, back, net].map(yuan::text).join(",");
    lines.push(format!("{count},{},{amounts}", refunds.len()));
    lines.push("#----业务明细(汇总)列表结束----".to_owned());
    ended(&lines)
}

fn head(kind: &str, pid: &str, period: &Period) -> Vec<String> {
    let time = |day: Date| day.strftime("%Y年%m月%d日 00:00:00").to_string();
    let end = period.last.tomorrow().unwrap_or(Date::MAX);
    vec![
        format!("#支付宝{kind}查询"),
        format!("#账号：[{pid}0156]"),
        format!("#起始日期：[{}]   终止日期：[{}]", time(period.first), time(end)),
        format!("#----{kind}列表----"),
    ]
}

/// Numbers and words are padded with a tab, so that a spreadsheet leaves them as they are.
fn row(moved: &Movement<'_>) -> String {
    let terms = &moved.order.terms;
    let padded = |text: &str| format!("{text}\t");
    let (kind, amount, request) = match moved.refund {
        None => ("交易", terms.amount_minor, String::new()),
        Some(refund) => ("退款", -refund.amount_minor, padded(&refund.out_request_no)),
    };
    let amount = yuan::text(amount);
    let nothing = || "0.00".to_owned();
    let cells: [String; 25] = [
        padded(&moved.trade.trade_no),
        padded(&terms.out_trade_no),
        padded(kind),
        // A comma would move all that follows by a column, and nobody quotes here.
        terms.subject.replace([',', '\r', '\n', '\t'], " "),
        beijing::spaced(moved.trade.created_at),
        beijing::spaced(moved.at),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
        format!("{}****{}", moved.trade.buyer_id.get(..4).unwrap_or(""), moved.trade.buyer_id.get(12..).unwrap_or("")),
        amount.clone(),
        amount,
        nothing(),
        nothing(),
        nothing(),
        nothing(),
        nothing(),
        String::new(),
        nothing(),
        nothing(),
        request,
        nothing(),
        nothing(),
        String::new(),
    ];
    cells.join(",")
}

fn ended(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\r\n")).collect()
}

/// GBK; what it does not have is a question mark.
fn gbk(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for letter in text.chars() {
        let mut utf8 = [0; 4];
        let (pair, _, unknown) = GBK.encode(letter.encode_utf8(&mut utf8));
        bytes.extend_from_slice(if unknown { b"?" } else { &pair });
    }
    bytes
}

#[cfg(test)]
mod tests;
