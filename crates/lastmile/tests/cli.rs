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

/// Where this repository's data are: the binary is started elsewhere.
fn data() -> [String; 3] {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository");
    [
        ("catalog.data_dir", "data"),
        ("catalog.schemas_dir", "departments/schemas"),
        ("adapter.departments_dir", "departments"),
    ]
    .map(|(key, folder)| format!("--set={key}={}", root.join(folder).display()))
}

struct Serving {
    child: Child,
    told: Vec<String>,
}

/// Starts all roles on free ports and reads what is printed until they are ready.
fn serve(place: &Path, more: &[&str]) -> Serving {
    let free = ["public", "callbacks", "operations"].map(|name| format!("--set=listen.{name}=127.0.0.1:0"));
    let data = data();
    let given = free.iter().chain(&data).map(String::as_str).chain(more.iter().copied());
    let arguments: Vec<&str> = ["serve"].into_iter().chain(given).collect();
    let mut child = lastmile(place, &arguments).stdout(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
    let mut told = Vec::new();
    while !told.last().is_some_and(|line: &String| line.starts_with("ready")) {
        told.push(lines.next().expect("it says that it is ready").expect("text"));
    }
    // What comes after is for people; somebody has to read it.
    std::thread::spawn(move || lines.for_each(drop));
    Serving { child, told }
}

impl Serving {
    /// The address that is printed behind a name.
    fn at(&self, name: &str) -> String {
        let line = self.told.iter().find_map(|line| line.strip_prefix(name)).expect("the address is printed");
        let address = line.split_whitespace().next().expect("an address");
        address.trim_start_matches("http://").to_owned()
    }

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
    let serving = serve(place.path(), &[]);
    let asked = format!("--set=listen.operations={}", serving.at("operations"));
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
    let data = data();
    let free = ["--set=listen.callbacks=127.0.0.1:0", "--set=listen.operations=127.0.0.1:0"];
    let given = || free.into_iter().chain(data.iter().map(String::as_str));
    let look = || run(place.path(), &["doctor", public.as_str()].into_iter().chain(given()).collect::<Vec<_>>());
    let doctor = look();
    assert_eq!(doctor.status.code(), Some(1));
    let text = stdout(&doctor);
    assert!(text.contains(&format!("BAD   port listen.public: {address} is held by another program")), "{text}");
    drop(taken);
    let doctor = look();
    assert_eq!(doctor.status.code(), Some(0), "{}", stdout(&doctor));
    assert!(stdout(&doctor).contains("ok    catalogue: "), "{}", stdout(&doctor));
    assert!(stdout(&doctor).contains("warn  entry points: none is configured"), "{}", stdout(&doctor));
}

#[test]
fn what_is_printed_first_can_be_done_first() {
    let place = tempfile::tempdir().expect("a directory");
    let systems = ["control", "wechatpay", "police_430100", "police_140100"];
    let systems = systems.map(|name| format!("--set=sandbox.systems.{name}.listen=127.0.0.1:0"));
    let mut sandbox: Vec<&str> = systems.iter().map(String::as_str).collect();
    sandbox.push("--set=sandbox.enabled=true");
    let serving = serve(place.path(), &sandbox);
    let (to, control) = (format!("http://{}", serving.at("public")), serving.at("sandbox"));
    for (fault, last) in [(None, "are 0, as the police tell them"), (Some("amount-changed"), "as the police tell them")]
    {
        let mut play = vec!["demo", "--to", &to, "--control", &control];
        play.extend(fault.into_iter().flat_map(|fault| ["--fault", fault]));
        let demo = run(place.path(), &play);
        assert_eq!(demo.status.code(), Some(0), "{}{}", stdout(&demo), stderr(&demo));
        assert!(stdout(&demo).trim_end().ends_with(last), "{}", stdout(&demo));
    }
    assert_eq!(serving.stop(), Some(0));
    let demo = run(place.path(), &["demo", "--to", &to, "--control", &control]);
    assert_eq!(demo.status.code(), Some(1));
    assert!(stderr(&demo).contains("no sandbox at"), "{}", stderr(&demo));
}

#[test]
fn the_files_of_both_topologies_are_right_and_drills_are_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let given = |files: &[&str], role: &str| {
        let mut command = lastmile(&root, &["config", "check"]);
        command.args(files.iter().map(|file| format!("--config=deploy/config/{file}.toml")));
        command.env("LASTMILE_SERVE__ROLES", role).output().expect("runs")
    };
    for (files, role) in [(vec!["single"], ""), (vec!["split"], "cases"), (vec!["split", "split-sandbox"], "sandbox")] {
        let checked = given(&files, role);
        assert_eq!(checked.status.code(), Some(0), "{files:?}: {}", stderr(&checked));
    }
    let points = stdout(&run(&root, &["drill", "crash-points"]));
    for point in ["cases.settle.before_send", "payments.book.before_commit", "adapter.settle.after_send"] {
        assert!(points.lines().any(|line| line == point), "{point} is not listed");
    }
    let checked = run(&root, &["adapter", "check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", stdout(&checked));
}

#[test]
fn what_the_split_topology_needs_before_it_starts_is_made_once() {
    let place = tempfile::tempdir().expect("a directory");
    let made = run(place.path(), &["ca", "ensure"]);
    assert_eq!(stdout(&made).lines().count(), 7, "a certificate a role: {}", stderr(&made));
    assert_eq!(stdout(&run(place.path(), &["ca", "ensure"])), "", "nothing is missing");
    let keys = run(place.path(), &["sandbox", "keys"]);
    assert_eq!(keys.status.code(), Some(0), "{}", stderr(&keys));
    assert!(place.path().join("var/sandbox/wechatpay/platform/public_key.pem").exists());
}
