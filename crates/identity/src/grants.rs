//! Case grants: how a case goes on after its citizen's token has ended.

use std::sync::Arc;

use rpc::jose::{Algorithm, VerifyingKey};
use rpc::token::{self, ACCESS_LIFE_MAX, CitizenToken, GATEWAY, IDENTITY, Rules, Verifier, typ};
use runtime::{Clock, Timestamp};
use store::{Db, Tx};

use crate::convert::AskGrant;
use crate::error::Error;
use crate::keylist::KeyList;
use crate::keys::OwnKeys;
use crate::mint::{Mint, Remembered};
use crate::repo::{self, GrantRow};

/// Where case grants are made.
pub(crate) struct Grants {
    citizens: Verifier,
    mint: Arc<Mint>,
    keylist: KeyList,
    db: Db,
    clock: Clock,
}

/// A grant that is answered.
pub(crate) struct Granted {
    pub(crate) sealed: String,
    pub(crate) expires: Timestamp,
}

/// Identity's own keys, as a verifier looks them up.
struct Own(Arc<OwnKeys>, Arc<str>);

impl token::Keys for Own {
    fn find(&self, kid: &str) -> Option<token::Key> {
        let key: VerifyingKey = self.0.verifying(kid)?;
        Some(token::Key { key, owner: self.1.clone() })
    }
}

impl Grants {
    pub(crate) fn new(mint: Arc<Mint>, keylist: KeyList, db: Db) -> Self {
        let clock = mint.context.clock.clone();
        let rules = Rules {
            typ: typ::CITIZEN,
            typ_optional: false,
            algorithms: &[Algorithm::EdDsa],
            issuers: &[IDENTITY],
            audience: GATEWAY.to_owned(),
            life_max: ACCESS_LIFE_MAX,
            subject: true,
        };
        let own = Own(mint.keys.clone(), IDENTITY.into());
        Self { citizens: Verifier::new(rules, Arc::new(own), clock.clone()), mint, keylist, db, clock }
    }

    /// Gives a case its grant; the same request gets the same grant, also after the token's end.
    pub(crate) async fn grant(&self, ask: AskGrant) -> Result<Granted, Error> {
        let token_digest = rpc::digest::sha256(ask.citizen_token.as_bytes());
        let known = {
            let mut reader = self.db.read().await?;
            repo::grant(&mut reader, &ask.request_id).await?
        };
        if let Some(kept) = known {
            return self.repeat(&ask, &token_digest, kept);
        }
        let (token, remembered) = self.read(&ask)?;
        let made = GrantRow {
            digest: ask.digest.to_vec(),
            token_digest: token_digest.to_vec(),
            person: remembered.person.bytes().to_vec(),
            sealed: self.make(&ask, &token, &remembered)?,
            expires_at: ask.valid_until,
        };
        let now = self.clock.now();
        let work = async |mut tx: Tx| repo::add_grant(&mut tx, &ask.request_id, &made, now).await;
        let kept = self.db.transact(work).await?;
        self.repeat(&ask, &token_digest, kept)
    }

    /// Answers with what is kept, if it is for this request: the same token, or another of the same citizen.
    fn repeat(&self, ask: &AskGrant, token_digest: &[u8; 32], kept: GrantRow) -> Result<Granted, Error> {
        if kept.digest != ask.digest {
            return Err(Error::RequestIdReused);
        }
        if kept.token_digest != token_digest && kept.person != self.read(ask)?.1.person.bytes() {
            return Err(Error::RequestIdReused);
        }
        Ok(Granted { sealed: kept.sealed, expires: kept.expires_at })
    }

    fn read(&self, ask: &AskGrant) -> Result<(CitizenToken, Remembered), Error> {
        let verified = self.citizens.verify::<CitizenToken>(&ask.citizen_token);
        let token = verified.map_err(|check| Error::Token { check: check.name() })?.claims;
        // The citizen was asserted for these profiles: a case cannot widen that to another.
        if !token.sealed.contains_key(&ask.profile) {
            return Err(Error::Token { check: "aud" });
        }
        let remembered = self.mint.recall(&token)?;
        Ok((token, remembered))
    }

    fn make(&self, ask: &AskGrant, token: &CitizenToken, remembered: &Remembered) -> Result<String, Error> {
        let list = self.keylist.list();
        self.mint.case_grant(token, remembered, &ask.profile, ask.grant.clone(), ask.valid_until, &list.keys)
    }
}
