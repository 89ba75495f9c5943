//! From a profile's words to what the codec runs on.

use std::sync::Arc;

use super::{FAULT_CODES, FieldUse, Settings, SoapCodec};
use crate::named::Named;
use crate::plan::{Compiler, Known};
use crate::profile::{Profile, Verdict};
use crate::types::TypeUse;

/// Deepest nesting of records in records.
const RECORDS_DEEP_MAX: usize = 4;

/// A call, ready to run.
pub(super) struct Exchange {
    pub(super) template: String,
    pub(super) action: String,
    pub(super) element: String,
    pub(super) reply: Shape,
    lines: Vec<String>,
}

/// The elements of a group.
pub(super) struct Shape {
    pub(super) names: Arc<[String]>,
    pub(super) fields: Vec<Field>,
}

/// What one element holds.
pub(super) enum Field {
    Value(TypeUse),
    Record(Shape),
    List { entry: String, key: String, max: usize, shape: Shape },
}

impl Exchange {
    /// The element that a line of the template is about.
    pub(super) fn element_of_line(&self, line: usize) -> String {
        let source = self.lines.get(line.saturating_sub(1)).map_or("", String::as_str);
        let before = source.split("{{").next().unwrap_or_default();
        let tag = before.rsplit('<').next().unwrap_or_default();
        let name = tag.split(['>', ' ', '/']).next().unwrap_or_default();
        if name.is_empty() || tag.len() == before.len() { format!("body line {line}") } else { name.to_owned() }
    }
}

impl SoapCodec {
    /// Compiles every exchange of a profile; problems are noted, and the codec is usable only when there are none.
    pub(crate) fn compile(profile: &Profile, settings: &Settings, compiler: &mut Compiler<'_>) -> Self {
        if !settings.path.starts_with('/') || settings.path.contains("//") {
            compiler.problem(
                &["connector", "soap", "path"],
                "expected a path such as \"/services/X\"; the host is the installation's",
            );
        }
        for code in FAULT_CODES {
            if profile.codes.get(code).is_none() {
                compiler.problem(&["codes"], format!("expected `{code}`: what a SOAP fault of that code means"));
            }
        }
        let mut exchanges = Vec::new();
        for (name, exchange) in profile.exchanges.iter() {
            let Some(spec) = &exchange.soap else {
                compiler.problem(&["exchanges", name], "expected `soap`: that is this profile's connector");
                continue;
            };
            let template = format!("{name}.xml");
            if let Err(bad) = compiler.templates.add(&template, &spec.body) {
                compiler.problem(&["exchanges", name, "soap", "body"], format!("line {} of it: {bad}", bad.line));
            }
            let needs = compiler.templates.needs(&template);
            compiler.check_settings(&["exchanges", name, "soap", "body"], needs);
            let path = ["exchanges", name, "soap", "reply"];
            let (reply, known) = shape(&spec.reply, settings, compiler, &path, 0);
            compiler.replies.insert(name.to_owned(), known);
            compiler.requests.insert(name.to_owned(), vec![template.clone()]);
            let lines = spec.body.lines().map(str::to_owned).collect();
            let (action, element) = (spec.action.clone(), spec.element.clone());
            exchanges.push((name.to_owned(), Exchange { template, action, element, reply, lines }));
        }
        let with_body: Vec<String> = profile
            .codes
            .iter()
            .filter(|(_, verdict)| Verdict::has_body(verdict))
            .map(|(code, _)| code.to_owned())
            .collect();
        Self {
            charset: settings.charset,
            unmappable: settings.unmappable,
            namespace: settings.namespace.clone(),
            code: settings.code.clone(),
            text: settings.text.clone(),
            has_body: Box::new(move |code| with_body.iter().any(|known| known == code)),
            exchanges,
        }
    }
}

/// Resolves the names of a group; also tells what mappings may ask of it.
fn shape(
    fields: &Named<FieldUse>,
    settings: &Settings,
    compiler: &mut Compiler<'_>,
    path: &[&str],
    depth: usize,
) -> (Shape, Known) {
    let mut shape = Shape { names: fields.names().map(str::to_owned).collect(), fields: Vec::new() };
    let mut known = Vec::new();
    for (name, field) in fields.iter() {
        let mut here = path.to_vec();
        here.push(name);
        let group = |record: &str, compiler: &mut Compiler<'_>| {
            let found = settings.records.get(record).filter(|_| depth < RECORDS_DEEP_MAX);
            let Some(fields) = found else {
                let records = settings.records.names().collect::<Vec<_>>().join(", ");
                compiler.problem(
                    &here,
                    format!("there is no record `{record}` (or it is too deep); expected one of {records}"),
                );
                return (Shape { names: Arc::from([]), fields: Vec::new() }, Known::Anything);
            };
            self::shape(fields, settings, compiler, &["connector", "soap", "records", record], depth + 1)
        };
        let (field, knows) = match field {
            FieldUse::Value(written) => match compiler.type_use(&here, written) {
                Some(kind) => (Field::Value(kind), Known::Value),
                // Noted; what asks for the field need not be noted as well.
                None => {
                    known.push((name.to_owned(), Known::Anything));
                    continue;
                }
            },
            FieldUse::Record(record) => {
                let (shape, known) = group(record, compiler);
                (Field::Record(shape), known)
            }
            FieldUse::List(list) => {
                let (shape, known) = group(&list.list, compiler);
                if !shape.names.contains(&list.key) {
                    compiler.problem(&here, format!("`{}` has no field `{}`", list.list, list.key));
                }
                let (entry, key, max) = (list.entry.clone(), list.key.clone(), list.max);
                (Field::List { entry, key, max, shape }, Known::List(Box::new(known)))
            }
        };
        shape.fields.push(field);
        known.push((name.to_owned(), knows));
    }
    (shape, Known::Record(known))
}
