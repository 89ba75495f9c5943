//! Every call has an id, in its log lines, its errors and its answer.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use runtime::Ids;

use super::chain::{Handle, Request, Response, Step};
use crate::call::{self, Call};
use crate::fault::{Common, refusal};
use crate::frames::answer;

/// The header that carries the id, in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MADE_ID_LENGTH: usize = 32;

pub(super) struct RequestId {
    ids: Ids,
}

impl RequestId {
    pub(super) fn new(ids: Ids) -> Self {
        Self { ids }
    }

    /// Takes the caller's id where it keeps to the rules, else makes one. Two ids are none.
    fn of(&self, request: &Request) -> Arc<str> {
        let mut given = request.headers().get_all(REQUEST_ID).iter();
        match (given.next().and_then(|value| value.to_str().ok()), given.next()) {
            (Some(id), None) if call::is_request_id(id) => id.into(),
            _ => self.ids.hex(MADE_ID_LENGTH).into(),
        }
    }
}

impl Step for RequestId {
    async fn run(&self, mut request: Request, next: &impl Handle) -> Response {
        let id = self.of(&request);
        tracing::Span::current().record("request_id", id.as_ref());
        let header = HeaderValue::from_str(&id);
        if let Ok(header) = &header {
            request.headers_mut().insert(REQUEST_ID, header.clone());
        }
        let call = Call { request_id: id.clone(), deadline: None };
        let is_standard = crate::standard::is_standard(request.uri().path());
        let mut response = call::scope(call, next.handle(request)).await;
        name_the_nameless(&mut response, &id, is_standard);
        if let Ok(header) = header {
            response.headers_mut().insert(REQUEST_ID, header);
        }
        response
    }
}

/// Gives ErrorInfo and the id to a refusal that lastmile did not make: the framework's own, for example of a message it cannot read.
/// What the standard services do not find is left as their standard has it: a health check goes by the bare code.
fn name_the_nameless(response: &mut Response, request_id: &str, is_standard: bool) {
    use tonic::Status;
    let headers = response.headers();
    if !headers.contains_key(Status::GRPC_STATUS) || headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return;
    }
    let fault = match super::observe::code_of(response) {
        tonic::Code::Ok => return,
        tonic::Code::NotFound if is_standard => return,
        tonic::Code::Unimplemented => Common::NotServed { method: None },
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Common::Invalid { violations: Vec::new() },
        tonic::Code::Cancelled | tonic::Code::DeadlineExceeded => Common::Deadline { effect: crate::Effect::Possible },
        _ => Common::Internal,
    };
    *response = answer(refusal(&fault, request_id));
}
