//! What a network would not carry does not pass.

use http::uri::{Parts, PathAndQuery, Uri};

use super::chain::{Handle, Request, Response, Step};
use crate::peer::Peer;

/// Clears request extensions but the transport's word on the peer, the origin in the URI, and the answer's extensions.
pub(super) struct Strip;

impl Step for Strip {
    async fn run(&self, mut request: Request, next: &impl Handle) -> Response {
        let peer = request.extensions_mut().remove::<Peer>();
        request.extensions_mut().clear();
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        if request.uri().authority().is_some() {
            let mut parts = Parts::default();
            parts.path_and_query =
                Some(request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        }
        let mut response = next.handle(request).await;
        response.extensions_mut().clear();
        response
    }
}
