//! The binary as an operator meets it: exit codes, what is printed, and how a running process is asked and stopped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

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

/// Starts all roles on free ports, and reads what is printed until they are ready and the last command to try was named.
fn serve(place: &Path, more: &[&str]) -> Serving {
    let free = ["public", "callbacks", "operations"].map(|name| format!("--set=listen.{name}=127.0.0.1:0"));
    let data = data();
    let given = free.iter().chain(&data).map(String::as_str).chain(more.iter().copied());
    let arguments: Vec<&str> = ["serve"].into_iter().chain(given).collect();
    let mut child = lastmile(place, &arguments).stdout(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
    let mut told = Vec::new();
    while !told.last().is_some_and(|line: &String| line.contains("grpcurl ")) {
        told.push(lines.next().expect("it says what to try").expect("text"));
    }
    assert!(told.iter().any(|line| line.starts_with("ready ")), "{told:?}");
    // What comes after is for people; somebody has to read it.
    std::thread::spawn(move || lines.for_each(drop));
    Serving { child, told }
}

impl Serving {
    /// The address that is printed behind a name.
    fn at(&self, name: &str) -> String {
        let line = self.told.iter().find_map(|line| line.strip_prefix(name)).expect("the address is printed");
        let address = line.split_whitespace().next().expect("an address");
        address.trim_start_matches("https://").trim_start_matches("http://").to_owned()
    }

    /// What is printed with these words in it, word by word.
    fn line(&self, words: &str) -> Option<Vec<&str>> {
        let line = self.told.iter().find(|line| line.contains(words))?;
        Some(line.split_whitespace().collect())
    }

    fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sends the signal");
        self.child.wait().expect("ends").code()
    }
}

/// A test that fails leaves no process behind, which would keep the test's own output open.
impl Drop for Serving {
    fn drop(&mut self) {
        // It may have stopped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    let mut serving = serve(place.path(), &[]);
    let asked = format!("--set=listen.operations={}", serving.at("operations"));
    let lacks = serving.line("Not configured yet").expect("nobody can be served").join(" ");
    for key in ["identity.entry_points", "adapter.profiles", "payments.channels"] {
        assert!(lacks.contains(key), "{lacks}");
    }
    assert!(serving.line("serve --sandbox").is_some(), "what else could be typed: {:?}", serving.told);
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
    let systems = ["control", "wechatpay", "alipay", "police_430100", "police_140100"];
    let systems = systems.map(|name| format!("--set=sandbox.systems.{name}.listen=127.0.0.1:0"));
    let mut sandbox: Vec<&str> = systems.iter().map(String::as_str).collect();
    sandbox.push("--sandbox");
    let mut serving = serve(place.path(), &sandbox);
    assert_eq!(serving.line("Not configured yet"), None, "the sandbox brings everything");
    let printed: Vec<String> =
        serving.line(" demo --to ").expect("is printed").into_iter().skip(1).map(str::to_owned).collect();
    let demo = |more: &[&str]| {
        let words: Vec<&str> = printed.iter().map(String::as_str).chain(more.iter().copied()).collect();
        run(place.path(), &words)
    };
    for (fault, last) in
        [(&[][..], "are 0, as the police tell them"), (&["--fault", "amount-changed"], "police tell them")]
    {
        let played = demo(fault);
        assert_eq!(played.status.code(), Some(0), "{}{}", stdout(&played), stderr(&played));
        assert!(stdout(&played).trim_end().ends_with(last), "{}", stdout(&played));
    }
    let asked = http(&mut TcpStream::connect(serving.at("public")).expect("connects"), &serving.at("public"));
    assert!(asked.contains("\"keys\":["), "what curl would get: {asked}");
    assert_eq!(serving.stop(), Some(0));
    let nobody = demo(&[]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("no sandbox at"), "{}", stderr(&nobody));
}

/// Asks for the key set as curl would.
fn http(stream: &mut (impl Read + Write), host: &str) -> String {
    write!(stream, "GET /.well-known/jwks.json HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").expect("writes");
    let mut answer = Vec::new();
    // Who closes without a word has said all the same what there was to say.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

#[test]
fn what_is_printed_first_speaks_tls_where_the_public_port_does() {
    let place = tempfile::tempdir().expect("a directory");
    for arguments in [&["ca", "init"] as &[&str], &["ca", "issue", "--role", "gateway"]] {
        assert_eq!(run(place.path(), arguments).status.code(), Some(0));
    }
    let of = |name: &str| place.path().join("var/tls/gateway").join(name);
    let (cert, key) = (of("cert.pem"), of("key.pem"));
    let tls =
        [format!("--set=public.cert_file={}", cert.display()), format!("--set=public.key_file={}", key.display())];
    let sandbox = [
        "--sandbox",
        "--set=sandbox.systems.control.listen=127.0.0.1:0",
        "--set=sandbox.systems.wechatpay.listen=127.0.0.1:0",
        "--set=sandbox.systems.alipay.listen=127.0.0.1:0",
        "--set=sandbox.systems.police_430100.listen=127.0.0.1:0",
        "--set=sandbox.systems.police_140100.listen=127.0.0.1:0",
    ];
    let mut serving = serve(place.path(), &tls.iter().map(String::as_str).chain(sandbox).collect::<Vec<_>>());
    let public = serving.at("public");
    assert!(serving.told[0].contains("https://"), "{:?}", serving.told);
    assert_eq!(serving.line("-plaintext").or(serving.line(" demo ")), None, "neither would be answered");
    let words = serving.line("curl -s").expect("is printed");
    let [.., "--connect-to", to, url] = words[..] else { panic!("{words:?}") };
    assert_eq!(to, format!("::{public}"));
    let (host, port) = url.trim_start_matches("https://").split_once(':').expect("a host and a port");
    assert!(port.starts_with(public.rsplit(':').next().expect("a port")), "{url}");
    assert_eq!(
        serving.line("grpcurl -authority").expect("is printed")[..],
        ["grpcurl", "-authority", host, &public, "list"]
    );

    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(&std::fs::read(of("ca.pem")).expect("reads")).expect("a certificate");
    roots.add(ca).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = client.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let name = host.to_owned().try_into().expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(client), name).expect("a session");
    let answer = http(&mut rustls::StreamOwned::new(session, TcpStream::connect(&public).expect("connects")), host);
    assert!(answer.contains("\"keys\":["), "what curl would get: {answer}");
    assert_eq!(serving.stop(), Some(0));
}

#[test]
fn the_files_of_both_topologies_are_right_and_drills_are_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let given = |files: &[&str], role: &str| {
        let mut command = lastmile(&root, &["config", "check"]);
        command.args(files.iter().map(|file| format!("--config=deploy/config/{file}.toml")));
        command.env("LASTMILE_SERVE__ROLES", role).output().expect("runs")
    };
    for (files, role) in [(vec!["default"], ""), (vec!["split"], "cases"), (vec!["split", "split-sandbox"], "sandbox")]
    {
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
    for made in ["wechatpay/platform/public_key.pem", "alipay/alipay_public_key.pem"] {
        assert!(place.path().join("var/sandbox").join(made).exists(), "{made}: {}", stdout(&keys));
    }
}

/// The day's money, offline: an export of the ledger, a department's file, a break, and the exit codes that scripts go by.
#[test]
fn a_day_is_reconciled_from_files() {
    let place = tempfile::tempdir().expect("a directory");
    let missing = run(place.path(), &["ledger", "export", "--day", "2026-11-22", "--to", "ledger.csv"]);
    assert_eq!(missing.status.code(), Some(1), "{}", stderr(&missing));
    assert!(stderr(&missing).contains("there is no ledger at"), "{}", stderr(&missing));
    let head = "side,what,party,number,amount_minor,currency,state,at,age_days";
    let file = |name: &str, side: &str, covers: &str, minor: u32| {
        let row = format!("{side},settlement,traffic-430100,4200001,{minor},CNY,done,2026-11-22T09:30:00,0");
        let text = format!("lastmile-movements,1,2026-11-22,{covers}\n{head}\n{row}\ntotal,1,{minor}\n");
        std::fs::write(place.path().join(name), text).expect("writes");
    };
    file("ledger.csv", "ledger", "ledger", 20_000);
    file("good.csv", "department", "department/traffic-430100", 20_000);
    file("wrong.csv", "department", "department/traffic-430100", 20_001);
    let good = run(place.path(), &["reconcile", "good.csv", "ledger.csv"]);
    assert_eq!((good.status.code(), stdout(&good).as_str()), (Some(0), ""), "{}", stderr(&good));
    assert!(stderr(&good).contains("1 agree, 0 wait for the next day, 0 breaks"), "{}", stderr(&good));
    let wrong = run(place.path(), &["reconcile", "ledger.csv", "wrong.csv"]);
    let table = stdout(&wrong);
    let line = table.lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let expected =
        "amount department/traffic-430100 settlement 4200001 done 200.00 CNY done 200.01 CNY 2026-11-22T09:30:00 0";
    assert_eq!((wrong.status.code(), line.as_str()), (Some(1), expected), "{table}");
    let json = run(place.path(), &["reconcile", "--json", "ledger.csv", "wrong.csv"]);
    let one: serde_json::Value = serde_json::from_str(stdout(&json).trim_end()).expect("one line of JSON");
    assert_eq!((&one["kind"], &one["theirs"]["amount_minor"]), (&"amount".into(), &20_001.into()));
    let cut = run(place.path(), &["reconcile", "ledger.csv", "cli.rs"]);
    assert_eq!((cut.status.code(), stdout(&cut).as_str()), (Some(1), ""));
    assert!(stderr(&cut).contains("cli.rs: No such file"), "{}", stderr(&cut));
}
