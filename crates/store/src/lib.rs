//! SQL over embedded SQLite and PostgreSQL, and a cache over memory and Redis.
//!
//! One code path: a service writes each statement once, with `$1, $2, …`, and it runs on both engines. Columns are BIGINT, TEXT,
//! BYTEA (BLOB on SQLite) and BOOLEAN (INTEGER on SQLite) only; times are microseconds, money is minor units. Where the engines must
//! differ (how a transaction begins, how a busy row is passed over, what keeps two migrations apart) it is one function of the
//! engine, here, and never an `if` in a service.
//!
//! **A transaction** is a closure. It gets its [`Tx`] by value, because only so can a tonic handler, whose future must be `Send`,
//! borrow from its surroundings in it; functions that do a part of the work take `&mut Tx`:
//!
//! ```
//! # use store::{Db, Migration, Tx, params};
//! # #[derive(Debug)] enum Refusal { Poor, Store(store::Error) }
//! # impl From<store::Error> for Refusal { fn from(error: store::Error) -> Self { Self::Store(error) } }
//! /// Takes money from a purse and returns what is left.
//! async fn spend(db: &Db, purse: &str, amount: i64) -> Result<i64, Refusal> {
//!     db.transact(async |mut tx: Tx| {
//!         let taken = take(&mut tx, purse, amount).await?;
//!         taken.ok_or(Refusal::Poor) // Err rolls back
//!     })
//!     .await
//! }
//!
//! async fn take(tx: &mut Tx, purse: &str, amount: i64) -> Result<Option<i64>, store::Error> {
//!     let sql = "UPDATE purse SET balance = balance - $2 WHERE id = $1 AND balance >= $2 RETURNING balance";
//!     tx.fetch_opt(sql, params![purse, amount]).await?.map(|row| row.get("balance")).transpose()
//! }
//! # const TABLES: &[Migration] = &[Migration { version: 1, name: "purse",
//! #     sqlite: "CREATE TABLE purse (id TEXT PRIMARY KEY, balance INTEGER NOT NULL) STRICT", postgres: "" }];
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let db = Db::simulated().unwrap();
//! # db.migrate(TABLES).await.unwrap();
//! # db.transact(async |mut tx: Tx| tx.execute("INSERT INTO purse VALUES ('a', 100)", params![]).await).await.unwrap();
//! assert_eq!(spend(&db, "a", 60).await.unwrap(), 40);
//! assert!(matches!(spend(&db, "a", 60).await, Err(Refusal::Poor)));
//! # });
//! ```
//!
//! The closure may run again, up to six times, when it has to give way to other transactions. It is whole in every case: when its
//! caller goes away nothing has happened, unless COMMIT was already on its way, and then all of it has. The one answer that says
//! less is [`Error::CommitUnknown`]: only reading tells, which is what idempotency records are for.
//!
//! **Rules** for what is written with this crate: every update names the version or the fence that it saw in its WHERE and looks at
//! the count of rows; every uniqueness is an index; a conflict that is expected is `ON CONFLICT DO NOTHING`, because a failed
//! statement ends its transaction; sums are cast (`CAST(SUM(x) AS BIGINT)`), because PostgreSQL widens them; inside a transaction
//! everything goes through its [`Tx`]; nothing slow and nothing outside the database is awaited there.
//!
//! **Simulation.** [`Db::simulated`] answers every call inside the poll that makes it, so that a seeded simulation replays exactly.

pub mod cache;
mod config;
mod db;
mod engine;
mod error;
mod faults;
mod inline;
pub mod lease;
mod look;
mod many;
mod meter;
mod migrate;
mod names;
pub mod outbox;
mod session;
mod tx;
mod value;

pub use cache::Cache;
pub use config::Config;
pub use db::{Db, open};
pub use error::{Cause, Error};
pub use faults::{At, Fault, Faults};
pub use look::{Look, Reading, Schema, look};
pub use many::{Kind, Many};
pub use meter::{Counts, Meter};
pub use migrate::Migration;
pub use tx::{Read, Reader, Tx};
pub use value::{CellRef, FromCell, Nullable, Row, ToValue, Value};

/// How many rows one answer may have. A list that can grow is paged by key.
pub const ROWS_MAX: usize = 10_000;
