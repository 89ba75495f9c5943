//! Every call that cases makes: to the department of a case, to payments, to identity and to the catalogue.
//!
//! Each call carries the key of its step as its request id and has a deadline. What it brings back is read into the domain's words
//! by [`crate::convert::peers`]; a status that does not prove that nothing happened is an unknown outcome.

mod routes;

pub(crate) use routes::Routes;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use contracts::catalog::v1 as catalog;
use contracts::catalog::v1::catalog_service_client::CatalogServiceClient;
use contracts::department::v1 as department;
use contracts::department::v1::department_service_client::DepartmentServiceClient;
use contracts::identity::v1 as identity;
use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use contracts::ids::CaseId;
use contracts::payments::v1 as payments;
use contracts::payments::v1::payment_service_client::PaymentServiceClient;
use prost::Message;
use rpc::call::{self, Call};
use rpc::jose::SigningKey;
use rpc::token::{ASSERTION_HEADER, ASSERTION_LIFE_MAX, Assertion, CASES, NumericDate, SEALED_HEADER, typ};
use rpc::{Kind, Mesh, RemoteFault, Wire, time};
use runtime::{Context, Timestamp};
use tokio::time::Instant;

use crate::caller::Citizen;
use crate::config::{Calls, Times};
use crate::convert::peers as read;
use crate::domain::{Answer, Locked, OrderAnswer, Proof, RefundAnswer, SettleRules, Step};
use crate::error::Error;
use crate::repo::{File, TradeType};
use crate::seal::Sealer;

/// What a case grant covers.
const OPERATIONS: [&str; 4] = ["LockBill", "ReleaseBill", "SettleBill", "InquireBill"];
/// What the citizen reads where the catalogue has no name at hand.
const TITLE: &str = "政务服务缴费";
const TITLE_BYTES_MAX: usize = 127;
/// How long the name of an item is taken to hold.
const TITLE_AGE: Duration = Duration::from_secs(600);
const REFUND_REASON: &str = "业务未办成，原路退回";
const NAMES_MAX: usize = 4_096;
const IDENTITY_DOMAIN: &str = "identity.lastmile";

/// The names of the columns that the sealer knows.
pub(crate) const INPUT: &str = "input";
pub(crate) const PAYER: &str = "payer";

/// The other roles.
pub(crate) struct Peers {
    mesh: Mesh,
    context: Context,
    signer: SigningKey,
    sealer: Arc<Sealer>,
    calls: Calls,
    times: Times,
    abilities: Mutex<BTreeMap<(String, String), (Timestamp, SettleRules)>>,
    titles: Mutex<BTreeMap<[String; 3], (Timestamp, String)>>,
}

/// One event of payments' stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MoneyNews {
    pub(crate) sequence: i64,
    pub(crate) kind: i32,
    pub(crate) case: Option<CaseId>,
    pub(crate) order_id: String,
}

type Called<T> = Result<tonic::Response<T>, tonic::Status>;

impl Peers {
    pub(crate) fn new(
        mesh: Mesh,
        context: Context,
        signer: SigningKey,
        sealer: Arc<Sealer>,
        calls: Calls,
        times: Times,
    ) -> Self {
        let (abilities, titles) = (Mutex::default(), Mutex::default());
        Self { mesh, context, signer, sealer, calls, times, abilities, titles }
    }

    /// Holds the bill, as the citizen read it.
    pub(crate) async fn lock(&self, file: &File) -> Result<Answer<Locked>, Error> {
        let rules = match self.rules(file).await {
            Ok(rules) => rules,
            Err(fault) => return Ok(read::department_fault(&fault)),
        };
        let key = file.case.key(Step::Lock);
        let (times, about) = (&self.times, &file.about);
        let hold = times.confirm_within.get() + times.pay_within.get() + times.hold_beyond.get();
        let request = self.to_department(
            file,
            department::LockBillRequest {
                item: about.item.clone(),
                region: about.profile_region.clone(),
                request_id: key.clone(),
                bill_no: about.bill_no.clone(),
                record_digest: about.record_digest.clone(),
                hold_until: Some(time::to_proto(file.created.plus(hold))),
                input: self.input(file)?,
            },
        )?;
        let mut client = self.department(file);
        let answer = self.call(key, self.calls.department.get(), client.lock_bill(request)).await;
        Ok(answer.map_or_else(|fault| read::department_fault(&fault), |answer| read::locked(&answer, file, rules)))
    }

    /// Gives the bill back.
    pub(crate) async fn release(&self, file: &File) -> Result<Answer<()>, Error> {
        let key = file.case.key(Step::Release);
        let request = self.to_department(
            file,
            department::ReleaseBillRequest {
                item: file.about.item.clone(),
                region: file.about.profile_region.clone(),
                request_id: key.clone(),
                bill_no: file.about.bill_no.clone(),
                lock_request_id: file.case.key(Step::Lock),
            },
        )?;
        let mut client = self.department(file);
        let answer = self.call(key, self.calls.department.get(), client.release_bill(request)).await;
        Ok(answer.map_or_else(|fault| read::department_fault(&fault), |answer| read::released(&answer)))
    }

    /// Tells the department that the bill was paid.
    pub(crate) async fn settle(&self, file: &File) -> Result<Answer<Proof>, Error> {
        let key = file.case.key(Step::Settle);
        let payment = file.case.payment.as_ref().ok_or(Error::Corrupt("paid_at"))?;
        let request = self.to_department(
            file,
            department::SettleBillRequest {
                item: file.about.item.clone(),
                region: file.about.profile_region.clone(),
                request_id: key.clone(),
                bill_no: file.about.bill_no.clone(),
                amount: Some(file.case.amount.into()),
                paid_time: Some(time::to_proto(payment.at)),
                channel: file.about.channel.clone(),
                channel_transaction: payment.transaction.clone(),
                lock_request_id: file.case.key(Step::Lock),
                input: self.input(file)?,
            },
        )?;
        let mut client = self.department(file);
        let answer = self.call(key, self.calls.department.get(), client.settle_bill(request)).await;
        Ok(answer.map_or_else(
            |fault| read::department_fault(&fault),
            |answer| read::settled(answer.outcome, answer.rejection.as_ref(), answer.proof.as_ref()),
        ))
    }

    /// Asks what became of the settlement.
    pub(crate) async fn inquire(&self, file: &File) -> Result<Answer<Proof>, Error> {
        let key = file.case.key(Step::Settle);
        let sent_at = file.case.sent_at.ok_or(Error::Corrupt("sent_at"))?;
        let request = self.to_department(
            file,
            department::InquireBillRequest {
                item: file.about.item.clone(),
                region: file.about.profile_region.clone(),
                request_id: key.clone(),
                bill_no: file.about.bill_no.clone(),
                settle_sent_time: Some(time::to_proto(sent_at)),
                amount: Some(file.case.amount.into()),
                input: self.input(file)?,
            },
        )?;
        let mut client = self.department(file);
        let answer = self.call(key, self.calls.department.get(), client.inquire_bill(request)).await;
        Ok(answer.map_or_else(
            |fault| read::department_fault(&fault),
            |answer| read::settled(answer.outcome, answer.rejection.as_ref(), answer.proof.as_ref()),
        ))
    }

    /// Creates the order, with exactly the same content in every try.
    pub(crate) async fn create_order(&self, file: &File) -> Result<OrderAnswer, Error> {
        let key = file.case.key(Step::Order);
        let payer = match &file.about.payer_sealed {
            Some(sealed) => {
                let plain = self.sealer.open(file.case.id, PAYER, sealed)?;
                String::from_utf8(plain.expose().clone()).map_err(|_| Error::Corrupt("payer_sealed"))?
            }
            None => String::new(),
        };
        let about = &file.about;
        let trade_type = match about.trade_type {
            TradeType::Jsapi => payments::TradeType::Jsapi,
            TradeType::Native => payments::TradeType::Native,
            TradeType::App => payments::TradeType::App,
            TradeType::H5 => payments::TradeType::H5,
            TradeType::Web => payments::TradeType::Web,
        };
        let pay_until = file.case.pay_until.ok_or(Error::Corrupt("pay_until"))?;
        let request = payments::CreateOrderRequest {
            request_id: key.clone(),
            case_id: file.case.id.to_string(),
            payee_id: about.payee_id.clone(),
            amount: Some(file.case.amount.into()),
            channel: about.channel.clone(),
            trade_type: trade_type.into(),
            entry_point: about.entry_point.clone(),
            payer_reference: payer,
            description: about.title.clone(),
            expire_time: Some(time::to_proto(pay_until)),
            payment_code: file.case.payment_code.clone().unwrap_or_default(),
            insurance: None,
        };
        let answer = self.pay(key, self.payments().create_order(request)).await;
        Ok(order(answer.map(|answer| answer.order), file))
    }

    /// Asks payments for the order by the key that created it.
    pub(crate) async fn find_order(&self, file: &File) -> OrderAnswer {
        let key = file.case.key(Step::Order);
        let request = payments::GetOrderRequest { order_id: String::new(), request_id: key.clone() };
        order(self.pay(key, self.payments().get_order(request)).await.map(|answer| answer.order), file)
    }

    /// Has payments ask the channel.
    pub(crate) async fn refresh_order(&self, file: &File) -> Result<OrderAnswer, Error> {
        let request = payments::RefreshOrderRequest { order_id: order_id(file)? };
        let key = file.case.key(Step::Order);
        let answer = self.pay(key, self.payments().refresh_order(request)).await;
        Ok(order(answer.map(|answer| answer.order), file))
    }

    /// Closes the order at the channel.
    pub(crate) async fn close_order(&self, file: &File) -> Result<OrderAnswer, Error> {
        let key = file.case.key(Step::Close);
        let request = payments::CloseOrderRequest { request_id: key.clone(), order_id: order_id(file)? };
        let answer = self.pay(key, self.payments().close_order(request)).await;
        Ok(order(answer.map(|answer| answer.order), file))
    }

    /// Posts the money to the payee.
    pub(crate) async fn post_order(&self, file: &File) -> Result<OrderAnswer, Error> {
        let key = file.case.key(Step::Post);
        let proof = file.case.proof.as_ref().ok_or(Error::Corrupt("proof_serial"))?;
        let request = payments::PostOrderRequest {
            request_id: key.clone(),
            order_id: order_id(file)?,
            proof_serial: proof.serial.clone(),
        };
        let answer = self.pay(key, self.payments().post_order(request)).await;
        Ok(order(answer.map(|answer| answer.order), file))
    }

    /// Sends the money back.
    pub(crate) async fn refund(&self, file: &File) -> Result<RefundAnswer, Error> {
        let key = file.case.key(Step::Refund);
        let request = payments::RefundRequest {
            request_id: key.clone(),
            order_id: order_id(file)?,
            amount: Some(file.case.amount.into()),
            reason: REFUND_REASON.to_owned(),
            after_settlement: false,
            legs: None,
            insurance_return_time: None,
        };
        let answer = self.pay(key, self.payments().refund(request)).await;
        Ok(refund(answer.map(|answer| answer.refund)))
    }

    /// Asks payments for the refund by the key that created it.
    pub(crate) async fn find_refund(&self, file: &File) -> RefundAnswer {
        let key = file.case.key(Step::Refund);
        let request = payments::GetRefundRequest { refund_id: String::new(), request_id: key.clone() };
        refund(self.pay(key, self.payments().get_refund(request)).await.map(|answer| answer.refund))
    }

    /// What the citizen's client needs to pay; None while payments cannot say.
    pub(crate) async fn pay_sheet(&self, file: &File) -> Option<payments::PaySheet> {
        self.order_now(file).await?.pay_sheet
    }

    /// The receipt as it stands; None where there is none, and while payments cannot say.
    pub(crate) async fn receipt(&self, file: &File) -> Option<payments::Receipt> {
        self.order_now(file).await?.receipt
    }

    async fn order_now(&self, file: &File) -> Option<payments::Order> {
        let request = payments::GetOrderRequest { order_id: order_id(file).ok()?, request_id: String::new() };
        let answer = self.pay(file.case.key(Step::Order), self.payments().get_order(request)).await;
        answer.ok()?.order
    }

    /// Waits for events of payments after a sequence number.
    pub(crate) async fn events(&self, after: i64, max: i32) -> Result<Vec<MoneyNews>, RemoteFault> {
        let wait = self.calls.events_wait.get();
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(0);
        let request = payments::ListEventsRequest { after_sequence: after, page_size: max, wait_ms };
        let id = format!("cases-events-{after}");
        let answer = self.call(id, wait + self.calls.payments.get(), self.payments().list_events(request)).await?;
        let news = |event: payments::Event| MoneyNews {
            sequence: event.sequence,
            kind: event.kind,
            case: event.case_id.parse().ok(),
            order_id: event.order_id,
        };
        Ok(answer.events.into_iter().map(news).collect())
    }

    /// Exchanges the citizen's token for the grant under which the case goes on without it.
    ///
    /// Errors: `GrantRefused`, `Unauthenticated`, `Peer`.
    pub(crate) async fn case_grant(
        &self,
        case: CaseId,
        citizen: &Citizen,
        profile: &str,
        item: &str,
        until: Timestamp,
    ) -> Result<String, Error> {
        let request = identity::IssueCaseGrantRequest {
            request_id: case.to_string(),
            citizen_token: citizen.token.expose().clone(),
            profile: profile.to_owned(),
            item: item.to_owned(),
            operations: OPERATIONS.map(str::to_owned).to_vec(),
            valid_until: Some(time::to_proto(until)),
        };
        let mut client = IdentityServiceClient::new(self.mesh.wire("identity"));
        let answer = self.call(case.to_string(), self.calls.other.get(), client.issue_case_grant(request)).await;
        match answer {
            Ok(answer) => Ok(answer.grant),
            Err(fault) if fault.is(IDENTITY_DOMAIN, "TOKEN_INVALID") => Err(Error::Unauthenticated("grant")),
            Err(fault) => match fault.kind() {
                Kind::InvalidInput | Kind::Forbidden | Kind::RuleBroken | Kind::NotFound => {
                    Err(Error::GrantRefused { profile: profile.to_owned() })
                }
                Kind::Unauthenticated => Err(Error::Unauthenticated("grant")),
                Kind::AlreadyExists
                | Kind::Conflict
                | Kind::Exhausted
                | Kind::Unavailable
                | Kind::Deadline
                | Kind::Unsupported
                | Kind::Internal => Err(Error::Peer { peer: "identity", source: Some(Box::new(fault)) }),
            },
        }
    }

    /// The item's name as this entry point and region give it, for the pay sheet. Kept a while; without the catalogue a plain one.
    pub(crate) async fn title(&self, item: &str, region: &str, entry_point: &str) -> String {
        let key = [item, region, entry_point].map(str::to_owned);
        let now = self.context.clock.now();
        if let Some((at, title)) = lock(&self.titles).get(&key)
            && now.since(*at) < TITLE_AGE
        {
            return title.clone();
        }
        let request = catalog::GetItemRequest {
            item: item.to_owned(),
            region: region.to_owned(),
            entry_point: entry_point.to_owned(),
        };
        let mut client = self.catalog();
        let answer = self.call("cases-title".to_owned(), self.calls.other.get(), client.get_item(request)).await;
        let name = answer.ok().and_then(|answer| answer.item).map(|item| item.display_name).unwrap_or_default();
        let title = cut(if name.trim().is_empty() { TITLE } else { name.trim() });
        keep(&self.titles, key, (now, title.clone()));
        title
    }

    /// Asks the catalogue for one route, while there is no snapshot yet.
    pub(crate) async fn explain_route(
        &self,
        item: &str,
        region: &str,
        entry_point: &str,
    ) -> Result<Option<catalog::Route>, Error> {
        let request = catalog::ExplainRouteRequest {
            item: item.to_owned(),
            region: region.to_owned(),
            entry_point: entry_point.to_owned(),
        };
        let mut client = self.catalog();
        match self.call("cases-route".to_owned(), self.calls.other.get(), client.explain_route(request)).await {
            Ok(answer) => Ok(answer.route),
            Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::RuleBroken) => Ok(None),
            Err(fault) => Err(Error::Peer { peer: "catalog", source: Some(Box::new(fault)) }),
        }
    }

    pub(crate) fn catalog(&self) -> CatalogServiceClient<Wire> {
        CatalogServiceClient::new(self.mesh.wire("catalog"))
    }

    fn payments(&self) -> PaymentServiceClient<Wire> {
        PaymentServiceClient::new(self.mesh.wire("payments"))
    }

    fn department(&self, file: &File) -> DepartmentServiceClient<Wire> {
        DepartmentServiceClient::new(self.mesh.wire(&format!("adapter/{}", file.about.profile)))
    }

    /// How the department settles the item. Kept for a while; frozen on the case from the lock on.
    async fn rules(&self, file: &File) -> Result<SettleRules, RemoteFault> {
        let key = (file.about.profile.clone(), file.about.item.clone());
        let now = self.context.clock.now();
        if let Some((at, rules)) = lock(&self.abilities).get(&key)
            && now.since(*at) < self.calls.describe_age.get()
        {
            return Ok(*rules);
        }
        let mut client = self.department(file);
        let describe = client.describe(department::DescribeRequest {});
        let answer = self.call(file.case.key(Step::Lock), self.calls.other.get(), describe).await?;
        // An item that the profile does not name is refused by the lock itself.
        let strict = SettleRules { idempotency: crate::domain::Idempotency::None, quiet_period: Duration::ZERO };
        let rules = read::rules(&answer, &file.about.item).unwrap_or(strict);
        keep(&self.abilities, key, (now, rules));
        Ok(rules)
    }

    /// The citizen's input as it came.
    fn input(&self, file: &File) -> Result<Option<prost_types::Struct>, Error> {
        let Some(sealed) = &file.about.input_sealed else { return Ok(None) };
        let plain = self.sealer.open(file.case.id, INPUT, sealed)?;
        let input = prost_types::Struct::decode(plain.expose().as_slice());
        input.map(Some).map_err(|_| Error::Corrupt("input_sealed"))
    }

    /// Puts a request into the envelope of a department: our assertion, and the grant that it names by its hash.
    fn to_department<T>(&self, file: &File, message: T) -> Result<tonic::Request<T>, Error> {
        let about = &file.about;
        let grant = about.grant.as_deref().ok_or(Error::Corrupt("case_grant"))?;
        let now = self.context.clock.now();
        let claims = Assertion {
            iss: CASES.to_owned(),
            aud: about.profile.clone(),
            item: about.item.clone(),
            region: about.profile_region.clone(),
            entry_point: about.entry_point.clone(),
            inner_hash: Some(Assertion::hash_of(grant)),
            exp: NumericDate::of(now.plus(ASSERTION_LIFE_MAX)),
            iat: NumericDate::of(now),
            jti: self.context.ids.uuid().simple().to_string(),
        };
        let assertion = self.signer.sign(typ::ASSERTION, &claims).map_err(|_| Error::Corrupt("assertion"))?;
        let mut request = tonic::Request::new(message);
        for (key, value) in [(ASSERTION_HEADER, assertion.as_str()), (SEALED_HEADER, grant)] {
            let value = value.parse().map_err(|_| Error::Corrupt("case_grant"))?;
            request.metadata_mut().insert(key, value);
        }
        Ok(request)
    }

    async fn pay<T>(&self, id: String, work: impl Future<Output = Called<T>>) -> Result<T, RemoteFault> {
        self.call(id, self.calls.payments.get(), work).await
    }

    /// Makes a call under an id and a deadline of its own.
    async fn call<T>(
        &self,
        id: String,
        within: Duration,
        work: impl Future<Output = Called<T>>,
    ) -> Result<T, RemoteFault> {
        let scope = Call { request_id: id.into(), deadline: Some(Instant::now() + within) };
        let answer = call::scope(scope, work).await;
        answer.map(tonic::Response::into_inner).map_err(RemoteFault::from)
    }
}

fn order(answer: Result<Option<payments::Order>, RemoteFault>, file: &File) -> OrderAnswer {
    answer.map_or_else(|fault| read::order_fault(&fault), |order| read::order(order.as_ref(), file))
}

fn refund(answer: Result<Option<payments::RefundRecord>, RemoteFault>) -> RefundAnswer {
    answer.map_or_else(|fault| read::refund_fault(&fault), |refund| read::refund(refund.as_ref()))
}

fn order_id(file: &File) -> Result<String, Error> {
    file.case.order.as_ref().map(|order| order.id.clone()).ok_or(Error::Corrupt("order_id"))
}

/// Cuts a name to what a pay sheet takes, between two characters.
fn cut(name: &str) -> String {
    let mut end = name.len().min(TITLE_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a value; a full map starts anew rather than grow.
fn keep<K: Ord, V>(map: &Mutex<BTreeMap<K, V>>, key: K, value: V) {
    let mut map = lock(map);
    if map.len() >= NAMES_MAX {
        map.clear();
    }
    map.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_cut_between_characters() {
        assert_eq!(cut("交通违法处理"), "交通违法处理");
        let long = "罚".repeat(50);
        assert_eq!(cut(&long), "罚".repeat(42));
        assert!(TITLE.len() <= TITLE_BYTES_MAX);
        assert!(REFUND_REASON.chars().count() <= 80);
    }
}
