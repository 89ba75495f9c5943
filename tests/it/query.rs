//! The query path calls nobody but the adapter: with every other peer stopped, ten thousand queries are answered, and neither a peer, a
//! database nor Redis was asked for any of them. A quota that the catalogue sets is counted in memory as well; what it costs at Redis
//! goes by the clock, one call a second, however many queries there are.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use contracts::common::v1::Outcome;
use contracts::department::v1::QueryRequest;
use futures::StreamExt;
use futures::stream;
use lastmile::Role;
use lastmile_tests::catalogue::Catalogue;
use lastmile_tests::super_app::{Citizen, ITEM, Outside, SuperApp, with_token};
use lastmile_tests::{Cluster, Topology};
use runtime::Context;
use tokio::time::Instant;

const QUERIES: usize = 10_000;
/// As many as tell a call a second from a call a query.
const QUERIES_UNDER_QUOTA: usize = 1_000;
const CITIZENS: u32 = 50;
const AT_ONCE: usize = 16;
/// Calls a minute; more than there are.
const QUOTA: usize = 1_000_000;
/// Once a second the gateway adds what it admitted to Redis, for each entry point and item: here one.
const SETTLED_EVERY: Duration = Duration::from_secs(1);
/// No peer is asked for keys or routes more often than this in the background, however long it is away.
const BACKGROUND_PAUSE_MIN: Duration = Duration::from_millis(100);
const CITIES: [(&str, &str); 2] = [("430100", "traffic/430100"), ("140100", "traffic/140100")];

/// Who asks, and with what.
struct Asker {
    citizen: Citizen,
    region: &'static str,
    token: String,
}

/// What a process has asked of others so far.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    /// Calls by (peer, traffic).
    calls: BTreeMap<(String, String), u64>,
    statements: u64,
    /// Calls of the cache.
    cache: u64,
    /// Those that Redis answered.
    redis: u64,
}

impl Asked {
    /// Read from the metrics of the process, as Prometheus would see them.
    fn by(cluster: &Cluster, role: Role) -> Self {
        let mut asked = Self::default();
        for line in cluster.context(role).metrics.encode().lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let count = || value.parse::<u64>().expect("a count");
            match name {
                "lastmile_rpc_client_call_seconds_count" => {
                    *asked.calls.entry((label(labels, "peer"), label(labels, "traffic"))).or_default() += count();
                }
                "lastmile_store_statements_total" => asked.statements += count(),
                "lastmile_store_cache_calls_total" => {
                    asked.cache += count();
                    asked.redis += if label(labels, "answered") == "shared" { count() } else { 0 };
                }
                _ => {}
            }
        }
        asked
    }

    /// What was asked since `before`.
    fn since(mut self, before: &Self) -> Self {
        for (key, count) in &before.calls {
            *self.calls.entry(key.clone()).or_default() -= count;
        }
        self.calls.retain(|_, count| *count > 0);
        let (statements, cache) = (self.statements - before.statements, self.cache - before.cache);
        Self { statements, cache, redis: self.redis - before.redis, ..self }
    }

    /// Calls of other roles, not for a public call.
    fn background(&self) -> impl Iterator<Item = (&str, u64)> {
        let calls = self.calls.iter().filter(|((_, traffic), _)| traffic != "public");
        calls.map(|((peer, _), count)| (peer.as_str(), *count))
    }
}

fn label(labels: &str, name: &str) -> String {
    let value = labels.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
    value.expect("the series has the label").to_owned()
}

#[test]
fn ten_thousand_queries_ask_nobody_but_the_adapter() {
    run(QUERIES, 0);
}

#[test]
fn a_quota_asks_redis_by_the_clock() {
    run(QUERIES_UNDER_QUOTA, QUOTA);
}

fn run(queries: usize, quota: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { Box::pin(play(queries, quota)).await.expect("queries are answered") });
}

async fn play(queries: usize, quota: usize) -> anyhow::Result<()> {
    let catalogue = Catalogue::with("adapters.yaml", "quota_per_minute: 0", &format!("quota_per_minute: {quota}"))?;
    let data_dir = catalogue.data_dir();
    let cluster =
        Cluster::builder(Topology::Split).configure(move |config| config.catalog.data_dir.clone_from(&data_dir));
    let mut cluster = Box::pin(cluster.build()).await?;
    let context = Context::system();
    let app = SuperApp::new(&context, &cluster.public(), "wechat", &cluster.client_keys())?;
    let outside = Outside::new(&context, &cluster.sandbox().control.to_string());
    let mut askers = Vec::new();
    for number in 0..CITIZENS {
        let citizen = outside.citizen(number).await?;
        for (region, profile) in CITIES {
            let token = app.citizen_token(&citizen, &[profile]).await?;
            askers.push(Asker { citizen: citizen.clone(), region, token });
        }
    }
    // What is counted below is counted at all: tokens cost identity statements, and both roles have asked for keys.
    ensure!(Asked::by(&cluster, Role::Identity).statements > 0, "statements are not counted");
    for role in [Role::Gateway, Role::Adapter] {
        let asked = Asked::by(&cluster, role);
        ensure!(asked.background().any(|(peer, count)| peer == "identity" && count > 0), "{role}: {asked:?}");
    }
    for role in [Role::Identity, Role::Catalog, Role::Payments, Role::Cases] {
        cluster.stop_role(role).await?;
    }
    let before = [Role::Gateway, Role::Adapter].map(|role| Asked::by(&cluster, role));
    let began = Instant::now();
    let mut answers = stream::iter((0..queries).map(|number| query(&app, &askers[number % askers.len()], number)))
        .buffer_unordered(AT_ONCE);
    while let Some(answered) = answers.next().await {
        answered?;
    }
    drop(answers);
    let took = began.elapsed();
    // The last calls are settled too, so that at least one settling is seen.
    context.clock.sleep(SETTLED_EVERY * 2).await;
    let [gateway, adapter] = [(Role::Gateway, &before[0]), (Role::Adapter, &before[1])]
        .map(|(role, before)| Asked::by(&cluster, role).since(before));

    let public: BTreeMap<_, _> = gateway.calls.iter().filter(|((_, traffic), _)| traffic == "public").collect();
    let carried = CITIES.map(|(_, profile)| public.get(&(format!("adapter/{profile}"), "public".to_owned())));
    ensure!(public.len() == CITIES.len(), "the requests were carried to {public:?}");
    ensure!(carried.into_iter().flatten().copied().sum::<u64>() == u64::try_from(queries)?, "carried: {public:?}");
    if quota == 0 {
        ensure!(gateway.cache == 0, "the gateway asked Redis: {gateway:?}");
    } else {
        let settled_max = 3 + took.as_secs();
        ensure!(
            settled_max < u64::try_from(queries / 4)?,
            "too slow to tell a call a second from a call a query: {took:?}"
        );
        ensure!(gateway.redis > 0, "Redis shares no quota: {gateway:?}");
        ensure!(gateway.cache <= settled_max, "Redis was asked more often than once a second: {gateway:?} in {took:?}");
    }
    ensure!(adapter.cache == 0, "the adapter asked Redis: {adapter:?}");
    let background_max = 2 * u64::try_from(took.as_millis() / BACKGROUND_PAUSE_MIN.as_millis())?;
    for (role, asked) in [("gateway", &gateway), ("adapter", &adapter)] {
        ensure!(asked.statements == 0, "the {role} asked a database: {asked:?}");
        // Keys and routes are asked for in the background, at a pace that has nothing to do with queries.
        for (peer, count) in asked.background() {
            ensure!(matches!(peer, "identity" | "catalog"), "the {role} asked {peer} {count} times");
            ensure!(count <= background_max, "the {role} asked {peer} {count} times in {took:?}");
        }
    }
    cluster.stop().await
}

async fn query(app: &SuperApp, asker: &Asker, number: usize) -> anyhow::Result<()> {
    let mut input = asker.citizen.input(asker.region)?;
    let omit = prost_types::value::Kind::StringValue("OMIT".to_owned());
    input.fields.insert("evidence".to_owned(), prost_types::Value { kind: Some(omit) });
    let asked = QueryRequest {
        item: ITEM.to_owned(),
        region: asker.region.to_owned(),
        request_id: format!("query-{number}"),
        input: Some(input),
        ..QueryRequest::default()
    };
    let answer = app.department().query(with_token(asked, &asker.token)?).await.with_context(|| format!("{number}"))?;
    let answer = answer.into_inner();
    ensure!(answer.outcome() == Outcome::Done, "query {number}: {:?} {:?}", answer.outcome(), answer.rejection);
    Ok(())
}
