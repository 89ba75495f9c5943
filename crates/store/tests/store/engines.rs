use runtime::Context;
use runtime::config::Duration;
use store::{Config, Db, open};
use tempfile::TempDir;

use crate::servers::Postgres;

/// An empty database, and what has to live as long as it.
pub(crate) struct Fresh {
    db: Db,
    _dir: Option<TempDir>,
    _server: Option<Postgres>,
}

impl Fresh {
    pub(crate) fn db(&self) -> &Db {
        &self.db
    }
}

/// Limits short enough for tests that wait them out, long enough for a busy machine.
pub(crate) fn limits(url: &str) -> Config {
    Config {
        statement_timeout: Duration::from_secs(3),
        acquire_timeout: Duration::from_secs(10),
        writer_timeout: Duration::from_secs(20),
        ..Config::new(url)
    }
}

pub(crate) async fn sqlite() -> Fresh {
    let dir = tempfile::tempdir().expect("a directory");
    let config = limits(&format!("sqlite:{}", dir.path().join("data/test 数据.db").display()));
    let db = open(&config, Context::system()).await.expect("opens");
    Fresh { db, _dir: Some(dir), _server: None }
}

pub(crate) async fn postgres() -> Fresh {
    let server = Postgres::start();
    let config = Config { schema: Some(server.schema()), ..limits(server.url()) };
    let db = open(&config, Context::system()).await.expect("opens");
    Fresh { db, _dir: None, _server: Some(server) }
}

pub(crate) async fn simulated() -> Fresh {
    Fresh { db: Db::simulated().expect("opens"), _dir: None, _server: None }
}
