//! Assertions that other people's libraries made: `python_vectors.json` says which. Its keys are for this test alone.

use contracts::identity::v1::IssueTokenRequest;
use identity::config::EntryPoint;
use identity::domain::level::Level;
use rpc::oauth::{JWT_BEARER, JWT_TYPE, TOKEN_EXCHANGE};
use runtime::secret::create_private;
use serde_json::Value;

use crate::rig::{CHANGSHA, Rig, START, told};

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().expect(name)
}

#[tokio::test]
async fn assertions_by_pyjwt_and_jwcrypto_are_exchanged() {
    let vectors: Value = serde_json::from_str(include_str!("python_vectors.json")).expect("JSON");
    assert_eq!(vectors["now"].as_i64(), Some(START.micros() / 1_000_000));
    let dir = tempfile::tempdir().expect("a directory");
    for (file, name) in [("seal-x25519-1.pem", "seal_x25519_pem"), ("seal-p256-1.pem", "seal_p256_pem")] {
        create_private(&dir.path().join("keys").join(file), text(&vectors, name).as_bytes()).expect("writes");
    }
    let url = format!("sqlite:{}", dir.path().join("identity.db").display());
    let rig = Rig::over(dir, &store::Config::new(url), |config| {
        config.entry_points = ["ed-app", "es-app"]
            .into_iter()
            .map(|id| {
                let cases = vectors["cases"].as_array().expect("a list");
                let case = cases.iter().find(|case| text(case, "client") == id).expect("is there");
                EntryPoint {
                    id: id.to_owned(),
                    name: id.to_owned(),
                    jwks: vec![case["jwk"].to_string()],
                    key_files: Vec::new(),
                    scopes: ["query".to_owned()].into(),
                    level_max: Level::Face,
                    suspended: false,
                }
            })
            .collect();
    })
    .await;
    rig.register_peers().await;
    let cases = vectors["cases"].as_array().expect("a list");
    assert_eq!(cases.len(), 4, "both algorithms with both curves");
    for case in cases {
        let request = IssueTokenRequest {
            grant_type: TOKEN_EXCHANGE.to_owned(),
            client_assertion_type: JWT_BEARER.to_owned(),
            client_assertion: text(case, "client_assertion").to_owned(),
            subject_token: text(case, "subject_token").to_owned(),
            subject_token_type: JWT_TYPE.to_owned(),
            audience: vec![CHANGSHA.to_owned()],
            scope: String::new(),
        };
        let issued = rig.issue(request.clone()).await;
        assert!(issued.is_ok(), "{} {}: {issued:?}", text(case, "client"), text(case, "curve"));
        assert_eq!(told(&rig.issue(request).await.expect_err("is refused")), "JTI_REUSED client");
    }
}
