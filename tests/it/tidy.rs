//! Rules of the repository that a reader should be able to rely on, checked over the tree itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `folder` with this ending, as (path from the root, text). Generated code is left out.
fn sources(folder: &str, ending: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() && !matches!(name.as_str(), "gen" | "target") {
                walk(&path, ending, found);
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), ending, &mut found);
    found.sort();
    let name = |path: &Path| path.strip_prefix(root()).expect("below the root").display().to_string();
    found.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("text"))).collect()
}

/// Who imports whom, of lastmile's own crates, dev-dependencies left out.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let names: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let own = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        normal
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|name| names.contains(name))
            .map(str::to_owned)
            .collect()
    };
    packages.iter().map(|package| (package["name"].as_str().expect("a name").to_owned(), own(package))).collect()
}

#[test]
fn crates_import_downward_only() {
    const SERVICES: [&str; 6] = ["identity", "payments", "catalog", "cases", "gateway", "adapter"];
    let below: [(&[&str], &[&str]); 7] = [
        (&["contracts", "runtime", "contracts-generator", "http2"], &[]),
        (&["store"], &["runtime"]),
        (&["rpc"], &["contracts", "runtime", "http2"]),
        (&SERVICES, &["contracts", "runtime", "rpc", "store"]),
        (&["sandbox"], &["runtime"]),
        (
            &["lastmile"],
            &[
                "contracts",
                "runtime",
                "rpc",
                "store",
                "sandbox",
                "identity",
                "payments",
                "catalog",
                "cases",
                "gateway",
                "adapter",
            ],
        ),
        (&["invariants"], &["runtime", "rpc", "store", "payments", "cases"]),
    ];
    let imports = imports();
    let mut seen = BTreeSet::from(["lastmile-tests".to_owned()]);
    for (crates, allowed) in below {
        for name in crates {
            let imported = imports.get(*name).unwrap_or_else(|| panic!("no crate {name}"));
            let up: Vec<_> = imported.iter().filter(|import| !allowed.contains(&import.as_str())).collect();
            assert!(up.is_empty(), "{name} imports {up:?}; it may import {allowed:?}");
            seen.insert((*name).to_owned());
        }
    }
    let new: Vec<_> = imports.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(new.is_empty(), "{new:?}: a new crate needs a level here, and an ADR");
}

#[test]
fn databases_are_spoken_to_in_store_alone() {
    for (path, text) in sources("crates", "Cargo.toml") {
        let speaks = ["sqlx", "redis"].iter().any(|name| text.contains(&format!("\n{name}.workspace")));
        assert!(!speaks || path.starts_with("crates/store/"), "{path} depends on a database driver");
    }
    // Tests speak to databases through store as well, but for those that look at what is really there, or meddle with it.
    const LOOKERS: [&str; 3] =
        ["tests/src/stores.rs", "tests/it/contract/payments/batches.rs", "tests/it/contract/payments/verify.rs"];
    for (path, text) in sources("tests", ".rs") {
        let speaks = ["sqlx::", "redis::"].iter().any(|name| text.contains(name));
        let may = LOOKERS.contains(&path.as_str()) || path.ends_with("tidy.rs");
        assert!(!speaks || may, "{path} speaks to a database driver");
    }
}

#[test]
fn every_dependency_says_why_it_is_here() {
    let manifest = read("Cargo.toml");
    let (_, dependencies) = manifest.split_once("[workspace.dependencies]").expect("the section");
    let (dependencies, _) = dependencies.split_once("\n[").expect("the next section");
    for line in dependencies.lines().filter(|line| line.contains(" = ") && !line.contains("path = ")) {
        assert!(line.contains(" # "), "no reason: {line}");
    }
    for (path, text) in sources("crates", "Cargo.toml") {
        let own = text.lines().find(|line| line.contains("version = \"") && !line.starts_with("version"));
        assert_eq!(own, None, "{path}: versions and reasons stand in the workspace's manifest");
    }
}

#[test]
fn what_is_not_served_is_said() {
    let map = read("ARCHITECTURE.md");
    for path in rpc::NOT_SERVED {
        let method = path.rsplit('/').next().expect("a method");
        assert!(map.contains(&format!("`{method}`")), "ARCHITECTURE.md does not list {path} as not yet served");
    }
    let (_, listed) = map.split_once("## Not yet served").expect("the section");
    for name in listed.split('`').skip(1).step_by(2).filter(|name| name.chars().next().is_some_and(char::is_uppercase))
    {
        let known = rpc::NOT_SERVED.iter().any(|path| path.ends_with(&format!("/{name}")));
        assert!(known || name == "NOT_SERVED", "ARCHITECTURE.md lists {name}, which is served");
    }
}

#[test]
fn documents_point_at_what_is_there() {
    let mut pages = sources("docs", ".md");
    for name in ["README.md", "ARCHITECTURE.md"] {
        pages.push((name.to_owned(), read(name)));
    }
    for (path, text) in pages {
        let folder = root().join(&path).parent().expect("a folder").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{path} points at {target}, which is not there");
        }
    }
}

#[test]
fn no_leftovers() {
    let words = ["TODO", "FIXME", "XXX"];
    for folder in ["crates", "tests"] {
        for (path, text) in sources(folder, ".rs") {
            if path.ends_with("tidy.rs") {
                continue;
            }
            for (number, line) in text.lines().enumerate() {
                assert!(!words.iter().any(|word| line.contains(word)), "{path}:{}: {line}", number + 1);
                assert!(!line.contains("#[ignore"), "{path}:{}: a test that is not run", number + 1);
            }
        }
    }
}

#[test]
fn tests_wait_for_something() {
    for (path, text) in sources("tests/it", ".rs") {
        if path.ends_with("tidy.rs") {
            continue;
        }
        assert!(!text.contains("thread::sleep"), "{path}: poll with a deadline instead of sleeping");
    }
}

#[test]
fn the_environment_is_read_in_one_place() {
    for (path, text) in sources("crates", ".rs") {
        let reads = text.contains("env::var(") || text.contains("env::vars");
        let may =
            path.starts_with("crates/runtime/src/config/") || path.contains("/tests/") || path.contains("/examples/");
        assert!(!reads || may, "{path} reads the environment; runtime::config does");
    }
}
