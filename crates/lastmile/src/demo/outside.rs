//! The world outside, through the sandbox's control port: who lives there, who pays, what an officer does, what goes wrong.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Method;
use runtime::Context;
use runtime::http::{Client, Options};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(10);
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many load citizens are looked at for one who still has something to pay.
const TRIES: u32 = 32;
/// How many magic citizens there are of one kind.
const MAGIC_COPIES: u32 = 10;

/// The sandbox's control port.
pub(crate) struct Outside {
    http: Client,
    base: String,
    context: Context,
}

/// Somebody who lives in the sandbox.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Citizen {
    pub(crate) name: String,
    pub(crate) number: String,
    pub(crate) vehicles: Vec<Vehicle>,
    pub(crate) records: Vec<Record>,
}

/// A car, as the police know it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Vehicle {
    pub(crate) region: String,
    pub(crate) class: String,
    pub(crate) plate: String,
}

/// What the police hold against somebody.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) region: String,
    pub(crate) number: String,
    pub(crate) fine_minor: i64,
    pub(crate) state: String,
}

/// A fault to stage, as the control port takes it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Staged {
    pub(crate) system: &'static str,
    pub(crate) operation: &'static str,
    pub(crate) fault: &'static str,
    pub(crate) times: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay: Option<&'static str>,
}

impl Outside {
    pub(crate) fn new(context: &Context, address: &str) -> Self {
        let http = Client::new(context.net.clone(), context.clock.clone(), Options::default());
        Self { http, base: format!("http://{address}"), context: context.clone() }
    }

    /// Somebody with an unpaid record in the region, and the record: one of the cast where `cast` allows it, else one of the many.
    pub(crate) async fn debtor(&self, region: &str, cast: bool) -> anyhow::Result<(Citizen, Record)> {
        if cast {
            let mut listed = self.call(Method::GET, "/citizens", None).await?;
            let citizens: Vec<Citizen> = serde_json::from_value(listed["citizens"].take())?;
            if let Some(found) = citizens.into_iter().find_map(|citizen| owing(citizen, region)) {
                return Ok(found);
            }
        }
        for _ in 0..TRIES {
            let number = self.context.ids.below(170_000);
            let citizen = self.call(Method::GET, &format!("/citizens/load/{number}"), None).await?;
            if let Some(found) = owing(serde_json::from_value(citizen)?, region) {
                return Ok(found);
            }
        }
        bail!("nobody in {region} has anything left to pay: stop lastmile and remove its data directory")
    }

    /// A magic citizen of a kind who still has something to pay, and the record.
    pub(crate) async fn magic_debtor(&self, region: &str, kind: u32) -> anyhow::Result<(Citizen, Record)> {
        for copy in 0..MAGIC_COPIES {
            let citizen =
                self.call(Method::GET, &format!("/citizens/magic/{}", kind * MAGIC_COPIES + copy), None).await?;
            if let Some(found) = owing(serde_json::from_value(citizen)?, region) {
                return Ok(found);
            }
        }
        bail!("every magic citizen of this kind has paid: stop lastmile and remove its data directory")
    }

    /// The record as the police hold it now.
    pub(crate) async fn officer(&self, region: &str, record: &str, act: Value) -> anyhow::Result<Value> {
        self.call(Method::POST, &format!("/police/{region}/records/{record}"), Some(act)).await
    }

    /// The citizen pays at the channel; returns its transaction number.
    pub(crate) async fn pay(&self, what: Value) -> anyhow::Result<String> {
        let paid = self.call(Method::POST, "/wechatpay/pay", Some(what)).await?;
        Ok(paid["transaction_id"].as_str().context("the channel names no transaction")?.to_owned())
    }

    /// What came back to the citizen of a payment, in fen, as the wallet shows it.
    pub(crate) async fn refunded_minor(&self, transaction: &str) -> anyhow::Result<i64> {
        let statement = self.call(Method::GET, &format!("/wechatpay/payments/{transaction}"), None).await?;
        statement["refunded_minor"].as_i64().context("the wallet shows no amount")
    }

    pub(crate) async fn stage(&self, staged: &Staged) -> anyhow::Result<()> {
        self.call(Method::POST, "/faults", Some(json!(staged))).await.map(drop)
    }

    pub(crate) async fn clear_faults(&self) -> anyhow::Result<()> {
        self.call(Method::DELETE, "/faults", None).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base);
        let request = http::Request::builder().method(method).uri(&url).header("content-type", "application/json");
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let reply = self.http.send(request.body(body)?, DEADLINE, BODY_BYTES_MAX).await.with_context(|| url.clone())?;
        let text = reply.body();
        if !reply.status().is_success() {
            bail!("{url} answers {}: {}", reply.status(), String::from_utf8_lossy(text));
        }
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_slice(text)? })
    }
}

impl Citizen {
    /// The citizen's car in a region.
    pub(crate) fn vehicle(&self, region: &str) -> Option<&Vehicle> {
        self.vehicles.iter().find(|vehicle| vehicle.region == region)
    }
}

impl Vehicle {
    /// The kind of plate in lastmile's words.
    pub(crate) fn plate_type(&self) -> anyhow::Result<&'static str> {
        Ok(match self.class.as_str() {
            "01" => "LARGE",
            "02" => "SMALL",
            "51" => "LARGE_NEW_ENERGY",
            "52" => "SMALL_NEW_ENERGY",
            other => bail!("the sandbox has a plate of class {other}"),
        })
    }
}

fn owing(citizen: Citizen, region: &str) -> Option<(Citizen, Record)> {
    let owed = |record: &&Record| record.region == region && record.state == "unpaid" && record.fine_minor > 0;
    let record = citizen.records.iter().find(owed)?.clone();
    Some((citizen, record))
}
