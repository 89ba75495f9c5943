//! Layers, sources, and all faults at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use runtime::config::{ByteSize, Duration, Fault, Loaded, Loader, Problem};
use runtime::secret::Secret;
use serde::{Deserialize, Serialize};

const DEFAULTS: &str = r#"
[ledger]
page_size_max = 100
timeout = "5s"
body_max = "1MiB"

[tokens]
audiences = ["one", "two"]
key = ""
"#;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Root {
    ledger: Ledger,
    tokens: Tokens,
    mesh: BTreeMap<String, Peer>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ledger {
    page_size_max: u32,
    timeout: Duration,
    body_max: ByteSize,
    strict: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tokens {
    audiences: Vec<String>,
    ages: Vec<Duration>,
    key: Secret<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    endpoint: String,
}

fn validate(root: &Root, problems: &mut Vec<Problem>) {
    if root.ledger.page_size_max == 0 {
        problems.push(Problem::new("ledger.page_size_max", "must be more than zero"));
    }
    if root.tokens.audiences.is_empty() {
        problems.push(Problem::new("tokens.audiences", "must name at least one").hint("name the gateway"));
    }
}

fn load(loader: Loader) -> Result<Loaded<Root>, Vec<Fault>> {
    loader.load(validate)
}

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("writes the file");
    path
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_later_layer_wins_and_the_source_is_known() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = file(&dir, "first.toml", "[ledger]\npage_size_max = 7\ntimeout = \"1s\"\nstrict = true\n");
    let second =
        file(&dir, "second.toml", "[ledger]\ntimeout = \"2s\"\n[mesh.\"adapter/traffic/430100\"]\nendpoint = \"a\"\n");
    let loaded = load(
        Loader::new(DEFAULTS)
            .file(&first)
            .file(&second)
            .environment(variables(&[
                ("LASTMILE_LEDGER__PAGE_SIZE_MAX", "9"),
                ("LASTMILE_TOKENS__AUDIENCES", "three, four"),
                ("LASTMILE_TOKENS__AGES", "[\"1s\", \"2m\"]"),
                ("LASTMILE_TOKENS__KEY", "hunter2"),
                ("LASTMILE_MESH__IDENTITY__ENDPOINT", "b"),
                ("PATH", "/bin"),
            ]))
            .flag("--strict", "ledger.strict", "false"),
    )
    .expect("no fault");
    let Root { ledger, tokens, mesh } = &loaded.value;
    assert_eq!((ledger.page_size_max, ledger.timeout, ledger.strict), (9, Duration::from_secs(2), false));
    assert_eq!(ledger.body_max, ByteSize::from_mib(1));
    assert_eq!(tokens.audiences, ["three", "four"]);
    assert_eq!(tokens.ages, [Duration::from_secs(1), Duration::from_secs(120)]);
    assert_eq!(tokens.key.expose(), "hunter2");
    assert_eq!(mesh.keys().collect::<Vec<_>>(), ["adapter/traffic/430100", "identity"]);
    for (path, source) in [
        ("ledger.page_size_max", "environment LASTMILE_LEDGER__PAGE_SIZE_MAX".to_owned()),
        ("ledger.timeout", format!("file {}", second.display())),
        ("ledger.strict", "flag --strict".to_owned()),
        ("ledger.body_max", "default".to_owned()),
        ("mesh.adapter/traffic/430100.endpoint", format!("file {}", second.display())),
    ] {
        assert_eq!(loaded.source_of(path), source, "{path}");
    }
    let entries = loaded.entries();
    assert!(entries.windows(2).all(|pair| pair[0].path < pair[1].path), "sorted");
    let key = entries.iter().find(|entry| entry.path == "tokens.key").expect("is listed");
    assert_eq!((key.value.as_str(), key.source.as_str()), ("\"***\"", "environment LASTMILE_TOKENS__KEY"));
}

#[test]
fn every_fault_is_told_at_once_with_its_path_and_source() {
    let dir = tempfile::tempdir().expect("a directory");
    let bad = file(
        &dir,
        "bad.toml",
        "[ledger]\npage_size = 7\ntimeout = 5\nbody_max = \"1MB\"\npage_size_max = 0\n\
         [tokens]\naudiences = []\nages = [\"1s\", \"x\", \"2s\", \"y\"]\nkey = [\"hunter2\"]\n[mesh.identity]\nendpont = \"b\"\n[ledgr]\na = 1\n",
    );
    let broken = file(&dir, "broken.toml", "[ledger\n");
    let missing = dir.path().join("missing.toml");
    let faults = load(
        Loader::new(DEFAULTS)
            .file(&bad)
            .file(&broken)
            .file(&missing)
            .environment(variables(&[("LASTMILE_LEDGER__STRICT", "perhaps"), ("LASTMILE_TOKEN__KEY", "hunter2")])),
    )
    .expect_err("faults");
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let starts: Vec<&str> =
        told.iter().map(|line| line.split_once(": ").map_or(line.as_str(), |(path, _)| path)).collect();
    let expected = [
        "ledger.body_max",
        "ledger.page_size",
        "ledger.page_size_max",
        "ledger.strict",
        "ledger.timeout",
        "ledgr",
        "mesh.identity",
        "mesh.identity.endpont",
        "token",
        "tokens.ages.1",
        "tokens.ages.3",
        "tokens.audiences",
        "tokens.key",
    ];
    let of_values: Vec<&str> =
        starts.iter().copied().filter(|start| !start.contains(' ') && !start.is_empty()).collect();
    for path in expected {
        assert!(of_values.contains(&path), "{path} is not told in:\n{}", told.join("\n"));
    }
    let all = told.join("\n");
    assert!(all.contains("broken.toml") && all.contains("is not TOML"), "{all}");
    assert!(all.contains("missing.toml") && all.contains("cannot be read"), "{all}");
    assert!(all.contains("known here: `page_size_max`"), "{all}");
    assert!(all.contains("environment LASTMILE_LEDGER__STRICT"), "{all}");
    assert!(all.contains("name the gateway"), "{all}");
    assert!(!all.contains("hunter2"), "a secret is quoted:\n{all}");
    assert_eq!(faults.len(), expected.len() + 2, "{all}");
}

#[test]
fn what_follows_from_a_fault_is_not_told_as_another() {
    let faults = load(Loader::new(DEFAULTS).flag("--audiences", "tokens.audiences", "{a = 1}")).expect_err("faults");
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].problem.path, "tokens.audiences");
    assert_eq!(faults[0].source, "flag --audiences");
}
