//! `lastmile ledger verify` as an operator types it, on books of a real database that are spoilt in one place.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use contracts::payments::v1::RefundState;
use lastmile_tests::drill::process;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use super::days::{bill, day_before, today};
use super::fees::charged;
use super::on_each_engine;
use super::rig::{AMOUNT, CHANGSHA, Engine, OTHERS, Rig, jsapi, refund, until};

on_each_engine!(every_break_is_named_and_ends_it, whole_books_are_told_of_as_they_are_read);

/// What is spoilt, how it is mended, and the words that name it. `PAID`, `POSTED` and `PART` stand for orders.
const BREAKS: [(&str, &str, &str); 26] = [
    (
        "UPDATE balances SET credit_posted = credit_posted + 1 WHERE account = 'payee/traffic-430100'",
        "UPDATE balances SET credit_posted = credit_posted - 1 WHERE account = 'payee/traffic-430100'",
        "broken: payee/traffic-430100: shard ",
    ),
    (
        "UPDATE balances SET credit_posted = credit_posted + 1 WHERE account = 'suspense/PAID'",
        "UPDATE balances SET credit_posted = credit_posted - 1 WHERE account = 'suspense/PAID'",
        "broken: suspense/PAID: the balance is not the sum of the transfers",
    ),
    (
        "UPDATE balances SET is_floored = false, debit_posted = debit_posted + 1 WHERE account = 'suspense/POSTED'",
        "UPDATE balances SET is_floored = true, debit_posted = debit_posted - 1 WHERE account = 'suspense/POSTED'",
        "broken: suspense/POSTED: the balance is not the sum of the transfers",
    ),
    (
        "CREATE TABLE kept AS SELECT * FROM balances WHERE account LIKE 'channel/%';
        DELETE FROM balances WHERE account LIKE 'channel/%'",
        "INSERT INTO balances SELECT * FROM kept; DROP TABLE kept",
        "broken: channel/wechatpay/1900430100: shard ",
    ),
    (
        "UPDATE transfers SET amount_minor = amount_minor - 1 WHERE order_id = 'PAID'",
        "UPDATE transfers SET amount_minor = amount_minor + 1 WHERE order_id = 'PAID'",
        "broken: PAID: the transfers are not those that its state calls for",
    ),
    (
        "CREATE TABLE kept AS SELECT * FROM transfers WHERE order_id = 'POSTED' AND transfer_id LIKE '%/post';
        DELETE FROM transfers WHERE order_id = 'POSTED' AND transfer_id LIKE '%/post'",
        "INSERT INTO transfers SELECT * FROM kept; DROP TABLE kept",
        "broken: POSTED: the transfers are not those that its state calls for",
    ),
    (
        "INSERT INTO transfers (transfer_id, order_id, debit_account, credit_account, amount_minor, currency, is_reserved,
        booked_at) SELECT transfer_id || '-again', order_id, debit_account, credit_account, amount_minor, currency,
        is_reserved, booked_at FROM transfers WHERE order_id = 'POSTED' AND transfer_id LIKE '%/post'",
        "DELETE FROM transfers WHERE transfer_id LIKE '%-again'",
        "broken: POSTED: the transfers are not those that its state calls for",
    ),
    (
        "INSERT INTO transfers (transfer_id, order_id, debit_account, credit_account, amount_minor, currency, is_reserved,
        booked_at) SELECT 'stray', 'ord_ffffffffffffffffffffffffffffffff', debit_account, credit_account, amount_minor,
        currency, is_reserved, booked_at FROM transfers WHERE order_id = 'PAID'",
        "DELETE FROM transfers WHERE transfer_id = 'stray'",
        "broken: transfers: 1 belong to no order",
    ),
    (
        "UPDATE orders SET state = 'paid' WHERE order_id = 'POSTED'",
        "UPDATE orders SET state = 'posted' WHERE order_id = 'POSTED'",
        "broken: POSTED: ",
    ),
    (
        "UPDATE orders SET captured_minor = captured_minor + 1 WHERE order_id = 'PAID'",
        "UPDATE orders SET captured_minor = captured_minor - 1 WHERE order_id = 'PAID'",
        "broken: PAID: ",
    ),
    (
        "UPDATE transfer_decisions SET verdict = 'voided'",
        "UPDATE transfer_decisions SET verdict = 'posted'",
        "broken: PART: the transfers are not those that its state calls for",
    ),
    ("UPDATE refunds SET state = 'failed'", "UPDATE refunds SET state = 'succeeded'", "broken: PART: "),
    (
        "CREATE TABLE kept AS SELECT * FROM outbox_event WHERE seq = 2; DELETE FROM outbox_event WHERE seq = 2",
        "INSERT INTO outbox_event SELECT * FROM kept; DROP TABLE kept",
        "were told where the states call for",
    ),
    (
        "CREATE TABLE kept AS SELECT * FROM receipts; DELETE FROM receipts WHERE order_id = 'POSTED'",
        "DELETE FROM receipts; INSERT INTO receipts SELECT * FROM kept; DROP TABLE kept",
        "POSTED: is posted and has no receipt",
    ),
    (
        "UPDATE receipts SET order_id = 'PAID' WHERE order_id = 'POSTED'",
        "UPDATE receipts SET order_id = 'POSTED' WHERE order_id = 'PAID'",
        " receipt",
    ),
    (
        "UPDATE orders SET receipt_prefix = NULL WHERE order_id = 'POSTED'",
        "UPDATE orders SET receipt_prefix = '430101' WHERE order_id = 'POSTED'",
        "POSTED: has a receipt that its state does not call for",
    ),
    (
        "UPDATE receipts SET amount_minor = amount_minor - 1 WHERE order_id = 'POSTED'",
        "UPDATE receipts SET amount_minor = amount_minor + 1 WHERE order_id = 'POSTED'",
        "POSTED: has a receipt that says something else",
    ),
    (
        "UPDATE receipts SET payee_id = 'traffic-140100' WHERE order_id = 'POSTED'",
        "UPDATE receipts SET payee_id = 'traffic-430100' WHERE order_id = 'POSTED'",
        "POSTED: has a receipt that says something else",
    ),
    (
        "UPDATE receipts SET issued_at = issued_at + 63072000000000 WHERE order_id = 'POSTED'",
        "UPDATE receipts SET issued_at = issued_at - 63072000000000 WHERE order_id = 'POSTED'",
        "POSTED: has a receipt that says something else",
    ),
    (
        "INSERT INTO receipts SELECT 'ord_ffffffffffffffffffffffffffffffff', '99999999', 1, key_id, check_code, payee_id,
        amount_minor, currency, issued_at FROM receipts WHERE order_id = 'POSTED'",
        "DELETE FROM receipts WHERE code = '99999999'",
        "99999999: the numbers have gaps, or are not those that were given out",
    ),
    (
        "UPDATE receipts SET number = number + 1 WHERE number = 2",
        "UPDATE receipts SET number = number - 1 WHERE number = 3",
        ": the numbers have gaps, or are not those that were given out",
    ),
    (
        "UPDATE receipt_codes SET last_number = last_number + 1",
        "UPDATE receipt_codes SET last_number = last_number - 1",
        ": the numbers have gaps, or are not those that were given out",
    ),
    (
        "INSERT INTO receipt_codes VALUES ('99999999', 1)",
        "DELETE FROM receipt_codes WHERE code = '99999999'",
        "99999999: numbers were given out, and no receipt has them",
    ),
    (
        "UPDATE transfers SET amount_minor = amount_minor + 1 WHERE transfer_id LIKE '%/fee/1'",
        "UPDATE transfers SET amount_minor = amount_minor - 1 WHERE transfer_id LIKE '%/fee/1'",
        ": the transfers are not what the channel charged for the day",
    ),
    (
        "CREATE TABLE kept AS SELECT * FROM transfers WHERE transfer_id LIKE '%/fee/1';
        DELETE FROM transfers WHERE transfer_id LIKE '%/fee/1'",
        "INSERT INTO transfers SELECT * FROM kept; DROP TABLE kept",
        ": the transfers are not what the channel charged for the day",
    ),
    (
        "UPDATE runs SET fee_minor = -fee_minor WHERE fee_minor = 54",
        "UPDATE runs SET fee_minor = 54 WHERE fee_minor = -54",
        ": the transfers are not what the channel charged for the day",
    ),
];

/// One paid order, one that is posted, one of which a part went back after that, and a day's fee.
struct Books {
    store: store::Config,
    place: PathBuf,
    orders: [(&'static str, String); 3],
    _rig: Rig,
}

impl Books {
    async fn new(engine: Engine) -> Self {
        let rig = Rig::with(engine, |config, dir| config.reconcile.bills_dir = dir.join("bills")).await;
        let day = day_before(today());
        rig.put_bill(OTHERS, day, &bill(&[]));
        rig.put_bill(CHANGSHA, day, &charged(day, ["0.60", "-0.06"], "0.54"));
        rig.reconcile("day", day).await;
        let paid = rig.paid(jsapi("paid")).await;
        let posted = rig.paid(jsapi("posted")).await;
        rig.post("p1", &posted.order_id).await.expect("posts");
        let part = rig.paid(jsapi("part")).await;
        rig.post("p2", &part.order_id).await.expect("posts");
        let mut asked = refund("f1", &part, AMOUNT / 4);
        asked.after_settlement = true;
        let given = rig.refund(asked).await.expect("accepts");
        rig.refund_in_state(&given.refund_id, RefundState::Succeeded).await;
        let orders = [("PAID", paid.order_id), ("POSTED", posted.order_id), ("PART", part.order_id)];
        let (store, place) = (rig.books().await, rig.directory().to_owned());
        Self { store, place, orders, _rig: rig }
    }

    /// The same with the orders' ids.
    fn named(&self, text: &str) -> String {
        self.orders.iter().fold(text.to_owned(), |text, (name, id)| text.replace(name, id))
    }

    fn file(&self) -> Option<&Path> {
        self.store.url.strip_prefix("sqlite:").map(Path::new)
    }

    async fn execute(&self, sql: &str) {
        let sql = self.named(sql);
        match self.file() {
            Some(file) => {
                let mut connection =
                    SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.expect("opens");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("spoils");
                connection.close().await.expect("closes");
            }
            None => {
                let mut connection = self.connection().await;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("spoils");
            }
        }
    }

    async fn connection(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.store.url).await.expect("connects");
        let schema = self.store.schema.clone().expect("a schema");
        let path = format!("SET search_path TO {schema}");
        sqlx::raw_sql(AssertSqlSafe(path)).execute(&mut connection).await.expect("the schema");
        connection
    }

    fn command(&self) -> Command {
        // What a shell starts in its background ignores SIGINT, and so would whatever is started from there.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(process::binary(None).expect("built"));
        let schema = self.store.schema.as_deref().unwrap_or_default();
        command.args(["--data".as_ref(), self.place.join("none").as_os_str()]);
        command.args(["--set", &format!("store.payments.url={}", self.store.url)]);
        if !schema.is_empty() {
            command.args(["--set", &format!("store.payments.schema={schema}")]);
        }
        command.args(["ledger", "verify"]).current_dir(process::root());
        command
    }

    fn verify(&self, more: &[&str]) -> (Output, String, String) {
        let ended = self.command().args(more).output().expect("runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&ended.stdout), text(&ended.stderr));
        (ended, out, err)
    }
}

async fn every_break_is_named_and_ends_it(engine: Engine) {
    let books = Books::new(engine).await;
    for (spoil, mend, words) in BREAKS {
        books.execute(spoil).await;
        let (ended, out, err) = books.verify(&[]);
        assert_eq!(ended.status.code(), Some(1), "{spoil}: {out}{err}");
        let words = books.named(words);
        let first = out.lines().next().unwrap_or_default();
        assert!(first.starts_with("broken: ") && first.contains(&words), "{spoil}: {words} is not in {first}");
        books.execute(mend).await;
    }
    let (ended, out, _) = books.verify(&[]);
    assert!(ended.status.success(), "mended, and still {out}");
}

async fn whole_books_are_told_of_as_they_are_read(engine: Engine) {
    let books = Books::new(engine).await;
    let (ended, out, err) = books.verify(&[]);
    assert!(ended.status.success() && out.starts_with("sound: 3 orders, 1 refunds (0 of them open), "), "{out}{err}");
    assert!(!err.contains("sound so far"), "it is short, and needs no progress: {err}");
    let (ended, _, err) = books.verify(&["--tell-every", "2"]);
    assert!(ended.status.success() && err.contains("3 orders, "), "{err}");
    assert!(err.contains(": sound so far"), "{err}");
}

/// Ctrl-C ends it at once, also while the database lets it wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_it() {
    use std::os::unix::process::ExitStatusExt as _;

    const SIGINT: i32 = 2;
    const WAITING: &str = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = to_regclass('orders')";
    let books = Books::new(Engine::Postgres).await;
    let mut connection = books.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut connection).await.expect("locks");
    let mut child = books.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    until("that it reads", async || {
        let mut other = books.connection().await;
        let waiting: i64 = sqlx::query_scalar(WAITING).fetch_one(&mut other).await.expect("reads");
        (waiting > 0).then_some(())
    })
    .await;
    let sent = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().expect("kill is there");
    assert!(sent.success());
    let status = tokio::task::spawn_blocking(move || child.wait()).await.expect("waits").expect("ends");
    assert_eq!((status.signal(), status.code()), (Some(SIGINT), None));
}
