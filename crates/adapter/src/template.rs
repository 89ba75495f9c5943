//! Templates and expressions of one profile, run with fuel, bounds, and nothing undefined.
//!
//! A request body is a template. The expressions of a mapping are compiled together into one template that sets a variable each, so
//! that a whole record is one run and an error's line says which expression it was. Values never appear in errors.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, Output, UndefinedBehavior};

use crate::kind::Misfit;
use crate::types::Types;

/// Instructions that one run may take.
pub const FUEL: u64 = 200_000;
/// Bytes that one run may write.
pub const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest expression or template source.
const SOURCE_BYTES_MAX: usize = 64 * 1024;

/// Variables of a run, by name.
#[derive(Clone, Debug, Default)]
pub struct Vars(BTreeMap<String, Value>);

/// The compiled templates of one profile.
#[derive(Debug)]
pub struct Templates {
    env: Environment<'static>,
}

/// Several expressions that are evaluated together.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    template: String,
    lets: Vec<String>,
    fields: Vec<String>,
    names: Vec<String>,
}

/// A template or expression could not be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct BadSource {
    /// Line within the source, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub what: String,
}

/// A run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Which field of a scope, or which line of a template.
    pub place: Place,
    /// Why.
    pub why: Why,
}

/// A template that was not rendered to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrendered {
    /// How it failed.
    pub failed: Failed,
    /// What was written before.
    pub written: String,
}

/// Where a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A field of a scope.
    Field(String),
    /// A line of a template, from 1.
    Line(usize),
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Something that is not there was used.
    #[error("an undefined value was used")]
    Undefined,
    /// The fuel ran out.
    #[error("it takes more than {FUEL} steps")]
    Fuel,
    /// It wrote too much.
    #[error("it writes more than {OUTPUT_BYTES_MAX} bytes")]
    TooLong,
    /// A value does not fit the department's type.
    #[error("the value does not fit its type: {0}")]
    Misfit(#[from] Misfit),
    /// A value cannot stand in the text.
    #[error("{0} cannot be written into a request")]
    Unwritable(&'static str),
    /// Anything else that the template engine refuses.
    #[error("the expression fails: {0}")]
    Other(String),
}

impl Vars {
    /// Sets a variable.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a variable.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    fn to_value(&self) -> Value {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect::<BTreeMap<_, _>>().into()
    }
}

impl Scope {
    /// Lists the fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(String::as_str)
    }

    /// The name under which the engine keeps the template.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.template
    }

    fn field_of_line(&self, line: usize) -> Option<&str> {
        self.lets.iter().chain(&self.fields).nth(line.saturating_sub(1)).map(String::as_str)
    }
}

impl Templates {
    /// Starts with no templates, and a filter `legacy("type")` that writes a value by one of `types`.
    #[must_use]
    pub fn new(types: Arc<Types>) -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        // A line that holds a tag alone leaves no line behind.
        if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
            env.set_syntax(syntax);
        }
        env.set_fuel(Some(FUEL));
        env.set_recursion_limit(32);
        // State that outlives a loop's turn is what doubling bombs are made of.
        env.remove_global("namespace");
        env.remove_global("debug");
        env.set_auto_escape_callback(|name| {
            if name.ends_with(".xml") { AutoEscape::Custom("xml".into()) } else { AutoEscape::None }
        });
        env.set_formatter(|out, state, value| {
            write_value(out, matches!(state.auto_escape(), AutoEscape::Custom(_)), value)
        });
        env.add_filter("legacy", move |value: Value, name: String| -> Result<String, minijinja::Error> {
            let found = types.find(&name).ok_or_else(|| {
                minijinja::Error::new(ErrorKind::InvalidOperation, format!("there is no type `{name}`"))
            })?;
            found.write(&value).map_err(|misfit| failure(Why::Misfit(misfit)))
        });
        Self { env }
    }

    /// Compiles a template. A name that ends in `.xml` escapes what it inserts.
    pub fn add(&mut self, name: &str, source: &str) -> Result<(), BadSource> {
        check_source(source)?;
        self.env.add_template_owned(name.to_owned(), source.to_owned()).map_err(|error| bad_source(&error))
    }

    /// Compiles expressions to be evaluated together: first the variables of `lets`, each seen by those after it, then `fields`
    /// (name, source). Errors name the expression by its position, `lets` first.
    pub fn add_scope(
        &mut self,
        name: &str,
        lets: &[(String, String)],
        fields: &[(String, String)],
    ) -> Result<Scope, (usize, BadSource)> {
        let mut source = String::new();
        let names: Vec<String> = (0..fields.len()).map(|position| format!("__{position}")).collect();
        let variables = lets.iter().map(|(variable, _)| variable).chain(&names);
        let expressions = lets.iter().chain(fields).map(|(_, expression)| expression);
        for (position, (variable, expression)) in variables.zip(expressions).enumerate() {
            check_source(expression)
                .and_then(|()| {
                    self.env.compile_expression_owned(expression.clone()).map(drop).map_err(|error| bad_source(&error))
                })
                .map_err(|bad| (position, bad))?;
            // One line each: the line of an error is the field.
            let one_line = expression.replace(['\n', '\r'], " ");
            source.push_str(&format!("{{% set {variable} = ({one_line}) %}}\n"));
        }
        self.env.add_template_owned(name.to_owned(), source).map_err(|error| {
            let bad = bad_source(&error);
            (bad.line.saturating_sub(1), bad)
        })?;
        let names_of = |pairs: &[(String, String)]| pairs.iter().map(|(name, _)| name.clone()).collect();
        Ok(Scope { template: name.to_owned(), lets: names_of(lets), fields: names_of(fields), names })
    }

    /// Lists what an expression uses: variables, and their fields with dots. Nothing for one that does not compile.
    #[must_use]
    pub fn needs_of_expression(&self, source: &str) -> Vec<String> {
        let needs =
            self.env.compile_expression_owned(source.to_owned()).map(|compiled| compiled.undeclared_variables(true));
        sorted(needs.unwrap_or_default())
    }

    /// Lists what a template or scope uses, in the same way.
    #[must_use]
    pub fn needs(&self, template: &str) -> Vec<String> {
        let needs = self.env.get_template(template).map(|template| template.undeclared_variables(true));
        sorted(needs.unwrap_or_default())
    }

    /// Renders a template.
    pub fn render(&self, name: &str, vars: &Vars) -> Result<String, Unrendered> {
        let mut out = Bounded::default();
        let rendered = self.env.get_template(name).map_err(|error| failed(&error)).and_then(|template| {
            template.render_captured_to(vars.to_value(), &mut out).map(drop).map_err(|error| out.explain(&error))
        });
        // Only text is written, a whole piece at a time.
        let written = String::from_utf8_lossy(&out.bytes).into_owned();
        match rendered {
            Ok(()) => Ok(written),
            Err(failed) => Err(Unrendered { failed, written }),
        }
    }

    /// Evaluates a scope; values come in the order of its fields, none of them undefined.
    pub fn eval(&self, scope: &Scope, vars: &Vars) -> Result<Vec<Value>, Failed> {
        self.eval_all(scope, vars).map(|evaluated| evaluated.fields)
    }

    /// Evaluates a scope and hands out its variables as well.
    pub fn eval_all(&self, scope: &Scope, vars: &Vars) -> Result<Evaluated, Failed> {
        let named = |failed: Failed| match failed.place {
            Place::Line(line) => Failed {
                place: scope.field_of_line(line).map_or(failed.place, |field| Place::Field(field.to_owned())),
                why: failed.why,
            },
            Place::Field(_) => failed,
        };
        let template = self.env.get_template(&scope.template).map_err(|error| failed(&error))?;
        let mut out = Bounded::default();
        let run = template.render_captured_to(vars.to_value(), &mut out).map_err(|error| named(out.explain(&error)))?;
        let state = run.state();
        let value_of = |name: &String, field: &String| match state.lookup(name) {
            Some(value) if !value.is_undefined() => Ok(value),
            _ => Err(Failed { place: Place::Field(field.clone()), why: Why::Undefined }),
        };
        let fields = scope.names.iter().zip(&scope.fields).map(|(name, field)| value_of(name, field));
        let lets = scope.lets.iter().map(|name| value_of(name, name).map(|value| (name.clone(), value)));
        Ok(Evaluated { fields: fields.collect::<Result<_, _>>()?, lets: lets.collect::<Result<_, _>>()? })
    }
}

/// What a scope came to.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The values of its fields, in order.
    pub fields: Vec<Value>,
    /// Its variables.
    pub lets: Vec<(String, Value)>,
}

/// The engine tells sets in no order; ours must be the same in every run.
fn sorted(needs: impl IntoIterator<Item = String>) -> Vec<String> {
    let ordered: std::collections::BTreeSet<String> = needs.into_iter().collect();
    ordered.into_iter().collect()
}

/// A writer that takes so much and no more.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Bounded {
    fn explain(&self, error: &minijinja::Error) -> Failed {
        let failed = failed(error);
        if self.is_full { Failed { why: Why::TooLong, ..failed } } else { failed }
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len().saturating_add(bytes.len()) > OUTPUT_BYTES_MAX {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a value into a template's text: text and whole numbers alone, escaped for XML where the template is XML.
fn write_value(out: &mut Output<'_>, is_xml: bool, value: &Value) -> Result<(), minijinja::Error> {
    use minijinja::value::ValueKind;
    let refuse = |sort| Err(failure(Why::Unwritable(sort)));
    match value.kind() {
        ValueKind::String => {}
        ValueKind::Number if value.is_integer() => {}
        ValueKind::Undefined => return Err(ErrorKind::UndefinedError.into()),
        ValueKind::None => return refuse("none"),
        ValueKind::Bool => return refuse("a truth value"),
        ValueKind::Number => return refuse("a fraction"),
        _ => return refuse("a list, map or other value"),
    }
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if !is_xml {
        return out.write_str(&text).map_err(minijinja::Error::from);
    }
    for c in text.chars() {
        match c {
            '&' => out.write_str("&amp;"),
            '<' => out.write_str("&lt;"),
            '>' => out.write_str("&gt;"),
            '"' => out.write_str("&quot;"),
            '\'' => out.write_str("&apos;"),
            c if is_xml_char(c) => out.write_str(c.encode_utf8(&mut [0; 4])),
            _ => return refuse("a control character"),
        }
        .map_err(minijinja::Error::from)?;
    }
    Ok(())
}

/// The characters that XML 1.0 can carry, without the ones that readers fold into others.
pub(crate) fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

/// Carries our own reason through the template engine.
fn failure(why: Why) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, why.to_string()).with_source(why)
}

fn failed(error: &minijinja::Error) -> Failed {
    let ours = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Why>());
    let why = match (ours, error.kind()) {
        (Some(why), _) => why.clone(),
        (None, ErrorKind::UndefinedError) => Why::Undefined,
        (None, ErrorKind::OutOfFuel) => Why::Fuel,
        // Not the detail: it may quote a value.
        (None, kind) => Why::Other(kind.to_string()),
    };
    Failed { place: Place::Line(error.line().unwrap_or(1)), why }
}

fn check_source(source: &str) -> Result<(), BadSource> {
    let what = format!("at most {SOURCE_BYTES_MAX} bytes of template are taken");
    if source.len() > SOURCE_BYTES_MAX { Err(BadSource { line: 1, what }) } else { Ok(()) }
}

/// When compiling no data is there yet: the engine's detail can be told.
fn bad_source(error: &minijinja::Error) -> BadSource {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    BadSource { line: error.line().unwrap_or(1), what: format!("{}{detail}", error.kind()) }
}

#[cfg(test)]
mod tests;
