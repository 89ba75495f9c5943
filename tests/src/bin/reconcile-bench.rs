//! The files of a day of many payments, for `bench/reconcile.sh`: a bill of WeChat Pay, the ledger's export, a department's file.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::Parser;
use jiff::civil::{Date, Time, date};
use payments::reconcile::bill::movements::Writer;
use payments::reconcile::{Entry, Money, Side, State, What};

const DAY: Date = date(2026, 11, 22);
const SECONDS: u64 = 86_000;
/// The columns of a trade bill.
const HEAD: &str = "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注";
const TOTAL: &str = "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额";

#[derive(Debug, Parser)]
#[command(name = "reconcile-bench")]
struct Cli {
    /// Where bill.csv, ledger.csv and department.csv are written
    #[arg(long)]
    to: PathBuf,
    /// Payments, each of which stands in all three files
    #[arg(long, default_value_t = 10_000_000)]
    payments: u64,
    /// How many of them miss in the bill
    #[arg(long, default_value_t = 100)]
    breaks: u64,
}

fn main() -> anyhow::Result<()> {
    let Cli { to, payments, breaks } = Cli::parse();
    // Spread over the day.
    let every = payments.checked_div(breaks).unwrap_or(0).max(1);
    let is_missing = |index: u64| breaks > 0 && index.is_multiple_of(every) && index / every < breaks;
    bill(&to.join("bill.csv"), payments, is_missing)?;
    let side = |name: &str, side, covers: &str, whats: &[What]| -> anyhow::Result<()> {
        let mut writer = Writer::create(&to.join(name), DAY, &[covers])?;
        for index in 0..payments {
            for what in whats {
                writer.write(&entry(side, *what, index, payments)?)?;
            }
        }
        writer.finish()?;
        Ok(())
    };
    side("ledger.csv", Side::Ledger, "ledger", &[What::Payment, What::Settlement])?;
    side("department.csv", Side::Department, "department/traffic-430100", &[What::Settlement])
}

/// Numbers in no order, as ids of many replicas are.
fn order_number(index: u64) -> String {
    format!("{:032x}", u128::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn minor(index: u64) -> i64 {
    i64::try_from(index % 50_000).unwrap_or(0) + 1
}

fn at(index: u64, payments: u64) -> anyhow::Result<jiff::civil::DateTime> {
    let second = i64::try_from(u128::from(index) * u128::from(SECONDS) / u128::from(payments.max(1)))?;
    Ok(DAY.to_datetime(Time::midnight()) + jiff::SignedDuration::from_secs(second))
}

fn entry(side: Side, what: What, index: u64, payments: u64) -> anyhow::Result<Entry> {
    let (party, number) = match what {
        What::Settlement => ("traffic-430100", format!("42{:026}", index.reverse_bits())),
        What::Payment | What::Refund => ("wechatpay", order_number(index)),
    };
    let amount = Money { minor: minor(index), currency: *b"CNY" };
    let at = at(index, payments)?;
    Ok(Entry { what, party: party.into(), number, side, amount, state: State::Done, at, age_days: 0 })
}

fn bill(path: &Path, payments: u64, is_missing: impl Fn(u64) -> bool) -> anyhow::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    write!(out, "\u{feff}{HEAD}\r\n")?;
    let yuan = |minor: i64| format!("{}.{:02}", minor / 100, minor % 100);
    let (mut count, mut sum) = (0_u64, 0_i64);
    for index in (0..payments).filter(|index| !is_missing(*index)) {
        let (number, paid) = (order_number(index), yuan(minor(index)));
        let at = at(index, payments)?.strftime("%Y-%m-%d %H:%M:%S");
        (count, sum) = (count + 1, sum + minor(index));
        write!(
            out,
            "`{at},`wx5a4db0c5a4db0c51,`1900430100,`0,`,`42{index:026},`{number},`o1,`JSAPI,`SUCCESS,`OTHERS,`CNY,`{paid},`0.00,`0,`0,`0.00,`0.00,`,`,`交通违法罚款,`,`0.00,`0.60%,`{paid},`0.00,`\r\n"
        )?;
    }
    let sum = yuan(sum);
    write!(out, "{TOTAL}\r\n`{count},`{sum},`0.00,`0.00,`0.00,`{sum},`0.00\r\n")?;
    out.flush()?;
    Ok(())
}
