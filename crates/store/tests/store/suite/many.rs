use store::outbox;
use store::{Db, Error, Kind, Many, Migration, Tx, Value, params};

const TABLES: &[Migration] = &[Migration {
    version: 1,
    name: "purses",
    sqlite: "CREATE TABLE purse (id TEXT NOT NULL PRIMARY KEY, coins INTEGER CONSTRAINT coins_floor CHECK (coins >= 0),
        body BLOB, open INTEGER NOT NULL, note TEXT) STRICT",
    postgres:
        "CREATE TABLE purse (id TEXT NOT NULL PRIMARY KEY, coins BIGINT CONSTRAINT coins_floor CHECK (coins >= 0),
        body BYTEA, open BOOLEAN NOT NULL, note TEXT)",
}];

const COLUMNS: &[(&str, Kind)] =
    &[("id", Kind::Text), ("coins", Kind::Int), ("body", Kind::Bytes), ("open", Kind::Bool), ("note", Kind::Text)];
static INSERT: Many = Many::new(
    COLUMNS,
    "INSERT INTO purse (id, coins, body, open, note) SELECT id, coins, body, open, note FROM {rows} WHERE true
    ON CONFLICT (id) DO NOTHING",
);
static SPEND: Many = Many::new(
    &[("id", Kind::Text), ("coins", Kind::Int)],
    "UPDATE purse SET coins = purse.coins - r.coins FROM {rows} WHERE purse.id = r.id",
);
static READ: Many =
    Many::new(&[("id", Kind::Text)], "SELECT * FROM purse WHERE id IN (SELECT id FROM {rows}) ORDER BY id DESC {lock}");

fn purse(id: &str, coins: i64) -> Vec<Value> {
    params![id, coins, None::<Vec<u8>>, true, None::<&str>].to_vec()
}

async fn purses(db: &Db, count: i64) {
    db.migrate(TABLES).await.expect("migrates");
    let rows: Vec<_> = (0..count).map(|number| purse(&format!("p{number:04}"), 10)).collect();
    let inserted = db.transact(async |mut tx: Tx| tx.execute_many(&INSERT, &rows).await).await.expect("inserts");
    assert_eq!(inserted, u64::try_from(count).expect("is small"));
}

async fn coins(db: &Db) -> Vec<i64> {
    let mut reader = db.read().await.expect("a connection");
    let rows = reader.fetch_all("SELECT coins FROM purse ORDER BY id", &[]).await.expect("reads");
    rows.iter().map(|row| row.get("coins").expect("coins")).collect()
}

pub(crate) async fn values_come_back_as_they_went_in(db: &Db) {
    db.migrate(TABLES).await.expect("migrates");
    let bytes = (0..=255).collect::<Vec<u8>>();
    let rows = [
        params!["low", 0_i64, Some(&bytes[..]), false, Some("")].to_vec(),
        params!["high", i64::MAX, Some(&b""[..]), true, Some("㐂𠮷 'quoted' \"twice\" \\ {rows} $1 ? \u{1}")].to_vec(),
        params!["null", None::<i64>, None::<Vec<u8>>, true, None::<&str>].to_vec(),
    ];
    let inserted = db.transact(async |mut tx: Tx| tx.execute_many(&INSERT, &rows).await).await.expect("inserts");
    assert_eq!(inserted, 3);
    let ids = [["low"], ["high"], ["null"], ["nobody"]].map(|[id]| params![id].to_vec());
    let read = db.transact(async |mut tx: Tx| tx.fetch_many(&READ, &ids).await).await.expect("reads");
    assert_eq!(read.len(), 3);
    // In the query's own order: null, low, high.
    for (row, put) in read.iter().zip([&rows[2], &rows[0], &rows[1]]) {
        let got = [
            Value::Text(row.get("id").expect("id")),
            Value::Int(row.get("coins").expect("coins")),
            Value::Bytes(row.get("body").expect("body")),
            Value::Bool(Some(row.get("open").expect("open"))),
            Value::Text(row.get("note").expect("note")),
        ];
        assert_eq!(got, put[..]);
    }
}

pub(crate) async fn rows_are_counted_and_expected_conflicts_go_on(db: &Db) {
    purses(db, 500).await;
    let rows = [purse("p0499", 1), purse("p0500", 1)];
    let inserted = db.transact(async |mut tx: Tx| tx.execute_many(&INSERT, &rows).await).await.expect("inserts");
    assert_eq!(inserted, 1);
    let spent: Vec<_> =
        (0..400).map(|number| params![format!("p{number:04}"), i64::from(number % 11)].to_vec()).collect();
    let changed = db.transact(async |mut tx: Tx| tx.execute_many(&SPEND, &spent).await).await.expect("spends");
    assert_eq!(changed, 400);
    let left: Vec<_> = (0..500).map(|number| if number < 400 { 10 - number % 11 } else { 10 }).chain([1]).collect();
    assert_eq!(coins(db).await, left);
}

pub(crate) async fn one_row_that_is_refused_fails_all(db: &Db) {
    purses(db, 3).await;
    let rows = [params!["p0000", 1_i64].to_vec(), params!["p0001", 11_i64].to_vec()];
    let refused = db.transact(async |mut tx: Tx| tx.execute_many(&SPEND, &rows).await).await;
    assert!(matches!(refused, Err(Error::Refused { rule }) if rule == "coins_floor"));
    assert_eq!(coins(db).await, [10, 10, 10]);
}

pub(crate) async fn no_rows_ask_nothing_and_other_shapes_are_refused(db: &Db) {
    purses(db, 1).await;
    let before = db.meter().counts().statements;
    assert_eq!(db.transact(async |mut tx: Tx| tx.execute_many(&SPEND, &[]).await).await.expect("nothing"), 0);
    assert_eq!(db.meter().counts().statements, before);
    for row in [params!["p0000"].to_vec(), params!["p0000", "1"].to_vec(), params![1_i64, 1_i64].to_vec()] {
        let told = db.transact(async |mut tx: Tx| tx.execute_many(&SPEND, std::slice::from_ref(&row)).await).await;
        assert!(matches!(told, Err(Error::Column { column: "rows", .. })), "{row:?}");
    }
}

pub(crate) async fn events_of_a_batch_are_dense_and_in_order(db: &Db) {
    db.migrate(&[]).await.expect("migrates");
    let events =
        |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())).collect::<Vec<_>>();
    let batches = [events(&["a", "b", "a"]), events(&[]), events(&["c"])];
    for batch in &batches {
        db.transact(async |mut tx: Tx| outbox::append_all(&mut tx, "s", batch).await).await.expect("appends");
        db.transact(async |mut tx: Tx| outbox::append(&mut tx, "s", "alone", b"alone").await).await.expect("appends");
    }
    let read = outbox::read_after(&mut db.read().await.expect("a connection"), "s", 0, 10).await.expect("reads");
    let seen: Vec<_> = read.iter().map(|event| (event.seq, event.key.as_str())).collect();
    assert_eq!(seen, [(1, "a"), (2, "b"), (3, "a"), (4, "alone"), (5, "alone"), (6, "c"), (7, "alone")]);
    assert!(read.iter().all(|event| event.payload == event.key.as_bytes()));
}
