//! Every error of lastmile: in the contract, in one table, on a page that says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use lastmile_tests::golden::tables;
use prost_reflect::DescriptorPool;
use rpc::{Effect, Kind, ReasonSpec, Retry};

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors").join(name)
}

/// Full name of each `ErrorReason` enum of the contract, with its values in order, the unspecified one left out.
fn contract() -> BTreeMap<String, Vec<String>> {
    let pool = DescriptorPool::decode(contracts::FILE_DESCRIPTOR_SET).expect("the descriptor set");
    let enums =
        pool.all_enums().filter(|one| one.name() == "ErrorReason" && one.package_name().starts_with("lastmile."));
    enums
        .map(|one| {
            let values = one.values().filter(|value| value.number() != 0);
            let reasons = values.map(|value| value.name().trim_start_matches("ERROR_REASON_").to_owned());
            (one.full_name().to_owned(), reasons.collect())
        })
        .collect()
}

#[test]
fn every_reason_of_the_contract_is_in_its_services_table_and_no_other() {
    let contract = contract();
    let mut seen = BTreeSet::new();
    for table in tables() {
        let listed: Vec<_> = table.reasons.iter().map(|spec| spec.reason.to_owned()).collect();
        assert_eq!(Some(&listed), contract.get(table.proto_enum), "{}", table.domain);
        let package = table.proto_enum.trim_start_matches("lastmile.").split('.').next().expect("a package");
        assert_eq!(table.domain, format!("{package}.lastmile"));
        seen.insert(table.proto_enum.to_owned());
    }
    let all: BTreeSet<_> = contract.keys().cloned().collect();
    assert_eq!(seen, all, "every domain of the contract has a table");
}

#[test]
fn reasons_and_metadata_keys_keep_to_their_form() {
    for table in tables() {
        for ReasonSpec { reason, metadata, .. } in table.reasons {
            let upper_snake = reason.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
            assert!(upper_snake && reason.len() <= 63, "{reason}");
            assert!(metadata.is_sorted(), "{reason}: {metadata:?}");
            for key in *metadata {
                let name = key.trim_end_matches('?');
                let camel = name.starts_with(|c: char| c.is_ascii_lowercase())
                    && name.bytes().all(|b| b.is_ascii_alphanumeric());
                assert!(camel && !matches!(name, "effect" | "origin"), "{reason}: {key}");
            }
        }
    }
}

fn code(kind: Kind) -> &'static str {
    match kind {
        Kind::InvalidInput => "INVALID_ARGUMENT",
        Kind::Unauthenticated => "UNAUTHENTICATED",
        Kind::Forbidden => "PERMISSION_DENIED",
        Kind::NotFound => "NOT_FOUND",
        Kind::AlreadyExists => "ALREADY_EXISTS",
        Kind::RuleBroken => "FAILED_PRECONDITION",
        Kind::Conflict => "ABORTED",
        Kind::Exhausted => "RESOURCE_EXHAUSTED",
        Kind::Unavailable => "UNAVAILABLE",
        Kind::Deadline => "DEADLINE_EXCEEDED",
        Kind::Unsupported => "UNIMPLEMENTED",
        Kind::Internal => "INTERNAL",
    }
}

fn table() -> String {
    let mut text = String::from(
        "# Every error\n\n\
         Written by the test `errors::the_table_is_current`; do not edit. `effect` and `origin` are in every answer's metadata and not\n\
         repeated; a key with `?` may be absent. Effect \"either\" depends on the moment: read it from the answer.\n\n\
         | domain | reason | gRPC | HTTP | effect | again | metadata |\n|---|---|---|---|---|---|---|\n",
    );
    for table in tables() {
        for spec in table.reasons {
            let effect = spec.effect.map_or("either", Effect::as_str);
            let again = match spec.retry() {
                Retry::Never => "no",
                Retry::Reread => "after reading again",
                Retry::After(_) => "after RetryInfo",
            };
            let metadata: Vec<_> = spec.metadata.iter().map(|key| format!("`{key}`")).collect();
            let (code, http) = (code(spec.kind), spec.kind.http_status().as_u16());
            let page = table.domain.trim_end_matches(".lastmile");
            let anchor = spec.reason.to_ascii_lowercase();
            writeln!(
                text,
                "| {} | [{}]({page}.md#{anchor}) | {code} | {http} | {effect} | {again} | {} |",
                table.domain,
                spec.reason,
                metadata.join(" ")
            )
            .expect("writes");
        }
    }
    text
}

#[test]
fn the_table_is_current() {
    let (path, wanted) = (docs("TABLE.md"), table());
    let found = fs::read_to_string(&path).unwrap_or_default();
    if found != wanted {
        let proposal = docs("TABLE.md.new");
        fs::write(&proposal, &wanted).expect("writes");
        panic!(
            "docs/errors/TABLE.md is out of date; if the change is meant: mv {} {}",
            proposal.display(),
            path.display()
        );
    }
}

/// Reasons that no test can provoke through the contract, each with why.
const UNPROVOKED: [(&str, &str); 0] = [];

/// The texts in quotes of Rust source, as far as a line has them whole.
fn quoted(source: &str) -> impl Iterator<Item = &str> {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split('"').skip(1).step_by(2))
}

/// A row of the table is a promise: a test that speaks through a generated client has seen it kept, by its name.
#[test]
fn every_reason_is_asserted_through_the_contract() {
    // Where the services are met as their callers meet them. What stands in `src` sees no wire.
    const CONTRACT_TESTS: [&str; 4] =
        ["it/contract", "it/wire", "../crates/cases/tests/engine", "../crates/identity/tests/identity"];
    fn read(folder: &Path, texts: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            // What a stand-in answers is no assertion.
            if path.file_stem().is_some_and(|name| name == "fakes") {
                continue;
            }
            if path.is_dir() {
                read(&path, texts);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                texts.push(fs::read_to_string(&path).expect("text"));
            }
        }
    }
    let mut texts = Vec::new();
    for folder in CONTRACT_TESTS {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut texts);
    }
    let named: BTreeSet<&str> = texts.iter().flat_map(|text| quoted(text)).flat_map(|text| text.split(' ')).collect();
    for spec in tables().iter().flat_map(|table| table.reasons) {
        let excused = UNPROVOKED.iter().any(|(reason, _)| *reason == spec.reason);
        assert_ne!(named.contains(spec.reason), excused, "{}: named by a contract test, or excused", spec.reason);
    }
}

/// What a page says under each reason's heading.
fn sections(page: &str) -> BTreeMap<String, String> {
    let parts = page.split("\n## ").skip(1);
    parts
        .filter_map(|part| part.split_once('\n'))
        .map(|(title, text)| (title.trim().to_owned(), text.to_owned()))
        .collect()
}

#[test]
fn every_reason_has_a_section_that_says_what_to_do() {
    for (name, reasons) in contract() {
        let domain = name.trim_start_matches("lastmile.").split('.').next().expect("a package").to_owned();
        let page =
            fs::read_to_string(docs(&format!("{domain}.md"))).unwrap_or_else(|error| panic!("{domain}.md: {error}"));
        assert!(page.starts_with(&format!("# {domain}.lastmile\n")), "{domain}.md begins with its domain");
        let sections = sections(&page);
        let titles: BTreeSet<_> = sections.keys().cloned().collect();
        assert_eq!(titles, reasons.iter().cloned().collect(), "sections of {domain}.md");
        for (reason, text) in &sections {
            let (meaning, advice) =
                text.split_once("\n- **Citizen:** ").unwrap_or_else(|| panic!("{reason}: no advice"));
            assert!(meaning.trim().len() >= 20, "{reason}: what does it mean?");
            for who in ["\n- **Integrator:** ", "\n- **Operator:** "] {
                let said = advice.split_once(who).unwrap_or_else(|| panic!("{reason}: {who}")).1;
                assert!(said.trim().len() >= 8, "{reason}: {who}");
            }
        }
        for spec in tables().iter().filter(|table| table.proto_enum == name).flat_map(|table| table.reasons) {
            let text = &sections[spec.reason];
            for key in spec.metadata.iter().map(|key| key.trim_end_matches('?')) {
                let told = text.contains(&format!("`{key}`")) || page_tells(&page, key);
                assert!(told, "{domain}.md, {}: does not explain metadata `{key}`", spec.reason);
            }
        }
    }
}

/// Keys that a page explains once, in its introduction.
fn page_tells(page: &str, key: &str) -> bool {
    page.split("\n## ").next().is_some_and(|introduction| introduction.contains(&format!("`{key}`")))
}
