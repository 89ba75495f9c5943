//! A transaction inside what `#[tonic::async_trait]` makes of a handler: a boxed future that must be `Send`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use runtime::{Context, Tasks};
use store::{Cache, Db, Error, Migration, Tx, params};

const TABLES: &[Migration] = &[Migration {
    version: 1,
    name: "orders",
    sqlite: "CREATE TABLE orders (id TEXT PRIMARY KEY, part TEXT NOT NULL, amount INTEGER NOT NULL) STRICT",
    postgres: "CREATE TABLE orders (id TEXT PRIMARY KEY, part TEXT NOT NULL, amount BIGINT NOT NULL)",
}];

#[derive(Debug)]
enum Refusal {
    Empty,
    Store(#[expect(dead_code, reason = "printed when a test fails")] Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

struct Order {
    id: String,
    amount: i64,
}

struct Service {
    db: Db,
    cache: Cache,
    amount: i64,
}

trait Orders: Send + Sync {
    fn create<'s, 'r>(&'s self, request: &'r str) -> Pin<Box<dyn Future<Output = Result<u64, Refusal>> + Send + 'r>>
    where
        's: 'r;
}

impl Orders for Service {
    fn create<'s, 'r>(&'s self, request: &'r str) -> Pin<Box<dyn Future<Output = Result<u64, Refusal>> + Send + 'r>>
    where
        's: 'r,
    {
        Box::pin(async move {
            let quota = self.cache.incr(request, 1, Duration::from_secs(60)).await;
            let _first = self.cache.put_if_absent(request, &quota.value.to_be_bytes(), Duration::from_secs(60)).await;
            let order = Order { id: request.to_owned(), amount: self.amount };
            let parts: Vec<&str> = request.split(',').collect();
            let rows = self
                .db
                .transact(async |mut tx: Tx| {
                    let mut rows = 0;
                    for part in &parts {
                        rows += insert(&mut tx, &order, part).await?;
                    }
                    if request.is_empty() { Err(Refusal::Empty) } else { Ok(rows) }
                })
                .await?;
            Ok(rows)
        })
    }
}

async fn insert(tx: &mut Tx, order: &Order, part: &str) -> Result<u64, Error> {
    let id = format!("{}/{part}", order.id);
    tx.execute("INSERT INTO orders (id, part, amount) VALUES ($1, $2, $3)", params![id, part, order.amount]).await
}

#[tokio::test]
async fn a_handler_borrows_its_request_in_a_transaction() {
    let db = Db::simulated().expect("opens");
    db.migrate(TABLES).await.expect("migrates");
    let cache = Cache::memory(&store::cache::Config::default(), &Context::system());
    let service = Service { db: db.clone(), cache, amount: 250 };
    let handlers: Box<dyn Orders> = Box::new(service);
    let tasks = Tasks::new();
    let rows = tasks.run_to_end("handler", async move {
        let rows = handlers.create("a,b").await.expect("creates");
        let refusal = handlers.create("").await.expect_err("refuses");
        assert!(matches!(refusal, Refusal::Empty), "{refusal:?}");
        rows
    });
    assert_eq!(rows.await, Ok(2));
    let all = db.read().await.expect("reads").fetch_all("SELECT id FROM orders ORDER BY id", &[]).await.expect("lists");
    let ids: Vec<String> = all.iter().map(|row| row.get("id").expect("an id")).collect();
    assert_eq!(ids, ["a,b/a", "a,b/b"]);
}
