//! Which operator asks: the token that the gateway forwards, verified here once more. The gateway can forward a person and never invent
//! one, so that the word of two persons is the word of two persons.

use std::sync::Arc;

use rpc::keyring::KeyRing;
use rpc::token::{Check, Keys as _, Rules, StaffKind, StaffToken, Verifier, typ};
use rpc::{Effect, Fault, Kind};
use runtime::Clock;
use tonic::metadata::MetadataMap;

/// Reads the tokens of staff.
pub(crate) struct Staff {
    tokens: Verifier,
    ring: KeyRing,
}

/// Somebody who is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// No token, or one that does not verify; the check that failed.
    #[error("no credential that verifies")]
    Unauthenticated(&'static str),
    /// A clerk: payments' methods are for operators.
    #[error("the caller may not call this method")]
    NotAllowed,
    /// Identity has told no keys yet: a sound token would look forged.
    #[error("identity has told no keys yet")]
    NoKeys,
}

impl Staff {
    pub(crate) fn new(ring: KeyRing, clock: &Clock) -> Self {
        let tokens = Verifier::new(Rules::at_gateway(typ::STAFF), Arc::new(ring.clone()), clock.clone());
        Self { tokens, ring }
    }

    /// The operator who asks: a staff id, never a name.
    ///
    /// Errors: `Denied`; nothing was done.
    pub(crate) async fn operator(&self, metadata: &MetadataMap) -> Result<String, Denied> {
        let headers = metadata.clone().into_headers();
        let token = rpc::token::bearer(&headers).ok_or(Denied::Unauthenticated("bearer"))?;
        let mut verified = self.tokens.verify::<StaffToken>(token);
        if verified == Err(Check::Key) {
            // The gateway knew the key: it is newer than the list here.
            self.ring.renewed().await;
            verified = self.tokens.verify(token);
        }
        match verified {
            Ok(verified) if verified.claims.kind == StaffKind::Operator => Ok(verified.claims.sub),
            Ok(_) => Err(Denied::NotAllowed),
            Err(Check::Key) if self.ring.age().is_none() => Err(Denied::NoKeys),
            Err(check) => Err(Denied::Unauthenticated(check.name())),
        }
    }
}

impl Fault for Denied {
    fn kind(&self) -> Kind {
        match self {
            Self::Unauthenticated(_) => Kind::Unauthenticated,
            Self::NotAllowed => Kind::Forbidden,
            Self::NoKeys => Kind::Unavailable,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::NotAllowed => "CALLER_NOT_ALLOWED",
            Self::NoKeys => "PEER_UNAVAILABLE",
        }
    }

    fn domain(&self) -> &'static str {
        rpc::COMMON.domain
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Unauthenticated(check) => vec![("check", (*check).to_owned())],
            Self::NotAllowed => vec![("caller", "staff".to_owned())],
            Self::NoKeys => vec![("peer", "identity".to_owned())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::jose::SigningKey;
    use rpc::keyring::{Key, Keys, PublicKey};
    use rpc::token::{GATEWAY, IDENTITY, NumericDate};
    use runtime::Context;
    use std::time::Duration;

    const KINDS: [(StaffKind, Result<&str, Denied>); 2] =
        [(StaffKind::Operator, Ok("s-1")), (StaffKind::Clerk, Err(Denied::NotAllowed))];

    fn token(context: &Context, key: &SigningKey, issuer: &str, kind: StaffKind) -> String {
        let now = context.clock.now();
        let claims = StaffToken {
            iss: issuer.to_owned(),
            aud: GATEWAY.to_owned(),
            sub: "s-1".to_owned(),
            kind,
            departments: Vec::new(),
            regions: Vec::new(),
            exp: NumericDate::of(now.plus(Duration::from_secs(60))),
            iat: NumericDate::of(now),
            nbf: NumericDate::of(now),
            jti: context.ids.hex(32),
        };
        key.sign(typ::STAFF, &claims).expect("signs")
    }

    fn shown(token: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        metadata
    }

    #[tokio::test]
    async fn an_operator_is_who_identity_says() {
        let context = Context::system();
        let [identity, gateway] = [(); 2].map(|()| SigningKey::generate(&context.ids).expect("a key"));
        let listed = [(IDENTITY, &identity), (GATEWAY, &gateway)].map(|(owner, key)| Key {
            owner: owner.to_owned(),
            key: PublicKey::Verify(key.verifying_key()),
            created: context.clock.now(),
        });
        let staff = Staff::new(KeyRing::fixed(Keys::new(1, listed), context.clone()), &context.clock);
        for (kind, expected) in KINDS {
            let asked = staff.operator(&shown(&token(&context, &identity, IDENTITY, kind))).await;
            assert_eq!(asked, expected.map(str::to_owned), "{kind:?}");
        }
        // The gateway forwards persons; it makes none.
        for issuer in [GATEWAY, IDENTITY] {
            let made = token(&context, &gateway, issuer, StaffKind::Operator);
            assert_eq!(staff.operator(&shown(&made)).await, Err(Denied::Unauthenticated("iss")), "{issuer}");
        }
        assert_eq!(staff.operator(&MetadataMap::new()).await, Err(Denied::Unauthenticated("bearer")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_not_listed_is_waited_for_and_then_refused() {
        let context = Context::system();
        let key = SigningKey::generate(&context.ids).expect("a key");
        let staff = Staff::new(KeyRing::fixed(Keys::default(), context.clone()), &context.clock);
        let asked = tokio::time::Instant::now();
        let made = token(&context, &key, IDENTITY, StaffKind::Operator);
        assert_eq!(staff.operator(&shown(&made)).await, Err(Denied::Unauthenticated("key")));
        assert!(asked.elapsed() >= Duration::from_secs(1), "identity had time to tell of it");
    }

    #[test]
    fn every_denial_keeps_to_its_row_of_the_table() {
        for denied in [Denied::Unauthenticated("exp"), Denied::NotAllowed, Denied::NoKeys] {
            assert_eq!(rpc::COMMON.check(&denied), Ok(()));
        }
    }
}
