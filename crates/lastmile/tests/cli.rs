//! The binary as an operator meets it: exit codes, what is printed, and how a running process is asked and stopped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const EXIT_USAGE: Option<i32> = Some(64);

fn lastmile(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastmile"));
    command.env_clear().current_dir(place).args(arguments);
    command
}

fn run(place: &Path, arguments: &[&str]) -> Output {
    lastmile(place, arguments).output().expect("runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

struct Serving {
    child: Child,
    operations: String,
}

/// Starts all roles on free ports and reads where they are.
fn serve(place: &Path) -> Serving {
    let free = ["public", "callbacks", "operations"].map(|name| format!("--set=listen.{name}=127.0.0.1:0"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = [
        ("catalog.data_dir", "data"),
        ("catalog.schemas_dir", "departments/schemas"),
        ("adapter.departments_dir", "departments"),
    ];
    let files = files.map(|(key, folder)| format!("--set={key}={}", root.join(folder).display()));
    let arguments: Vec<&str> = ["serve"].into_iter().chain(free.iter().chain(&files).map(String::as_str)).collect();
    let mut child = lastmile(place, &arguments).stdout(Stdio::piped()).spawn().expect("starts");
    let lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
    let mut lines = lines.map(|line| line.expect("text"));
    let operations = lines.find_map(|line| line.strip_prefix("operations  http://").map(str::to_owned));
    Serving { child, operations: operations.expect("the address is printed") }
}

impl Serving {
    fn stop(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sends the signal");
        self.child.wait().expect("ends").code()
    }
}

#[test]
fn what_is_not_understood_exits_64_and_help_does_not() {
    let place = tempfile::tempdir().expect("a directory");
    for arguments in [&["sevre"] as &[&str], &[], &["serve", "--role", "audit"], &["serve", "--set", "novalue"]] {
        let output = run(place.path(), arguments);
        assert_eq!(output.status.code(), EXIT_USAGE, "{arguments:?}");
    }
    for arguments in [&["--help"] as &[&str], &["serve", "--help"], &["--version"]] {
        assert_eq!(run(place.path(), arguments).status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn every_fault_is_told_before_anything_is_touched() {
    let place = tempfile::tempdir().expect("a directory");
    std::fs::write(place.path().join("a.toml"), "[listen]\npublik = \"x\"\n[serve]\nroles = [\"casses\"]\n")
        .expect("writes");
    for verb in [&["serve"] as &[&str], &["config", "check"]] {
        let arguments: Vec<&str> =
            verb.iter().chain(&["--config", "a.toml", "--set", "drill.crash=a:b"]).copied().collect();
        let output = lastmile(place.path(), &arguments).env("LASTMILE_LISTEN__PUBLIC", "here").output().expect("runs");
        assert_eq!(output.status.code(), EXIT_USAGE);
        let told = stderr(&output);
        for expected in [
            "drill.crash: ",
            "(flag --set)",
            "listen.public: must be ip:port",
            "(environment LASTMILE_LISTEN__PUBLIC)",
            "listen.publik: unknown key (file a.toml)",
            "serve.roles.0: ",
            "4 faults",
        ] {
            assert!(told.contains(expected), "{expected} is not told:\n{told}");
        }
    }
    assert_eq!(std::fs::read_dir(place.path()).expect("lists").count(), 1, "nothing was made");
}

#[test]
fn the_configuration_is_shown_with_its_sources() {
    let place = tempfile::tempdir().expect("a directory");
    let arguments = ["config", "show", "--role"];
    assert_eq!(run(place.path(), &arguments).status.code(), EXIT_USAGE, "--role belongs to serve");
    let shown = lastmile(place.path(), &["config", "show", "--log", "debug"])
        .env("LASTMILE_STORE__CASES__URL", "postgres://cases:hunter2@db/lastmile")
        .output()
        .expect("runs");
    let text = stdout(&shown);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    assert!(line("telemetry.log.filter = \"debug\"").ends_with("# flag --log"), "{text}");
    assert!(line("listen.public = ").ends_with("# default"), "{text}");
    assert!(line("store.cases.url = \"postgres://cases:***@db/lastmile\"").ends_with("STORE__CASES__URL"), "{text}");
    assert!(!text.contains("hunter2"));
    let schema: serde_json::Value =
        serde_json::from_str(&stdout(&run(place.path(), &["config", "schema"]))).expect("is JSON");
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn a_process_serves_is_asked_and_stops_in_peace() {
    let place = tempfile::tempdir().expect("a directory");
    let serving = serve(place.path());
    let asked = format!("--set=listen.operations={}", serving.operations);
    let health = run(place.path(), &["health", &asked]);
    assert_eq!(health.status.code(), Some(0), "{}", stderr(&health));
    assert!(stdout(&health).contains("\"ready\":true"));

    let second = run(place.path(), &["serve", "--set=listen.operations=127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    let pid = serving.child.id().to_string();
    assert!(stderr(&second).contains(&format!("in use by process {pid}")), "{}", stderr(&second));

    let doctor = run(place.path(), &["doctor", &asked]);
    assert!(stdout(&doctor).contains("is held by a running lastmile"), "{}", stdout(&doctor));

    assert_eq!(serving.stop(), Some(0));
    let health = run(place.path(), &["health", &asked]);
    assert_eq!(health.status.code(), Some(1));
    assert!(stderr(&health).contains("nothing answers"), "{}", stderr(&health));
}

#[test]
fn the_doctor_says_what_is_in_the_way() {
    let place = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("an address");
    let public = format!("--set=listen.public={address}");
    let free = ["--set=listen.callbacks=127.0.0.1:0", "--set=listen.operations=127.0.0.1:0"];
    let doctor = run(place.path(), &["doctor", &public, free[0], free[1]]);
    assert_eq!(doctor.status.code(), Some(1));
    let text = stdout(&doctor);
    assert!(text.contains(&format!("BAD   port listen.public: {address} is held by another program")), "{text}");
    drop(taken);
    let doctor = run(place.path(), &["doctor", &public, free[0], free[1]]);
    assert_eq!(doctor.status.code(), Some(0), "{}", stdout(&doctor));
}
