//! One department's gRPC service: who asks, for whom, what, then the engine.

use std::sync::Arc;

use contracts::department::v1 as pb;
use contracts::department::v1::department_service_server::DepartmentService;
use prost_types::Struct;
use rpc::token::{ASSERTION_HEADER, ApplicantDoor, Asked, Keys, SEALED_HEADER};
use rpc::{page, time};
use runtime::Context;
use serde_json::Value as Json;
use tonic::{Request, Response, Status};

use crate::applicant::Citizen;
use crate::canonical;
use crate::convert::{self, Problems};
use crate::engine::{Backend, InquireAsked, LockAsked, Page, SettleAsked, Settled};
use crate::error::Error;
use crate::keys::ProfileKeys;
use crate::plan::ItemPlan;
use crate::profile::{Applicant, Depth};
use crate::proof::{self, Subject};

/// Rows on a page when the caller does not say, and at most: what departments of this size answer in one call.
const PAGE_SIZE: u32 = 20;

/// The service of one profile.
pub struct Service {
    backend: Arc<Backend>,
    door: ApplicantDoor,
    keys: ProfileKeys,
    sandbox: bool,
    context: Context,
}

/// The two fields that begin every request, and the metadata that came with it.
struct Envelope<'a> {
    item: &'a str,
    region: &'a str,
    operation: &'static str,
    metadata: &'a tonic::metadata::MetadataMap,
}

/// What a list is asked for.
struct ListAsked<'a> {
    method: &'static str,
    item: &'a str,
    request_id: &'a str,
    input: Option<&'a Struct>,
    page_size: i32,
    page_token: &'a str,
}

/// What a settlement or its inquiry is about.
struct Told<'a> {
    item: &'a str,
    region: &'a str,
    bill_no: &'a str,
    request_id: &'a str,
}

impl Service {
    /// Makes the service of a back end. `signers` are the keys of gateway, cases and identity.
    #[must_use]
    pub fn new(
        backend: Arc<Backend>,
        keys: ProfileKeys,
        signers: Arc<dyn Keys>,
        sandbox: bool,
        context: Context,
    ) -> Self {
        let profile = backend.plan().name();
        let door = ApplicantDoor::new(profile, vec![Arc::clone(&keys.seal)], signers, &context.clock);
        Self { backend, door, keys, sandbox, context }
    }

    /// Checks who asks and for whom, then finds the item.
    ///
    /// Errors: AssertionInvalid before anything is said of items; ItemNotOffered.
    async fn enter(&self, envelope: &Envelope<'_>) -> Result<(&ItemPlan, Citizen), Error> {
        let Envelope { item, region, operation, metadata } = *envelope;
        let header = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        let assertion = header(ASSERTION_HEADER).ok_or(Error::AssertionInvalid("missing"))?;
        let applicant = self.door.admit(assertion, header(SEALED_HEADER), Asked { item, region, operation }).await;
        let applicant = applicant.map_err(|check| Error::AssertionInvalid(check.name()))?;
        let served = self.backend.plan().profile.regions.iter().any(|own| covers(own.as_str(), region));
        let plan = self.backend.plan().items.get(item).filter(|_| served).ok_or(Error::ItemNotOffered)?;
        if applicant.is_none() && plan.item.applicant == Applicant::Own {
            return Err(Error::AssertionInvalid("citizen"));
        }
        Ok((plan, applicant.map_or_else(Citizen::default, |applicant| Citizen::new(applicant.attributes))))
    }

    /// Reads and checks an input against its schema, before anything is sent.
    fn input(&self, item: &ItemPlan, problems: &mut Problems, given: Option<&Struct>) -> Result<Json, Error> {
        let input = problems.input("input", given);
        let broken = item.input.check(&input);
        if broken.is_empty() { Ok(input) } else { Err(Error::InputInvalid(convert::violations(broken))) }
    }

    fn list(&self, item: &ItemPlan, asked: &ListAsked<'_>) -> Result<(Json, Page, String), Error> {
        let mut problems = Problems::default();
        problems.trace("request_id", asked.request_id);
        let input = self.input(item, &mut problems, asked.input)?;
        problems.finish(())?;
        let digest = hex::encode(rpc::digest::sha256(canonical::json(&input).as_bytes()));
        let list = format!("{}/{}/{}/{digest}", asked.method, self.backend.plan().name(), asked.item);
        let size = page::size(asked.page_size, PAGE_SIZE, PAGE_SIZE);
        let key = page::key(&list, asked.page_token);
        match (size, key) {
            (Ok(size), Ok(key)) => Ok((input, page_at(key.as_deref(), size)?, list)),
            (size, key) => Err(Error::Invalid(size.err().into_iter().chain(key.err()).collect())),
        }
    }

    async fn query(&self, envelope: Envelope<'_>, request: &pb::QueryRequest) -> Result<pb::QueryResponse, Error> {
        let (item, citizen) = self.enter(&envelope).await?;
        let (input, page, list) = self.list(
            item,
            &ListAsked {
                method: envelope.operation,
                item: &request.item,
                request_id: &request.request_id,
                input: request.input.as_ref(),
                page_size: request.page_size,
                page_token: &request.page_token,
            },
        )?;
        let made = self.backend.query(item, &citizen, &input, page, rpc::call::deadline()).await?;
        let next_page_token = next_token(&list, made.next_offset, page);
        let (outcome, result, rejection) = match made.result {
            Ok(result) => (crate::engine::Outcome::Done, Some(convert::to_struct(result)), None),
            Err(refused) => (crate::engine::Outcome::Rejected, None, Some(convert::rejection(refused))),
        };
        Ok(pb::QueryResponse {
            outcome: convert::outcome(outcome),
            rejection,
            result,
            schema: Some(convert::schema_ref(item.result.name())),
            as_of: Some(time::to_proto(self.context.clock.now())),
            next_page_token,
        })
    }

    async fn list_bills(
        &self,
        envelope: Envelope<'_>,
        request: &pb::ListBillsRequest,
    ) -> Result<pb::ListBillsResponse, Error> {
        let (item, citizen) = self.enter(&envelope).await?;
        let (input, page, list) = self.list(
            item,
            &ListAsked {
                method: envelope.operation,
                item: &request.item,
                request_id: &request.request_id,
                input: request.input.as_ref(),
                page_size: request.page_size,
                page_token: &request.page_token,
            },
        )?;
        let made = self.backend.list_bills(item, &citizen, &input, page, rpc::call::deadline()).await?;
        let next_page_token = next_token(&list, made.next_offset, page);
        let (outcome, bills, rejection) = match made.bills {
            Ok(bills) => (crate::engine::Outcome::Done, bills, None),
            Err(refused) => (crate::engine::Outcome::Rejected, Vec::new(), Some(convert::rejection(refused))),
        };
        Ok(pb::ListBillsResponse {
            outcome: convert::outcome(outcome),
            rejection,
            bills: bills.into_iter().map(convert::bill).collect(),
            schema: Some(convert::schema_ref(item.record.name())),
            as_of: Some(time::to_proto(self.context.clock.now())),
            next_page_token,
        })
    }

    async fn lock(&self, envelope: Envelope<'_>, request: &pb::LockBillRequest) -> Result<pb::LockBillResponse, Error> {
        let (item, citizen) = self.enter(&envelope).await?;
        let mut problems = Problems::default();
        problems.key("request_id", &request.request_id);
        problems.number("bill_no", &request.bill_no);
        problems.digest("record_digest", &request.record_digest);
        let hold_until = problems.time("hold_until", request.hold_until.as_ref());
        let input = self.input(item, &mut problems, request.input.as_ref())?;
        problems.finish(())?;
        let asked = LockAsked {
            bill_no: &request.bill_no,
            request_id: &request.request_id,
            digest: &request.record_digest,
            hold_until,
            input: &input,
        };
        let made = self.backend.lock(item, &citizen, asked, rpc::call::deadline()).await?;
        Ok(pb::LockBillResponse {
            outcome: convert::outcome(made.outcome),
            rejection: made.rejection.map(convert::rejection),
            bill: made.bill.map(convert::bill),
            held_until: made.held_until.map(time::to_proto),
        })
    }

    async fn release(
        &self,
        envelope: Envelope<'_>,
        request: &pb::ReleaseBillRequest,
    ) -> Result<pb::ReleaseBillResponse, Error> {
        let (item, citizen) = self.enter(&envelope).await?;
        let mut problems = Problems::default();
        problems.key("request_id", &request.request_id);
        problems.key("lock_request_id", &request.lock_request_id);
        problems.number("bill_no", &request.bill_no);
        problems.finish(())?;
        let (bill_no, key, lock_key) = (&request.bill_no, &request.request_id, &request.lock_request_id);
        let made = self.backend.release(item, &citizen, bill_no, key, lock_key, rpc::call::deadline()).await?;
        Ok(pb::ReleaseBillResponse {
            outcome: convert::outcome(made.outcome),
            rejection: made.rejection.map(convert::rejection),
        })
    }

    async fn settle(
        &self,
        envelope: Envelope<'_>,
        request: &pb::SettleBillRequest,
    ) -> Result<pb::SettleBillResponse, Error> {
        let (item, citizen) = self.enter(&envelope).await?;
        let mut problems = Problems::default();
        problems.key("request_id", &request.request_id);
        problems.key("lock_request_id", &request.lock_request_id);
        problems.number("bill_no", &request.bill_no);
        problems.number("channel", &request.channel);
        problems.number("channel_transaction", &request.channel_transaction);
        let amount_minor = problems.amount("amount", request.amount.as_ref());
        let paid_time = problems.time("paid_time", request.paid_time.as_ref());
        let input = self.input(item, &mut problems, request.input.as_ref())?;
        problems.finish(())?;
        let asked = SettleAsked {
            bill_no: &request.bill_no,
            request_id: &request.request_id,
            lock_request_id: &request.lock_request_id,
            amount_minor,
            paid_time,
            channel: &request.channel,
            channel_transaction: &request.channel_transaction,
            input: &input,
        };
        let made = self.backend.settle(item, &citizen, asked, rpc::call::deadline()).await?;
        let told = Told {
            item: &request.item,
            region: &request.region,
            bill_no: &request.bill_no,
            request_id: &request.request_id,
        };
        Ok(pb::SettleBillResponse {
            outcome: convert::outcome(made.outcome),
            proof: self.proof(&told, &made)?,
            rejection: made.rejection.map(convert::rejection),
        })
    }

    async fn inquire(
        &self,
        envelope: Envelope<'_>,
        request: &pb::InquireBillRequest,
    ) -> Result<pb::InquireBillResponse, Error> {
        let (item, citizen) = self.enter(&envelope).await?;
        let mut problems = Problems::default();
        problems.key("request_id", &request.request_id);
        problems.number("bill_no", &request.bill_no);
        let amount_minor = request.amount.as_ref().map(|amount| problems.amount("amount", Some(amount)));
        let sent_time = problems.time("settle_sent_time", request.settle_sent_time.as_ref());
        let input = self.input(item, &mut problems, request.input.as_ref())?;
        problems.finish(())?;
        let (bill_no, request_id) = (request.bill_no.as_str(), request.request_id.as_str());
        let asked = InquireAsked { bill_no, request_id, sent_time, amount_minor, input: &input };
        let made = self.backend.inquire(item, &citizen, asked, rpc::call::deadline()).await?;
        let told = Told { item: &request.item, region: &request.region, bill_no, request_id };
        Ok(pb::InquireBillResponse {
            outcome: convert::outcome(made.outcome),
            proof: self.proof(&told, &made)?,
            rejection: made.rejection.map(convert::rejection),
        })
    }

    /// Signs what the department said. Without a signature there is no proof, and without a proof nothing is called done.
    fn proof(&self, told: &Told<'_>, made: &Settled) -> Result<Option<pb::Proof>, Error> {
        let Some(receipt) = &made.receipt else { return Ok(None) };
        let profile = self.backend.plan();
        let subject = Subject {
            profile: profile.name(),
            profile_version: profile.profile.version,
            item: told.item,
            region: told.region,
            bill_no: told.bill_no,
            request_id: told.request_id,
        };
        let jws = proof::sign(&self.keys.sign, subject, receipt, self.context.clock.now());
        let jws = jws.map_err(|_| Error::Unreachable(rpc::Effect::Possible))?;
        Ok(Some(pb::Proof {
            department_serial: receipt.serial.clone(),
            department_time: Some(time::to_proto(receipt.time)),
            reply_digest: receipt.reply_digest.to_vec(),
            profile: profile.name().to_owned(),
            profile_version: i32::try_from(profile.profile.version).unwrap_or(i32::MAX),
            jws,
        }))
    }

    fn describe(&self) -> pb::DescribeResponse {
        let plan = self.backend.plan();
        let limits = plan.limits();
        let millis = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let ability = |(code, item): (&String, &ItemPlan)| pb::ItemAbility {
            item: code.clone(),
            depth: depth(item.item.depth).into(),
            timeout_ms: millis(limits.timeout.get()),
            concurrency_max: i32::try_from(limits.concurrency).unwrap_or(i32::MAX),
            hours: limits.hours.map(|hours| hours.to_string()).unwrap_or_default(),
            idempotency: item.item.idempotency.as_str().to_owned(),
            settle_quiet_period_ms: millis(item.item.settle_quiet_period.get()),
        };
        pb::DescribeResponse {
            profile: plan.name().to_owned(),
            department_name: plan.profile.department.clone(),
            regions: plan.profile.regions.iter().map(|region| region.as_str().to_owned()).collect(),
            items: plan.items.iter().map(ability).collect(),
            sandbox: self.sandbox,
            profile_version: i32::try_from(plan.profile.version).unwrap_or(i32::MAX),
        }
    }
}

fn depth(depth: Depth) -> contracts::common::v1::Depth {
    depth.to_proto()
}

/// A region of the tree covers those below it: a code whose last pairs are zero is above every code that begins like it.
fn covers(own: &str, asked: &str) -> bool {
    let mut prefix = own;
    while let Some(shorter) = prefix.strip_suffix("00") {
        prefix = shorter;
    }
    !prefix.is_empty()
        && asked.len() >= own.len()
        && asked.starts_with(prefix)
        && asked.bytes().all(|b| b.is_ascii_digit())
}

fn page_at(key: Option<&[u8]>, size: u32) -> Result<Page, Error> {
    let Some(key) = key else { return Ok(Page { offset: 0, size: u64::from(size) }) };
    let text = std::str::from_utf8(key).ok();
    let parts = text
        .and_then(|text| text.split_once('+'))
        .and_then(|(offset, size)| Some((offset.parse().ok()?, size.parse().ok()?)));
    let bad = || Error::Invalid(vec![rpc::Violation::new("page_token", "is not a token of this list")]);
    // Departments count pages: what follows a page has its size, whatever is asked now.
    parts.map(|(offset, size)| Page { offset, size }).filter(|page| page.size > 0).ok_or_else(bad)
}

fn next_token(list: &str, next_offset: Option<u64>, at: Page) -> String {
    next_offset.map(|offset| page::token(list, format!("{offset}+{}", at.size).as_bytes())).unwrap_or_default()
}

fn answer<T>(made: Result<T, Error>) -> Result<Response<T>, Status> {
    made.map(Response::new).map_err(|error| rpc::status(&error))
}

macro_rules! envelope {
    ($request:ident, $operation:literal) => {
        Envelope {
            item: &$request.get_ref().item,
            region: &$request.get_ref().region,
            operation: $operation,
            metadata: $request.metadata(),
        }
    };
}

/// Methods that the contract has and no profile serves yet. The server stack answers them before they come here.
macro_rules! not_served {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        $(
            fn $method<'life0, 'async_trait>(
                &'life0 self,
                _: Request<pb::$request>,
            ) -> futures::future::BoxFuture<'async_trait, Result<Response<pb::$response>, Status>>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(std::future::ready(rpc::not_served()))
            }
        )*
    };
}

#[tonic::async_trait]
impl DepartmentService for Service {
    async fn describe(&self, _: Request<pb::DescribeRequest>) -> Result<Response<pb::DescribeResponse>, Status> {
        Ok(Response::new(self.describe()))
    }

    async fn query(&self, request: Request<pb::QueryRequest>) -> Result<Response<pb::QueryResponse>, Status> {
        answer(self.query(envelope!(request, "Query"), request.get_ref()).await)
    }

    async fn list_bills(
        &self,
        request: Request<pb::ListBillsRequest>,
    ) -> Result<Response<pb::ListBillsResponse>, Status> {
        answer(self.list_bills(envelope!(request, "ListBills"), request.get_ref()).await)
    }

    async fn lock_bill(&self, request: Request<pb::LockBillRequest>) -> Result<Response<pb::LockBillResponse>, Status> {
        answer(self.lock(envelope!(request, "LockBill"), request.get_ref()).await)
    }

    async fn release_bill(
        &self,
        request: Request<pb::ReleaseBillRequest>,
    ) -> Result<Response<pb::ReleaseBillResponse>, Status> {
        answer(self.release(envelope!(request, "ReleaseBill"), request.get_ref()).await)
    }

    async fn settle_bill(
        &self,
        request: Request<pb::SettleBillRequest>,
    ) -> Result<Response<pb::SettleBillResponse>, Status> {
        answer(self.settle(envelope!(request, "SettleBill"), request.get_ref()).await)
    }

    async fn inquire_bill(
        &self,
        request: Request<pb::InquireBillRequest>,
    ) -> Result<Response<pb::InquireBillResponse>, Status> {
        answer(self.inquire(envelope!(request, "InquireBill"), request.get_ref()).await)
    }

    not_served! {
        list_slots(ListSlotsRequest) -> ListSlotsResponse;
        hold_slot(HoldSlotRequest) -> HoldSlotResponse;
        confirm_slot(ConfirmSlotRequest) -> ConfirmSlotResponse;
        release_slot(ReleaseSlotRequest) -> ReleaseSlotResponse;
        inquire_slot(InquireSlotRequest) -> InquireSlotResponse;
        submit(SubmitRequest) -> SubmitResponse;
        inquire_submission(InquireSubmissionRequest) -> InquireSubmissionResponse;
        withdraw(WithdrawRequest) -> WithdrawResponse;
        poll_changes(PollChangesRequest) -> PollChangesResponse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_city_covers_its_districts_and_no_other_city() {
        assert!(covers("430100", "430100") && covers("430100", "430102") && covers("430100", "430102001"));
        assert!(covers("310000", "310115") && covers("430000", "430100"));
        for other in ["140100", "430200", "4301", "", "43010a", "430000"] {
            assert!(!covers("430100", other), "{other}");
        }
        assert!(!covers("000000", "430100"));
    }

    #[test]
    fn a_page_token_keeps_the_size_of_its_list() {
        let first = page_at(None, 5).expect("the first page");
        assert_eq!(first, Page { offset: 0, size: 5 });
        let token = next_token("l", Some(5), first);
        let key = page::key("l", &token).expect("ours").expect("a key");
        assert_eq!(page_at(Some(&key), 20).ok(), Some(Page { offset: 5, size: 5 }));
        for bad in ["", "5", "5+", "+5", "5+0", "-5+5", "5+5+5"] {
            assert!(page_at(Some(bad.as_bytes()), 20).is_err(), "{bad}");
        }
        assert_eq!(next_token("l", None, first), "");
    }
}
