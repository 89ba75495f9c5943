//! Every assertion counts once, on both engines, also when fifty come at the same moment.

use std::time::Duration;

use futures::future::join_all;
use rpc::jose::Curve;

use crate::rig::{CHANGSHA, NUMBER, Rig, person, told};
use crate::servers::Postgres;

const RACERS: usize = 50;

async fn on_postgres(server: &Postgres) -> Rig {
    let schema = server.schema();
    let config = store::Config {
        schema: Some(schema),
        acquire_timeout: runtime::config::Duration::from_secs(10),
        ..store::Config::new(server.url())
    };
    let dir = tempfile::tempdir().expect("a directory");
    let rig = Rig::over(dir, &config, |_| {}).await;
    rig.register_peers().await;
    rig
}

async fn one_of_fifty_wins(rig: &Rig) {
    let identity = rig.identity_key(Curve::X25519).await;
    let request = rig.caller("wechat").citizen_token(&person("o1", NUMBER), &[CHANGSHA], &identity).expect("signs");
    let outcomes = join_all((0..RACERS).map(|_| rig.issue(request.clone()))).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    let lost: Vec<_> = lost.into_iter().map(|fault| told(&fault.expect_err("is refused"))).collect();
    assert_eq!((won.len(), lost.len()), (1, RACERS - 1));
    assert!(lost.iter().all(|told| told == "JTI_REUSED client"), "{lost:?}");
    let metrics = rig.context.metrics.encode();
    assert!(metrics.contains("lastmile_identity_tokens_total{kind=\"citizen\"} 1"), "{metrics}");
    assert!(metrics.contains("lastmile_identity_refusals_total{reason=\"JTI_REUSED\"} 49"), "{metrics}");
}

/// The real-name assertion is fenced by itself: fifty clients' assertions around one and the same citizen's.
async fn one_of_fifty_real_names_wins(rig: &Rig) {
    let identity = rig.identity_key(Curve::X25519).await;
    let caller = rig.caller("wechat");
    let first = caller.citizen_token(&person("o1", NUMBER), &[CHANGSHA], &identity).expect("signs");
    let requests: Vec<_> = (0..RACERS)
        .map(|_| {
            let mut request = first.clone();
            request.client_assertion = caller.client_assertion().expect("signs");
            request
        })
        .collect();
    let outcomes = join_all(requests.into_iter().map(|request| rig.issue(request))).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, RACERS - 1));
    assert!(lost.iter().all(|fault| told(fault.as_ref().expect_err("is refused")) == "JTI_REUSED real_name"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_at_once_one_wins_on_sqlite() {
    let rig = Rig::start().await;
    one_of_fifty_wins(&rig).await;
    one_of_fifty_real_names_wins(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_at_once_one_wins_on_postgres() {
    let server = Postgres::start();
    let rig = on_postgres(&server).await;
    one_of_fifty_wins(&rig).await;
    one_of_fifty_real_names_wins(&rig).await;
}

/// Statements that a database was given so far.
fn statements(rig: &Rig) -> u64 {
    let metrics = rig.context.metrics.encode();
    let counts = metrics.lines().filter(|line| line.starts_with("lastmile_store_statements_total"));
    counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// Whoever is refused by the cache costs SQL nothing; where the cache forgot, or cannot be reached, SQL refuses.
async fn the_cache_refuses_first_and_sql_refuses_always(rig: &Rig) {
    let identity = rig.identity_key(Curve::X25519).await;
    let caller = rig.caller("wechat");
    let used = caller.citizen_token(&person("o1", NUMBER), &[CHANGSHA], &identity).expect("signs");
    rig.issue(used.clone()).await.expect("issues");
    // The same real-name assertion around another of the client.
    let mut real_name = used.clone();
    real_name.client_assertion = caller.client_assertion().expect("signs");
    let replays = [(used, "JTI_REUSED client"), (real_name, "JTI_REUSED real_name")];
    let refused = async |sql: bool, what: &str| {
        for (request, expected) in &replays {
            let before = statements(rig);
            assert_eq!(told(&rig.issue(request.clone()).await.expect_err("is refused")), *expected, "{what}");
            assert_eq!(statements(rig) > before, sql, "{what}: SQL was asked");
        }
    };
    assert!(statements(rig) > 0, "statements are counted");
    refused(false, "the cache remembers").await;
    rig.mount(|_| {}).await;
    refused(true, "the cache was emptied").await;
    refused(false, "the cache was told by SQL").await;
    let away = store::cache::Config { url: "redis://127.0.0.1:1/".to_owned(), ..store::cache::Config::default() };
    rig.mount_with(store::Cache::open(&away, &rig.context).await.expect("opens without Redis"), |_| {}).await;
    refused(true, "Redis is away").await;
    let fresh = caller.citizen_token(&person("o2", NUMBER), &[CHANGSHA], &identity).expect("signs");
    rig.issue(fresh).await.expect("issues without Redis");
}

#[tokio::test]
async fn a_replay_is_refused_with_and_without_the_cache_on_sqlite() {
    the_cache_refuses_first_and_sql_refuses_always(&Rig::start().await).await;
}

#[tokio::test]
async fn a_replay_is_refused_with_and_without_the_cache_on_postgres() {
    let server = Postgres::start();
    the_cache_refuses_first_and_sql_refuses_always(&on_postgres(&server).await).await;
}

#[tokio::test]
async fn an_assertion_is_used_up_by_a_refusal_as_well() {
    let rig = Rig::start().await;
    let identity = rig.identity_key(Curve::X25519).await;
    let caller = rig.caller("wechat");
    let mut request = caller.citizen_token(&person("o1", NUMBER), &["traffic/999999"], &identity).expect("signs");
    let refused = rig.issue(request.clone()).await.expect_err("nobody serves it");
    assert_eq!(
        (told(&refused).as_str(), refused.metadata("audience")),
        ("AUDIENCE_UNKNOWN unknown", Some("traffic/999999"))
    );
    request.audience = vec![CHANGSHA.to_owned()];
    assert_eq!(told(&rig.issue(request.clone()).await.expect_err("is refused")), "JTI_REUSED client");
    // The citizen's assertion was not looked at and may come again.
    request.client_assertion = caller.client_assertion().expect("signs");
    rig.issue(request).await.expect("issues");
}

#[tokio::test]
async fn a_restart_forgets_no_jti() {
    let rig = Rig::start().await;
    let identity = rig.identity_key(Curve::X25519).await;
    let request = rig.caller("wechat").citizen_token(&person("o1", NUMBER), &[CHANGSHA], &identity).expect("signs");
    rig.issue(request.clone()).await.expect("issues");
    rig.mount(|_| {}).await;
    // Within the leeway after its end it would still verify.
    rig.hand.advance(Duration::from_secs(64));
    assert_eq!(told(&rig.issue(request.clone()).await.expect_err("is refused")), "JTI_REUSED client");
    rig.hand.advance(Duration::from_secs(1));
    assert_eq!(told(&rig.issue(request).await.expect_err("is refused")), "CLIENT_ASSERTION_INVALID exp");
}
