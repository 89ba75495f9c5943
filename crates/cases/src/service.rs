//! The contract: who asks, what for, and the answer.

use std::sync::Arc;

use contracts::cases::v1 as pb;
use contracts::cases::v1::case_service_server::CaseService;
use contracts::ids::{CaseId, TaskId};
use prost::Message;
use rpc::{BoxStream, Violation, digest, page, status};
use runtime::Timestamp;
use tonic::{Request, Response, Status};

use crate::caller::{Callers, Citizen, Clerk};
use crate::convert;
use crate::domain::State;
use crate::engine::{self, Engine};
use crate::error::Error;
use crate::repo::{self, File, TaskPage, TaskRow};
use crate::watch;

const PAGE_DEFAULT: u32 = 20;
const PAGE_MAX: u32 = 100;
const CASES_LIST: &str = "cases/ListCases";

/// CaseService.
#[derive(Clone)]
pub(crate) struct Service {
    engine: Arc<Engine>,
    callers: Arc<Callers>,
}

impl Service {
    pub(crate) fn new(engine: Arc<Engine>, callers: Arc<Callers>) -> Self {
        Self { engine, callers }
    }

    async fn open(&self, request: Request<pb::OpenCaseRequest>) -> Result<pb::OpenCaseResponse, Error> {
        let citizen = self.callers.citizen(&request)?;
        let message = request.into_inner();
        let sent = digest::request("OpenCase", &message);
        let ask = convert::ask(message).map_err(Error::Invalid)?;
        let request_id = ask.request_id.clone();
        let asked = engine::Request::new(&request_id, citizen.owner.expose(), sent);
        let encode = |file: &File| pb::OpenCaseResponse { case: Some(convert::case(file)) }.encode_to_vec();
        decoded(&self.engine.open(&citizen, asked, ask, encode).await?)
    }

    async fn get(&self, request: Request<pb::GetCaseRequest>) -> Result<pb::GetCaseResponse, Error> {
        let citizen = self.callers.citizen(&request)?;
        let which = convert::which(request.get_ref()).map_err(Error::Invalid)?;
        let mut reader = self.engine.db.read().await?;
        let file = match which {
            convert::Which::Id(id) => repo::load(&mut reader, id).await?,
            convert::Which::Request(id) => repo::by_request(&mut reader, &citizen.entry_point, &id).await?,
        };
        drop(reader);
        let file = owned(file, &citizen)?;
        let mut case = convert::case(&file);
        if file.case.state == State::WaitingPayment && file.case.ending.is_none() {
            // A read is not refused because payments is away: without a sheet the client asks again.
            case.pay_sheet = self.engine.peers.pay_sheet(&file).await;
        }
        if file.case.state == State::Done {
            // Likewise. Payments has it, and knows how it stands: a refund may have come after.
            case.receipt = self.engine.peers.receipt(&file).await;
        }
        Ok(pb::GetCaseResponse { case: Some(case) })
    }

    async fn list(&self, request: Request<pb::ListCasesRequest>) -> Result<pb::ListCasesResponse, Error> {
        let citizen = self.callers.citizen(&request)?;
        let request = request.into_inner();
        let max = one(page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX))?;
        let below = match one(page::key(CASES_LIST, &request.page_token))? {
            Some(key) => Some(one(key_of::<CaseId>(&key))?),
            None => None,
        };
        let mut reader = self.engine.db.read().await?;
        let mut files = repo::by_owner(&mut reader, &citizen.owner, below, max.saturating_add(1)).await?;
        drop(reader);
        let more = cut(&mut files, max);
        let last = files.last().filter(|_| more).map(|file| file.case.id.to_string());
        let next_page_token = last.map(|id| page::token(CASES_LIST, id.as_bytes())).unwrap_or_default();
        Ok(pb::ListCasesResponse { cases: files.iter().map(convert::case).collect(), next_page_token })
    }

    async fn watch_one(
        &self,
        request: Request<pb::WatchCaseRequest>,
    ) -> Result<BoxStream<pb::WatchCaseResponse>, Error> {
        let citizen = self.callers.citizen(&request)?;
        let request = request.into_inner();
        let id = convert::case_id(&request.case_id).map_err(Error::Invalid)?;
        let after = convert::after_sequence(request.after_sequence).map_err(Error::Invalid)?;
        let mut reader = self.engine.db.read().await?;
        owned(repo::load(&mut reader, id).await?, &citizen)?;
        drop(reader);
        Ok(watch::case(self.engine.clone(), id, after))
    }

    async fn watch_all(
        &self,
        request: Request<pb::WatchCasesRequest>,
    ) -> Result<BoxStream<pb::WatchCasesResponse>, Error> {
        let entry_point = self.callers.entry_point(&request)?;
        let after = convert::after_sequence(request.get_ref().after_sequence).map_err(Error::Invalid)?;
        Ok(watch::entry_point(self.engine.clone(), entry_point, after))
    }

    async fn cancel(&self, request: Request<pb::CancelCaseRequest>) -> Result<pb::CancelCaseResponse, Error> {
        let citizen = self.callers.citizen(&request)?;
        let message = request.into_inner();
        let id = convert::cancel(&message).map_err(Error::Invalid)?;
        let sent = digest::request("CancelCase", &message);
        let asked = engine::Request::new(&message.request_id, citizen.owner.expose(), sent);
        let encode = |file: &File| pb::CancelCaseResponse { case: Some(convert::case(file)) }.encode_to_vec();
        decoded(&self.engine.cancel(&citizen, asked, id, encode).await?)
    }

    async fn tasks(&self, request: Request<pb::ListTasksRequest>) -> Result<pb::ListTasksResponse, Error> {
        let clerk = self.callers.clerk(&request)?;
        let request = request.into_inner();
        let max = one(page::size(request.page_size, PAGE_DEFAULT, PAGE_MAX))?;
        one(convert::profile(&request.profile))?;
        let list = format!("cases/ListTasks/{}/{}", request.profile, request.include_resolved);
        let after = match one(page::key(&list, &request.page_token))? {
            Some(key) => Some(one(task_key(&key))?),
            None => None,
        };
        let wanted = TaskPage { after, max: max.saturating_add(1), include_resolved: request.include_resolved };
        let mut tasks = self.tasks_in_scope(&clerk, &request.profile, &wanted).await?;
        let more = cut(&mut tasks, max);
        let last = tasks.last().filter(|_| more).map(|task| format!("{}|{}", task.due.micros(), task.id));
        let next_page_token = last.map(|key| page::token(&list, key.as_bytes())).unwrap_or_default();
        Ok(pb::ListTasksResponse { tasks: tasks.iter().map(convert::task).collect(), next_page_token })
    }

    /// The most urgent tasks of every profile that the clerk may see, merged by due time.
    async fn tasks_in_scope(&self, clerk: &Clerk, profile: &str, wanted: &TaskPage) -> Result<Vec<TaskRow>, Error> {
        let mut reader = self.engine.db.read().await?;
        let known = repo::profiles(&mut reader).await?;
        let mut tasks = Vec::new();
        for known in known.iter().filter(|known| clerk.covers(known) && (profile.is_empty() || *known == profile)) {
            tasks.extend(repo::tasks(&mut reader, known, wanted).await?);
        }
        tasks.sort_by_key(|task| (task.due, task.id));
        Ok(tasks)
    }

    async fn resolve(&self, request: Request<pb::ResolveTaskRequest>) -> Result<pb::ResolveTaskResponse, Error> {
        let clerk = self.callers.clerk(&request)?;
        let message = request.into_inner();
        let sent = digest::request("ResolveTask", &message);
        let ruling = convert::ruling(message).map_err(Error::Invalid)?;
        let asked = engine::Request::new(&ruling.request_id, &clerk.subject, sent);
        let encode = |task: &TaskRow, needs_second_clerk: bool| {
            pb::ResolveTaskResponse { task: Some(convert::task(task)), needs_second_clerk }.encode_to_vec()
        };
        decoded(&self.engine.resolve(&clerk, asked, &ruling, encode).await?)
    }
}

#[tonic::async_trait]
impl CaseService for Service {
    type WatchCaseStream = BoxStream<pb::WatchCaseResponse>;
    type WatchCasesStream = BoxStream<pb::WatchCasesResponse>;

    async fn open_case(&self, request: Request<pb::OpenCaseRequest>) -> Result<Response<pb::OpenCaseResponse>, Status> {
        answer(self.open(request).await)
    }

    async fn get_case(&self, request: Request<pb::GetCaseRequest>) -> Result<Response<pb::GetCaseResponse>, Status> {
        answer(self.get(request).await)
    }

    async fn list_cases(
        &self,
        request: Request<pb::ListCasesRequest>,
    ) -> Result<Response<pb::ListCasesResponse>, Status> {
        answer(self.list(request).await)
    }

    async fn watch_case(
        &self,
        request: Request<pb::WatchCaseRequest>,
    ) -> Result<Response<Self::WatchCaseStream>, Status> {
        answer(self.watch_one(request).await)
    }

    async fn watch_cases(
        &self,
        request: Request<pb::WatchCasesRequest>,
    ) -> Result<Response<Self::WatchCasesStream>, Status> {
        answer(self.watch_all(request).await)
    }

    async fn cancel_case(
        &self,
        request: Request<pb::CancelCaseRequest>,
    ) -> Result<Response<pb::CancelCaseResponse>, Status> {
        answer(self.cancel(request).await)
    }

    async fn rate_case(&self, _: Request<pb::RateCaseRequest>) -> Result<Response<pb::RateCaseResponse>, Status> {
        rpc::not_served()
    }

    async fn list_tasks(
        &self,
        request: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksResponse>, Status> {
        answer(self.tasks(request).await)
    }

    async fn resolve_task(
        &self,
        request: Request<pb::ResolveTaskRequest>,
    ) -> Result<Response<pb::ResolveTaskResponse>, Status> {
        answer(self.resolve(request).await)
    }
}

fn answer<T>(answer: Result<T, Error>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(|error| status(&error))
}

/// Reads an answer that was kept; what was kept once is answered for ever.
fn decoded<T: Message + Default>(kept: &[u8]) -> Result<T, Error> {
    T::decode(kept).map_err(|_| Error::Corrupt("answer"))
}

/// Somebody else's case is no case.
fn owned(file: Option<File>, citizen: &Citizen) -> Result<File, Error> {
    file.filter(|file| file.about.owner == citizen.owner).ok_or(Error::CaseNotFound)
}

/// Cuts a page to its size and says whether there is more: one row too many was read to know it.
fn cut<T>(rows: &mut Vec<T>, max: u32) -> bool {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let more = rows.len() > max;
    rows.truncate(max);
    more
}

fn one<T>(checked: Result<T, Violation>) -> Result<T, Error> {
    checked.map_err(|violation| Error::Invalid(vec![violation]))
}

fn key_of<T: std::str::FromStr>(key: &[u8]) -> Result<T, Violation> {
    let text = std::str::from_utf8(key).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| Violation::new("page_token", "is not a token of this list"))
}

fn task_key(key: &[u8]) -> Result<(Timestamp, TaskId), Violation> {
    let text = std::str::from_utf8(key).ok().and_then(|text| text.split_once('|'));
    let parts = text.and_then(|(due, id)| Some((Timestamp::from_micros(due.parse().ok()?), id.parse().ok()?)));
    parts.ok_or_else(|| Violation::new("page_token", "is not a token of this list"))
}
