//! Item schemas: what inputs, records and results are held to. Read from files, compiled once, never fetched.

use std::path::{Path, PathBuf};

use jsonschema::Validator;

use crate::profile::SchemaName;

/// Most violations that are told at once.
const VIOLATIONS_MAX: usize = 32;
/// Largest schema file.
const SCHEMA_BYTES_MAX: u64 = 1024 * 1024;

/// A compiled item schema.
#[derive(Debug)]
pub struct Schema {
    name: SchemaName,
    properties: Vec<String>,
    subjects: Vec<(String, String)>,
    validator: Validator,
}

/// One way in which a value breaks its schema.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path of the field, with dots; empty for the whole.
    pub field: String,
    /// What is wrong, without the value.
    pub what: String,
}

/// A schema that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no JSON, no schema, or not the one that was named.
    #[error("{}: {what}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong and what would be right.
        what: String,
    },
}

impl Schema {
    /// Reads and compiles `<dir>/<id>.json`.
    ///
    /// Errors: `Bad` also when its `x-lastmile-version` is not the version that was named, or a reference leads out of the file.
    pub fn load(dir: &Path, name: &SchemaName) -> Result<Self, SchemaError> {
        let path = dir.join(format!("{}.json", name.id));
        let io = |source| SchemaError::Io { path: path.clone(), source };
        let bad = |what: String| SchemaError::Bad { path: path.clone(), what };
        let length = std::fs::metadata(&path).map_err(io)?.len();
        if length > SCHEMA_BYTES_MAX {
            return Err(bad(format!("a schema has at most {SCHEMA_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(&path).map_err(io)?;
        let document: serde_json::Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let version = document.get("x-lastmile-version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(name.version)) {
            return Err(bad(format!("expected \"x-lastmile-version\": {}", name.version)));
        }
        Self::compile(name.clone(), &document).map_err(bad)
    }

    /// Compiles a schema.
    pub fn compile(name: SchemaName, document: &serde_json::Value) -> Result<Self, String> {
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(true)
            .build(document)
            .map_err(|error| error.to_string())?;
        let declared = document.get("properties").and_then(serde_json::Value::as_object);
        let mut properties: Vec<String> = declared.into_iter().flatten().map(|(field, _)| field.clone()).collect();
        properties.sort();
        let subject_of = |(field, declared): (&String, &serde_json::Value)| {
            let subject = declared.get("x-lastmile-subject")?.as_str()?;
            Some((field.clone(), subject.to_owned()))
        };
        let mut subjects: Vec<_> = declared.into_iter().flatten().filter_map(subject_of).collect();
        subjects.sort();
        Ok(Self { name, properties, subjects, validator })
    }

    /// Returns its name and version.
    #[must_use]
    pub fn name(&self) -> &SchemaName {
        &self.name
    }

    /// Lists the fields that it declares at its root.
    #[must_use]
    pub fn properties(&self) -> &[String] {
        &self.properties
    }

    /// Lists its subject-bound fields: field, subject (`x-lastmile-subject`).
    #[must_use]
    pub fn subjects(&self) -> &[(String, String)] {
        &self.subjects
    }

    /// Holds a value to the schema. Nothing to tell means that it fits.
    #[must_use]
    pub fn check(&self, value: &serde_json::Value) -> Vec<Violation> {
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        let told = self.validator.iter_errors(value).take(VIOLATIONS_MAX).map(|error| Violation {
            field: error.instance_path().as_str().trim_start_matches('/').replace('/', "."),
            what: error.masked().to_string(),
        });
        let mut violations: Vec<_> = told.collect();
        violations.sort();
        violations
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name() -> SchemaName {
        SchemaName { id: "a/input".into(), version: 1 }
    }

    fn schema(document: &serde_json::Value) -> Schema {
        Schema::compile(name(), document).expect("compiles")
    }

    #[test]
    fn tells_every_violation_and_never_the_value() {
        let schema = schema(&json!({
            "type": "object",
            "properties": {
                "plate": { "type": "string", "maxLength": 8, "x-lastmile-subject": "plate" },
                "when": { "type": "string", "format": "date-time" },
            },
            "additionalProperties": false,
        }));
        assert_eq!(schema.check(&json!({"plate": "湘A8K2J6", "when": "2026-11-12T00:31:00Z"})), []);
        let violations = schema.check(&json!({"plate": "湘A8K2J6-secret", "when": "yesterday"}));
        let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["plate", "when"]);
        assert!(violations.iter().all(|violation| !violation.what.contains("secret")), "{violations:?}");
        assert_eq!(schema.subjects(), [("plate".to_owned(), "plate".to_owned())]);
        assert_eq!(schema.properties(), ["plate", "when"]);
    }

    #[test]
    fn a_reference_out_of_the_file_is_refused() {
        for target in ["https://example.com/x.json", "file:///etc/passwd", "other.json"] {
            assert!(Schema::compile(name(), &json!({ "$ref": target })).is_err(), "{target}");
        }
    }

    #[test]
    fn the_version_must_be_the_one_that_was_named() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("a")).expect("a folder");
        std::fs::write(dir.path().join("a/input.json"), r#"{"x-lastmile-version": 2}"#).expect("writes");
        let error = Schema::load(dir.path(), &name()).expect_err("another version");
        assert!(error.to_string().contains("\"x-lastmile-version\": 1"), "{error}");
        assert!(matches!(Schema::load(Path::new("/nonexistent"), &name()), Err(SchemaError::Io { .. })));
    }
}
