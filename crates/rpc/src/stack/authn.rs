//! Who is calling.

use std::fmt;
use std::sync::Arc;

use super::chain::{Handle, Request, Response, Step};
use crate::call;
use crate::fault::{Common, refusal};
use crate::frames::answer;
use crate::peer::Peer;
use crate::principal::Principal;

/// How a listener tells its callers apart.
#[derive(Clone)]
pub enum Door {
    /// Roles of the mesh alone: the certificate's, the local wire's. A caller without a proven role is refused.
    Mesh,
    /// Whatever the given rule says; for the public listener.
    Custom(Arc<dyn Authenticate>),
}

/// A rule that tells who is calling from the head of the request and the transport's word.
///
/// It is called on the data path: no I/O, no waiting, no lock that another call may hold for long.
pub trait Authenticate: Send + Sync {
    /// Tells who is calling. `peer` is what the transport proved, if anything.
    ///
    /// Errors: [`Refused`] when there is a credential and it does not verify. Nothing shown is `Principal::Anonymous`, not an error:
    /// the access table decides whether the method asks for more.
    fn authenticate(&self, headers: &http::HeaderMap, peer: Option<&Peer>) -> Result<Principal, Refused>;
}

/// A credential that does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The first check that failed, for example "exp". Told to the caller and counted.
    pub check: &'static str,
}

pub(super) struct Authn {
    door: Door,
}

impl Authn {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }

    fn principal(&self, request: &Request) -> Result<Principal, Refused> {
        let peer = request.extensions().get::<Peer>();
        match &self.door {
            Door::Mesh => match peer.and_then(Peer::role) {
                Some(role) => Ok(Principal::Role(role)),
                None => Err(Refused { check: "role" }),
            },
            Door::Custom(rule) => rule.authenticate(request.headers(), peer),
        }
    }
}

impl Step for Authn {
    async fn run(&self, mut request: Request, next: &impl Handle) -> Response {
        match self.principal(&request) {
            Ok(principal) => {
                tracing::Span::current().record("caller", principal.label());
                request.extensions_mut().insert(principal);
                next.handle(request).await
            }
            Err(Refused { check }) => {
                let request_id = call::request_id().unwrap_or_default();
                answer(refusal(&Common::Unauthenticated { check: Some(check) }, &request_id))
            }
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mesh => "Door::Mesh",
            Self::Custom(_) => "Door::Custom",
        })
    }
}
