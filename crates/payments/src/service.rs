//! The contract's methods: read, do, write.

use std::sync::Arc;
use std::time::Duration;

use contracts::payments::v1 as pb;
use contracts::payments::v1::payment_service_server::PaymentService;
use rpc::status;
use store::outbox;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::beijing;
use crate::convert::{self, BreaksAsk, EventsAsk, Name, TransfersAsk};
use crate::error::{Error, Thing};
use crate::repo::runs::Run;
use crate::repo::{breaks, ledger};
use crate::till::{STREAM, Till};

/// How long a waiting ListEvents relies on being woken before it looks by itself.
const EVENTS_POLL: Duration = Duration::from_secs(1);
/// What ListEvents keeps of its caller's deadline to write its answer.
const ANSWER_COST: Duration = Duration::from_millis(100);

/// Orders, refunds and the ledger.
#[derive(Clone)]
pub struct Service {
    till: Arc<Till>,
}

impl Service {
    pub(crate) fn new(till: Arc<Till>) -> Self {
        Self { till }
    }

    /// The endpoints that channels report to: `POST /callbacks/wechatpay/{merchant}`.
    pub fn callbacks(&self) -> axum::Router {
        crate::callbacks::router(Arc::clone(&self.till))
    }

    async fn events(&self, ask: EventsAsk) -> Result<pb::ListEventsResponse, Error> {
        let db = &self.till.db;
        let deadline = Instant::now().checked_add(ask.wait).unwrap_or_else(Instant::now);
        let own = rpc::call::deadline().and_then(|at| at.checked_sub(ANSWER_COST));
        let deadline = own.map_or(deadline, |own| own.min(deadline));
        let mut waiter = db.wake().waiter();
        loop {
            let kept = outbox::read_after(&mut db.read().await?, STREAM, ask.after, ask.max).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !kept.is_empty() || left.is_zero() {
                let events = kept.iter().map(convert::kept_event).collect::<Result<_, _>>()?;
                return Ok(pb::ListEventsResponse { events });
            }
            waiter.wait(&self.till.context.clock, left.min(EVENTS_POLL)).await;
        }
    }

    async fn transfers(&self, ask: TransfersAsk) -> Result<pb::ListTransfersResponse, Error> {
        let mut reader = self.till.db.read().await?;
        let booked = match (ask.order, &ask.account) {
            (Some(order), account) => {
                ledger::of_order(&mut reader, order, account.as_ref(), &ask.after, ask.max).await?
            }
            (None, Some(account)) => ledger::of_account(&mut reader, account, &ask.after, ask.max).await?,
            (None, None) => Vec::new(),
        };
        let is_full = u32::try_from(booked.len()).is_ok_and(|found| found >= ask.max);
        let next = booked.last().filter(|_| is_full).map(|last| convert::transfers_token(&ask.list, last));
        let transfers = booked.iter().map(convert::transfer).collect();
        Ok(pb::ListTransfersResponse { transfers, next_page_token: next.unwrap_or_default() })
    }

    async fn breaks(&self, ask: BreaksAsk) -> Result<pb::ListBreaksResponse, Error> {
        let mut reader = self.till.db.read().await?;
        // One more than is wanted tells whether there is a next page.
        let mut found = breaks::page(&mut reader, &ask.filter, &ask.after, ask.max.saturating_add(1)).await?;
        let max = usize::try_from(ask.max).unwrap_or(usize::MAX);
        let has_more = found.len() > max;
        found.truncate(max);
        let next = found.last().filter(|_| has_more).map(|last| convert::breaks_token(&ask.list, last));
        let today = beijing::civil(self.till.context.clock.now()).date();
        let breaks = found.iter().map(|kept| convert::kept_break(kept, today)).collect::<Result<_, _>>()?;
        Ok(pb::ListBreaksResponse { breaks, next_page_token: next.unwrap_or_default() })
    }

    async fn account(&self, name: &str) -> Result<pb::GetAccountResponse, Error> {
        let account = convert::account(name)?;
        let sum = ledger::sum(&mut self.till.db.read().await?, &account).await?;
        let (currency, balance) =
            sum.ok_or_else(|| Error::NotFound { what: Thing::Account, name: account.to_string() })?;
        Ok(convert::account_told(&account, currency.as_str(), balance))
    }
}

/// Who asks, as the scope of request ids.
fn caller<T>(request: &Request<T>) -> &'static str {
    rpc::principal(request).label()
}

/// Which member of staff asks: a staff id, never a name.
fn person<T>(request: &Request<T>) -> Option<String> {
    match rpc::principal(request) {
        rpc::Principal::Staff { subject, .. } => Some(subject.to_string()),
        _ => None,
    }
}

fn answered<T>(outcome: Result<T, Error>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|error| status(&error))
}

#[tonic::async_trait]
impl PaymentService for Service {
    async fn create_order(
        &self,
        request: Request<pb::CreateOrderRequest>,
    ) -> Result<Response<pb::CreateOrderResponse>, Status> {
        let caller = caller(&request);
        let outcome = async {
            let ask = convert::create(caller, request.into_inner())?;
            convert::answer(&self.till.create(ask).await?)
        };
        answered(outcome.await)
    }

    async fn create_combined_order(
        &self,
        request: Request<pb::CreateCombinedOrderRequest>,
    ) -> Result<Response<pb::CreateCombinedOrderResponse>, Status> {
        let caller = caller(&request);
        let outcome = async {
            let ask = convert::create_combined(caller, request.into_inner())?;
            convert::answer(&self.till.create_combined(ask).await?)
        };
        answered(outcome.await)
    }

    async fn get_order(&self, request: Request<pb::GetOrderRequest>) -> Result<Response<pb::GetOrderResponse>, Status> {
        let caller = caller(&request);
        let outcome = async {
            let order = match convert::order_name(request.get_ref())? {
                Name::Id(id) => self.till.order(&mut self.till.db.read().await?, id).await?,
                Name::Request(request_id) => self.till.order_by_request(caller, &request_id).await?,
            };
            Ok(pb::GetOrderResponse { order: Some(convert::order(&order)?) })
        };
        answered(outcome.await)
    }

    async fn refresh_order(
        &self,
        request: Request<pb::RefreshOrderRequest>,
    ) -> Result<Response<pb::RefreshOrderResponse>, Status> {
        let outcome = async {
            let order = self.till.refresh(convert::order_id(&request.get_ref().order_id)?).await?;
            Ok(pb::RefreshOrderResponse { order: Some(convert::order(&order)?) })
        };
        answered(outcome.await)
    }

    async fn close_order(
        &self,
        request: Request<pb::CloseOrderRequest>,
    ) -> Result<Response<pb::CloseOrderResponse>, Status> {
        let caller = caller(&request);
        let outcome = async {
            let (key, order) = convert::close(caller, request.get_ref())?;
            convert::answer(&self.till.close(key, order).await?)
        };
        answered(outcome.await)
    }

    async fn post_order(
        &self,
        request: Request<pb::PostOrderRequest>,
    ) -> Result<Response<pb::PostOrderResponse>, Status> {
        let caller = caller(&request);
        let outcome = async {
            let (key, order, serial) = convert::post(caller, request.into_inner())?;
            convert::answer(&self.till.post(&key, order, &serial).await?)
        };
        answered(outcome.await)
    }

    async fn refund(&self, request: Request<pb::RefundRequest>) -> Result<Response<pb::RefundResponse>, Status> {
        let caller = caller(&request);
        let outcome = async {
            let ask = convert::refund(caller, request.into_inner())?;
            convert::answer(&self.till.refund(&ask).await?)
        };
        answered(outcome.await)
    }

    async fn get_refund(
        &self,
        request: Request<pb::GetRefundRequest>,
    ) -> Result<Response<pb::GetRefundResponse>, Status> {
        let caller = caller(&request);
        let outcome = async {
            let refund = match convert::refund_name(request.get_ref())? {
                Name::Id(id) => self.till.refund_by_id(id).await?,
                Name::Request(request_id) => self.till.refund_by_request(caller, &request_id).await?,
            };
            Ok(pb::GetRefundResponse { refund: Some(convert::refund_record(&refund)) })
        };
        answered(outcome.await)
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        answered(async { self.events(convert::events(request.get_ref())?).await }.await)
    }

    async fn list_transfers(
        &self,
        request: Request<pb::ListTransfersRequest>,
    ) -> Result<Response<pb::ListTransfersResponse>, Status> {
        answered(async { self.transfers(convert::transfers(request.get_ref())?).await }.await)
    }

    async fn get_account(
        &self,
        request: Request<pb::GetAccountRequest>,
    ) -> Result<Response<pb::GetAccountResponse>, Status> {
        answered(self.account(&request.get_ref().account).await)
    }

    async fn reconcile(
        &self,
        request: Request<pb::ReconcileRequest>,
    ) -> Result<Response<pb::ReconcileResponse>, Status> {
        let caller = person(&request).unwrap_or_else(|| caller(&request).to_owned());
        let outcome = async {
            let ask = convert::reconcile(&caller, request.into_inner())?;
            let runs = self.till.reconcile(&ask.key, &ask.channel, ask.day).await?;
            let sum = |of: fn(&Run) -> i64| runs.iter().map(of).fold(0, i64::saturating_add);
            let (matched, breaks) = (sum(|run| run.matched), sum(|run| run.breaks));
            Ok(pb::ReconcileResponse { matched, breaks, runs: runs.iter().map(convert::run).collect() })
        };
        answered(outcome.await)
    }

    async fn list_breaks(
        &self,
        request: Request<pb::ListBreaksRequest>,
    ) -> Result<Response<pb::ListBreaksResponse>, Status> {
        answered(async { self.breaks(convert::breaks(request.get_ref())?).await }.await)
    }

    async fn resolve_break(
        &self,
        request: Request<pb::ResolveBreakRequest>,
    ) -> Result<Response<pb::ResolveBreakResponse>, Status> {
        let person = person(&request);
        let outcome = async {
            // The access table lets nobody else through.
            let person = person.ok_or(Error::Internal("a method for staff was called by something else"))?;
            let ask = convert::resolve(&person, request.into_inner())?;
            convert::answer(&self.till.resolve(&ask, &person).await?)
        };
        answered(outcome.await)
    }
}
