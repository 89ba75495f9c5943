//! Credentials: every way not to have a good one.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use lastmile::Role;
use lastmile_tests::Cluster;
use lastmile_tests::cluster::{on_both, on_both_with};
use lastmile_tests::golden::refused;
use prost::Message;
use rpc::Retry;
use rpc::jose::SigningKey;
use rpc::token::typ;
use runtime::{Clock, Ids};
use serde_json::{Value, json};

use super::rig::{CHANGSHA, Door, QUERY, TAIYUAN, bearer, framed};

/// New tokens that the gateway verifies within a second.
const VERIFICATIONS: u32 = 2;

/// What identity would sign if it were told to.
struct Forger {
    claims: Value,
    key: SigningKey,
    now: u64,
}

impl Forger {
    /// Takes a good token apart, and identity's own key.
    fn of(cluster: &Cluster, token: &str) -> anyhow::Result<Self> {
        let claims = token.split('.').nth(1).context("a payload")?;
        let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        let directory = cluster.config(Role::Identity).placed().identity.keys_dir;
        let key = SigningKey::from_pem(&std::fs::read_to_string(directory.join("sign-1.pem"))?)?;
        let (now, _) = Clock::system().now().seconds_nanos();
        Ok(Self { claims, key, now: u64::try_from(now)? })
    }

    /// The token with other claims; a claim that is null is left out.
    fn with(&self, changes: &Value) -> anyhow::Result<String> {
        self.signed(typ::CITIZEN, changes, &self.key)
    }

    fn signed(&self, typ: &str, changes: &Value, key: &SigningKey) -> anyhow::Result<String> {
        let mut claims = self.claims.as_object().context("claims")?.clone();
        for (name, value) in changes.as_object().context("changes")? {
            claims.remove(name);
            if !value.is_null() {
                claims.insert(name.clone(), value.clone());
            }
        }
        Ok(key.sign(typ, &claims)?)
    }
}

#[test]
fn only_a_good_token_of_identity_for_the_gateway_opens_it() {
    on_both(async |cluster| {
        let door = Door::of(cluster, 720).await?;
        let forger = Forger::of(cluster, &door.token)?;
        let query = framed(&door.asks(CHANGSHA.0)?.encode_to_vec());
        let show = async |token: &str| door.send(QUERY, &[("authorization", &bearer(token))], query.clone()).await;
        // What is changed below is why it is refused: with nothing changed it is a good token.
        ensure!(show(&forger.with(&json!({ "jti": "another" }))?).await?.is_ok(), "a copy is as good");
        let exchanges = cluster.exchanges();
        door.lie_in_wait().await?;
        let (now, stranger) = (forger.now, SigningKey::generate(&Ids::system(Clock::system()))?);
        let (head, _) = door.token.rsplit_once('.').context("a signature")?;
        let none = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"none\",\"kid\":\"x\",\"typ\":\"{}\"}}", typ::CITIZEN));
        let body = door.token.split('.').nth(1).context("a payload")?;
        for (what, token, check) in [
            ("for another audience", forger.with(&json!({ "aud": "payments" }))?, "aud"),
            ("for many audiences", forger.with(&json!({ "aud": ["gateway", "payments"] }))?, "aud"),
            ("of another issuer", forger.with(&json!({ "iss": "cases" }))?, "iss"),
            ("past", forger.with(&json!({ "iat": now - 600, "nbf": now - 600, "exp": now - 10 }))?, "exp"),
            ("that never ends", forger.with(&json!({ "exp": null }))?, "exp"),
            ("not yet", forger.with(&json!({ "nbf": now + 60 }))?, "nbf"),
            ("of tomorrow", forger.with(&json!({ "iat": now + 60, "exp": now + 120 }))?, "iat"),
            ("that lives too long", forger.with(&json!({ "exp": now + 3_600 }))?, "life"),
            ("without an id", forger.with(&json!({ "jti": null }))?, "jti"),
            ("of nobody", forger.with(&json!({ "sub": null }))?, "sub"),
            ("without an entry point", forger.with(&json!({ "act": null }))?, "claims"),
            ("of another kind", forger.signed("JWT", &json!({}), &forger.key)?, "typ"),
            ("of a clerk, by its label", forger.signed(typ::STAFF, &json!({}), &forger.key)?, "claims"),
            ("of a stranger", forger.signed(typ::CITIZEN, &json!({}), &stranger)?, "key"),
            ("with another's signature", format!("{head}.{}", URL_SAFE_NO_PAD.encode([7; 64])), "signature"),
            ("that needs no signature", format!("{none}.{body}.AAAA"), "alg"),
            ("without a signature", format!("{none}.{body}."), "shape"),
            // So many characters are never base64url, whatever they are.
            ("cut", door.token[..door.token.len() - 5].to_owned(), "shape"),
            ("that is none", "abc".to_owned(), "shape"),
            ("too long", format!("{head}.{}", "A".repeat(8 * 1024)), "size"),
        ] {
            let answer = show(&token).await?;
            refused(answer, "common UNAUTHENTICATED", &[("check", check)]).with_context(|| what.to_owned())?;
        }
        let good = bearer(&door.token);
        let bare: &[(&str, &str)] = &[];
        for (what, headers, check) in [
            ("none", bare, "missing"),
            ("two", &[("authorization", good.as_str()), ("authorization", good.as_str())], "repeated"),
            ("a password", &[("authorization", "Basic d2VjaGF0OjEyMw==")], "bearer"),
            ("a bare token", &[("authorization", door.token.as_str())], "bearer"),
        ] {
            let answer = door.send(QUERY, headers, query.clone()).await?;
            refused(answer, "common UNAUTHENTICATED", &[("check", check)]).with_context(|| what.to_owned())?;
        }
        // For another city's police.
        let elsewhere = door.app.citizen_token(&door.citizen, &[TAIYUAN.1]).await?;
        refused(show(&elsewhere).await?, "gateway AUDIENCE_MISSING", &[("profile", CHANGSHA.1)])?;
        door.nobody_came(cluster, exchanges).await
    });
}

/// To verify a token is the dearest step at the door: a flood of new ones is told to wait, and who is known goes on.
#[test]
fn a_flood_of_new_tokens_is_told_to_wait() {
    let configure = |config: &mut lastmile::Config| config.gateway.verifications_per_second = VERIFICATIONS;
    on_both_with(configure, async |cluster| {
        let door = Door::of(cluster, 721).await?;
        let query = framed(&door.asks(CHANGSHA.0)?.encode_to_vec());
        let forger = Forger::of(cluster, &door.token)?;
        let show = async |token: &str| door.send(QUERY, &[("authorization", &bearer(token))], query.clone()).await;
        ensure!(show(&door.token).await?.is_ok(), "the first is served");
        let flood: Vec<_> = (0..20).map(|number| forger.with(&json!({ "jti": format!("n-{number}") }))).collect();
        let mut told_to_wait = 0;
        for answer in join_all(flood.iter().flatten().map(|token| show(token))).await {
            if let Err(status) = answer? {
                let fault = refused::<()>(Err(status), "gateway NOT_READY", &[])?;
                ensure!(matches!(fault.retry(), Retry::After(after) if !after.is_zero()), "{:?}", fault.retry());
                told_to_wait += 1;
            }
        }
        // Twenty would take ten seconds.
        ensure!(told_to_wait > 0, "everybody came in");
        ensure!(show(&door.token).await?.is_ok(), "a token that is known costs nothing");
        Ok(())
    });
}
