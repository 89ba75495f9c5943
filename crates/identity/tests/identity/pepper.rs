//! A store belongs to the pepper under which its people were counted.

use identity::{BuildError, Config, Deps};
use rpc::{ClientOptions, Mesh, RemoteOptions, Role};
use runtime::Context;
use store::{Cache, Db};
use tempfile::TempDir;

use crate::servers::Postgres;

async fn start(db: &Db, keys: &TempDir, context: &Context) -> Result<(), BuildError> {
    let config = Config { keys_dir: keys.path().to_owned(), ..Config::default() };
    let mesh = Mesh::new(context.clone(), ClientOptions::default(), RemoteOptions::default()).caller(Role::Identity);
    let cache = Cache::memory(&store::cache::Config::default(), context);
    identity::mount(config, Deps { context: context.clone(), db: db.clone(), cache, mesh }).await.map(drop)
}

async fn a_start_without_the_pepper_is_refused(store: &store::Config) {
    let context = Context::system();
    let db = store::open(store, context.clone()).await.expect("opens");
    let (first, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    start(&db, &first, &context).await.expect("the first start makes one");
    start(&db, &first, &context).await.expect("it is found again");
    assert!(identity::pepper_fits(&db, first.path()).await.expect("can be told"));

    let lost = start(&db, &other, &context).await;
    assert!(matches!(lost, Err(BuildError::OtherPepper { .. })), "{lost:?}");
    assert!(!other.path().join("pepper").exists(), "none is made that would stand in the way of the right one");
    assert!(!identity::pepper_fits(&db, other.path()).await.expect("can be told"));

    let elsewhere = store::open(&sqlite(&other), context.clone()).await.expect("opens");
    start(&elsewhere, &other, &context).await.expect("another store has another");
    let wrong = start(&db, &other, &context).await;
    assert!(matches!(wrong, Err(BuildError::OtherPepper { .. })), "{wrong:?}");
}

fn sqlite(place: &TempDir) -> store::Config {
    store::Config::new(format!("sqlite:{}", place.path().join("identity.db").display()))
}

#[tokio::test]
async fn on_sqlite() {
    let place = tempfile::tempdir().expect("a directory");
    a_start_without_the_pepper_is_refused(&sqlite(&place)).await;
}

#[tokio::test]
async fn on_postgres() {
    let server = Postgres::start();
    let config = store::Config {
        schema: Some(server.schema()),
        acquire_timeout: runtime::config::Duration::from_secs(10),
        ..store::Config::new(server.url())
    };
    a_start_without_the_pepper_is_refused(&config).await;
}
