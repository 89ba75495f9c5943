//! Every element of proto/ says what its reader must know. The rules and their words: docs/adr/0005-proto.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use contracts_generator::describe;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, ServiceDescriptorProto,
};

/// How a text says how long it can be, or which form it has. `N` is a number, `Q` a word in quotes; `a|b` is either.
const TEXT: [&str; 9] = [
    "at most N characters|bytes|digits|KiB|MiB",
    "N to N characters|bytes|digits",
    "N characters|bytes|digits",
    "N hexadecimal digits",
    "ISO 4217",
    "one of",
    "always Q",
    "\"YYYY-MM-DD\"",
    "\"HH:MM-HH:MM\"",
];
/// How a list or map says how many it can hold.
const COUNT: [&str; 3] = ["at most N", "N to N", "at most page_size"];
/// How a whole number says what it can be.
const RANGE: [&str; 4] = ["from N", "N to N", "N or more", "at most N"];
/// What the end of a field's name promises that its comment says.
const UNITS: [(&str, &str); 3] = [("_ms", "milliseconds"), ("_seconds", "seconds"), ("_minor", "minor units")];
/// Said where a method gives no reason beyond those that any method may give.
const NO_REASON: &str = "Errors: none of its own.";

/// Where a descriptor keeps its parts: the numbers that the paths of source locations are made of.
mod part {
    pub(super) const MESSAGE: i32 = 4;
    pub(super) const ENUM: i32 = 5;
    pub(super) const SERVICE: i32 = 6;
    pub(super) const EXTENSION: i32 = 7;
    pub(super) const FIELD: i32 = 2;
    pub(super) const NESTED_MESSAGE: i32 = 3;
    pub(super) const NESTED_ENUM: i32 = 4;
    pub(super) const ONEOF: i32 = 8;
    pub(super) const VALUE: i32 = 2;
    pub(super) const METHOD: i32 = 2;
}

/// Whether a text has the words of one of the phrases, one after the other.
fn says(text: &str, phrases: &[&str]) -> bool {
    let words: Vec<_> = text.split_whitespace().map(|word| word.trim_matches([',', '.', ';', ':', '(', ')'])).collect();
    let is = |word: &&str, wanted: &str| match wanted {
        "N" => {
            word.starts_with(|first: char| first.is_ascii_digit() || first == '-')
                && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b',' || byte == b'-')
        }
        "Q" => word.len() > 2 && word.starts_with('"') && word.ends_with('"'),
        _ => wanted.split('|').any(|one| one.eq_ignore_ascii_case(word)),
    };
    phrases.iter().any(|phrase| {
        let wanted: Vec<_> = phrase.split(' ').collect();
        words.windows(wanted.len()).any(|at| at.iter().zip(&wanted).all(|(word, wanted)| is(word, wanted)))
    })
}

/// The comment of every element of one file, by its path, with the line where the element begins.
struct Comments(BTreeMap<Vec<i32>, (i32, String)>);

impl Comments {
    fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let read = |location: &prost_types::source_code_info::Location| {
            let line = location.span.first().map_or(0, |line| line + 1);
            let words: Vec<_> = location.leading_comments().split_whitespace().collect();
            (location.path.clone(), (line, words.join(" ")))
        };
        Self(locations.map(read).collect())
    }
}

/// Walks the elements of a file and gathers what their comments lack.
struct Walk<'a> {
    file: &'a FileDescriptorProto,
    domain: &'a str,
    comments: Comments,
    /// Every reason, as `domain.REASON`.
    reasons: &'a BTreeSet<String>,
    named: BTreeSet<String>,
    lacks: Vec<String>,
}

impl Walk<'_> {
    /// The comment of an element; empty, and told, where there is none.
    fn comment(&mut self, path: &[i32], name: &str) -> String {
        let (_, text) = self.comments.0.get(path).cloned().unwrap_or_default();
        self.demand(!text.is_empty(), path, name, "has no comment");
        text
    }

    fn demand(&mut self, holds: bool, path: &[i32], name: &str, lack: &str) {
        if !holds {
            let line = self.comments.0.get(path).map_or(0, |(line, _)| *line);
            self.lacks.push(format!("{}:{line}: {name}: {lack}", self.file.name()));
        }
    }

    fn file(&mut self) {
        for (at, extension) in (0..).zip(&self.file.extension) {
            self.comment(&[part::EXTENSION, at], extension.name());
        }
        for (at, message) in (0..).zip(&self.file.message_type) {
            self.message(&[part::MESSAGE, at], message.name(), message);
        }
        for (at, described) in (0..).zip(&self.file.enum_type) {
            self.enumeration(&[part::ENUM, at], described.name(), described);
        }
        for (at, service) in (0..).zip(&self.file.service) {
            self.service(&[part::SERVICE, at], service);
        }
    }

    fn message(&mut self, path: &[i32], name: &str, message: &DescriptorProto) {
        self.comment(path, name);
        let below = |part: i32, at: i32| [path, &[part, at]].concat();
        for (at, field) in (0..).zip(&message.field) {
            let entry = message.nested_type.iter().find(|nested| {
                nested.options.as_ref().is_some_and(|options| options.map_entry())
                    && field.type_name().ends_with(&format!(".{name}.{}", nested.name()))
            });
            self.field(&below(part::FIELD, at), &format!("{name}.{}", field.name()), field, entry);
        }
        for (at, oneof) in (0..).zip(&message.oneof_decl) {
            self.comment(&below(part::ONEOF, at), &format!("{name}.{}", oneof.name()));
        }
        for (at, nested) in (0..).zip(&message.nested_type) {
            if !nested.options.as_ref().is_some_and(|options| options.map_entry()) {
                self.message(&below(part::NESTED_MESSAGE, at), &format!("{name}.{}", nested.name()), nested);
            }
        }
        for (at, nested) in (0..).zip(&message.enum_type) {
            self.enumeration(&below(part::NESTED_ENUM, at), &format!("{name}.{}", nested.name()), nested);
        }
    }

    fn enumeration(&mut self, path: &[i32], name: &str, described: &EnumDescriptorProto) {
        self.comment(path, name);
        for (at, value) in (0..).zip(&described.value) {
            self.comment(&[path, &[part::VALUE, at]].concat(), &format!("{name}.{}", value.name()));
        }
    }

    fn field(&mut self, path: &[i32], name: &str, field: &FieldDescriptorProto, entry: Option<&DescriptorProto>) {
        let text = self.comment(path, name);
        if text.is_empty() {
            return;
        }
        // Of many, the comment first says how many, and then what each is held to.
        let (mut of_one, mut kind) = (text.as_str(), field);
        if field.label() == Label::Repeated {
            let (of_all, of_each) = text.split_once(" each ").unwrap_or((&text, ""));
            self.demand(says(of_all, &COUNT), path, name, "does not say how many there can be");
            of_one = of_each;
            kind = entry.and_then(|entry| entry.field.iter().find(|part| part.number() == 2)).unwrap_or(field);
        }
        match kind.r#type() {
            Type::String | Type::Bytes => {
                self.demand(says(of_one, &TEXT), path, name, "does not say how long a text can be, or its form");
            }
            Type::Message if kind.type_name() == ".google.protobuf.Timestamp" => {
                self.demand(says(&text, &["UTC"]), path, name, "does not say that its time is UTC");
            }
            Type::Message if kind.type_name() == ".google.protobuf.Duration" => {
                self.demand(says(of_one, &RANGE), path, name, "does not say how long it can take");
            }
            Type::Message if kind.type_name() == ".google.protobuf.Struct" => {
                self.demand(says(&text, &["schema"]), path, name, "does not say which schema holds its fields");
            }
            Type::Message | Type::Group | Type::Enum | Type::Bool => {}
            Type::Double | Type::Float => self.demand(false, path, name, "is a fraction: no reader has it exactly"),
            Type::Int64
            | Type::Uint64
            | Type::Int32
            | Type::Uint32
            | Type::Fixed64
            | Type::Fixed32
            | Type::Sfixed32
            | Type::Sfixed64
            | Type::Sint32
            | Type::Sint64 => {
                self.demand(says(of_one, &RANGE), path, name, "does not say the range of its number");
                for (ending, unit) in UNITS {
                    let fits = !field.name().ends_with(ending) || says(&text, &[unit]);
                    self.demand(fits, path, name, &format!("does not say its unit, {unit}"));
                }
            }
        }
    }

    fn service(&mut self, path: &[i32], service: &ServiceDescriptorProto) {
        self.comment(path, service.name());
        for (at, method) in (0..).zip(&service.method) {
            let path = [path, &[part::METHOD, at]].concat();
            let name = format!("{}.{}", service.name(), method.name());
            let text = self.comment(&path, &name);
            let request = method.input_type().rsplit('.').next().unwrap_or_default();
            let request = self.file.message_type.iter().find(|message| message.name() == request);
            let has_key = request.is_some_and(|request| request.field.iter().any(|field| field.name() == "request_id"));
            self.repetition(&path, &name, &text, has_key);
            self.errors(&path, &name, &text);
        }
    }

    /// Whether the method may be sent again.
    fn repetition(&mut self, path: &[i32], name: &str, text: &str, has_key: bool) {
        let by_key = says(text, &["idempotent by request_id"]);
        let otherwise = text.contains("Not idempotent: ") || says(text, &["idempotent by the"]);
        let is_said = says(text, &["no effect"]) || by_key || otherwise;
        self.demand(is_said, path, name, "does not say whether it may be sent again");
        self.demand(!by_key || has_key, path, name, "is idempotent by a request_id that its request does not have");
    }

    /// Which reasons the method gives.
    fn errors(&mut self, path: &[i32], name: &str, text: &str) {
        let Some((_, told)) = text.split_once("Errors: ") else {
            self.demand(says(text, &["not yet served"]), path, name, "has no sentence `Errors:`");
            return;
        };
        let is_reason = |word: &&str| {
            let reason = word.rsplit('.').next().unwrap_or_default();
            reason.len() > 2 && reason.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        };
        let words = told.split_whitespace().map(|word| word.trim_matches([',', '.', ';', ':']));
        let mut told_any = false;
        for reason in words.filter(is_reason) {
            told_any = true;
            let whole = if reason.contains('.') { reason.to_owned() } else { format!("{}.{reason}", self.domain) };
            let common = format!("common.{reason}");
            match [whole, common].into_iter().find(|known| self.reasons.contains(known)) {
                Some(known) => drop(self.named.insert(known)),
                None => self.demand(false, path, name, &format!("gives {reason}, which is no reason")),
            }
        }
        self.demand(told_any || text.ends_with(NO_REASON), path, name, "names no reason in its sentence `Errors:`");
    }
}

/// Every reason of every domain, as `domain.REASON`.
fn reasons(files: &[FileDescriptorProto]) -> BTreeSet<String> {
    let of = |file: &FileDescriptorProto| {
        let reasons = file.enum_type.iter().filter(|described| described.name() == "ErrorReason");
        let values = reasons.flat_map(|described| &described.value).filter(|value| value.number() != 0);
        let domain = domain(file).to_owned();
        values
            .map(move |value| format!("{domain}.{}", value.name().trim_start_matches("ERROR_REASON_")))
            .collect::<Vec<_>>()
    };
    files.iter().flat_map(of).collect()
}

fn domain(file: &FileDescriptorProto) -> &str {
    file.package().split('.').nth(1).unwrap_or_default()
}

/// What the comments of `proto` lack, and the reasons that its methods name.
fn read(proto: &Path) -> (Vec<String>, BTreeSet<String>, BTreeSet<String>) {
    let set = describe(proto).expect("proto/ compiles");
    let files: Vec<_> = set.file.into_iter().filter(|file| file.package().starts_with("lastmile.")).collect();
    assert!(!files.is_empty(), "no files");
    let reasons = reasons(&files);
    let (mut lacks, mut named) = (Vec::new(), BTreeSet::new());
    for file in &files {
        let (named_here, lacks_here) = (BTreeSet::new(), Vec::new());
        let comments = Comments::of(file);
        let mut walk =
            Walk { file, domain: domain(file), comments, reasons: &reasons, named: named_here, lacks: lacks_here };
        walk.file();
        lacks.append(&mut walk.lacks);
        named.append(&mut walk.named);
    }
    (lacks, named, reasons)
}

#[test]
fn every_element_says_what_its_reader_must_know() {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    let (lacks, named, reasons) = read(&proto);
    assert!(lacks.is_empty(), "{} comments lack something:\n{}", lacks.len(), lacks.join("\n"));
    // What any method may answer stands with the enum, and what no method answers with the gateway's.
    let any = [
        "INVALID_REQUEST",
        "UNAUTHENTICATED",
        "CALLER_NOT_ALLOWED",
        "NOT_SERVED",
        "LIMIT_EXCEEDED",
        "DEADLINE_EXCEEDED",
        "OVERLOADED",
        "PEER_UNAVAILABLE",
        "INTERNAL",
    ];
    let everywhere = any.iter().map(|reason| format!("common.{reason}")).chain(["gateway.METHOD_UNKNOWN".to_owned()]);
    let told: BTreeSet<_> = named.into_iter().chain(everywhere).collect();
    assert_eq!(told, reasons, "every reason is given by some method");
}

#[test]
fn what_is_lacking_is_told_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("lastmile/bad/v1");
    std::fs::create_dir_all(&place).expect("a folder");
    let text = r#"syntax = "proto3";
package lastmile.bad.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/struct.proto";
// A service.
service BadService {
  // Does it. Idempotent by request_id.
  // Errors: GONE, other.GONE, NEVER_HEARD_OF.
  rpc Do(DoRequest) returns (DoResponse) {}
  // Does more.
  // Errors: none of its own, it hopes.
  rpc More(DoRequest) returns (DoResponse) {}
  // Says nothing.
  rpc Hush(DoRequest) returns (DoResponse) {}
  // Reads. No effect. Not yet served.
  rpc Read(DoRequest) returns (DoResponse) {}
  rpc Mute(DoRequest) returns (DoResponse) {}
}
// A request.
message DoRequest {
  // A name.
  string name = 1;
  // Names, each at most 8 bytes.
  repeated string names = 2;
  // At most 8 names.
  repeated string some = 3;
  // At most 8, each 1 to 64 characters.
  repeated string fine = 4;
  // At most 8 by name, each of some length.
  map<string, string> by_name = 5;
  // A number.
  int64 number = 6;
  // How long, 0 or more.
  int64 wait_ms = 7;
  // When.
  google.protobuf.Timestamp at = 8;
  // Whatever.
  google.protobuf.Struct any = 9;
  // About 0.5.
  double part = 10;
  oneof choice {
    // Always "x".
    string x = 11;
  }
  message Inner {
    bool yes = 1;
  }
}
message DoResponse {}
// Reasons.
enum ErrorReason {
  ERROR_REASON_UNSPECIFIED = 0;
  // Gone.
  ERROR_REASON_GONE = 1;
}
"#;
    std::fs::write(place.join("bad.proto"), text).expect("writes");
    let (lacks, named, _) = read(folder.path());
    let told: Vec<_> =
        lacks.iter().map(|lack| lack.strip_prefix("lastmile/bad/v1/bad.proto:").expect("its file")).collect();
    let expected = [
        "22: DoRequest.name: does not say how long a text can be, or its form",
        "24: DoRequest.names: does not say how many there can be",
        "26: DoRequest.some: does not say how long a text can be, or its form",
        "30: DoRequest.by_name: does not say how long a text can be, or its form",
        "32: DoRequest.number: does not say the range of its number",
        "34: DoRequest.wait_ms: does not say its unit, milliseconds",
        "36: DoRequest.at: does not say that its time is UTC",
        "38: DoRequest.any: does not say which schema holds its fields",
        "40: DoRequest.part: is a fraction: no reader has it exactly",
        "41: DoRequest.choice: has no comment",
        "45: DoRequest.Inner: has no comment",
        "46: DoRequest.Inner.yes: has no comment",
        "49: DoResponse: has no comment",
        "52: ErrorReason.ERROR_REASON_UNSPECIFIED: has no comment",
        "9: BadService.Do: is idempotent by a request_id that its request does not have",
        "9: BadService.Do: gives other.GONE, which is no reason",
        "9: BadService.Do: gives NEVER_HEARD_OF, which is no reason",
        "12: BadService.More: does not say whether it may be sent again",
        "12: BadService.More: names no reason in its sentence `Errors:`",
        "14: BadService.Hush: does not say whether it may be sent again",
        "14: BadService.Hush: has no sentence `Errors:`",
        "17: BadService.Mute: has no comment",
        "17: BadService.Mute: does not say whether it may be sent again",
        "17: BadService.Mute: has no sentence `Errors:`",
    ];
    assert_eq!(told, expected);
    assert_eq!(named, ["bad.GONE".to_owned()].into());
}
