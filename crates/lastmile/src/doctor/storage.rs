//! Is the data directory writable, does a sync reach the disk in good time, do the stores take writes and keep them?

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::{Context, Timestamp};
use store::{Look, Reading, Schema};

use super::Finding;
use crate::{Config, Role, data};

const PROBE_BYTES: usize = 4096;
const PROBES: u32 = 5;
const SYNC_SLOW: Duration = Duration::from_millis(100);
const FREE_BYTES_BAD: u64 = 100 * 1024 * 1024;
const FREE_BYTES_LOW: u64 = 1024 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;
/// What a finding about the pepper is called.
pub(super) const PEPPER: &str = "pepper";

/// Looks at the data directory and at every store; hands over what the servers' clocks showed.
pub(super) async fn check(config: &Config, context: &Context) -> (Vec<Finding>, Vec<(Role, Reading)>) {
    let directory = &config.data.directory;
    let mut findings = vec![writable(directory, context), space(directory)];
    let user = data::user_of(directory);
    if let Some(pid) = &user {
        findings.push(Finding::good("data directory", format!("a running lastmile (process {pid}) uses it")));
    }
    let mut readings = Vec::new();
    for (role, store) in config.stores() {
        let looked = match store::look(&store, context).await {
            Ok(looked) => looked,
            Err(error) => {
                findings.push(refused(role, &error));
                continue;
            }
        };
        if let Some(server) = looked {
            readings.push((role, server.clock));
            findings.push(keeps(role, &server));
            if let Schema::Missing { login, may_make } = &server.schema {
                findings.push(missing(role, &store, login, *may_make));
                continue;
            }
        }
        let (finding, db) = opens(role, &store, context, user.is_some()).await;
        findings.push(finding);
        if let (Role::Identity, Some(db)) = (role, db) {
            findings.extend(pepper(&db, &config.placed().identity.keys_dir).await);
        }
    }
    (findings, readings)
}

fn refused(role: Role, error: &store::Error) -> Finding {
    Finding::bad(format!("store {role}"), chain(error), format!("see store.{role} in the configuration"))
}

/// Whether a server keeps what it has acknowledged, also when its machine crashes, and how long that takes.
fn keeps(role: Role, server: &Look) -> Finding {
    let subject = format!("durability of store {role}");
    let slow = "every payment waits for a commit: put the server's log on a faster disk, or the server nearer";
    match (server.lax.is_empty(), server.commit) {
        (false, _) => Finding::bad(
            subject,
            format!("the server has {}", server.lax.join(", ")),
            "set them to on: what it acknowledges may be lost when its machine crashes",
        ),
        (true, None) => Finding::warning(
            subject,
            "the server syncs what it commits; how long that takes could not be tried",
            "let this login execute pg_logical_emit_message, and see that the server is no standby",
        ),
        (true, Some(span)) if span > SYNC_SLOW => {
            Finding::warning(subject, format!("a synced commit takes {}", millis(span)), slow)
        }
        (true, Some(span)) => Finding::good(subject, format!("a synced commit takes {}", millis(span))),
    }
}

fn missing(role: Role, store: &store::Config, login: &str, may_make: bool) -> Finding {
    let (subject, schema) = (format!("store {role}"), store.schema.as_deref().unwrap_or_default());
    if may_make {
        return Finding::good(subject, format!("the schema {schema} will be made at the first start"));
    }
    Finding::bad(
        subject,
        format!("the schema {schema} is missing, and {login} may not make it"),
        format!("as the owner of the database: CREATE SCHEMA {schema} AUTHORIZATION {login}"),
    )
}

fn millis(span: Duration) -> String {
    format!("{:.1} ms", span.as_secs_f64() * 1_000.0)
}

/// The directory, or the nearest one above it that exists: there the directory would be made.
fn existing(directory: &Path) -> PathBuf {
    let found = directory.ancestors().find(|path| path.is_dir());
    found.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn writable(directory: &Path, context: &Context) -> Finding {
    let subject = "data directory";
    let place = existing(directory);
    match slowest_sync(&place, context) {
        Err(error) => Finding::bad(
            subject,
            format!("{} cannot be written: {error}", place.display()),
            "give this user the directory, or set data.directory",
        ),
        Ok(span) if span > SYNC_SLOW => Finding::warning(
            subject,
            format!("{} takes {} ms to sync", place.display(), span.as_millis()),
            "every payment waits for a sync: put data.directory on a faster disk",
        ),
        Ok(span) => Finding::good(subject, format!("{} is writable, a sync takes {}", place.display(), millis(span))),
    }
}

fn slowest_sync(place: &Path, context: &Context) -> io::Result<Duration> {
    let path = place.join(format!(".lastmile-doctor-{}", context.ids.hex(8)));
    let result = synced_writes(&path);
    fs::remove_file(&path)?;
    result
}

fn synced_writes(path: &Path) -> io::Result<Duration> {
    let mut file = File::create_new(path)?;
    let mut slowest = Duration::ZERO;
    for _ in 0..PROBES {
        let start = tokio::time::Instant::now();
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_data()?;
        slowest = slowest.max(start.elapsed());
    }
    Ok(slowest)
}

fn space(directory: &Path) -> Finding {
    let subject = "disk space";
    let place = existing(directory);
    let free = match rustix::fs::statvfs(&place) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            return Finding::bad(
                subject,
                format!("{}: {error}", place.display()),
                "set data.directory to a local disk",
            );
        }
    };
    let what = format!("{} MiB are free at {}", free / MIB, place.display());
    let remedy = "make room, or set data.directory: a full disk stops every write";
    match free {
        ..FREE_BYTES_BAD => Finding::bad(subject, what, remedy),
        FREE_BYTES_BAD..FREE_BYTES_LOW => Finding::warning(subject, what, remedy),
        FREE_BYTES_LOW.. => Finding::good(subject, what),
    }
}

/// Opens the store as a start would, and tries to write: that proves the file or server, and its lock. A file that is not there yet is not
/// made.
async fn opens(role: Role, store: &store::Config, context: &Context, is_in_use: bool) -> (Finding, Option<store::Db>) {
    let subject = format!("store {role}");
    if let Some(path) = store.url.strip_prefix("sqlite:") {
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        if !path.exists() {
            return (Finding::good(subject, format!("{} will be made at the first start", path.display())), None);
        }
        if is_in_use {
            return (Finding::good(subject, format!("{} is held by the running lastmile", path.display())), None);
        }
    }
    let db = match store::open(store, context.clone()).await {
        Ok(db) => db,
        Err(error) => return (refused(role, &error), None),
    };
    let finding = match db.try_write().await {
        Ok(()) => Finding::good(subject, "it opens and takes writes (one was tried and taken back)"),
        Err(error) => {
            let remedy =
                "let its login make tables in its schema; see that the disk is not full and the server no standby";
            Finding::bad(subject, format!("it takes no writes: {}", chain(&error)), remedy)
        }
    };
    (finding, Some(db))
}

/// People are known by a digest under the pepper: a store without its pepper has lost them. Nothing is said of a store that has no
/// tables yet: it has nobody.
async fn pepper(db: &store::Db, keys_dir: &Path) -> Option<Finding> {
    let remedy = "restore it from the backup of identity.keys_dir; identity does not start without it";
    match identity::pepper_fits(db, keys_dir).await {
        Ok(true) => {
            Some(Finding::good(PEPPER, "it is the one that the store was filled under, or there is nobody yet"))
        }
        Ok(false) => {
            let what = format!("{} has not the one that the store was filled under", keys_dir.display());
            Some(Finding::bad(PEPPER, what, remedy))
        }
        Err(identity::BuildError::Store(store::Error::Statement(_))) => None,
        Err(error) => Some(Finding::bad(PEPPER, chain(&error), remedy)),
    }
}

/// The error with its causes on one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The latest time that anything in the data directory was written.
pub(super) fn last_written(directory: &Path) -> Option<Timestamp> {
    let entries = fs::read_dir(directory).ok()?;
    let times = entries.filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok());
    let latest = times.max()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_micros(0).plus(latest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_directory_that_cannot_be_written_is_bad() {
        let finding = writable(Path::new("/proc/none"), &Context::system());
        assert_eq!(finding.verdict, Verdict::Bad, "{finding}");
        assert!(finding.remedy.is_some());
    }

    #[tokio::test]
    async fn a_store_that_is_not_a_database_is_bad_and_stays_as_it_is() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("cases.db");
        let config = store::Config::new(format!("sqlite:{}", file.display()));
        let context = Context::system();
        assert_eq!(opens(Role::Cases, &config, &context, false).await.0.verdict, Verdict::Good);
        assert!(!file.exists(), "a look makes no file");
        fs::write(&file, "this is not a database, and it is longer than a page header".repeat(20)).expect("writes");
        let (finding, _) = opens(Role::Cases, &config, &context, false).await;
        assert_eq!(finding.verdict, Verdict::Bad, "{finding}");
    }

    #[tokio::test]
    async fn a_store_is_written_to_and_stays_as_it_is() {
        let place = tempfile::tempdir().expect("a directory");
        let config = store::Config::new(format!("sqlite:{}", place.path().join("cases.db").display()));
        let context = Context::system();
        drop(store::open(&config, context.clone()).await.expect("makes it"));
        let (finding, db) = opens(Role::Cases, &config, &context, false).await;
        assert!(finding.verdict == Verdict::Good && finding.what.contains("takes writes"), "{finding}");
        let mut reader = db.expect("is open").read().await.expect("a connection");
        let tables = reader.fetch_all("SELECT name FROM sqlite_master", &[]).await.expect("lists");
        assert_eq!(tables.len(), 0, "what was tried is taken back");
    }

    #[test]
    fn a_server_that_may_lose_work_is_bad_and_a_slow_one_a_warning() {
        let now = Timestamp::from_micros(0);
        let clock = Reading { theirs: now, ours: now, within: Duration::ZERO };
        let look = |lax: &[&str], commit: Option<u64>| Look {
            schema: Schema::There,
            lax: lax.iter().map(|setting| (*setting).to_owned()).collect(),
            commit: commit.map(Duration::from_millis),
            clock,
        };
        for (server, verdict, told) in [
            (look(&[], Some(2)), Verdict::Good, "2.0 ms"),
            (look(&[], Some(120)), Verdict::Warning, "120.0 ms"),
            (look(&[], None), Verdict::Warning, "could not be tried"),
            (look(&["fsync = off"], Some(2)), Verdict::Bad, "fsync = off"),
        ] {
            let finding = keeps(Role::Cases, &server);
            assert!(finding.verdict == verdict && finding.what.contains(told), "{finding}");
        }
    }

    #[test]
    fn a_sync_is_timed_and_leaves_nothing_behind() {
        let place = tempfile::tempdir().expect("a directory");
        let finding = writable(place.path(), &Context::system());
        assert_ne!(finding.verdict, Verdict::Bad, "{finding}");
        assert_eq!(fs::read_dir(place.path()).expect("lists").count(), 0);
    }
}
