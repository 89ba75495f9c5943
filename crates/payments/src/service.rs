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
use crate::convert::{self, BreaksAsk, EventsAsk, FileAsk, Name, SettlementsAsk, TransfersAsk};
use crate::error::{Error, Thing};
use crate::repo::runs::Run;
use crate::repo::{breaks, ledger, settlements};
use crate::staff::Staff;
use crate::till::{STREAM, Till};

/// How long a waiting ListEvents relies on being woken before it looks by itself.
const EVENTS_POLL: Duration = Duration::from_secs(1);
/// What ListEvents keeps of its caller's deadline to write its answer.
const ANSWER_COST: Duration = Duration::from_millis(100);

/// Orders, refunds and the ledger.
#[derive(Clone)]
pub struct Service {
    till: Arc<Till>,
    staff: Arc<Staff>,
}

impl Service {
    pub(crate) fn new(till: Arc<Till>, staff: Staff) -> Self {
        Self { till, staff: Arc::new(staff) }
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

    /// The operator who asks, for methods that only operators have.
    async fn operator<T>(&self, request: &Request<T>) -> Result<String, Status> {
        self.staff.operator(request.metadata()).await.map_err(|denied| status(&denied))
    }

    async fn transfers(&self, ask: TransfersAsk) -> Result<pb::ListTransfersResponse, Error> {
        let mut reader = self.till.db.read().await?;
        let booked = match (ask.order, &ask.account) {
            (Some(order), account) => {
                ledger::of_subject(&mut reader, order.into(), account.as_ref(), &ask.after, ask.max).await?
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

    async fn settlements(&self, ask: SettlementsAsk) -> Result<pb::ListSettlementsResponse, Error> {
        let mut reader = self.till.db.read().await?;
        // One more than is wanted tells whether there is a next page.
        let mut found = settlements::page(&mut reader, &ask.filter, &ask.before, ask.max.saturating_add(1)).await?;
        let max = usize::try_from(ask.max).unwrap_or(usize::MAX);
        let has_more = found.len() > max;
        found.truncate(max);
        let place = found.last().filter(|_| has_more).map(|last| (last.cut_at, last.id.to_string()));
        let next = place.map(|place| convert::place_token(&ask.list, &place));
        let settlements = found.iter().map(convert::settlement).collect::<Result<_, _>>()?;
        Ok(pb::ListSettlementsResponse { settlements, next_page_token: next.unwrap_or_default() })
    }

    async fn settlement_file(&self, ask: FileAsk) -> Result<pb::ReadSettlementFileResponse, Error> {
        let (data, next) = self.till.file_part(ask.id, ask.after.as_ref()).await?;
        let next = next.map(|place| convert::place_token(&ask.list, &place));
        Ok(pb::ReadSettlementFileResponse { data, next_page_token: next.unwrap_or_default() })
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
            Ok(pb::GetOrderResponse { order: Some(self.till.told(&order).await?) })
        };
        answered(outcome.await)
    }

    async fn refresh_order(
        &self,
        request: Request<pb::RefreshOrderRequest>,
    ) -> Result<Response<pb::RefreshOrderResponse>, Status> {
        let outcome = async {
            let order = self.till.refresh(convert::order_id(&request.get_ref().order_id)?).await?;
            Ok(pb::RefreshOrderResponse { order: Some(self.till.told(&order).await?) })
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
        self.operator(&request).await?;
        answered(async { self.transfers(convert::transfers(request.get_ref())?).await }.await)
    }

    async fn get_account(
        &self,
        request: Request<pb::GetAccountRequest>,
    ) -> Result<Response<pb::GetAccountResponse>, Status> {
        self.operator(&request).await?;
        answered(self.account(&request.get_ref().account).await)
    }

    async fn reconcile(
        &self,
        request: Request<pb::ReconcileRequest>,
    ) -> Result<Response<pb::ReconcileResponse>, Status> {
        let caller = self.operator(&request).await?;
        let outcome = async {
            let ask = convert::reconcile(&caller, request.into_inner())?;
            let runs = self.till.reconcile(&ask.key, &ask.of, ask.day).await?;
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
        self.operator(&request).await?;
        answered(async { self.breaks(convert::breaks(request.get_ref())?).await }.await)
    }

    async fn resolve_break(
        &self,
        request: Request<pb::ResolveBreakRequest>,
    ) -> Result<Response<pb::ResolveBreakResponse>, Status> {
        let person = self.operator(&request).await?;
        let outcome = async {
            let ask = convert::resolve(&person, request.into_inner())?;
            convert::answer(&self.till.resolve(&ask, &person).await?)
        };
        answered(outcome.await)
    }

    async fn refund_posted(
        &self,
        request: Request<pb::RefundPostedRequest>,
    ) -> Result<Response<pb::RefundPostedResponse>, Status> {
        let person = self.operator(&request).await?;
        let outcome = async {
            let ask = convert::refund_posted(&person, request.into_inner())?;
            convert::answer(&self.till.refund_posted(&ask, &person).await?)
        };
        answered(outcome.await)
    }

    async fn cut_settlement(
        &self,
        request: Request<pb::CutSettlementRequest>,
    ) -> Result<Response<pb::CutSettlementResponse>, Status> {
        let person = self.operator(&request).await?;
        let outcome = async {
            let (key, payee) = convert::cut(&person, request.into_inner())?;
            convert::answer(&self.till.cut_now(&key, &payee).await?)
        };
        answered(outcome.await)
    }

    async fn list_settlements(
        &self,
        request: Request<pb::ListSettlementsRequest>,
    ) -> Result<Response<pb::ListSettlementsResponse>, Status> {
        self.operator(&request).await?;
        answered(async { self.settlements(convert::settlements(request.get_ref())?).await }.await)
    }

    async fn get_settlement(
        &self,
        request: Request<pb::GetSettlementRequest>,
    ) -> Result<Response<pb::GetSettlementResponse>, Status> {
        self.operator(&request).await?;
        let outcome = async {
            let one = self.till.settlement(convert::settlement_id(&request.get_ref().settlement_id)?).await?;
            Ok(pb::GetSettlementResponse { settlement: Some(convert::settlement(&one)?) })
        };
        answered(outcome.await)
    }

    async fn read_settlement_file(
        &self,
        request: Request<pb::ReadSettlementFileRequest>,
    ) -> Result<Response<pb::ReadSettlementFileResponse>, Status> {
        self.operator(&request).await?;
        answered(async { self.settlement_file(convert::file(request.get_ref())?).await }.await)
    }

    async fn confirm_settlement(
        &self,
        request: Request<pb::ConfirmSettlementRequest>,
    ) -> Result<Response<pb::ConfirmSettlementResponse>, Status> {
        let person = self.operator(&request).await?;
        let outcome = async {
            let ask = convert::confirm(&person, request.into_inner())?;
            convert::answer(&self.till.confirm(&ask, &person).await?)
        };
        answered(outcome.await)
    }

    async fn verify_receipt(
        &self,
        request: Request<pb::VerifyReceiptRequest>,
    ) -> Result<Response<pb::VerifyReceiptResponse>, Status> {
        answered(async { self.till.verify(&convert::verify(request.into_inner())?).await }.await)
    }
}
