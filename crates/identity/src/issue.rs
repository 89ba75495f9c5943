//! The token endpoint: who asks, for whom, and that each assertion counts once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rpc::jose::Algorithm;
use rpc::token::{
    self, ASSERTION_LIFE_MAX, Check, ClientAssertion, IDENTITY, LEEWAY, RealName, Rules, Verified, Verifier, typ,
};
use runtime::{Clock, Context, Timestamp};
use store::{Cache, Db, Tx};

use crate::config::Config;
use crate::convert::{Ask, GrantType};
use crate::domain::citizen::{Citizen, Unusable};
use crate::domain::level::Level;
use crate::domain::person::{AccountKey, PersonKey};
use crate::error::{Assertion, Error};
use crate::keylist::KeyList;
use crate::keys::OwnKeys;
use crate::mint::{self, Exchange, Mint, Minted};
use crate::registry::{Client, ClientKind, Registry};
use crate::repo::{self, Linked};

/// How long after its end a used jti is kept: longer than any leeway.
const JTI_KEPT: Duration = Duration::from_secs(60);
const CLIENTS_ALGORITHMS: &[Algorithm] = &[Algorithm::EdDsa, Algorithm::Es256];

/// The token endpoint.
pub(crate) struct Desk {
    registry: Arc<Registry>,
    /// One for each audience that an assertion may name.
    client_assertions: Vec<Verifier>,
    real_names: Vec<Verifier>,
    keys: Arc<OwnKeys>,
    keylist: KeyList,
    mint: Arc<Mint>,
    db: Db,
    cache: Cache,
    clock: Clock,
}

/// A token that is answered.
pub(crate) struct Issued {
    /// "entry_point", "staff" or "citizen", for the count.
    pub(crate) kind: &'static str,
    pub(crate) token: Minted,
    pub(crate) scope: String,
}

/// An assertion that verified and has not been used yet.
struct Once {
    digest: [u8; 32],
    expires: Timestamp,
}

impl Once {
    /// In the cache.
    fn key(&self) -> String {
        format!("identity/jti/{}", hex::encode(self.digest))
    }
}

/// A citizen, as the entry point asserts it.
struct Asserted {
    once: Once,
    account: AccountKey,
    person: PersonKey,
    citizen: Citizen,
}

/// What is to be made, once the assertions are used up.
enum Order {
    EntryPoint { scope: String },
    Staff,
    Citizen { scope: String, profiles: Vec<String>, asserted: Box<Asserted> },
}

impl Desk {
    pub(crate) fn new(
        config: &Config,
        registry: Registry,
        mint: Arc<Mint>,
        keylist: KeyList,
        (db, cache): (Db, Cache),
        context: &Context,
    ) -> Self {
        let registry = Arc::new(registry);
        let audiences = [IDENTITY].into_iter().chain(config.assertion_audiences.iter().map(String::as_str));
        let verifier = |typ: &'static str, audience: &str| {
            let rules = Rules {
                typ,
                typ_optional: true,
                algorithms: CLIENTS_ALGORITHMS,
                issuers: &[],
                audience: audience.to_owned(),
                life_max: ASSERTION_LIFE_MAX,
                subject: true,
            };
            Verifier::new(rules, registry.clone(), context.clock.clone())
        };
        let of = |typ| audiences.clone().map(|audience| verifier(typ, audience)).collect();
        Self {
            client_assertions: of(typ::CLIENT_ASSERTION),
            real_names: of(typ::REAL_NAME),
            registry: registry.clone(),
            keys: mint.keys.clone(),
            keylist,
            mint,
            db,
            cache,
            clock: context.clock.clone(),
        }
    }

    /// Issues a token.
    ///
    /// Shape: an assertion that verifies is used up whatever comes after; a token leaves only after the commit that says so.
    pub(crate) async fn issue(&self, ask: Ask) -> Result<Issued, Error> {
        let (client, once) = self.authenticate(&ask.client_assertion)?;
        self.refuse_known(Assertion::Client, &once).await?;
        let order = self.judge(&client, ask);
        if let Ok(Order::Citizen { asserted, .. }) = &order {
            self.refuse_known(Assertion::RealName, &asserted.once).await?;
        }
        self.use_up(&client, once, order.as_ref().ok()).await?;
        match order? {
            Order::EntryPoint { scope } => {
                Ok(Issued { kind: "entry_point", token: self.mint.entry_point(&client.id, &scope)?, scope })
            }
            Order::Staff => Ok(Issued { kind: "staff", token: self.staff(&client)?, scope: String::new() }),
            Order::Citizen { scope, profiles, asserted } => {
                let Asserted { person, citizen, .. } = asserted.as_ref();
                let exchange =
                    Exchange { entry_point: &client.id, person, citizen, scope: &scope, profiles: &profiles };
                let token = self.mint.citizen(&exchange, &self.keylist.list().keys)?;
                Ok(Issued { kind: "citizen", token, scope })
            }
        }
    }

    /// Finds out who asks. Source: RFC 7523, 3.
    fn authenticate(&self, assertion: &str) -> Result<(Arc<Client>, Once), Error> {
        let verified: Verified<ClientAssertion> =
            verify(&self.client_assertions, assertion).map_err(|check| match check {
                Check::Key => Error::Client { problem: "unknown" },
                check => Error::ClientAssertion { check: check.name() },
            })?;
        if verified.claims.sub != verified.claims.iss {
            return Err(Error::ClientAssertion { check: Check::Subject.name() });
        }
        let client = self.registry.client(&verified.issuer).ok_or(Error::Client { problem: "unknown" })?;
        if client.suspended {
            return Err(Error::Client { problem: "suspended" });
        }
        Ok((client.clone(), once(Assertion::Client, &verified)))
    }

    /// Decides what the client gets, without using anything up.
    fn judge(&self, client: &Client, ask: Ask) -> Result<Order, Error> {
        match (&client.kind, ask.grant) {
            (ClientKind::EntryPoint { scopes, .. }, GrantType::ClientCredentials) => {
                Ok(Order::EntryPoint { scope: granted(&ask.scopes, scopes)? })
            }
            (ClientKind::Staff { .. }, GrantType::ClientCredentials) if ask.scopes.is_empty() => Ok(Order::Staff),
            (ClientKind::Staff { .. }, GrantType::ClientCredentials) => Err(Error::Scope),
            (ClientKind::Staff { .. }, GrantType::Exchange { .. }) => Err(Error::Client { problem: "no_entry_point" }),
            (ClientKind::EntryPoint { scopes, level_max }, GrantType::Exchange { subject_token, profiles }) => {
                let scope = granted(&ask.scopes, scopes)?;
                let list = self.keylist.list();
                mint::profile_keys(&profiles, &list.keys)?;
                mint::cases_key(&list.keys)?;
                let asserted = Box::new(self.asserted(client, *level_max, &subject_token)?);
                Ok(Order::Citizen { scope, profiles, asserted })
            }
        }
    }

    /// Opens and checks what the entry point says of the citizen.
    fn asserted(&self, client: &Client, level_max: Level, subject_token: &str) -> Result<Asserted, Error> {
        let refuse = |check: Check| Error::RealName { check: check.name() };
        let plain = self.keys.open(subject_token).map_err(|error| refuse(error.into()))?;
        let text = std::str::from_utf8(plain.expose()).map_err(|_| Error::RealName { check: "shape" })?;
        let verified: Verified<RealName> = verify(&self.real_names, text).map_err(refuse)?;
        if verified.issuer.as_ref() != client.id {
            return Err(refuse(Check::Issuer));
        }
        let once = once(Assertion::RealName, &verified);
        let account = self.keys.pepper().account(&client.id, &verified.claims.sub);
        let citizen =
            Citizen::check(verified.claims, level_max, self.clock.now()).map_err(|unusable| match unusable {
                Unusable::Claim(claim) => Error::RealName { check: claim },
                Unusable::Document(rule) => Error::Document(rule),
            })?;
        let person = self.keys.pepper().person(&citizen.document);
        Ok(Asserted { once, account, person, citizen })
    }

    /// Refuses cheaply what was used before, as far as the cache remembers: a flood of one assertion is none of SQL, which decides.
    async fn refuse_known(&self, kind: Assertion, once: &Once) -> Result<(), Error> {
        match self.cache.get(&once.key()).await {
            Some(_) => Err(Error::JtiReused(kind)),
            None => Ok(()),
        }
    }

    /// Notes in one transaction that the assertions were used, and who stands behind the account.
    async fn use_up(&self, client: &Client, client_once: Once, order: Option<&Order>) -> Result<(), Error> {
        let asserted = match order {
            Some(Order::Citizen { asserted, .. }) => Some(asserted.as_ref()),
            Some(Order::EntryPoint { .. } | Order::Staff) | None => None,
        };
        let now = self.clock.now();
        let work = async |mut tx: Tx| {
            if !repo::use_jti(&mut tx, &client_once.digest, client_once.expires).await? {
                return Err(Error::JtiReused(Assertion::Client));
            }
            let Some(Asserted { once, account, person, citizen }) = asserted else { return Ok(None) };
            if !repo::use_jti(&mut tx, &once.digest, once.expires).await? {
                return Err(Error::JtiReused(Assertion::RealName));
            }
            let level = citizen.level.number();
            Ok(Some(repo::link(&mut tx, &client.id, account, person, level, now).await?))
        };
        let linked = self.db.transact(work).await;
        let real_name = asserted.map(|asserted| &asserted.once);
        // What SQL has said of them, the cache may say from now on. Where it has not decided, nothing is known.
        let used = match &linked {
            Ok(_) => [Some(&client_once), real_name],
            Err(Error::JtiReused(Assertion::Client)) => [Some(&client_once), None],
            Err(Error::JtiReused(Assertion::RealName)) => [None, real_name],
            Err(_) => [None, None],
        };
        for once in used.into_iter().flatten() {
            self.cache.put_if_absent(&once.key(), b"", once.expires.since(now)).await;
        }
        if linked? == Some(Linked::Changed) {
            tracing::info!(entry_point = client.id, "an account stands for another person than before");
        }
        Ok(())
    }

    fn staff(&self, client: &Client) -> Result<Minted, Error> {
        match &client.kind {
            ClientKind::Staff { kind, departments, regions } => {
                let list = |set: &BTreeSet<String>| set.iter().cloned().collect();
                self.mint.staff(&client.id, *kind, list(departments), list(regions))
            }
            ClientKind::EntryPoint { .. } => Err(Error::Internal("an entry point has no staff token")),
        }
    }
}

/// Tries the verifiers, which differ in the audience alone.
fn verify<C: serde::de::DeserializeOwned>(verifiers: &[Verifier], token: &str) -> Result<Verified<C>, Check> {
    let mut refused = Check::Audience;
    for verifier in verifiers {
        match verifier.verify(token) {
            Err(Check::Audience) => refused = Check::Audience,
            answer => return answer,
        }
    }
    Err(refused)
}

fn once<C>(kind: Assertion, verified: &Verified<C>) -> Once {
    let parts = [kind.as_str().as_bytes(), verified.issuer.as_bytes(), verified.jti.as_bytes()];
    Once { digest: rpc::digest::sha256_parts(&parts), expires: verified.expires.plus(LEEWAY).plus(JTI_KEPT) }
}

/// Returns what is granted, space-separated: what was asked for, or everything.
fn granted(asked: &BTreeSet<String>, allowed: &BTreeSet<String>) -> Result<String, Error> {
    if !asked.is_subset(allowed) {
        return Err(Error::Scope);
    }
    let granted = if asked.is_empty() { allowed } else { asked };
    Ok(granted.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
}

impl From<crate::config::StaffKind> for token::StaffKind {
    fn from(kind: crate::config::StaffKind) -> Self {
        match kind {
            crate::config::StaffKind::Clerk => Self::Clerk,
            crate::config::StaffKind::Operator => Self::Operator,
        }
    }
}
