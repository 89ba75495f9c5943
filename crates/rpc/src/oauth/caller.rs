//! The other side of the token endpoint: how an entry point's back end asks. For `lastmile demo`, tools and tests; a super app uses
//! the libraries of its own language.

use contracts::identity::v1::IssueTokenRequest;
use runtime::{Clock, Ids};

use super::{CLIENT_CREDENTIALS, JWT_BEARER, JWT_TYPE, TOKEN_EXCHANGE};
use crate::jose::{self, AgreementPublicKey, JweError, KeyError, SigningKey};
use crate::token::{ASSERTION_LIFE_MAX, Attributes, ClientAssertion, IDENTITY, NumericDate, RealName, typ};

/// Why a request cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// The signature.
    #[error("an assertion cannot be signed")]
    Sign(#[from] KeyError),
    /// The sealing.
    #[error("an assertion cannot be sealed")]
    Seal(#[from] JweError),
}

/// A user of the entry point, as the entry point knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The user's id at the entry point.
    pub sub: String,
    /// How sure the entry point is: 1 to 4, as `lastmile.common.v1.AssuranceLevel`.
    pub level: u8,
    /// Item codes the user consented to.
    pub consents: Vec<String>,
    /// What the entry point verified; name, document type and number at least.
    pub attributes: Attributes,
}

/// An entry point, clerk or operator with its key.
#[derive(Debug)]
pub struct Caller {
    id: String,
    key: SigningKey,
    clock: Clock,
    ids: Ids,
}

impl Caller {
    /// Takes the key of a client, for example the sandbox's of an entry point.
    pub fn new(id: impl Into<String>, key: SigningKey, clock: Clock, ids: Ids) -> Self {
        Self { id: id.into(), key, clock, ids }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Asks for the client's own token.
    ///
    /// Errors: Sign.
    pub fn own_token(&self) -> Result<IssueTokenRequest, CallerError> {
        Ok(IssueTokenRequest {
            grant_type: CLIENT_CREDENTIALS.to_owned(),
            client_assertion_type: JWT_BEARER.to_owned(),
            client_assertion: self.client_assertion()?,
            ..IssueTokenRequest::default()
        })
    }

    /// Asks for a citizen token that addresses `profiles`; `identity` is the key that identity is sealed for.
    ///
    /// Errors: Sign, Seal.
    pub fn citizen_token(
        &self,
        person: &Person,
        profiles: &[&str],
        identity: &AgreementPublicKey,
    ) -> Result<IssueTokenRequest, CallerError> {
        Ok(IssueTokenRequest {
            grant_type: TOKEN_EXCHANGE.to_owned(),
            client_assertion_type: JWT_BEARER.to_owned(),
            client_assertion: self.client_assertion()?,
            subject_token: self.real_name(person, identity)?,
            subject_token_type: JWT_TYPE.to_owned(),
            audience: profiles.iter().map(|profile| (*profile).to_owned()).collect(),
            scope: String::new(),
        })
    }

    /// Signs the client's proof of itself.
    ///
    /// Errors: Sign.
    pub fn client_assertion(&self) -> Result<String, CallerError> {
        let (iat, exp, jti) = self.once();
        let (iss, sub, aud) = (self.id.clone(), self.id.clone(), IDENTITY.to_owned());
        Ok(self.key.sign(typ::CLIENT_ASSERTION, &ClientAssertion { iss, sub, aud, exp, iat, jti })?)
    }

    /// Signs and seals the word on who a user is.
    ///
    /// Errors: Sign, Seal.
    pub fn real_name(&self, person: &Person, identity: &AgreementPublicKey) -> Result<String, CallerError> {
        let (iat, exp, jti) = self.once();
        let claims = RealName {
            iss: self.id.clone(),
            sub: person.sub.clone(),
            aud: IDENTITY.to_owned(),
            exp,
            iat,
            jti,
            level: person.level,
            consents: person.consents.clone(),
            attributes: person.attributes.clone(),
        };
        let signed = self.key.sign(typ::REAL_NAME, &claims)?;
        Ok(jose::seal(signed.as_bytes(), "JWT", identity, &self.ids)?)
    }

    fn once(&self) -> (NumericDate, NumericDate, String) {
        let iat = NumericDate::of(self.clock.now());
        (iat, NumericDate::of(iat.time().plus(ASSERTION_LIFE_MAX)), self.ids.uuid().simple().to_string())
    }
}
