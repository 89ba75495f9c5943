//! What tests of a whole cluster play: a super app's back end on the public port, and the people of the sandbox.
//!
//! Both are strangers to lastmile: one speaks gRPC and the token endpoint, the other the sandbox's control port.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use contracts::cases::v1::case_service_client::CaseServiceClient;
use contracts::catalog::v1::catalog_service_client::CatalogServiceClient;
use contracts::department::v1::department_service_client::DepartmentServiceClient;
use contracts::department::v1::{Bill, ListBillsRequest};
use contracts::identity::v1::IssueTokenRequest;
use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use contracts::payments::v1::payment_service_client::PaymentServiceClient;
use prost_types::{Struct, Value as Field, value::Kind};
use rpc::jose::{AgreementPublicKey, Jwks, SigningKey};
use rpc::oauth::{Caller, Person};
use rpc::token::Attributes;
use runtime::http::{Client, Options};
use runtime::secret::Pii;
use runtime::{Context, secret};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

/// The item of the slice.
pub const ITEM: &str = "traffic.violation";
const DEADLINE: Duration = Duration::from_secs(20);
/// A journal of ten thousand cases is the longest.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const LEVEL_FACE: u8 = 4;

/// A client of the public port with a key of its own: an entry point's back end, or a clerk's desk.
pub struct SuperApp {
    http: Client,
    base: String,
    channel: Channel,
    caller: Caller,
}

/// Somebody who lives in the sandbox.
#[derive(Clone, Debug, Deserialize)]
pub struct Citizen {
    name: String,
    number: String,
    vehicles: Vec<Vehicle>,
}

#[derive(Clone, Debug, Deserialize)]
struct Vehicle {
    region: String,
    class: String,
    plate: String,
}

/// The world outside: citizens who pay, and systems that misbehave when they are told to.
pub struct Outside {
    http: Client,
    base: String,
}

impl SuperApp {
    /// Takes the key of `id` ("wechat", "clerk-1") from the directory in which the cluster made it.
    pub fn new(context: &Context, base: &str, id: &str, keys: &Path) -> anyhow::Result<Self> {
        let pem = secret::read_private_text(&keys.join(format!("{id}.pem"))).context(id.to_owned())?;
        let key = SigningKey::from_pem(pem.expose())?;
        Ok(Self {
            http: Client::new(context.net.clone(), context.clock.clone(), Options::default()),
            base: base.to_owned(),
            channel: Endpoint::from_shared(base.to_owned())?.connect_timeout(DEADLINE).connect_lazy(),
            caller: Caller::new(id, key, context.clock.clone(), context.ids.clone()),
        })
    }

    /// CaseService of the public port.
    pub fn cases(&self) -> CaseServiceClient<Channel> {
        CaseServiceClient::new(self.channel.clone())
    }

    /// CatalogService of the public port.
    pub fn catalog(&self) -> CatalogServiceClient<Channel> {
        CatalogServiceClient::new(self.channel.clone())
    }

    /// DepartmentService of the public port.
    pub fn department(&self) -> DepartmentServiceClient<Channel> {
        DepartmentServiceClient::new(self.channel.clone())
    }

    /// PaymentService of the public port.
    pub fn payments(&self) -> PaymentServiceClient<Channel> {
        PaymentServiceClient::new(self.channel.clone())
    }

    /// The client's own token.
    pub async fn own_token(&self) -> anyhow::Result<String> {
        self.token(self.caller.own_token()?).await
    }

    /// A token of a citizen for departments.
    pub async fn citizen_token(&self, citizen: &Citizen, profiles: &[&str]) -> anyhow::Result<String> {
        self.person_token(&citizen.person(self.caller.id()), profiles).await
    }

    /// A token of a person of whom something else is known.
    pub async fn person_token(&self, person: &Person, profiles: &[&str]) -> anyhow::Result<String> {
        let url = format!("{}/.well-known/jwks.json", self.base);
        let reply = self.http.send(http::Request::get(&url).body(Bytes::new())?, DEADLINE, BODY_BYTES_MAX).await?;
        let keys: Jwks = serde_json::from_slice(reply.body())?;
        let identity = keys.keys.iter().find_map(|key| match key.to_agreement_key() {
            Ok(key @ AgreementPublicKey::X25519(_)) => Some(key),
            _ => None,
        });
        let identity = identity.context("the key set has no key to seal for")?;
        self.token(self.caller.citizen_token(person, profiles, &identity)?).await
    }

    /// The one bill of a citizen's car in a region.
    pub async fn bill(&self, token: &str, citizen: &Citizen, region: &str) -> anyhow::Result<Bill> {
        let asked = ListBillsRequest {
            item: ITEM.to_owned(),
            region: region.to_owned(),
            request_id: "bills".to_owned(),
            input: Some(citizen.input(region)?),
            ..ListBillsRequest::default()
        };
        let answer = self.department().list_bills(with_token(asked, token)?).await?.into_inner();
        answer.bills.into_iter().next().context("nothing to pay")
    }

    async fn token(&self, asked: IssueTokenRequest) -> anyhow::Result<String> {
        let answer = IdentityServiceClient::new(self.channel.clone()).issue_token(asked).await?;
        Ok(answer.into_inner().access_token)
    }
}

impl Citizen {
    /// The citizen as a user of an entry point, seen in person.
    pub fn person(&self, entry_point: &str) -> Person {
        let attributes = Attributes {
            name: Some(Pii::new(self.name.clone())),
            doc_type: Some("resident_id".to_owned()),
            doc_no: Some(Pii::new(self.number.clone())),
            ..Attributes::default()
        };
        let sub = format!("{entry_point}-{}", self.number.get(14..).unwrap_or_default());
        Person { sub, level: LEVEL_FACE, consents: vec![ITEM.to_owned()], attributes }
    }

    /// What finds the citizen's bills: the plate of the car in that region.
    pub fn input(&self, region: &str) -> anyhow::Result<Struct> {
        let vehicle = self.vehicles.iter().find(|vehicle| vehicle.region == region).context("no car here")?;
        let plate_type = match vehicle.class.as_str() {
            "01" => "LARGE",
            "02" => "SMALL",
            "51" => "LARGE_NEW_ENERGY",
            "52" => "SMALL_NEW_ENERGY",
            other => anyhow::bail!("a car of class {other}"),
        };
        let field = |text: &str| Field { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = [("plate", vehicle.plate.as_str()), ("plate_type", plate_type)];
        Ok(Struct { fields: fields.map(|(name, text)| (name.to_owned(), field(text))).into() })
    }

    /// The number of the citizen's document, which is that of their driving licence.
    pub fn number(&self) -> &str {
        &self.number
    }

    /// What must not be found where it does not belong.
    pub fn canaries(&self) -> Vec<String> {
        let plates = self.vehicles.iter().map(|vehicle| vehicle.plate.clone());
        [self.name.clone(), self.number.clone()].into_iter().chain(plates).collect()
    }
}

impl Outside {
    /// The control port at "ip:port".
    pub fn new(context: &Context, control: &str) -> Self {
        let http = Client::new(context.net.clone(), context.clock.clone(), Options::default());
        Self { http, base: format!("http://{control}") }
    }

    /// The n-th of many citizens, each with one unpaid record in each city.
    pub async fn citizen(&self, number: u32) -> anyhow::Result<Citizen> {
        Ok(serde_json::from_value(self.call("GET", &format!("/citizens/load/{number}"), None).await?)?)
    }

    /// A citizen whose record or whose department misbehaves, as the number says (docs/sandbox/README.md).
    pub async fn magic_citizen(&self, number: u32) -> anyhow::Result<Citizen> {
        Ok(serde_json::from_value(self.call("GET", &format!("/citizens/magic/{number}"), None).await?)?)
    }

    /// What an officer does to a record: "confirm", "dispute" or "settle_dispute".
    pub async fn officer(&self, region: &str, record: &str, action: &str) -> anyhow::Result<()> {
        let path = format!("/police/{region}/records/{record}");
        self.call("POST", &path, Some(json!({ "action": action }))).await.map(drop)
    }

    /// What departments have taken for good: the serial number by the order number under which it was paid.
    pub async fn posted(&self, systems: &[&str]) -> anyhow::Result<BTreeMap<String, String>> {
        let mut posted = BTreeMap::new();
        for system in systems {
            let text = self.text("GET", &format!("/journal/{system}"), None).await?;
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line: Value = serde_json::from_slice(line)?;
                let word = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                if word("event") == "payment" && word("state") == "posted" {
                    posted.insert(word("order"), word("serial"));
                }
            }
        }
        Ok(posted)
    }

    /// The citizen pays.
    pub async fn pay(&self, prepay_id: &str) -> anyhow::Result<()> {
        self.call("POST", "/wechatpay/pay", Some(json!({ "prepay_id": prepay_id }))).await.map(drop)
    }

    /// The citizen scans a code with Alipay and pays.
    pub async fn pay_alipay(&self, qr_code: &str) -> anyhow::Result<()> {
        self.call("POST", "/alipay/pay", Some(json!({ "qr_code": qr_code }))).await.map(drop)
    }

    /// The citizen opens the page of an order at Alipay, which knows of it from then on.
    pub async fn open_alipay(&self, page_url: &str) -> anyhow::Result<()> {
        self.call("POST", "/alipay/open", Some(json!({ "page_url": page_url }))).await.map(drop)
    }

    /// The citizen pays the order that the merchant knows by a number; also one that was closed, when the money was on its way before.
    pub async fn pay_order(&self, channel: &str, out_trade_no: &str, although_closed: bool) -> anyhow::Result<()> {
        let pay = json!({ "out_trade_no": out_trade_no, "although_closed": although_closed });
        self.call("POST", &format!("/{channel}/pay"), Some(pay)).await.map(drop)
    }

    /// Stages a fault for the next call of an operation.
    pub async fn stage(&self, system: &str, operation: &str, fault: &str) -> anyhow::Result<()> {
        let staged = json!({ "system": system, "operation": operation, "fault": fault });
        self.call("POST", "/faults", Some(staged)).await.map(drop)
    }

    /// Stages a fault for the next `times` calls; where it waits, it waits for `delay`.
    pub async fn stage_for(
        &self,
        (system, operation, fault): (&str, &str, &str),
        times: u32,
        delay: &str,
    ) -> anyhow::Result<()> {
        let staged =
            json!({ "system": system, "operation": operation, "fault": fault, "times": times, "delay": delay });
        self.call("POST", "/faults", Some(staged)).await.map(drop)
    }

    /// How many calls of a system are still to suffer a fault: what no call has come for is still there.
    pub async fn staged(&self, system: &str) -> anyhow::Result<u64> {
        let staged = self.call("GET", "/faults", None).await?;
        let of_system = staged.as_array().into_iter().flatten().filter(|staged| staged["system"] == system);
        Ok(of_system.filter_map(|staged| staged["times"].as_u64()).sum())
    }

    /// Takes back every fault that is staged.
    pub async fn calm(&self) -> anyhow::Result<()> {
        self.call("DELETE", "/faults", None).await.map(drop)
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let text = self.text(method, path, body).await?;
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_slice(&text)? })
    }

    async fn text(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Bytes> {
        let url = format!("{}{path}", self.base);
        let request = http::Request::builder().method(method).uri(&url).header("content-type", "application/json");
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let reply = self.http.send(request.body(body)?, DEADLINE, BODY_BYTES_MAX).await?;
        let (status, text) = (reply.status(), reply.into_body());
        anyhow::ensure!(status.is_success(), "{url}: {status}: {}", String::from_utf8_lossy(&text));
        Ok(text)
    }
}

/// Puts a token and a deadline on a call.
pub fn with_token<T>(message: T, token: &str) -> anyhow::Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    request.set_timeout(DEADLINE);
    Ok(request)
}
