use std::fmt;
use std::path::PathBuf;
use std::time::Duration as Span;

use runtime::config::{Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

const SCHEMA_BYTES_MAX: usize = 63;

/// Where one service's database is, and how long it may take.
///
/// Shape: one database per service: a SQLite file of its own, or a schema and login of its own on PostgreSQL.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `sqlite:PATH`, a file of this service alone, or `postgres://USER@HOST:PORT/DATABASE`.
    #[serde(serialize_with = "masked")]
    pub url: String,
    /// A file that holds the PostgreSQL password and nothing else; a password in the address itself is not shown, but is less private.
    pub password_file: Option<PathBuf>,
    /// The PostgreSQL schema of this service; made when it is missing. SQLite has no use for it.
    pub schema: Option<String>,
    /// Connections at most: on SQLite for reading, beside the one writer; on PostgreSQL for everything.
    pub readers_max: u32,
    /// How long a call may wait for a connection.
    pub acquire_timeout: Duration,
    /// SQLite: how long a transaction may wait for its turn at the single writer.
    pub writer_timeout: Duration,
    /// How long one statement may run, and how long a commit may go unanswered before it is unknown.
    pub statement_timeout: Duration,
}

/// The two engines, told apart by the scheme of the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            password_file: None,
            schema: None,
            readers_max: 8,
            acquire_timeout: Duration::from_millis(250),
            writer_timeout: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// The defaults for the database at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Notes everything that is wrong, each under its dotted path below `path`.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut note = |key: &str, message: String| problems.push(Problem::new(format!("{path}.{key}"), message));
        if let Err(message) = self.place() {
            note("url", message);
        }
        if let Some(schema) = &self.schema
            && !is_identifier(schema)
        {
            note("schema", "must be lower-case letters, digits and _, starting with a letter, at most 63".to_owned());
        }
        if !(1..=200).contains(&self.readers_max) {
            note("readers_max", "must be from 1 to 200".to_owned());
        }
        let spans = [
            ("acquire_timeout", self.acquire_timeout, 1, 10_000),
            ("writer_timeout", self.writer_timeout, 1, 60_000),
            ("statement_timeout", self.statement_timeout, 100, 600_000),
        ];
        for (key, span, low, high) in spans {
            if !(Span::from_millis(low)..=Span::from_millis(high)).contains(&span.get()) {
                note(key, format!("must be from {low}ms to {high}ms"));
            }
        }
    }

    /// What the database is called in metrics: its schema or its file.
    pub(crate) fn name(&self) -> String {
        let file = self.place().ok().and_then(|place| match place {
            Place::Sqlite(path) => path.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
            Place::Postgres => None,
        });
        file.or_else(|| self.schema.clone()).unwrap_or_else(|| "public".to_owned())
    }

    pub(crate) fn place(&self) -> Result<Place, String> {
        if self.url.starts_with("postgres://") || self.url.starts_with("postgresql://") {
            return Ok(Place::Postgres);
        }
        let Some(path) = self.url.strip_prefix("sqlite:") else {
            return Err("must start with sqlite: or postgres://".to_owned());
        };
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.starts_with(':') || path.contains(['?', '\0']) {
            return Err("sqlite: needs the path of a file, without parameters".to_owned());
        }
        Ok(Place::Sqlite(PathBuf::from(path)))
    }
}

/// Tells whether a name can stand in SQL without quotes.
pub(crate) fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= SCHEMA_BYTES_MAX
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Writes an address with its password as `***`.
pub(crate) fn mask(url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
    match parts {
        Some((scheme, (login, rest))) => {
            let user = login.split(':').next().unwrap_or_default();
            let password = if login.contains(':') { ":***" } else { "" };
            format!("{scheme}://{user}{password}@{}", rest.split('?').next().unwrap_or_default())
        }
        None => url.to_owned(),
    }
}

pub(crate) fn masked<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&mask(url))
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("url", &mask(&self.url)).field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_never_shown() {
        for (url, shown) in [
            ("postgres://pay:hunter2@db:5432/lastmile", "postgres://pay:***@db:5432/lastmile"),
            ("postgres://pay:hun@ter2@db/lastmile?password=hunter2", "postgres://pay:***@db/lastmile"),
            ("postgres://pay@db/lastmile", "postgres://pay@db/lastmile"),
            ("sqlite:/var/lib/lastmile/pay.db", "sqlite:/var/lib/lastmile/pay.db"),
        ] {
            assert_eq!(mask(url), shown);
            assert!(!format!("{:?}", Config::new(url)).contains("hunter2"));
        }
    }

    #[test]
    fn every_problem_is_noted_at_once() {
        let config = Config {
            url: "mysql://x".to_owned(),
            schema: Some("Pay; DROP".to_owned()),
            readers_max: 0,
            statement_timeout: Duration::from_millis(1),
            ..Config::default()
        };
        let mut problems = Vec::new();
        config.validate("payments.store", &mut problems);
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let keys = ["url", "schema", "readers_max", "statement_timeout"];
        assert_eq!(paths, keys.map(|key| format!("payments.store.{key}")));
    }

    #[test]
    fn a_sqlite_address_names_a_file() {
        for (url, path) in [("sqlite:a.db", "a.db"), ("sqlite:/a/b.db", "/a/b.db"), ("sqlite:///a/b.db", "/a/b.db")] {
            assert_eq!(Config::new(url).place(), Ok(Place::Sqlite(PathBuf::from(path))));
        }
        for url in ["sqlite:", "sqlite::memory:", "sqlite:a.db?mode=ro", "a.db", ""] {
            assert!(Config::new(url).place().is_err(), "{url}");
        }
    }
}
