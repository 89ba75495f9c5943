//! What the gateway does for citizens and clerks: calls with their token, again with the same request id when no answer came.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use contracts::cases::v1 as pb;
use contracts::common::v1::Money;
use contracts::payments::v1::TradeType;
use invariants::{Found, inquire};
use rpc::token::StaffKind;
use rpc::{Effect, RemoteFault};
use tonic::{Request, Response, Status};

use crate::bench::Bench;
use crate::fakes::department::{DIGEST, bill_no};

/// A plate that must show up at the department and nowhere else.
pub(crate) const PLATE: &str = "湘ACANARY";
/// A payer that must show up at payments and nowhere else.
pub(crate) const PAYER: &str = "openid-canary";

/// Who makes a call, as the token says.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    Citizen(&'static str),
    EntryPoint,
    Clerk(&'static str),
}

/// The request that opens a case over `amount` fen in `region`.
pub(crate) fn opening(request_id: &str, region: &str, amount: i64) -> pb::OpenCaseRequest {
    let plate = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(PLATE.to_owned())) };
    pb::OpenCaseRequest {
        item: "traffic.violation".to_owned(),
        region: region.to_owned(),
        request_id: request_id.to_owned(),
        action: Some(pb::open_case_request::Action::Pay(pb::PayAction {
            bill_no: bill_no(amount),
            record_digest: DIGEST.to_vec(),
            amount: Some(Money { amount_minor: amount, currency: "CNY".to_owned() }),
            channel: "wechatpay".to_owned(),
            trade_type: TradeType::Jsapi.into(),
            payer_reference: PAYER.to_owned(),
            input: Some(prost_types::Struct { fields: [("plate".to_owned(), plate)].into() }),
        })),
    }
}

impl Bench {
    pub(crate) async fn token(&self, who: &Who) -> String {
        let deadline = self.clock.now().plus(Duration::from_secs(20));
        loop {
            let token = match who {
                Who::Citizen(person) => {
                    self.identity.citizen("wechat", person, &["traffic/430100", "traffic/140100"], 3)
                }
                Who::EntryPoint => Some(self.identity.entry_point("wechat")),
                Who::Clerk(name) => {
                    Some(self.identity.staff(name, StaffKind::Clerk, &["traffic"], &["430000", "140100"]))
                }
            };
            if let Some(token) = token {
                return token;
            }
            assert!(self.clock.now() < deadline, "cases never registered its key");
            self.clock.sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn request<T>(&self, who: &Who, message: T) -> Request<T> {
        let token = self.token(who).await;
        with_token(message, &token)
    }

    /// Makes one call. A handler that dies with its host gives no answer.
    pub(crate) async fn once<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>> + Send + 'static,
    ) -> Option<Result<T, RemoteFault>> {
        let answer = self.world.tasks.run_to_end("a client", call).await.ok()?;
        Some(answer.map(Response::into_inner).map_err(RemoteFault::from))
    }

    /// Makes a call until it is answered for good, as the gateway's clients do.
    pub(crate) async fn until_answered<T: Send + 'static, F>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<T, RemoteFault>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        let deadline = self.clock.now().plus(Duration::from_secs(90));
        loop {
            match self.once(call()).await {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(fault)) if !is_passing(&fault) => return Err(fault),
                Some(Err(_)) | None => {}
            }
            assert!(self.clock.now() < deadline, "never answered");
            self.clock.sleep(Duration::from_millis(30)).await;
        }
    }

    pub(crate) async fn open(&self, who: &Who, request: pb::OpenCaseRequest) -> Result<pb::Case, RemoteFault> {
        let token = self.token(who).await;
        let answer = self.until_answered(|| {
            let (mut client, request) = (self.client(), with_token(request.clone(), &token));
            async move { client.open_case(request).await }
        });
        answer.await.map(|answer: pb::OpenCaseResponse| answer.case.expect("a case"))
    }

    /// The same, and how often the call ended without an answer on the way.
    pub(crate) async fn open_through_losses(
        &self,
        who: &Who,
        request: pb::OpenCaseRequest,
    ) -> (Result<pb::Case, RemoteFault>, u32) {
        let (token, lost) = (self.token(who).await, Arc::new(AtomicU32::new(0)));
        let answer = self.until_answered(|| {
            let (mut client, request) = (self.client(), with_token(request.clone(), &token));
            let lost = lost.clone();
            // Counted until it is answered: a handler that dies takes its caller with it.
            lost.fetch_add(1, Ordering::Relaxed);
            async move {
                let answer = client.open_case(request).await;
                let proves = |status: &Status| RemoteFault::from(status).effect() == Effect::None;
                if answer.as_ref().map_or_else(proves, |_| true) {
                    lost.fetch_sub(1, Ordering::Relaxed);
                }
                answer
            }
        });
        let answer = answer.await.map(|answer: pb::OpenCaseResponse| answer.case.expect("a case"));
        (answer, lost.load(Ordering::Relaxed))
    }

    /// What became of an opening, by its request id.
    pub(crate) async fn found(&self, who: &Who, request_id: &str) -> Option<Found> {
        let token = self.token(who).await;
        let asked = pb::GetCaseRequest { case_id: String::new(), request_id: request_id.to_owned() };
        let ask = async || {
            let got = self.client().get_case(with_token(asked.clone(), &token)).await.map_err(RemoteFault::from)?;
            Ok(got.into_inner().case.expect("a case").case_id)
        };
        inquire(&self.clock, ask).await
    }

    pub(crate) async fn get(&self, who: &Who, case_id: &str) -> Result<pb::Case, RemoteFault> {
        let token = self.token(who).await;
        let asked = pb::GetCaseRequest { case_id: case_id.to_owned(), request_id: String::new() };
        let answer = self.until_answered(|| {
            let (mut client, request) = (self.client(), with_token(asked.clone(), &token));
            async move { client.get_case(request).await }
        });
        answer.await.map(|answer: pb::GetCaseResponse| answer.case.expect("a case"))
    }

    pub(crate) async fn cancel(&self, who: &Who, case_id: &str, request_id: &str) -> Result<pb::Case, RemoteFault> {
        let token = self.token(who).await;
        let asked = pb::CancelCaseRequest { case_id: case_id.to_owned(), request_id: request_id.to_owned() };
        let answer = self.until_answered(|| {
            let (mut client, request) = (self.client(), with_token(asked.clone(), &token));
            async move { client.cancel_case(request).await }
        });
        answer.await.map(|answer: pb::CancelCaseResponse| answer.case.expect("a case"))
    }

    pub(crate) async fn cases(&self, who: &Who) -> Vec<pb::Case> {
        let token = self.token(who).await;
        let (mut cases, mut page_token) = (Vec::new(), String::new());
        loop {
            let asked = pb::ListCasesRequest { page_size: 3, page_token: page_token.clone() };
            let answer: pb::ListCasesResponse = self
                .until_answered(|| {
                    let (mut client, request) = (self.client(), with_token(asked.clone(), &token));
                    async move { client.list_cases(request).await }
                })
                .await
                .expect("lists");
            cases.extend(answer.cases);
            if answer.next_page_token.is_empty() {
                return cases;
            }
            page_token = answer.next_page_token;
        }
    }

    pub(crate) async fn tasks(&self, who: &Who, include_resolved: bool) -> Result<Vec<pb::Task>, RemoteFault> {
        let token = self.token(who).await;
        let asked = pb::ListTasksRequest { page_size: 100, include_resolved, ..pb::ListTasksRequest::default() };
        let answer = self.until_answered(|| {
            let (mut client, request) = (self.client(), with_token(asked.clone(), &token));
            async move { client.list_tasks(request).await }
        });
        answer.await.map(|answer: pb::ListTasksResponse| answer.tasks)
    }

    pub(crate) async fn resolve(
        &self,
        who: &Who,
        asked: pb::ResolveTaskRequest,
    ) -> Result<pb::ResolveTaskResponse, RemoteFault> {
        let token = self.token(who).await;
        self.until_answered(|| {
            let (mut client, request) = (self.client(), with_token(asked.clone(), &token));
            async move { client.resolve_task(request).await }
        })
        .await
    }
}

pub(crate) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ascii"));
    request
}

/// Whether asking again makes sense: nobody said no.
fn is_passing(fault: &RemoteFault) -> bool {
    fault.effect() == Effect::Possible || matches!(fault.retry(), rpc::Retry::After(_))
}
