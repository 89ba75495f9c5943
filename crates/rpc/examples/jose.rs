//! Our JOSE on a command line, for the judges that are not ours (`tests/judges/test_jose.py`): each command reads one JSON object from
//! standard input and writes one to standard output.

use std::io::{self, Read, Write};

use rpc::jose::{AgreementKey, Curve, Jwk, SigningKey, open, parse, seal};
use runtime::{Clock, Ids};
use serde_json::{Value, json};

/// Longest token that `verify` looks at, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let command = std::env::args().nth(1).unwrap_or_default();
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let input: Value = serde_json::from_str(&text)?;
    let output = run(&command, &input).unwrap_or_else(|error| json!({ "error": error.to_string() }));
    writeln!(io::stdout(), "{output}")?;
    Ok(())
}

fn run(command: &str, input: &Value) -> Result<Value, Error> {
    let ids = Ids::system(Clock::system());
    let text = |name: &str| input[name].as_str().ok_or(format!("`{name}` is missing"));
    let jwk = || serde_json::from_value::<Jwk>(input["jwk"].clone());
    match command {
        "make-signing" => {
            let key = SigningKey::generate(&ids)?;
            Ok(json!({ "pem": key.to_pem().expose(), "jwk": key.jwk() }))
        }
        "make-agreement" => {
            let key = AgreementKey::generate(curve(text("curve")?)?, &ids)?;
            Ok(json!({ "pem": key.to_pem().expose(), "jwk": key.jwk() }))
        }
        "sign" => {
            let token = SigningKey::from_pem(text("pem")?)?.sign(text("typ")?, &input["claims"])?;
            Ok(json!({ "token": token }))
        }
        "verify" => {
            let claims = parse(text("token")?, TOKEN_BYTES_MAX)?.verify(&jwk()?.to_verifying_key()?)?;
            Ok(json!({ "claims": claims }))
        }
        "seal" => {
            let sealed = seal(text("plain")?.as_bytes(), text("cty")?, &jwk()?.to_agreement_key()?, &ids)?;
            Ok(json!({ "token": sealed }))
        }
        "open" => {
            let key = AgreementKey::from_pem(curve(text("curve")?)?, text("pem")?)?;
            let plain = open(text("token")?, &key)?;
            Ok(json!({ "plain": std::str::from_utf8(plain.expose())? }))
        }
        other => Err(format!("no command {other}").into()),
    }
}

fn curve(name: &str) -> Result<Curve, Error> {
    [Curve::X25519, Curve::P256].into_iter().find(|curve| curve.name() == name).ok_or_else(|| "no such curve".into())
}
