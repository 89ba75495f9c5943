//! The catalogue through the public port: what is listed where, for whom and how deep, and what is said of what is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, ensure};
use contracts::catalog::v1::{self as pb, Availability};
use contracts::common::v1::{AssuranceLevel, Depth};
use contracts::department::v1::QueryRequest;
use lastmile_tests::cluster::on_both;
use lastmile_tests::golden::refused;
use lastmile_tests::super_app::{ITEM, Outside, SuperApp, with_token};
use lastmile_tests::{Cluster, Topology};
use runtime::Context;

const ENTRY_POINTS: [&str; 9] = [
    "wechat",
    "qq",
    "tencent-news",
    "alipay",
    "weibo",
    "taobao",
    "wechat-account",
    "jingyitong",
    "government-platform",
];
/// The nation's code: (全国) and (平台) of the articles.
const NATION: &str = "000000";
const POLICE: &str = "police-430100";

/// A super app that reads the catalogue with its own token.
struct Reader {
    app: SuperApp,
    token: String,
}

impl Reader {
    async fn of(cluster: &Cluster, id: &str) -> anyhow::Result<Self> {
        let app = SuperApp::new(&Context::system(), &cluster.public(), id, &cluster.client_keys())?;
        let token = app.own_token().await?;
        Ok(Self { app, token })
    }

    async fn items(&self, asked: pb::ListItemsRequest) -> Result<pb::ListItemsResponse, tonic::Status> {
        let request = with_token(asked, &self.token).expect("a token is a header");
        self.app.catalog().list_items(request).await.map(tonic::Response::into_inner)
    }

    /// Every page of a list, each as long as asked for but the last.
    async fn pages(&self, asked: pb::ListItemsRequest, size: usize) -> anyhow::Result<Vec<pb::Item>> {
        let mut asked = pb::ListItemsRequest { page_size: i32::try_from(size)?, ..asked };
        let mut all = Vec::new();
        loop {
            let page = self.items(asked.clone()).await?;
            ensure!(page.items.len() <= size && page.version > 0, "{} items", page.items.len());
            all.extend(page.items.iter().cloned());
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            ensure!(page.items.len() == size, "a page that is not the last is full");
            asked.page_token = page.next_page_token;
        }
    }

    async fn regions(&self, parent: &str, size: i32, token: &str) -> Result<pb::ListRegionsResponse, tonic::Status> {
        let asked = pb::ListRegionsRequest { parent: parent.into(), page_size: size, page_token: token.into() };
        let request = with_token(asked, &self.token).expect("a token is a header");
        self.app.catalog().list_regions(request).await.map(tonic::Response::into_inner)
    }

    async fn item(&self, item: &str, region: &str) -> Result<tonic::Response<pb::GetItemResponse>, tonic::Status> {
        let asked = pb::GetItemRequest { item: item.into(), region: region.into(), entry_point: String::new() };
        self.app.catalog().get_item(with_token(asked, &self.token).expect("a token is a header")).await
    }

    async fn explain(&self, item: &str, region: &str) -> Result<pb::ExplainRouteResponse, tonic::Status> {
        let asked = pb::ExplainRouteRequest { item: item.into(), region: region.into(), entry_point: String::new() };
        let request = with_token(asked, &self.token).expect("a token is a header");
        self.app.catalog().explain_route(request).await.map(tonic::Response::into_inner)
    }
}

fn of(region: &str, entry_point: &str) -> pb::ListItemsRequest {
    pb::ListItemsRequest { region: region.into(), entry_point: entry_point.into(), ..pb::ListItemsRequest::default() }
}

fn places(items: &[pb::Item]) -> Vec<(&str, &str, &str)> {
    items.iter().map(|item| (item.region.as_str(), item.item.as_str(), item.entry_point.as_str())).collect()
}

/// The articles' rows as the file has them: place, code and the entry points that the channels mean.
fn articles() -> BTreeSet<(String, String, &'static str)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/city_services.csv");
    let text = std::fs::read_to_string(path).expect("the project's own file");
    let mut rows = BTreeSet::new();
    for line in text.lines().skip(1) {
        let columns: Vec<_> = line.split(',').collect();
        let (place, code, channels) = (columns[0], columns[1], columns[3]);
        for channel in channels.split('|') {
            let entry_point = match channel {
                "微信" => "wechat",
                "支付宝钱包" => "alipay",
                "微博" | "微博@上海发布" | "政务微博" | "公安/交警政务微博" => "weibo",
                "手机淘宝" => "taobao",
                "微信公众号" => "wechat-account",
                "京医通(北京银行+腾讯)" => "jingyitong",
                "政府平台" | "浙江政务服务网(阿里云+支付宝)" => "government-platform",
                other => panic!("the channel {other} is new: whose is it?"),
            };
            let code = if code.is_empty() { NATION } else { code };
            rows.insert((place.to_owned(), code.to_owned(), entry_point));
        }
    }
    rows
}

#[test]
fn every_place_of_the_articles_is_listed_for_its_entry_points() {
    on_both(async |cluster| {
        let reader = Reader::of(cluster, "wechat").await?;
        let articles = articles();
        ensure!(articles.iter().map(|(place, ..)| place).collect::<BTreeSet<_>>().len() == 32, "32 places");
        let mut listed = BTreeSet::new();
        let mut count = 0;
        for entry_point in ENTRY_POINTS {
            let items = reader.pages(of("", entry_point), 100).await?;
            ensure!(places(&items).is_sorted() && items.iter().all(|item| item.entry_point == entry_point));
            count += items.len();
            listed.extend(items.into_iter().filter(|item| !item.sandbox_only).map(|item| (item.region, entry_point)));
        }
        let wanted: BTreeSet<_> = articles.iter().map(|(_, code, entry_point)| (code.clone(), *entry_point)).collect();
        ensure!(listed == wanted, "{:?}", listed.symmetric_difference(&wanted).collect::<Vec<_>>());
        // The catalogue's stream, from which the gateway has its routes, has one for each.
        ensure!(count == 389, "{count} entries");

        // Every place is a region of the tree, under the name that the articles give it.
        let mut names = BTreeMap::new();
        let mut parents = vec![String::new()];
        while let Some(parent) = parents.pop() {
            for region in reader.regions(&parent, 1_000, "").await?.regions {
                ensure!(region.parent == parent, "{region:?}");
                if region.level < 2 && region.code != NATION {
                    parents.push(region.code.clone());
                }
                names.insert(region.code, (region.name, region.level));
            }
        }
        // A county of the articles: its prefecture lists it.
        for region in reader.regions("620900", 0, "").await?.regions {
            names.insert(region.code, (region.name, region.level));
        }
        for (place, code, _) in articles.iter().filter(|(_, code, _)| code != NATION) {
            ensure!(names.get(code).is_some_and(|(name, _)| name == place), "{code}: {:?}", names.get(code));
        }
        ensure!(names.get(NATION) == Some(&("全国".to_owned(), 0)), "{:?}", names.get(NATION));
        Ok(())
    });
}

#[test]
fn regions_are_paged_and_a_token_belongs_to_its_list() {
    on_both(async |cluster| {
        let reader = Reader::of(cluster, "wechat").await?;
        let whole = reader.regions("", 0, "").await?;
        ensure!(whole.regions.len() == 35 && whole.next_page_token.is_empty(), "34 provinces and the nation");
        let (mut paged, mut token) = (Vec::new(), String::new());
        loop {
            let page = reader.regions("", 8, &token).await?;
            paged.extend(page.regions);
            if page.next_page_token.is_empty() {
                break;
            }
            token = page.next_page_token;
        }
        ensure!(paged == whole.regions, "pages of eight are the same list");
        ensure!(paged.is_sorted_by_key(|region| region.code.clone()), "by code");
        // A last page that is exactly full says that it is the last.
        ensure!(reader.regions("", 35, "").await?.next_page_token.is_empty(), "there is no 36th");

        let counties = reader.regions("430100", 0, "").await?.regions;
        ensure!(counties.iter().all(|county| county.level == 3 && county.code.len() == 6), "{counties:?}");
        ensure!(counties.iter().any(|county| county.code == "430102" && county.name == "芙蓉区"), "{counties:?}");
        let towns = reader.regions("430102", 0, "").await?.regions;
        ensure!(!towns.is_empty() && towns.iter().all(|town| town.level == 4 && town.code.len() == 9), "{towns:?}");
        ensure!(reader.regions(&towns[0].code, 0, "").await?.regions.is_empty(), "nothing is below a town");

        for (parent, size, token, fields) in [
            ("430000", 0, token.as_str(), &["page_token"][..]),
            ("", 0, "AAAA", &["page_token"]),
            ("", 0, "not a token", &["page_token"]),
            ("", -1, "AAAA", &["page_size", "page_token"]),
        ] {
            let fault = refused(wrapped(reader.regions(parent, size, token).await), "common INVALID_REQUEST", &[])?;
            let told: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
            ensure!(told == fields, "{told:?}");
        }
        refused(wrapped(reader.regions("999999", 0, "").await), "catalog REGION_UNKNOWN", &[])?;
        Ok(())
    });
}

#[test]
fn items_are_filtered_and_paged() {
    on_both(async |cluster| {
        let (wechat, alipay) = (Reader::of(cluster, "wechat").await?, Reader::of(cluster, "alipay").await?);
        let changsha = wechat.pages(of("430100", ""), 100).await?;
        ensure!(changsha.iter().all(|item| item.entry_point == "wechat"), "a caller's own entry point is used");
        ensure!(alipay.pages(of("140100", ""), 100).await?.iter().all(|item| item.entry_point == "alipay"));
        let named = alipay.pages(of("430100", "wechat"), 100).await?;
        ensure!(named == changsha, "another entry point's is listed by its name");

        let paid: Vec<_> = changsha.iter().filter(|item| item.depth() >= Depth::Pay).cloned().collect();
        ensure!(paid.iter().any(|item| item.item == ITEM) && paid.len() < changsha.len(), "{paid:?}");
        let deep = pb::ListItemsRequest { depth_min: Depth::Pay.into(), ..of("430100", "") };
        ensure!(wechat.pages(deep, 100).await? == paid, "the same by depth");

        // A county has what its city lists, and what is said of it is of the county.
        let county = wechat.pages(of("430102", ""), 100).await?;
        ensure!(county.iter().all(|item| item.region == "430102"), "{county:?}");
        let codes = |items: &[pb::Item]| items.iter().map(|item| item.item.clone()).collect::<Vec<_>>();
        ensure!(codes(&county) == codes(&changsha), "{county:?}");

        for size in [1, 4] {
            ensure!(wechat.pages(of("430100", ""), size).await? == changsha, "pages of {size}");
        }
        let everywhere = alipay.pages(of("", ""), 7).await?;
        ensure!(everywhere == alipay.pages(of("", ""), 100).await?, "pages of seven");
        ensure!(everywhere.len() > 100, "{} items", everywhere.len());
        let most = alipay.items(pb::ListItemsRequest { page_size: 1_000, ..of("", "") }).await?;
        ensure!(most.items.len() == 100, "a page has at most 100");
        let usual = alipay.items(of("", "")).await?;
        ensure!(usual.items.len() == 20 && usual.items == everywhere[..20], "a page has 20 when nothing is said");

        let token = usual.next_page_token;
        let paged = |asked: pb::ListItemsRequest| pb::ListItemsRequest { page_token: token.clone(), ..asked };
        for (asked, fields) in [
            (paged(of("430100", "alipay")), &["page_token"][..]),
            (paged(of("", "wechat")), &["page_token"]),
            (paged(pb::ListItemsRequest { depth_min: Depth::Query.into(), ..of("", "alipay") }), &["page_token"]),
            (pb::ListItemsRequest { depth_min: 9, page_size: -1, ..of("", "") }, &["page_size", "depth_min"]),
        ] {
            let fault = refused(wrapped(wechat.items(asked).await), "common INVALID_REQUEST", &[])?;
            let told: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
            ensure!(told == fields, "{told:?}");
        }
        refused(wrapped(wechat.items(of("999999", "")).await), "catalog REGION_UNKNOWN", &[])?;
        ensure!(wechat.items(of("430100", "nobody")).await?.items.is_empty(), "nobody offers nothing");
        Ok(())
    });
}

#[test]
fn an_item_is_told_with_its_schemas_and_its_way() {
    on_both(async |cluster| {
        let reader = Reader::of(cluster, "wechat").await?;
        let town = reader.regions("430102", 1, "").await?.regions.remove(0).code;
        for region in ["430100", "430102", town.as_str()] {
            let told = reader.item(ITEM, region).await?.into_inner();
            let item = told.item.context("an item")?;
            ensure!((item.item.as_str(), item.region.as_str(), item.entry_point.as_str()) == (ITEM, region, "wechat"));
            ensure!(item.name == "交通违法" && item.display_name == "交通罚款缴纳并实时消分", "{item:?}");
            ensure!((item.depth(), item.availability()) == (Depth::Pay, Availability::Served), "{item:?}");
            ensure!(item.level_min() == AssuranceLevel::NameId && item.source == "article 000", "{item:?}");
            ensure!(!item.sandbox_only, "{item:?}");
            for text in [&told.input_schema_json, &told.result_schema_json] {
                let schema: serde_json::Value = serde_json::from_str(text)?;
                ensure!(schema["x-lastmile-version"] == told.schema_version, "{}", told.schema_version);
            }
            ensure!(told.result_schema_json.contains("\"record\""), "the record's schema is in the result's");

            let told = reader.explain(ITEM, region).await?;
            let route = told.route.context("a route")?;
            ensure!((route.profile.as_str(), route.profile_region.as_str()) == ("traffic/430100", "430100"));
            ensure!((route.region.as_str(), route.entry_point.as_str()) == ("430100", "wechat"), "{route:?}");
            ensure!(route.payee_id == "treasury-430100-traffic" && route.currency == "CNY", "{route:?}");
            ensure!((route.timeout_ms, route.concurrency_max, route.depth()) == (8_000, 64, Depth::Pay), "{route:?}");
            let (last, above) = told.steps.split_last().context("steps")?;
            ensure!(last == "430100: profile traffic/430100 serves it", "{:?}", told.steps);
            ensure!(above.last().is_some_and(|step| step.contains("is listed for wechat (article 000)")), "{above:?}");
            ensure!(told.steps.len() == 2 + usize::from(region != "430100") + usize::from(region.len() == 9));
        }
        // What is not there: an answer where the way is asked for, an error where the thing is.
        let told = reader.explain(ITEM, "440100").await?;
        ensure!(told.route.is_none() && told.steps.len() == 2, "the city and the province: {told:?}");
        ensure!(told.steps.iter().all(|step| step.contains("is not listed for wechat")), "{told:?}");
        let told = reader.explain(ITEM, "999999").await?;
        ensure!(told.route.is_none() && told.steps == ["region 999999 is not in the tree"], "{told:?}");
        refused(reader.item(ITEM, "440100").await, "catalog ITEM_NOT_LISTED", &[])?;
        refused(reader.item("traffic.nothing", "430100").await, "catalog ITEM_NOT_LISTED", &[])?;
        refused(reader.item(ITEM, "999999").await, "catalog REGION_UNKNOWN", &[])?;
        for fault in [
            refused(reader.item("", "").await, "common INVALID_REQUEST", &[])?,
            refused(wrapped(reader.explain("", "").await), "common INVALID_REQUEST", &[])?,
        ] {
            let told: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
            ensure!(told == ["item", "region"], "{told:?}");
        }
        let long = "x".repeat(65);
        for fault in [
            refused(reader.item(&long, "长沙").await, "common INVALID_REQUEST", &[])?,
            refused(wrapped(reader.explain(&long, "4301").await), "common INVALID_REQUEST", &[])?,
            refused(wrapped(reader.regions("4301", 0, "").await), "common INVALID_REQUEST", &[])?,
        ] {
            let told: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
            ensure!(told == ["item", "region"] || told == ["parent"], "{told:?}");
        }
        Ok(())
    });
}

/// What has no adapter is listed, told as such, and refused by the gateway in the catalogue's words; no department hears of it.
#[test]
fn what_has_no_adapter_is_told_and_refused() {
    on_both(async |cluster| {
        let context = Context::system();
        let reader = Reader::of(cluster, "wechat").await?;
        let outside = Outside::new(&context, &cluster.sandbox().control.to_string());
        let citizen = outside.citizen(700).await?;
        let token = reader.app.citizen_token(&citizen, &["traffic/430100"]).await?;
        outside.stage_for((POLICE, "*", "busy"), 1, "1s").await?;
        let query = async |item: &str, region: &str| {
            let (item, region) = (item.to_owned(), region.to_owned());
            let asked = QueryRequest { item, region, request_id: "none".into(), ..QueryRequest::default() };
            reader.app.department().query(with_token(asked, &token).expect("a token is a header")).await
        };
        let items = reader.pages(of("", "wechat"), 100).await?;
        let served: BTreeSet<_> =
            items.iter().filter(|item| item.availability() == Availability::Served).collect_keys();
        ensure!(served == BTreeSet::from([("140100", ITEM), ("430100", ITEM)]), "{served:?}");
        let mut refusals = 0;
        for item in items.iter().filter(|item| item.availability() == Availability::NoAdapter) {
            refused(query(&item.item, &item.region).await, "catalog NO_ADAPTER", &[])?;
            refusals += 1;
        }
        ensure!(refusals + served.len() == items.len() && refusals > 50, "{refusals} are refused");
        ensure!(outside.staged(POLICE).await? == 1 && cluster.exchanges() == 0, "a department was asked");

        let none = items.iter().find(|item| item.availability() == Availability::NoAdapter).context("one")?;
        let told = reader.item(&none.item, &none.region).await?.into_inner();
        ensure!(told.item.as_ref() == Some(none), "{told:?}");
        ensure!(told.input_schema_json.is_empty() && told.result_schema_json.is_empty() && told.schema_version == 0);
        let told = reader.explain(&none.item, &none.region).await?;
        let route = told.route.context("the route of what is listed")?;
        ensure!(route.profile.is_empty() && route.profile_region.is_empty() && route.payee_id.is_empty(), "{route:?}");
        ensure!(told.steps.last().is_some_and(|step| step.starts_with("no adapter is connected for ")));
        Ok(())
    });
}

/// Region and item of some items.
trait Keys<'a> {
    fn collect_keys(self) -> BTreeSet<(&'a str, &'a str)>;
}

impl<'a, I: Iterator<Item = &'a pb::Item>> Keys<'a> for I {
    fn collect_keys(self) -> BTreeSet<(&'a str, &'a str)> {
        self.map(|item| (item.region.as_str(), item.item.as_str())).collect()
    }
}

#[test]
fn the_catalogue_is_for_entry_points_and_some_of_it_is_not_served() {
    on_both(async |cluster| {
        let reader = Reader::of(cluster, "wechat").await?;
        let mut catalog = reader.app.catalog();
        let bare = || tonic::Request::new(pb::ListItemsRequest::default());
        refused(catalog.list_items(bare()).await, "common UNAUTHENTICATED", &[("check", "missing")])?;
        let clerk = Reader::of(cluster, "clerk-1").await?;
        let denied = wrapped(clerk.items(of("430100", "wechat")).await);
        refused(denied, "common CALLER_NOT_ALLOWED", &[("caller", "staff")])?;
        let search = with_token(pb::SearchItemsRequest::default(), &reader.token)?;
        refused(catalog.search_items(search).await, "common NOT_SERVED", &[])?;
        let publish = with_token(pb::PublishRequest::default(), &clerk.token)?;
        refused(catalog.publish(publish).await, "common NOT_SERVED", &[])?;
        let watch = with_token(pb::WatchCatalogRequest::default(), &reader.token)?;
        refused(catalog.watch_catalog(watch).await, "gateway METHOD_UNKNOWN", &[])?;
        Ok(())
    });
}

/// Payment in Taiyuan over WeChat stands in the sandbox's labelled file: there with the sandbox, and not without it.
#[test]
fn what_is_of_the_sandbox_alone_goes_with_it() {
    on_both(async |cluster| {
        let reader = Reader::of(cluster, "wechat").await?;
        let item = reader.item(ITEM, "140100").await?.into_inner().item.context("an item")?;
        ensure!(item.sandbox_only && item.source == "sandbox" && item.depth() == Depth::Pay, "{item:?}");
        Ok(())
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for topology in [Topology::Single, Topology::Split] {
        let outcome = runtime.block_on(async {
            let builder = Cluster::builder(topology).configure(|config| config.sandbox.enabled = false);
            let cluster = Box::pin(builder.build()).await?;
            let reader = Reader::of(&cluster, "wechat").await?;
            refused(reader.item(ITEM, "140100").await, "catalog ITEM_NOT_LISTED", &[])?;
            ensure!(reader.items(of("140100", "wechat")).await?.items.is_empty(), "something is listed");
            let changsha = reader.item(ITEM, "430100").await?.into_inner().item.context("an item")?;
            ensure!(!changsha.sandbox_only && changsha.depth() == Depth::Pay, "{changsha:?}");
            let told = reader.explain(ITEM, "140100").await?;
            ensure!(told.route.is_none(), "{told:?}");
            cluster.stop().await
        });
        outcome.unwrap_or_else(|error| panic!("on {topology:?}: {error:?}"));
    }
}

fn wrapped<T>(answer: Result<T, tonic::Status>) -> Result<tonic::Response<T>, tonic::Status> {
    answer.map(tonic::Response::new)
}
