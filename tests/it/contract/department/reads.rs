//! A read never shows what it could not read: at the public port, under every fault that a department can stage. Where it says that
//! something is wrong, is in `told.rs`.

use std::collections::BTreeMap;

use anyhow::ensure;
use contracts::department::v1::{ListBillsRequest, QueryRequest};
use lastmile_tests::Cluster;
use lastmile_tests::cluster::on_both;
use lastmile_tests::golden::keeps_to_its_row;
use lastmile_tests::super_app::{ITEM, Outside, SuperApp, with_token};
use prost_types::Struct;
use runtime::Context;
use tonic::Status;

use super::faults::{Case, FAULTS, each};
use super::rig::REGIONS;

/// Operations of the magic plates.
const LIST: u32 = 1;
const DETAIL: u32 = 2;
const POINTS: u32 = 7;

/// What a read may say for a fault: the whole answer, or an error of these reasons.
fn reasons(region: &str, name: &str) -> &'static [&'static str] {
    match name {
        "error_after" | "error_before" | "drop_after" | "drop_before" => &["DEPARTMENT_UNREACHABLE"],
        "busy" => &["DEPARTMENT_BUSY"],
        "closed" => &["DEPARTMENT_CLOSED"],
        // The adapter's time for one exchange, or the route's for the whole call, whichever is over first.
        "slow" | "late" | "hang" => &["DEPARTMENT_TIMEOUT", "DEADLINE_EXCEEDED"],
        // Half a frame and then nothing; a SOAP fault that says "Server".
        "fault" => &["DEPARTMENT_UNREACHABLE"],
        // The first of two equal frames is an answer; SOAP repeats elements inside of one.
        "duplicate" if region == "140100" => &[],
        _ => &["REPLY_UNREADABLE"],
    }
}

/// Somebody who reads at the public port, in the name of every citizen whose plate makes some operation misbehave.
struct Reader {
    app: SuperApp,
    /// By operation, region and fault.
    tokens: BTreeMap<(u32, &'static str, u32), String>,
}

impl Reader {
    async fn of(cluster: &Cluster, operations: &[u32]) -> anyhow::Result<Self> {
        let context = Context::system();
        let app = SuperApp::new(&context, &cluster.public(), "wechat", &cluster.client_keys())?;
        let outside = Outside::new(&context, &cluster.sandbox().control.to_string());
        let mut tokens = BTreeMap::new();
        for operation in operations {
            for (fault, ..) in FAULTS {
                let citizen = outside.magic_citizen(operation * 1_000 + fault * 10).await?;
                for region in REGIONS {
                    let token = app.citizen_token(&citizen, &[&format!("traffic/{region}")]).await?;
                    tokens.insert((*operation, region, fault), token);
                }
            }
        }
        Ok(Self { app, tokens })
    }

    fn token(&self, operation: u32, region: &'static str, fault: u32) -> &str {
        &self.tokens[&(operation, region, fault)]
    }

    async fn query(&self, region: &str, token: &str) -> Option<Status> {
        let (item, region, request_id) = (ITEM.to_owned(), region.to_owned(), "read".to_owned());
        let input = Some(Struct::default());
        let asked = QueryRequest { item, region, request_id, input, ..QueryRequest::default() };
        self.app.department().query(with_token(asked, token).expect("a token is a header")).await.err()
    }

    async fn bills(&self, region: &str, token: &str) -> Option<Status> {
        let (item, region, request_id) = (ITEM.to_owned(), region.to_owned(), "read".to_owned());
        let input = Some(Struct::default());
        let asked = ListBillsRequest { item, region, request_id, input, ..ListBillsRequest::default() };
        self.app.department().list_bills(with_token(asked, token).expect("a token is a header")).await.err()
    }
}

fn check(region: &str, name: &str, status: Option<Status>) -> anyhow::Result<()> {
    let expected = reasons(region, name);
    let Some(status) = status else {
        ensure!(expected.is_empty(), "{region} {name}: answered, {expected:?} was expected");
        return Ok(());
    };
    let reason = rpc::RemoteFault::from(&status).reason().to_owned();
    ensure!(expected.contains(&reason.as_str()), "{region} {name}: {reason}, {expected:?} was expected");
    let domain = if reason == "DEADLINE_EXCEEDED" { "common" } else { "department" };
    let fault = keeps_to_its_row(&status, &format!("{domain} {reason}"), &[])?;
    if reason == "REPLY_UNREADABLE" {
        let profile = format!("traffic/{region}");
        ensure!(fault.metadata("profile") == Some(profile.as_str()), "{region} {name}: {fault:?}");
        ensure!(fault.metadata("field").is_some_and(|field| !field.is_empty()), "{region} {name}: {fault:?}");
    }
    Ok(())
}

#[test]
fn a_list_is_whole_or_an_error() {
    on_both(async |cluster| {
        let reader = Reader::of(cluster, &[LIST]).await?;
        let play = |(region, fault, name, _): Case| {
            let reader = &reader;
            async move {
                let token = reader.token(LIST, region, fault);
                check(region, name, reader.query(region, token).await).expect("a query");
                check(region, name, reader.bills(region, token).await).expect("bills");
            }
        };
        each(play).await;
        Ok(())
    });
}

#[test]
fn a_detail_and_the_points_are_whole_or_an_error() {
    on_both(async |cluster| {
        let reader = Reader::of(cluster, &[DETAIL, POINTS]).await?;
        let play = |(region, fault, name, _): Case| {
            let reader = &reader;
            async move {
                for operation in [DETAIL, POINTS] {
                    let token = reader.token(operation, region, fault);
                    check(region, name, reader.query(region, token).await).expect("a query");
                }
            }
        };
        each(play).await;
        Ok(())
    });
}
