//! What the doctor says of a database server and of a channel, and that it leaves both as they were.

use std::path::{Path, PathBuf};

use identity::Deps;
use lastmile::Config;
use lastmile::Role;
use lastmile::doctor::{Finding, Verdict, examine};
use lastmile_tests::servers::Postgres;
use lastmile_tests::{Cluster, Topology};
use payments::channel::{alipay, wechatpay};
use payments::config::{Credentials, Merchant};
use rpc::{ClientOptions, Mesh, RemoteOptions};
use runtime::Context;
use store::cache::{self, Cache};
use store::{Db, Schema, Tx, params};

/// A process with one role, on free ports and a directory of its own.
fn process(role: Role, place: &Path) -> Config {
    let mut config = Config::default();
    config.serve.roles = vec![role];
    config.data.directory = place.join("data");
    for address in [&mut config.listen.public, &mut config.listen.callbacks, &mut config.listen.operations] {
        *address = "127.0.0.1:0".to_owned();
    }
    config
}

fn on(url: &str) -> store::Config {
    // A machine full of tests takes its time to make a connection.
    store::Config { acquire_timeout: runtime::config::Duration::from_secs(5), ..store::Config::new(url) }
}

fn in_own_schema(server: &Postgres) -> store::Config {
    store::Config { schema: Some(server.schema()), ..on(server.url()) }
}

async fn look(config: &Config) -> Vec<Finding> {
    examine(config, &Context::system()).await
}

fn of<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.subject == subject);
    found.unwrap_or_else(|| panic!("nothing is said of {subject}: {findings:#?}"))
}

/// Whether the schema is there.
async fn is_there(store: &store::Config) -> bool {
    let looked = store::look(store, &Context::system()).await.expect("answers").expect("is a server");
    looked.schema == Schema::There
}

async fn run(db: &Db, sql: &'static str) {
    db.transact(async |mut tx: Tx| tx.execute(sql, params![]).await).await.expect(sql);
}

#[tokio::test]
async fn a_schema_that_is_missing_is_told_and_not_made() {
    let (server, place) = (Postgres::start(), tempfile::tempdir().expect("a directory"));
    let mut config = process(Role::Cases, place.path());
    config.store.cases = in_own_schema(&server);
    let findings = look(&config).await;
    let store = of(&findings, "store cases");
    assert!(store.verdict == Verdict::Good && store.what.contains("will be made at the first start"), "{store}");
    assert!(!is_there(&config.store.cases).await, "a look makes nothing");
    let clock = of(&findings, "clock of store cases");
    assert!(clock.verdict == Verdict::Good && clock.what.contains(" ms beside this machine's"), "{clock}");
    let durability = of(&findings, "durability of store cases");
    assert_eq!(durability.verdict, Verdict::Bad, "{durability}: the tests' server does not sync");
    assert!(durability.what.contains("fsync = off") && durability.remedy.is_some(), "{durability}");
}

#[tokio::test]
async fn what_a_login_may_not_do_is_told_with_what_to_do() {
    let (server, place) = (Postgres::synced(), tempfile::tempdir().expect("a directory"));
    let context = Context::system();
    let owner = store::open(&on(server.url()), context.clone()).await.expect("opens");
    run(&owner, "CREATE ROLE clerk LOGIN PASSWORD 'sandbox-only'").await;
    let (_, at) = server.url().split_once('@').expect("a login");
    let mut config = process(Role::Cases, place.path());
    config.store.cases =
        store::Config { schema: Some("archive".to_owned()), ..on(&format!("postgres://clerk:sandbox-only@{at}")) };

    let findings = look(&config).await;
    let store = of(&findings, "store cases");
    assert!(store.verdict == Verdict::Bad && store.what.contains("clerk may not make it"), "{store}");
    let remedy = "CREATE SCHEMA archive AUTHORIZATION clerk";
    assert_eq!(store.remedy, Some(format!("as the owner of the database: {remedy}")));
    run(&owner, remedy).await;

    let findings = look(&config).await;
    let store = of(&findings, "store cases");
    assert!(store.verdict == Verdict::Good && store.what.contains("takes writes"), "{store}");
    let durability = of(&findings, "durability of store cases");
    assert!(durability.verdict != Verdict::Bad && durability.what.contains("a synced commit takes"), "{durability}");
    let kept = "SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'archive'::regnamespace";
    let rows = owner.read().await.expect("a connection").fetch_all(kept, params![]).await.expect("lists");
    assert_eq!(rows.len(), 0, "what was tried is taken back");

    run(&owner, "ALTER ROLE clerk SET default_transaction_read_only = on").await;
    let findings = look(&config).await;
    let store = of(&findings, "store cases");
    assert!(store.verdict == Verdict::Bad && store.what.contains("it takes no writes"), "{store}");
    assert!(store.what.contains("read-only"), "why: {store}");
}

#[tokio::test]
async fn a_pepper_that_is_lost_is_bad_whatever_the_store() {
    let server = Postgres::start();
    for is_embedded in [true, false] {
        let (place, context) = (tempfile::tempdir().expect("a directory"), Context::system());
        let mut config = process(Role::Identity, place.path());
        if !is_embedded {
            config.store.identity = in_own_schema(&server);
        }
        let placed = config.placed().identity;
        let (_, store) = config.stores().remove(0);
        let db = store::open(&store, context.clone()).await.expect("opens");
        let mesh = Mesh::new(context.clone(), ClientOptions::default(), RemoteOptions::default());
        let cache = Cache::memory(&cache::Config::default(), &context);
        let deps = Deps { context: context.clone(), db, cache, mesh: mesh.caller(rpc::Role::Identity) };
        drop(identity::mount(placed.clone(), deps).await.expect("the first start makes it"));
        context.tasks.abort();
        assert!(context.tasks.wait(std::time::Duration::from_secs(30)).await, "it lets go of its store");
        assert_eq!(of(&look(&config).await, "pepper").verdict, Verdict::Good);

        std::fs::remove_dir_all(&placed.keys_dir).expect("loses them");
        let findings = look(&config).await;
        let pepper = of(&findings, "pepper");
        assert!(pepper.verdict == Verdict::Bad && pepper.remedy.is_some(), "{pepper}");
        let keys = of(&findings, "keys of identity");
        assert_eq!(keys.verdict, Verdict::Bad, "those of a store that is in use are not made anew: {keys}");
        assert!(!placed.keys_dir.exists(), "a look makes nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ends_of_the_channels_certificates_are_told() {
    let cluster = Box::pin(Cluster::builder(Topology::Single).build()).await.expect("starts");
    let place = tempfile::tempdir().expect("a directory");
    let keys = cluster.place().join("outside/sandbox/wechatpay/1900430100");
    let mut config = process(Role::Payments, place.path());
    let channel = &mut config.payments.channels.wechatpay;
    channel.base_url = format!("http://{}", cluster.sandbox().wechatpay);
    channel.notify_base_url.clone_from(&channel.base_url);
    config.payments.merchants = vec![Merchant {
        entry_point: "wechat".into(),
        payee_id: "*".into(),
        app_id: "wx5a4db0c5a4db0c51".into(),
        mch_id: "1900430100".into(),
        credentials: Credentials::Wechatpay(wechatpay::Credentials {
            serial: std::fs::read_to_string(keys.join("serial_no.txt")).expect("reads").trim().to_owned(),
            private_key_file: keys.join("private_key.pem"),
            certificate_file: Some(keys.join("certificate.pem")),
            api_v3_key_file: keys.join("apiv3_key.txt"),
            verification: wechatpay::Verification::PlatformCertificates,
        }),
    }];
    let app = sandbox::App { app_id: "2021000000430100".into(), pid: "2088000000430100".into(), certificates: true };
    let alipay_keys = place.path().join("alipay");
    let Context { ids, clock, .. } = Context::system();
    sandbox::AlipayKeys::load_or_create(&alipay_keys, std::slice::from_ref(&app), &ids, clock.now())
        .expect("makes keys");
    let of_app = alipay_keys.join(&app.app_id);
    config.payments.merchants.push(Merchant {
        entry_point: "alipay".into(),
        payee_id: "*".into(),
        app_id: app.app_id,
        mch_id: app.pid,
        credentials: Credentials::Alipay(alipay::Credentials {
            api: alipay::Api::V2,
            private_key_file: of_app.join("app_private_key.pem"),
            alipay_public_key_file: PathBuf::new(),
            certificates: Some(alipay::Certificates {
                app_file: of_app.join("app_certificate.pem"),
                alipay_file: alipay_keys.join("alipay_certificate.pem"),
                root_file: alipay_keys.join("alipay_root.pem"),
            }),
            return_url: String::new(),
        }),
    });
    let by_alipay = ["certificate for app 2021000000430100", "Alipay's certificate for app 2021000000430100"];
    let (platform, own) = ("platform certificate for merchant 1900430100", "certificate of merchant 1900430100");
    let findings = look(&config).await;
    for subject in by_alipay.into_iter().chain([platform, own]) {
        let finding = of(&findings, subject);
        assert!(finding.verdict == Verdict::Good && finding.what.contains(" is good until "), "{finding}");
    }

    // Another account's key opens nothing of this one's.
    let other = keys.with_file_name("1900140100").join("apiv3_key.txt");
    let merchant = config.payments.merchants.first_mut().expect("is there");
    let Credentials::Wechatpay(credentials) = &mut merchant.credentials else { panic!("it is WeChat Pay's") };
    (credentials.api_v3_key_file, credentials.certificate_file) = (other, None);
    let findings = look(&config).await;
    let finding = of(&findings, platform);
    assert!(finding.verdict == Verdict::Bad && finding.what.contains("sealed certificate"), "{finding}");
    let finding = of(&findings, own);
    assert!(finding.verdict == Verdict::Warning && finding.what.contains("its end is not known"), "{finding}");
    cluster.stop().await.expect("drains");
}
