use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use jiff::civil::{DateTime, date};
use proptest::prelude::*;

use super::*;
use crate::reconcile::bill::movements::Writer;

const DAY: Date = date(2026, 11, 22);
const WECHAT_HEAD: &str = "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注";
const WECHAT_TOTAL: &str =
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额";
/// An archive as Alipay sends it, made with Python's zipfile: deflated, both names GBK without the flag for UTF-8. Two payments of
/// 20.00 and 16.80 yuan, one of a name with a comma, and a refund of 5.00.
const ALIPAY_ZIP: &[u8] = include_bytes!("fixtures/alipay.zip");

/// A movement as the tests write it down.
fn entry(side: Side, what: What, number: &str, minor: i64, at: &str) -> Entry {
    let party = if what == What::Settlement { "traffic-430100" } else { "wechatpay" };
    let state = if what == What::Refund && side == Side::Channel { State::Asked } else { State::Done };
    let at: DateTime = at.parse().expect("a time");
    let (party, number, amount) = (party.into(), number.to_owned(), Money { minor, currency: *b"CNY" });
    Entry { what, party, number, side, amount, state, at, age_days: 0 }
}

/// Writes a bill of WeChat Pay as the channel does.
fn wechat_bill(entries: &[Entry]) -> Vec<u8> {
    let mut text = format!("\u{feff}{WECHAT_HEAD}\r\n");
    let yuan = |minor: i64| format!("{}.{:02}", minor / 100, minor % 100);
    let (mut paid, mut refunded) = (0, 0);
    for Entry { what, number, amount, at, .. } in entries {
        let currency = amount.code();
        let at = at.strftime("%Y-%m-%d %H:%M:%S");
        let (is_refund, minor) = (*what == What::Refund, amount.minor);
        let (order, refund) = if is_refund { ("0f", number.as_str()) } else { (number.as_str(), "0") };
        let (pay, back) = if is_refund { (0, minor) } else { (minor, 0) };
        (paid, refunded) = (paid + pay, refunded + back);
        let state = if is_refund { "REFUND" } else { "SUCCESS" };
        let (pay, back) = (yuan(pay), yuan(back));
        write!(
            text,
            "`{at},`wx0,`1900430100,`0,`,`4200000001,`{order},`o1,`NATIVE,`{state},`OTHERS,`{currency},`{pay},`0.00,`0,`{refund},`{back},`0.00,`,`,`罚款,代缴,`,`0.00,`0.60%,`{pay},`{back},`\r\n"
        )
        .expect("writes");
    }
    let (count, paid, refunded) = (entries.len(), yuan(paid), yuan(refunded));
    write!(text, "{WECHAT_TOTAL}\r\n`{count},`{paid},`{refunded},`0.00,`0.00,`{paid},`{refunded}\r\n").expect("writes");
    text.into_bytes()
}

/// A directory with the files of a day.
struct Desk {
    dir: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Desk {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), files: Vec::new() }
    }

    fn put(mut self, name: &str, bytes: &[u8]) -> Self {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).expect("writes");
        self.files.push(path);
        self
    }

    fn movements(mut self, name: &str, day: Date, covers: &[&str], entries: &[Entry]) -> Self {
        let path = self.dir.path().join(name);
        let mut writer = Writer::create(&path, day, covers).expect("writes");
        entries.iter().for_each(|entry| writer.write(entry).expect("writes"));
        assert_eq!(writer.finish().expect("writes"), entries.len() as u64);
        self.files.push(path);
        self
    }

    fn run(&self) -> Result<(Vec<Break>, Totals), Error> {
        self.run_and_carry(None)
    }

    fn run_and_carry(&self, carry_to: Option<PathBuf>) -> Result<(Vec<Break>, Totals), Error> {
        let scratch = Some(self.dir.path().to_owned());
        let options = Options { day: None, cut_off: CUT_OFF, files: self.files.clone(), carry_to, scratch };
        let mut breaks = Vec::new();
        let (_, totals) = run(
            &options,
            |one| {
                breaks.push(one.clone());
                Ok(())
            },
            |_| {},
        )?;
        Ok((breaks, totals))
    }
}

fn kinds(breaks: &[Break]) -> Vec<(BreakKind, &str)> {
    breaks.iter().map(|one| (one.kind, one.number.as_str())).collect()
}

fn number_of(index: usize) -> String {
    format!("{:032x}", (index as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

/// All three sides, all in order: 2,000 payments, some refunds, all payments settled.
fn sound() -> (Vec<Entry>, Vec<Entry>, Vec<Entry>) {
    let (mut channel, mut ledger, mut department) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..2_000_u64 {
        let number = number_of(usize::try_from(index).expect("fits"));
        let at = format!("2026-11-22T{:02}:{:02}:{:02}", index % 23, index % 60, index % 59);
        let minor = 1_000 + i64::try_from(index).expect("fits");
        for (what, number) in [(What::Payment, number.clone()), (What::Refund, format!("{number}-r"))] {
            if what == What::Payment || index % 20 == 0 {
                channel.push(entry(Side::Channel, what, &number, minor, &at));
                ledger.push(entry(Side::Ledger, what, &number, minor, &at));
            }
        }
        let number = format!("42{index:026}");
        department.push(entry(Side::Department, What::Settlement, &number, minor, &at));
        ledger.push(entry(Side::Ledger, What::Settlement, &number, minor, &at));
    }
    (channel, ledger, department)
}

fn reconciled((channel, ledger, department): &(Vec<Entry>, Vec<Entry>, Vec<Entry>)) -> (Vec<Break>, Totals) {
    Desk::new()
        .put("bill.csv", &wechat_bill(channel))
        .movements("ledger.csv", DAY, &["ledger"], ledger)
        .movements("traffic.csv", DAY, &["department/traffic-430100"], department)
        .run()
        .expect("reconciles")
}

#[test]
fn sides_that_agree_have_no_break() {
    let (breaks, totals) = reconciled(&sound());
    assert_eq!(kinds(&breaks), []);
    assert_eq!((totals.agreed, totals.carried, totals.unheard.len()), (4_100, 0, 0));
    let told = totals.told.get(&(Side::Channel, "wechatpay".into(), What::Payment)).expect("payments");
    assert_eq!((told.count, told.minor.get(b"CNY")), (2_000, Some(&(2_000_000 + 1_999_000))));
}

/// A hundred wrong rows of every kind that there is, on every side: each is named, and nothing else.
#[test]
fn a_hundred_wrong_rows_are_a_hundred_breaks() {
    let mut all = sound();
    let mut wrong: BTreeSet<(BreakKind, String)> = BTreeSet::new();
    for index in 0..100_usize {
        let (side, kind) = (index % 3, index / 3 % 6);
        let rows = match side {
            0 => &mut all.0,
            1 => &mut all.1,
            _ => &mut all.2,
        };
        // Every twentieth payment has a refund, which has no day to be wrong and, in the bill, no state.
        let number = match (side, kind) {
            (2, _) => format!("42{:026}", index * 20),
            (_, 0..=3) if index % 2 == 0 => format!("{}-r", number_of(index * 20)),
            _ => number_of(index * 20),
        };
        let place = rows.iter().position(|row| row.number == number).expect("a row");
        let row = &mut rows[place];
        let is_payment = row.what == What::Payment;
        let (lost, doubled) =
            if side == 1 { (BreakKind::Long, BreakKind::Short) } else { (BreakKind::Short, BreakKind::Long) };
        let found = match kind {
            0 => {
                rows.remove(place);
                lost
            }
            1 => {
                let again = row.clone();
                rows.push(again);
                doubled
            }
            2 => {
                row.amount.minor += 1;
                BreakKind::Amount
            }
            3 => {
                row.amount.currency = *b"HKD";
                BreakKind::Amount
            }
            4 if is_payment => {
                row.at = row.at.checked_sub(jiff::Span::new().days(1)).expect("a day before");
                BreakKind::State
            }
            // A bill of WeChat Pay writes SUCCESS, whatever the test says: there the amount is a hundred yuan too much.
            _ if side == 0 => {
                row.amount.minor += 10_000;
                BreakKind::Amount
            }
            _ => {
                row.state = State::Undone;
                BreakKind::State
            }
        };
        assert!(wrong.insert((found, number)), "the same row twice");
    }
    let (breaks, totals) = reconciled(&all);
    let named: Vec<_> = breaks.iter().map(|one| (one.kind, one.number.clone())).collect();
    assert_eq!(named.len(), 100);
    assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), wrong);
    assert_eq!((totals.breaks_total(), totals.carried), (100, 0));
}

/// What stands at the end of the day on one side and in the next day's file of the other is no break; what does not come is one.
#[test]
fn what_happened_at_the_edge_waits_for_the_next_day() {
    let edge = "2026-11-22T23:59:58";
    let channel = [
        entry(Side::Channel, What::Payment, "a", 100, edge),
        entry(Side::Channel, What::Payment, "never", 100, edge),
        entry(Side::Channel, What::Payment, "noon", 100, "2026-11-22T12:00:00"),
        entry(Side::Channel, What::Payment, "twice", 100, edge),
        entry(Side::Channel, What::Payment, "twice", 100, edge),
    ];
    let ledger =
        [entry(Side::Ledger, What::Payment, "b", 200, edge), entry(Side::Ledger, What::Payment, "twice", 100, edge)];
    let desk = Desk::new().put("bill.csv", &wechat_bill(&channel)).movements("ledger.csv", DAY, &["ledger"], &ledger);
    let carry = desk.dir.path().join("carry.csv");
    let (breaks, totals) = desk.run_and_carry(Some(carry.clone())).expect("reconciles");
    assert_eq!(kinds(&breaks), [(BreakKind::Long, "noon"), (BreakKind::Long, "twice")]);
    assert_eq!((totals.agreed, totals.carried), (1, 3));
    let after = "2026-11-23T00:00:03";
    let channel = [entry(Side::Channel, What::Payment, "b", 200, after)];
    let ledger = [entry(Side::Ledger, What::Payment, "a", 100, after)];
    let (breaks, totals) = Desk::new()
        .put("bill.csv", &wechat_bill(&channel))
        .movements("ledger.csv", DAY.tomorrow().expect("a day"), &["ledger"], &ledger)
        .put("carry.csv", &fs::read(carry).expect("what was carried over"))
        .run()
        .expect("reconciles");
    assert_eq!(kinds(&breaks), [(BreakKind::Long, "never")]);
    assert_eq!((breaks[0].age_days, totals.agreed), (1, 2));
}

/// WeChat Pay bills a refund when it is asked for; one that succeeded and was never billed is noticed when it is decided.
#[test]
fn a_refund_waits_until_it_is_decided() {
    let on = |day: i8, state, age_days| {
        let at = format!("2026-11-{day}T10:00:00");
        Entry { state, age_days, ..entry(Side::Ledger, What::Refund, "r", 100, &at) }
    };
    let seen = |day: i8, entries: &[Entry]| {
        let heard = BTreeSet::from([(Side::Channel, Arc::from("wechatpay"))]);
        compare::group(entries, &Day::new(date(2026, 11, day), CUT_OFF), &heard, &mut Totals::default())
    };
    let billed = entry(Side::Channel, What::Refund, "r", 100, "2026-11-22T10:00:01");
    for state in [State::Pending, State::Done, State::Undone] {
        assert_eq!(seen(22, &[billed.clone(), on(22, state, 0)]), compare::Outcome::default(), "{state}");
    }
    let waits = seen(22, &[on(22, State::Pending, 0)]);
    assert_eq!((waits.breaks.len(), &waits.carried[..]), (0, &[on(22, State::Pending, 1)][..]));
    // The next day's export tells it again: that is the newer word, and as old.
    let carried = on(22, State::Pending, 1);
    assert_eq!(seen(23, &[on(22, State::Pending, 0), carried.clone()]).carried, [on(22, State::Pending, 2)]);
    assert_eq!(seen(23, &[billed, on(22, State::Done, 0), carried.clone()]), compare::Outcome::default());
    assert_eq!(seen(23, &[on(22, State::Undone, 0), carried.clone()]), compare::Outcome::default());
    let lost = seen(23, &[on(22, State::Done, 0), carried]);
    assert_eq!((lost.breaks.len(), lost.breaks[0].kind), (1, BreakKind::Short));
    // A refund that its own day agreed about is told again on the day of its decision, and is no news.
    assert_eq!(seen(23, &[on(22, State::Done, 0)]), compare::Outcome::default());
}

#[test]
fn an_order_that_is_paid_at_the_channel_alone_is_in_another_state() {
    let unpaid = |state| Entry { state, ..entry(Side::Ledger, What::Payment, "o", 100, "2026-11-21T10:00:00") };
    let paid = entry(Side::Channel, What::Payment, "o", 100, "2026-11-22T10:00:00");
    for state in [State::Pending, State::Undone] {
        let desk = Desk::new().put("bill.csv", &wechat_bill(std::slice::from_ref(&paid))).movements(
            "ledger.csv",
            DAY,
            &["ledger"],
            &[unpaid(state)],
        );
        assert_eq!(kinds(&desk.run().expect("reconciles").0), [(BreakKind::State, "o")], "{state}");
        // Nobody paid it: nothing is missing in the bill.
        let desk =
            Desk::new().put("bill.csv", &wechat_bill(&[])).movements("l.csv", DAY, &["ledger"], &[unpaid(state)]);
        assert_eq!(kinds(&desk.run().expect("reconciles").0), [], "{state}");
    }
}

/// With a side that sent no file nothing is compared, and it is said.
#[test]
fn a_side_that_sent_nothing_is_not_compared() {
    let (channel, ledger, _) = sound();
    let desk = Desk::new().put("bill.csv", &wechat_bill(&channel)).movements("ledger.csv", DAY, &["ledger"], &ledger);
    let (breaks, totals) = desk.run().expect("reconciles");
    assert_eq!(kinds(&breaks), []);
    assert_eq!(totals.unheard, BTreeMap::from([((Side::Department, "traffic-430100".into()), 2_000)]));
}

#[test]
fn an_alipay_archive_is_read() {
    let alipay = |what, number: &str, minor, at: &str| Entry {
        party: "alipay".into(),
        ..entry(Side::Ledger, what, number, minor, at)
    };
    let ledger = [
        alipay(What::Payment, "01990000000070008000000000000001", 2_000, "2026-11-22T09:30:00"),
        alipay(What::Payment, "01990000000070008000000000000002", 1_680, "2026-11-22T09:31:00"),
        alipay(What::Refund, "01990000000070008000000000000003", 500, "2026-11-22T10:00:00"),
    ];
    let desk = Desk::new().put("2088.csv.zip", ALIPAY_ZIP).movements("ledger.csv", DAY, &["ledger"], &ledger);
    let (breaks, totals) = desk.run().expect("reconciles");
    assert_eq!((kinds(&breaks), totals.agreed), (vec![], 3));
}

/// What is wrong with a file is said with the file, the line and the column, and nothing is decided.
#[test]
fn a_file_that_is_wrong_says_where() {
    let bill = String::from_utf8(wechat_bill(&sound().0[..3])).expect("UTF-8");
    let ledger =
        "lastmile-movements,1,2026-11-22,ledger\nside,what,party,number,amount_minor,currency,state,at,age_days\n";
    let row = "ledger,payment,wechatpay,a,100,CNY,done,2026-11-22T09:30:00,0\n";
    let cases = [
        ("bill", bill.replace("`10.01,`0.00,`\r", "`10.0x,`0.00,`\r"), "line 4, 订单金额: is not an amount"),
        ("bill", bill.replace("`3,`20", "`4,`20"), "line 6, 总交易单数: is not the number of rows"),
        ("bill", bill.replace("`20.01,`10.00\r", "`20.02,`10.00\r"), "line 6, 订单总金额: is not the sum"),
        ("bill", bill.split_inclusive('\n').take(3).collect(), "line 4: the file ends before its totals"),
        ("bill", bill.replacen("`SUCCESS", "`SUCCES", 1), "line 2, 交易状态: is none of"),
        ("bill", bill.replacen("`NATIVE,", "", 1), "line 2: has 26 cells where the head has 27"),
        ("bill", bill.replace("商户退款单号", "x"), "line 1, 商户退款单号: is missing"),
        ("bill", bill.replace("2026-11-22 ", "2026-11-21 "), "none of 2026-11-22"),
        ("ledger", format!("{ledger}{row}total,1,101\n"), "line 4, total: is not that of the rows"),
        ("ledger", format!("{ledger}{row}"), "line 4: the file ends before its total"),
        ("ledger", format!("{ledger}{}", row.replace("done", "paid")), "line 3, state: is none of done"),
        ("ledger", format!("{ledger}{}", row.replace("CNY", "yuan")), "line 3, amount_minor: is not an amount"),
        ("ledger", format!("{ledger}{}", row.replace(",a,", ",a b,")), "line 3, number: is not a number"),
        ("other", "a,b\n1,2\n".to_owned(), "line 1: is none of the files that are known"),
    ];
    for (name, text, expected) in cases {
        let mut desk = Desk::new();
        if name != "ledger" {
            desk = desk.movements("good.csv", DAY, &["ledger"], &[]);
        }
        let error = desk.put(name, text.as_bytes()).run().expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains(name), "{error}\nis not {expected}");
    }
    let bill = wechat_bill(&sound().0);
    assert!(matches!(Desk::new().put("bill", &bill).run(), Err(Error::NoLedger)));
    assert!(matches!(Desk::new().movements("l", DAY, &["ledger"], &[]).run(), Err(Error::LedgerAlone)));
    let desk = Desk::new().movements("1", DAY, &["ledger"], &[]).movements("2", date(2026, 11, 23), &["ledger"], &[]);
    assert!(matches!(desk.put("bill", &bill).run(), Err(Error::Days(..))));
    let next = date(2026, 11, 23);
    let desk = Desk::new().movements("l", DAY, &["ledger"], &[]).movements("d", next, &["department/a"], &[]);
    assert!(matches!(desk.run(), Err(Error::FileOfOtherDay { says, day: DAY, .. }) if says == next));
}

/// Alipay's bill with these rows: kind, our number, amount, what the merchant received and the fee, each as the file writes it.
fn alipay_bill(rows: &[(&str, &str, &str, &str)]) -> Vec<u8> {
    let received: f64 = rows.iter().map(|(_, amount, ..)| amount.parse::<f64>().expect("an amount")).sum();
    let mut text = "#支付宝业务明细查询\r\n商户订单号,业务类型,商品名称,完成时间,订单金额（元）,退款批次号/请求号,商家实收（元）,服务费（元）\r\n".to_owned();
    for (kind, amount, fee, number) in rows {
        let refund = if *kind == "退款" { number } else { "" };
        write!(text, "{number}\t,{kind},罚款,2026-11-22 09:30:00,{amount},{refund}\t,{amount},{fee}\r\n")
            .expect("writes");
    }
    let count = rows.len();
    write!(text, "#业务明细列表结束\r\n#交易合计：{count}笔，商家实收共{received:.2}元\r\n").expect("writes");
    encoding_rs::GBK.encode(&text).0.into_owned()
}

/// Alipay charges a payment and gives back with a refund, whichever sign the file writes for which; but it keeps to one.
#[test]
fn alipays_fees_have_the_sign_of_what_they_are_for() {
    let charged = |rows: &[(&str, &str, &str, &str)]| -> Result<Option<i64>, BillError> {
        let mut bill = Bill::open(std::io::Cursor::new(alipay_bill(rows)), None)?;
        let read = bill.by_ref().collect::<Result<Vec<_>, _>>()?;
        assert_eq!(read.len(), rows.len());
        Ok(bill.charged().minor())
    };
    let pay = |fee| ("交易", "20.00", fee, "a");
    let back = |fee| ("退款", "-5.00", fee, "b");
    for (rows, minor) in [
        ([pay("-0.12"), back("0.03")], Some(9)),
        ([pay("0.12"), back("-0.03")], Some(9)),
        ([back("0.03"), pay("-0.12")], Some(9)),
        ([pay("0.00"), back("0.03")], Some(-3)),
        ([pay("0.00"), back("-0.03")], Some(-3)),
        ([pay("-0.00600"), pay("-0.00400")], Some(1)),
        ([pay("-0.00600"), back("0.00100")], None),
    ] {
        assert_eq!(charged(&rows).expect("reads"), minor, "{rows:?}");
    }
    for rows in [[pay("-0.12"), back("-0.03")], [pay("0.12"), pay("-0.12")], [back("0.03"), pay("0.12")]] {
        let error = charged(&rows).expect_err("two signs for one kind").to_string();
        assert_eq!(error, "line 4, 服务费（元）: has the sign of another kind of movement", "{rows:?}");
    }
}

/// Amounts of one number on one side.
type Amounts = BTreeMap<u8, Vec<i64>>;

fn amounts() -> impl Strategy<Value = Amounts> {
    proptest::collection::btree_map(0..12_u8, proptest::collection::vec(1..4_i64, 0..4), 0..12)
}

proptest! {
    /// The merge over the disk finds what counting in memory finds.
    #[test]
    fn the_merge_finds_what_counting_finds(ours in amounts(), theirs in amounts(), held_max in 1..20_usize) {
        let mut matcher = Matcher { sorter: Sorter::new(None, held_max), heard: BTreeSet::new() };
        matcher.heard(Side::Channel, "wechatpay".into());
        for (side, amounts) in [(Side::Channel, &theirs), (Side::Ledger, &ours)] {
            for (number, amounts) in amounts {
                for minor in amounts {
                    let one = entry(side, What::Payment, &number.to_string(), *minor, "2026-11-22T09:00:00");
                    matcher.push(one).expect("takes it");
                }
            }
        }
        let mut found: BTreeMap<(BreakKind, String), usize> = BTreeMap::new();
        let note = |one: Break| {
            *found.entry((one.kind, one.number)).or_default() += 1;
            Ok(())
        };
        let totals = matcher.finish(&Day::new(DAY, CUT_OFF), note, |_| Ok(())).expect("compares");
        let mut expected: BTreeMap<(BreakKind, String), usize> = BTreeMap::new();
        let mut agreed = 0;
        for number in 0..12_u8 {
            let (mut ours, theirs) = (ours.get(&number).cloned().unwrap_or_default(), theirs.get(&number).cloned().unwrap_or_default());
            let mut rest = 0;
            for their in theirs {
                match ours.iter().position(|our| *our == their) {
                    Some(place) => { ours.swap_remove(place); agreed += 1; }
                    None => rest += 1,
                }
            }
            let both = rest.min(ours.len());
            let counts = [(BreakKind::Amount, both), (BreakKind::Long, rest - both), (BreakKind::Short, ours.len() - both)];
            expected.extend(counts.into_iter().filter(|(_, count)| *count > 0).map(|(kind, count)| ((kind, number.to_string()), count)));
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(totals.agreed, agreed);
    }

    /// Whatever stands in a file, reading it ends, and never in a panic.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), begin in 0..4_usize) {
        let begin = ["\u{feff}交易时间", "#支付宝", "lastmile-movements,1,2026-11-22,ledger\n", "PK\u{3}\u{4}"][begin];
        let all = [begin.as_bytes(), &bytes].concat();
        if let Ok(bill) = Bill::open(std::io::Cursor::new(all), None) {
            assert!(bill.count() <= 400);
        }
    }
}
