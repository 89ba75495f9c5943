//! From a profile's words to what the codec runs on.

use std::sync::Arc;

use super::{ExchangeSpec, FixedCodec, ReplyColumn, Settings};
use crate::plan::{Compiler, Known};
use crate::profile::{Profile, Verdict};
use crate::template::Scope;
use crate::types::TypeUse;

/// Deepest nesting of groups in groups.
const GROUPS_DEEP_MAX: usize = 4;
/// Longest column.
const COLUMN_BYTES_MAX: usize = 4_096;

/// A call, ready to run.
pub(super) struct Exchange {
    pub(super) transaction: String,
    pub(super) request: Vec<Written>,
    pub(super) values: Scope,
    pub(super) echo: Option<Scope>,
    pub(super) reply: Shape,
}

/// A column of a request.
pub(super) struct Written {
    pub(super) name: String,
    pub(super) bytes: usize,
    pub(super) kind: TypeUse,
}

/// Columns and groups in order.
pub(super) struct Shape {
    pub(super) names: Arc<[String]>,
    pub(super) parts: Vec<Part>,
}

/// What stands at one place.
pub(super) enum Part {
    Column(Column),
    Once(Shape),
    Counted { count: String, max: usize, key: String, shape: Shape },
}

/// A column of a reply.
pub(super) struct Column {
    pub(super) bytes: usize,
    pub(super) kind: TypeUse,
}

impl FixedCodec {
    /// Compiles every exchange of a profile; problems are noted, and the codec is usable only when there are none.
    pub(crate) fn compile(profile: &Profile, settings: &Settings, compiler: &mut Compiler<'_>) -> Self {
        const AT: [&str; 2] = ["connector", "fixed_tcp"];
        if !(4..=8).contains(&settings.length_digits) {
            compiler.problem(&[AT[0], AT[1], "length_digits"], "expected 4 to 8");
        }
        let (header, _) = shape(&settings.reply, settings, compiler, &[AT[0], AT[1], "reply"], 0);
        for (field, name) in [("code", &settings.code), ("text", &settings.text)] {
            if !header.names.contains(name) {
                let columns = header.names.join(", ");
                compiler.problem(&[AT[0], AT[1], field], format!("expected a column of `reply`: {columns}"));
            }
        }
        let mut exchanges = Vec::new();
        for (name, exchange) in profile.exchanges.iter() {
            match &exchange.fixed_tcp {
                Some(spec) => exchanges.push((name.to_owned(), compile_exchange(name, spec, settings, compiler))),
                None => {
                    compiler.problem(&["exchanges", name], "expected `fixed_tcp`: that is this profile's connector")
                }
            }
        }
        let with_body = profile.codes.iter().filter(|(_, verdict)| Verdict::has_body(verdict));
        Self {
            charset: settings.charset,
            length_digits: settings.length_digits,
            request_bytes_max: settings.request_bytes_max,
            header,
            code: settings.code.clone(),
            text: settings.text.clone(),
            with_body: with_body.map(|(code, _)| code.to_owned()).collect(),
            exchanges,
        }
    }
}

fn compile_exchange(name: &str, spec: &ExchangeSpec, settings: &Settings, compiler: &mut Compiler<'_>) -> Exchange {
    let header: [&str; 3] = ["connector", "fixed_tcp", "request"];
    let body: [&str; 4] = ["exchanges", name, "fixed_tcp", "request"];
    let (mut request, mut values, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    let columns = settings.request.iter().enumerate().map(|column| (&header[..], column));
    for (place, (position, column)) in columns.chain(spec.request.iter().enumerate().map(|column| (&body[..], column)))
    {
        let position = position.to_string();
        let at: Vec<&str> = place.iter().copied().chain([position.as_str()]).collect();
        let Some(kind) = compiler.type_use(&at, &column.kind) else { continue };
        check_bytes(compiler, &at, column.bytes);
        let needs = compiler.templates.needs_of_expression(&column.value);
        compiler.check_settings(&at, needs);
        request.push(Written { name: column.name.clone(), bytes: column.bytes, kind });
        values.push((column.name.clone(), column.value.clone()));
        paths.push(at.iter().map(|part| (*part).to_owned()).chain(["value".to_owned()]).collect());
    }
    let values = compiler.scope(&format!("{name}/request"), &values, &paths);
    let echoed = settings.reply.iter().enumerate().filter_map(|(position, column)| {
        let path = ["connector", "fixed_tcp", "reply"].map(str::to_owned).into_iter();
        let path = path.chain([position.to_string(), "equals".to_owned()]).collect::<Vec<_>>();
        column.equals.clone().map(|equals| ((column.name.clone(), equals), path))
    });
    let (echoed, paths): (Vec<_>, Vec<_>) = echoed.unzip();
    let echo = (!echoed.is_empty()).then(|| compiler.scope(&format!("{name}/echo"), &echoed, &paths));
    let (reply, known) = shape(&spec.reply, settings, compiler, &["exchanges", name, "fixed_tcp", "reply"], 0);
    compiler.replies.insert(name.to_owned(), known);
    let templates = [Some(&values), echo.as_ref()].into_iter().flatten().map(|scope| scope.template().to_owned());
    compiler.requests.insert(name.to_owned(), templates.collect());
    Exchange { transaction: spec.transaction.clone(), request, values, echo, reply }
}

/// Resolves the names of columns; also tells what mappings may ask of them.
fn shape(
    columns: &[ReplyColumn],
    settings: &Settings,
    compiler: &mut Compiler<'_>,
    path: &[&str],
    depth: usize,
) -> (Shape, Known) {
    let (mut names, mut parts, mut known) = (Vec::new(), Vec::new(), Vec::new());
    for (position, column) in columns.iter().enumerate() {
        let position = position.to_string();
        let at: Vec<&str> = path.iter().copied().chain([position.as_str()]).collect();
        if names.contains(&column.name) {
            compiler.problem(&at, format!("`{}` stands here twice", column.name));
        }
        let Some((part, knows)) = part(column, &names, settings, compiler, &at, depth) else {
            // Noted; what asks for the column need not be noted as well.
            known.push((column.name.clone(), Known::Anything));
            continue;
        };
        names.push(column.name.clone());
        parts.push(part);
        known.push((column.name.clone(), knows));
    }
    (Shape { names: names.into(), parts }, Known::Record(known))
}

fn part(
    column: &ReplyColumn,
    before: &[String],
    settings: &Settings,
    compiler: &mut Compiler<'_>,
    at: &[&str],
    depth: usize,
) -> Option<(Part, Known)> {
    let group = |name: &str, compiler: &mut Compiler<'_>| {
        let found = settings.groups.get(name).filter(|_| depth < GROUPS_DEEP_MAX);
        if found.is_none() {
            let groups = settings.groups.names().collect::<Vec<_>>().join(", ");
            compiler.problem(at, format!("there is no group `{name}` (or it is too deep); expected one of {groups}"));
        }
        Some(shape(found?, settings, compiler, &["connector", "fixed_tcp", "groups", name], depth + 1))
    };
    match column {
        ReplyColumn {
            bytes: Some(bytes), kind: Some(kind), group: None, count: None, max: None, key: None, ..
        } => {
            check_bytes(compiler, at, *bytes);
            Some((Part::Column(Column { bytes: *bytes, kind: compiler.type_use(at, kind)? }), Known::Value))
        }
        ReplyColumn {
            bytes: None,
            kind: None,
            equals: None,
            group: Some(name),
            count: None,
            max: None,
            key: None,
            ..
        } => {
            let (shape, known) = group(name, compiler)?;
            Some((Part::Once(shape), known))
        }
        ReplyColumn {
            bytes: None,
            kind: None,
            equals: None,
            group: Some(name),
            count: Some(count),
            max: Some(max),
            key: Some(key),
            ..
        } => {
            let (shape, known) = group(name, compiler)?;
            if !before.contains(count) {
                compiler.problem(at, format!("`count` must be a column before it; there is no `{count}`"));
            }
            if !shape.names.contains(key) {
                compiler.problem(at, format!("`{name}` has no column `{key}`"));
            }
            let part = Part::Counted { count: count.clone(), max: *max, key: key.clone(), shape };
            Some((part, Known::List(Box::new(known))))
        }
        _ => {
            let forms = "expected {name, bytes, type}, {name, group}, or {name, group, count, max, key}";
            compiler.problem(at, forms);
            None
        }
    }
}

fn check_bytes(compiler: &mut Compiler<'_>, at: &[&str], bytes: usize) {
    if !(1..=COLUMN_BYTES_MAX).contains(&bytes) {
        compiler.problem(at, format!("`bytes` must be 1 to {COLUMN_BYTES_MAX}"));
    }
}
