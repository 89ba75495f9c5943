//! The query path calls nobody but the adapter: with every other peer stopped, ten thousand queries are answered, and neither a peer, a
//! database nor Redis was asked for any of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use contracts::common::v1::Outcome;
use contracts::department::v1::QueryRequest;
use futures::StreamExt;
use futures::stream;
use lastmile::Role;
use lastmile_tests::super_app::{Citizen, ITEM, Outside, SuperApp, with_token};
use lastmile_tests::{Cluster, Topology};
use runtime::Context;
use tokio::time::Instant;

const QUERIES: usize = 10_000;
const CITIZENS: u32 = 50;
const AT_ONCE: usize = 16;
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
    cache: u64,
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
                "lastmile_store_cache_calls_total" => asked.cache += count(),
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
        Self { statements: self.statements - before.statements, cache: self.cache - before.cache, ..self }
    }
}

fn label(labels: &str, name: &str) -> String {
    let value = labels.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
    value.expect("the series has the label").to_owned()
}

#[test]
fn ten_thousand_queries_ask_nobody_but_the_adapter() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { Box::pin(play()).await.expect("queries are answered") });
}

async fn play() -> anyhow::Result<()> {
    let mut cluster = Box::pin(Cluster::builder(Topology::Split).build()).await?;
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
    for role in [Role::Identity, Role::Catalog, Role::Payments, Role::Cases] {
        cluster.stop_role(role).await?;
    }
    let before = [Role::Gateway, Role::Adapter].map(|role| Asked::by(&cluster, role));
    let began = Instant::now();
    let mut answers = stream::iter((0..QUERIES).map(|number| query(&app, &askers[number % askers.len()], number)))
        .buffer_unordered(AT_ONCE);
    while let Some(answered) = answers.next().await {
        answered?;
    }
    drop(answers);
    let background_max = u64::try_from(began.elapsed().as_millis() / BACKGROUND_PAUSE_MIN.as_millis())?;
    let [gateway, adapter] = [(Role::Gateway, &before[0]), (Role::Adapter, &before[1])]
        .map(|(role, before)| Asked::by(&cluster, role).since(before));

    let public: BTreeMap<_, _> = gateway.calls.iter().filter(|((_, traffic), _)| traffic == "public").collect();
    let carried = CITIES.map(|(_, profile)| public.get(&(format!("adapter/{profile}"), "public".to_owned())));
    ensure!(public.len() == CITIES.len(), "the requests were carried to {public:?}");
    ensure!(carried.into_iter().flatten().copied().sum::<u64>() == u64::try_from(QUERIES)?, "carried: {public:?}");
    for (role, asked) in [("gateway", &gateway), ("adapter", &adapter)] {
        ensure!((asked.statements, asked.cache) == (0, 0), "the {role} asked a store: {asked:?}");
        // Keys and routes are asked for in the background, at a pace that has nothing to do with queries.
        for ((peer, traffic), count) in asked.calls.iter().filter(|((_, traffic), _)| traffic != "public") {
            ensure!(
                matches!(peer.as_str(), "identity" | "catalog"),
                "the {role} asked {peer} ({traffic}) {count} times"
            );
            ensure!(*count <= background_max, "the {role} asked {peer} {count} times in {:?}", began.elapsed());
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
