//! The generated trait: convert, do, convert.

use std::sync::Arc;

use contracts::identity::v1 as proto;
use contracts::identity::v1::identity_service_server::IdentityService;
use rpc::{Fault, Principal, oauth};
use runtime::Clock;
use runtime::telemetry::{Counter, Family, Labels, Metrics};
use tonic::{Request, Response, Status};

use crate::convert;
use crate::error::Error;
use crate::grants::Grants;
use crate::issue::Desk;
use crate::keylist::KeyList;

type Answer<T> = Result<Response<T>, Status>;

/// Identity as its callers see it.
#[derive(Clone)]
pub struct Service {
    pub(crate) desk: Arc<Desk>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) keylist: KeyList,
    pub(crate) clock: Clock,
    pub(crate) counts: Counts,
}

/// What is counted.
#[derive(Clone)]
pub(crate) struct Counts {
    tokens: Family<Labels, Counter>,
    refusals: Family<Labels, Counter>,
}

impl Counts {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            tokens: metrics.counter("lastmile_identity_tokens", "Tokens and case grants given, by kind"),
            refusals: metrics.counter("lastmile_identity_refusals", "Requests refused, by reason"),
        }
    }

    fn given(&self, kind: &'static str) {
        self.tokens.get_or_create(&vec![("kind", kind.into())]).inc();
    }

    fn refused(&self, error: &Error) {
        self.refusals.get_or_create(&vec![("reason", error.reason().into())]).inc();
    }
}

impl Service {
    async fn issue(&self, request: proto::IssueTokenRequest) -> Result<proto::IssueTokenResponse, Error> {
        let issued = self.desk.issue(convert::ask(request)?).await?;
        self.counts.given(issued.kind);
        Ok(proto::IssueTokenResponse {
            access_token: issued.token.token,
            issued_token_type: oauth::ACCESS_TOKEN_TYPE.to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in_seconds: i64::try_from(issued.token.life.as_secs()).unwrap_or(i64::MAX),
            scope: issued.scope,
        })
    }

    async fn grant(&self, request: proto::IssueCaseGrantRequest) -> Result<proto::IssueCaseGrantResponse, Error> {
        let granted = self.grants.grant(convert::ask_grant(request, self.clock.now())?).await?;
        self.counts.given("case_grant");
        let expire_time = Some(rpc::time::to_proto(granted.expires));
        Ok(proto::IssueCaseGrantResponse { grant: granted.sealed, expire_time })
    }

    async fn register(
        &self,
        caller: &Principal,
        request: &proto::RegisterKeyRequest,
    ) -> Result<proto::RegisterKeyResponse, Error> {
        let role = caller.role().ok_or(Error::Key { check: "owner" })?;
        let key = self.keylist.register(role, &request.owner, request.r#use(), &request.jwk_json).await?;
        Ok(proto::RegisterKeyResponse { key: Some(key.to_proto()) })
    }

    fn answer<T>(&self, outcome: Result<T, Error>) -> Answer<T> {
        outcome.map(Response::new).map_err(|error| {
            self.counts.refused(&error);
            rpc::status(&error)
        })
    }
}

#[tonic::async_trait]
impl IdentityService for Service {
    async fn issue_token(&self, request: Request<proto::IssueTokenRequest>) -> Answer<proto::IssueTokenResponse> {
        self.answer(self.issue(request.into_inner()).await)
    }

    async fn issue_case_grant(
        &self,
        request: Request<proto::IssueCaseGrantRequest>,
    ) -> Answer<proto::IssueCaseGrantResponse> {
        self.answer(self.grant(request.into_inner()).await)
    }

    async fn register_key(&self, request: Request<proto::RegisterKeyRequest>) -> Answer<proto::RegisterKeyResponse> {
        let caller = rpc::principal(&request).clone();
        self.answer(self.register(&caller, request.get_ref()).await)
    }

    async fn list_keys(&self, request: Request<proto::ListKeysRequest>) -> Answer<proto::ListKeysResponse> {
        Ok(Response::new(self.keylist.answer(request.into_inner().known_version)))
    }

    async fn match_identity(&self, _: Request<proto::MatchIdentityRequest>) -> Answer<proto::MatchIdentityResponse> {
        rpc::not_served()
    }

    async fn link_account(&self, _: Request<proto::LinkAccountRequest>) -> Answer<proto::LinkAccountResponse> {
        rpc::not_served()
    }

    async fn unlink_account(&self, _: Request<proto::UnlinkAccountRequest>) -> Answer<proto::UnlinkAccountResponse> {
        rpc::not_served()
    }

    async fn list_links(&self, _: Request<proto::ListLinksRequest>) -> Answer<proto::ListLinksResponse> {
        rpc::not_served()
    }

    async fn grant_consent(&self, _: Request<proto::GrantConsentRequest>) -> Answer<proto::GrantConsentResponse> {
        rpc::not_served()
    }

    async fn revoke_consent(&self, _: Request<proto::RevokeConsentRequest>) -> Answer<proto::RevokeConsentResponse> {
        rpc::not_served()
    }

    async fn list_consents(&self, _: Request<proto::ListConsentsRequest>) -> Answer<proto::ListConsentsResponse> {
        rpc::not_served()
    }

    async fn create_mandate(&self, _: Request<proto::CreateMandateRequest>) -> Answer<proto::CreateMandateResponse> {
        rpc::not_served()
    }

    async fn revoke_mandate(&self, _: Request<proto::RevokeMandateRequest>) -> Answer<proto::RevokeMandateResponse> {
        rpc::not_served()
    }

    async fn list_mandates(&self, _: Request<proto::ListMandatesRequest>) -> Answer<proto::ListMandatesResponse> {
        rpc::not_served()
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("identity::Service")
    }
}
