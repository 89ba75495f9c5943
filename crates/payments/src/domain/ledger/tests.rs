use super::*;

fn merchant() -> Merchant {
    Merchant { channel: "wechatpay".into(), number: "1900000001".into() }
}

fn transfer(id: &str, amount: i64, currency: Currency) -> Transfer {
    Transfer {
        id: TransferId::stored(id.into()),
        subject: OrderId::new(0x2b).into(),
        debit: Account::Receivable(merchant()),
        credit: Account::Suspense(OrderId::new(0x2b)),
        amount: Money::new(amount, currency).expect("in range"),
    }
}

#[test]
fn names_of_accounts_round_trip() {
    for account in [
        Account::Receivable(merchant()),
        Account::Suspense(OrderId::new(7)),
        Account::Payee("traffic-430100".into()),
        Account::Refunds(merchant()),
        Account::Treasury("traffic-430100".into()),
        Account::Fees(merchant()),
    ] {
        assert_eq!(account.to_string().parse(), Ok(account));
    }
}

#[test]
fn what_is_no_account_is_refused() {
    for text in
        ["", "suspense", "suspense/x", "payee/", "payee/a/b", "channel/wechatpay", "channel//1", "bank/x", "payee/ä"]
    {
        assert_eq!(text.parse::<Account>(), Err(BadAccount), "{text:?}");
    }
}

#[test]
fn one_order_books_on_one_shard_of_each_account() {
    let order = OrderId::new(0x2b);
    assert_eq!(Account::Suspense(order).shard(order.into()), 0);
    assert_eq!(Account::Payee("p".into()).shard(order.into()), 0x2b % SHARDS);
    let rows = deltas(&[
        Entry::Reserve(transfer("a", 5, Currency::CNY), Timestamp::default()),
        Entry::Decide(transfer("a", 5, Currency::CNY), Verdict::Posted),
    ]);
    let rows = rows.expect("folds");
    let pending: Vec<_> = rows.iter().map(|row| row.change.debit_pending + row.change.credit_pending).collect();
    assert_eq!(pending, [0, 0]);
    assert_eq!(rows.iter().map(|row| row.change.debit_posted).sum::<i64>(), 5);
    assert_eq!(rows.iter().map(|row| row.change.credit_posted).sum::<i64>(), 5);
}

#[test]
fn a_transfer_has_two_sides_and_an_amount() {
    let mut same = transfer("a", 5, Currency::CNY);
    same.credit = same.debit.clone();
    for bad in [transfer("a", 0, Currency::CNY), transfer("a", -5, Currency::CNY), same] {
        assert_eq!(Ledger::default().book(&[Entry::Post(bad.clone())]), Err(LedgerError::Shape));
        assert_eq!(deltas(&[Entry::Post(bad)]), Err(LedgerError::Shape));
    }
}

#[test]
fn an_id_books_once_and_is_decided_once() {
    let mut ledger = Ledger::default();
    let one = transfer("a", 5, Currency::CNY);
    assert_eq!(ledger.book(&[Entry::Decide(one.clone(), Verdict::Posted)]), Err(LedgerError::NotReserved));
    ledger.book(&[Entry::Reserve(one.clone(), Timestamp::default())]).expect("reserves");
    assert_eq!(ledger.book(&[Entry::Reserve(one.clone(), Timestamp::default())]), Err(LedgerError::Exists));
    let other = transfer("a", 6, Currency::CNY);
    assert_eq!(ledger.book(&[Entry::Decide(other, Verdict::Posted)]), Err(LedgerError::NotReserved));
    ledger.book(&[Entry::Decide(one.clone(), Verdict::Voided)]).expect("voids");
    assert_eq!(ledger.book(&[Entry::Decide(one, Verdict::Posted)]), Err(LedgerError::Exists));
    assert!(ledger.balances().all(|(_, _, balance)| balance == Balance::default()));
}

#[test]
fn currencies_never_meet_in_an_account() {
    let dollars: Currency = "USD".parse().expect("a code");
    let mut ledger = Ledger::default();
    ledger.book(&[Entry::Post(transfer("a", 5, Currency::CNY))]).expect("books");
    assert_eq!(ledger.book(&[Entry::Post(transfer("b", 5, dollars))]), Err(LedgerError::Currency));
    let both = [Entry::Post(transfer("a", 5, Currency::CNY)), Entry::Post(transfer("b", 5, dollars))];
    assert_eq!(deltas(&both), Err(LedgerError::Currency));
}

#[test]
fn what_is_not_there_cannot_leave() {
    let mut ledger = Ledger::default();
    ledger.book(&[Entry::Post(transfer("in", 5, Currency::CNY))]).expect("books");
    let mut out = transfer("out", 3, Currency::CNY);
    std::mem::swap(&mut out.debit, &mut out.credit);
    ledger.book(&[Entry::Reserve(out.clone(), Timestamp::default())]).expect("reserves");
    let again = Transfer { id: TransferId::stored("again".into()), ..out };
    assert_eq!(ledger.book(&[Entry::Post(again)]), Err(LedgerError::Floor));
}
