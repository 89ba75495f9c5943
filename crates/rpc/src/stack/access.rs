//! Whether this caller may call this method: the table that the contract carries.

use contracts::common::v1::Exposure;

use super::chain::{Handle, Request, Response, Step};
use crate::call;
use crate::contract::Contract;
use crate::fault::{Common, refusal};
use crate::frames::answer;
use crate::principal::Principal;

pub(super) struct AccessTable {
    contract: &'static Contract,
}

impl AccessTable {
    pub(super) fn new(contract: &'static Contract) -> Self {
        Self { contract }
    }

    fn decide(&self, request: &Request) -> Result<(), Common> {
        let path = request.uri().path();
        if crate::standard::is_standard(path) {
            return Ok(());
        }
        let principal = request.extensions().get().unwrap_or(&Principal::Anonymous);
        let Some(method) = self.contract.method(path) else {
            // Outside of the contract; the path is the caller's own text and is not repeated.
            return Err(Common::NotServed { method: None });
        };
        if !method.admits(principal) {
            return Err(match principal {
                // A credential would help, unless the method is not for the public at all.
                Principal::Anonymous if method.exposure != Exposure::Internal => {
                    Common::Unauthenticated { check: None }
                }
                known => Common::NotAllowed { caller: known.label().to_owned(), method: path.to_owned() },
            });
        }
        if !method.served {
            return Err(Common::NotServed { method: Some(path.to_owned()) });
        }
        Ok(())
    }
}

impl Step for AccessTable {
    async fn run(&self, request: Request, next: &impl Handle) -> Response {
        match self.decide(&request) {
            Ok(()) => next.handle(request).await,
            Err(fault) => answer(refusal(&fault, &call::request_id().unwrap_or_default())),
        }
    }
}
