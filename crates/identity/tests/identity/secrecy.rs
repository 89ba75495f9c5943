//! No name, number or account id is left in the store, in the log, or in an answer.

use std::io::Write;
use std::sync::{Arc, Mutex};

use rpc::jose::Curve;
use rpc::oauth::Person;
use rpc::token::Attributes;
use runtime::secret::Pii;
use tracing_subscriber::fmt::MakeWriter;

use crate::rig::{CHANGSHA, Rig};

/// Marks that no other text has. The number keeps every rule of GB 11643.
const MARKS: [&str; 7] = [
    "金丝雀甲乙丙",
    "110105190003070032",
    "13799990001",
    "湘Z9Z9Z9",
    "canary-openid-5f1c",
    "canary-licence-77a0",
    "canary-jti-00d1",
];

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn canary(number: &str) -> Person {
    let hidden = |text: &str| Pii::new(text.to_owned());
    Person {
        sub: MARKS[4].to_owned(),
        level: 4,
        consents: Vec::new(),
        attributes: Attributes {
            name: Some(hidden(MARKS[0])),
            doc_type: Some("resident_id".to_owned()),
            doc_no: Some(hidden(number)),
            phone: Some(hidden(MARKS[2])),
            plates: vec![hidden(MARKS[3])],
            licences: vec![hidden(MARKS[5])],
            ..Attributes::default()
        },
    }
}

fn contains(haystack: &[u8], mark: &str) -> bool {
    haystack.windows(mark.len()).any(|window| window == mark.as_bytes())
}

#[tokio::test]
async fn canaries_are_nowhere() {
    let log = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let rig = Rig::start().await;
    let key = rig.identity_key(Curve::X25519).await;
    let mut answers = String::new();
    for (number, profile) in [
        (MARKS[1], CHANGSHA),
        (MARKS[1], "traffic/999999"),
        (&MARKS[1][..17], CHANGSHA),
        ("110105190003070035", CHANGSHA),
    ] {
        let request = rig.caller("wechat").citizen_token(&canary(number), &[profile], &key).expect("signs");
        answers.push_str(&format!("{:?}", rig.issue(request.clone()).await));
        answers.push_str(&format!("{:?}", rig.issue(request).await));
    }
    let mut nameless = canary(MARKS[1]);
    nameless.attributes.phone = Some(Pii::new(format!("{}x", MARKS[2])));
    let request = rig.caller("wechat").citizen_token(&nameless, &[CHANGSHA], &key).expect("signs");
    answers.push_str(&format!("{:?}", rig.issue(request).await));
    let (token, claims) = rig.citizen("wechat", &canary(MARKS[1]), &[CHANGSHA]).await;
    answers.push_str(&token);
    answers.push_str(&format!("{claims:?}"));

    let mut places = vec![("the answers".to_owned(), answers.into_bytes())];
    places.push(("the log".to_owned(), log.0.lock().expect("no writer panics").clone()));
    places.push(("the metrics".to_owned(), rig.context.metrics.encode().into_bytes()));
    for entry in std::fs::read_dir(rig.dir.path()).expect("lists") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            places.push((path.display().to_string(), std::fs::read(&path).expect("reads")));
        }
    }
    let stored: usize =
        places.iter().filter(|(name, _)| name.contains("identity.db")).map(|(_, bytes)| bytes.len()).sum();
    assert!(stored > 0 && places[1].1.len() > 100, "there is something to look through");
    for (place, bytes) in &places {
        for mark in MARKS {
            assert!(!contains(bytes, mark), "{mark} is in {place}");
        }
    }
}
