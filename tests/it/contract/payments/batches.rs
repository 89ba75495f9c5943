//! Two batches that meet at one order. On PostgreSQL they run side by side; the order is locked here until both wait for it.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::rig::{AMOUNT, Engine, Rig, jsapi, refund, until};

/// Sessions that wait for this one, and those that wait for them.
const WAITING: &str = "WITH first AS (SELECT pid FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid)))
    SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))
    OR pg_blocking_pids(pid) && ARRAY(SELECT pid FROM first)";

async fn connection(books: &store::Config) -> PgConnection {
    let mut connection = PgConnection::connect(&books.url).await.expect("connects");
    let path = format!("SET search_path TO {}", books.schema.as_deref().expect("a schema"));
    sqlx::raw_sql(AssertSqlSafe(path)).execute(&mut connection).await.expect("the schema");
    connection
}

/// Whoever comes second under a key was decided on before the first was kept, and still hears what the first heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_in_two_batches_has_one_answer() {
    let rig = Rig::new(Engine::Postgres).await;
    let order = rig.paid(jsapi("r")).await;
    let books = rig.store();
    let mut holder = connection(books).await;
    let lock = format!("BEGIN; SELECT version FROM orders WHERE order_id = '{}' FOR UPDATE", order.order_id);
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut holder).await.expect("locks");
    let holder_pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut holder).await.expect("a pid");
    let waiting = async |wanted: i64| {
        until("that batches wait for the order", async || {
            let mut watcher = connection(books).await;
            let found = sqlx::query_scalar(WAITING).bind(holder_pid).fetch_one(&mut watcher).await;
            let found: i64 = found.expect("reads");
            (found >= wanted).then_some(())
        })
        .await;
    };
    let then = async {
        waiting(1).await;
        let second = rig.refund(refund("same", &order, AMOUNT));
        let release = async {
            waiting(2).await;
            sqlx::raw_sql("COMMIT").execute(&mut holder).await.expect("releases");
        };
        tokio::join!(second, release).0
    };
    let (first, second) = tokio::join!(rig.refund(refund("same", &order, AMOUNT)), then);
    assert_eq!(second.expect("the same"), first.expect("is accepted"));
}
