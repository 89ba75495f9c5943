//! Identity: the key list, case grants, and the tokens that the tests' citizens and clerks carry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::identity::v1 as pb;
use contracts::identity::v1::KeyUse;
use contracts::identity::v1::identity_service_server::IdentityService;
use rpc::jose::{self, AgreementKey, AgreementPublicKey, SigningKey};
use rpc::keyring::{self, PublicKey};
use rpc::token::{
    self, Actor, Attributes, CASES, CitizenToken, EntryPointToken, GATEWAY, Grant, IDENTITY, Inner, NumericDate,
    StaffKind, StaffToken, typ,
};
use rpc::{Effect, Kind, time};
use runtime::{Clock, Ids, Timestamp};
use tonic::{Request, Response, Status};

use super::{Trouble, locked};
use crate::not_served;

#[derive(Clone)]
pub(crate) struct Identity {
    clock: Clock,
    ids: Ids,
    signer: Arc<SigningKey>,
    keys: Arc<Mutex<Vec<keyring::Key>>>,
    grants: Arc<Mutex<BTreeMap<String, pb::IssueCaseGrantResponse>>>,
    away: Arc<Mutex<bool>>,
}

impl Identity {
    pub(crate) fn new(clock: Clock, ids: Ids) -> Self {
        let signer = Arc::new(SigningKey::generate(&ids).expect("a key"));
        let own = keyring::Key {
            owner: IDENTITY.to_owned(),
            key: PublicKey::Verify(signer.verifying_key()),
            created: clock.now(),
        };
        let keys = Arc::new(Mutex::new(vec![own]));
        Self { clock, ids, signer, keys, grants: Arc::default(), away: Arc::default() }
    }

    /// Makes a profile's sealing key, registers its public half, and returns the private one.
    pub(crate) fn profile_key(&self, profile: &str) -> Arc<AgreementKey> {
        let key = AgreementKey::generate(jose::Curve::X25519, &self.ids).expect("a key");
        self.add(format!("adapter/{profile}"), PublicKey::Seal(*key.public()));
        Arc::new(key)
    }

    /// Grants are refused from now on.
    pub(crate) fn go_away(&self, away: bool) {
        *locked(&self.away) = away;
    }

    fn add(&self, owner: String, key: PublicKey) {
        locked(&self.keys).push(keyring::Key { owner, key, created: self.clock.now() });
    }

    fn seal_key(&self, owner: &str) -> Option<AgreementPublicKey> {
        let keys = locked(&self.keys);
        keys.iter().rev().filter(|key| key.owner == owner).find_map(|key| match key.key {
            PublicKey::Seal(key) => Some(key),
            PublicKey::Verify(_) => None,
        })
    }

    fn span(&self, life: Duration) -> (NumericDate, NumericDate) {
        let now = self.clock.now();
        (NumericDate::of(now), NumericDate::of(now.plus(life)))
    }

    fn sign(&self, typ: &str, claims: &impl serde::Serialize) -> String {
        self.signer.sign(typ, claims).expect("signs")
    }

    /// Seals an inner token for `audience`, with or without a grant.
    fn inner(&self, audience: &str, subject: &str, grant: Option<Grant>, until: Timestamp) -> Option<String> {
        let owner = if audience == CASES { CASES.to_owned() } else { format!("adapter/{audience}") };
        let key = self.seal_key(&owner)?;
        let claims = Inner {
            iss: IDENTITY.to_owned(),
            aud: audience.to_owned(),
            sub: format!("{audience}:{subject}"),
            attrs: Attributes::default(),
            level: 3,
            consents: Vec::new(),
            exp: NumericDate::of(until),
            iat: NumericDate::of(self.clock.now()),
            jti: self.ids.hex(32),
            grant,
        };
        let text = self.sign(typ::INNER, &claims);
        Some(jose::seal(text.as_bytes(), "JWT", &key, &self.ids).expect("seals"))
    }

    /// A citizen's token, once cases has registered its key.
    pub(crate) fn citizen(&self, entry_point: &str, person: &str, profiles: &[&str], level: u8) -> Option<String> {
        let (iat, exp) = self.span(Duration::from_secs(600));
        let mut sealed = BTreeMap::new();
        for audience in profiles.iter().copied().chain([CASES]) {
            sealed.insert(audience.to_owned(), self.inner(audience, person, None, exp.time())?);
        }
        Some(self.sign(
            typ::CITIZEN,
            &CitizenToken {
                iss: IDENTITY.to_owned(),
                aud: GATEWAY.to_owned(),
                sub: format!("{entry_point}:{person}"),
                act: Actor { sub: entry_point.to_owned() },
                level,
                exp,
                iat,
                nbf: iat,
                jti: self.ids.hex(32),
                consents: Vec::new(),
                scope: String::new(),
                sealed,
            },
        ))
    }

    /// An entry point's own token.
    pub(crate) fn entry_point(&self, name: &str) -> String {
        let (iat, exp) = self.span(Duration::from_secs(600));
        self.sign(
            typ::ENTRY_POINT,
            &EntryPointToken {
                iss: IDENTITY.to_owned(),
                aud: GATEWAY.to_owned(),
                sub: name.to_owned(),
                scope: String::new(),
                exp,
                iat,
                nbf: iat,
                jti: self.ids.hex(32),
            },
        )
    }

    /// A clerk's or operator's token.
    pub(crate) fn staff(&self, name: &str, kind: StaffKind, departments: &[&str], regions: &[&str]) -> String {
        let (iat, exp) = self.span(Duration::from_secs(600));
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        self.sign(
            typ::STAFF,
            &StaffToken {
                iss: IDENTITY.to_owned(),
                aud: GATEWAY.to_owned(),
                sub: name.to_owned(),
                kind,
                departments: texts(departments),
                regions: texts(regions),
                exp,
                iat,
                nbf: iat,
                jti: self.ids.hex(32),
            },
        )
    }
}

/// The keys that verify, for the fake departments.
impl token::Keys for Identity {
    fn find(&self, kid: &str) -> Option<token::Key> {
        let keys = locked(&self.keys);
        keys.iter().find_map(|known| match known.key {
            PublicKey::Verify(key) if key.kid() == kid => Some(token::Key { key, owner: known.owner.as_str().into() }),
            PublicKey::Verify(_) | PublicKey::Seal(_) => None,
        })
    }
}

#[tonic::async_trait]
impl IdentityService for Identity {
    async fn issue_case_grant(
        &self,
        request: Request<pb::IssueCaseGrantRequest>,
    ) -> Result<Response<pb::IssueCaseGrantResponse>, Status> {
        if *locked(&self.away) {
            return Err(Trouble::away(Effect::Possible));
        }
        let asked = request.into_inner();
        if let Some(known) = locked(&self.grants).get(&asked.request_id) {
            return Ok(Response::new(known.clone()));
        }
        let until = time::required(asked.valid_until.as_ref()).expect("an end");
        let grant =
            Grant { case_id: asked.request_id.clone(), item: asked.item.clone(), operations: asked.operations.clone() };
        let sealed = self.inner(&asked.profile, "person", Some(grant), until);
        let refused = || Trouble::status(Kind::InvalidInput, Effect::None, "identity.lastmile", "AUDIENCE_UNKNOWN");
        let answer = pb::IssueCaseGrantResponse { grant: sealed.ok_or_else(refused)?, expire_time: asked.valid_until };
        locked(&self.grants).insert(asked.request_id, answer.clone());
        Ok(Response::new(answer))
    }

    async fn register_key(
        &self,
        request: Request<pb::RegisterKeyRequest>,
    ) -> Result<Response<pb::RegisterKeyResponse>, Status> {
        let asked = request.into_inner();
        let key_use = KeyUse::try_from(asked.r#use).expect("a use");
        let key = PublicKey::from_json(key_use, &asked.jwk_json).expect("a key");
        self.add(asked.owner, key);
        let added = locked(&self.keys).last().map(keyring::Key::to_proto);
        Ok(Response::new(pb::RegisterKeyResponse { key: added }))
    }

    async fn list_keys(&self, _: Request<pb::ListKeysRequest>) -> Result<Response<pb::ListKeysResponse>, Status> {
        let keys: Vec<_> = locked(&self.keys).iter().map(keyring::Key::to_proto).collect();
        let version = i64::try_from(keys.len()).expect("few");
        Ok(Response::new(pb::ListKeysResponse { keys, version }))
    }

    not_served! {
        pb: issue_token(IssueTokenRequest) -> IssueTokenResponse, match_identity(MatchIdentityRequest) -> MatchIdentityResponse,
            link_account(LinkAccountRequest) -> LinkAccountResponse, unlink_account(UnlinkAccountRequest) -> UnlinkAccountResponse,
            list_links(ListLinksRequest) -> ListLinksResponse, grant_consent(GrantConsentRequest) -> GrantConsentResponse,
            revoke_consent(RevokeConsentRequest) -> RevokeConsentResponse, list_consents(ListConsentsRequest) -> ListConsentsResponse,
            create_mandate(CreateMandateRequest) -> CreateMandateResponse, revoke_mandate(RevokeMandateRequest) -> RevokeMandateResponse,
            list_mandates(ListMandatesRequest) -> ListMandatesResponse;
    }
}
