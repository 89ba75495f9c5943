//! The department's proof, held against the key set that anybody can read.

use contracts::department::v1::{Bill, Proof};
use rpc::jose;
use serde_json::Value;

use super::City;
use super::play::Broken;
use super::super_app::SuperApp;

const JWS_BYTES_MAX: usize = 8 * 1024;

/// Verifies the signature and that what is signed is what was told; returns the key's id.
pub(crate) async fn verify(
    super_app: &SuperApp,
    proof: &Proof,
    bill: &Bill,
    city: &City,
    item: &str,
) -> Result<String, Broken> {
    let parsed = jose::parse(&proof.jws, JWS_BYTES_MAX).map_err(|error| broken(&error.to_string()))?;
    let kid = parsed.header().kid.clone();
    let key = super_app.verifying_key(&kid).await?;
    let claims = parsed.verify(&key).map_err(|error| broken(&error.to_string()))?;
    let signed = |name: &str| claims.get(name).and_then(Value::as_str);
    let amount = bill.amount.as_ref().map_or(0, |amount| amount.amount_minor);
    let told = [
        ("department_serial", Some(proof.department_serial.as_str())),
        ("profile", Some(city.profile)),
        ("item", Some(item)),
        ("bill_no", Some(bill.bill_no.as_str())),
    ];
    for (name, value) in told {
        if signed(name) != value {
            return Err(broken(&format!("{name} is not what is signed")));
        }
    }
    if claims.get("amount_minor").map(ToString::to_string).map(|text| text.trim_matches('"').to_owned())
        != Some(amount.to_string())
    {
        return Err(broken("the amount is not what is signed"));
    }
    Ok(kid)
}

fn broken(why: &str) -> Broken {
    Broken::Promise(format!("the proof does not hold: {why}"))
}
