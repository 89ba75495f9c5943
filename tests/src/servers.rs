//! Real PostgreSQL and Redis for tests.
//!
//! `start` uses the server that the variables `TEST_POSTGRES_URL` and `TEST_REDIS_URL` name (`tests/servers.sh` sets
//! them for a whole run); without them it starts one for this process, from Debian's packages, and stops it when the last handle
//! is dropped. `private` always starts one of its own, for tests that pause or kill it. A test that needs a server and finds
//! neither fails, with what to install; it never passes over.
//!
//! Every test takes a schema or a key prefix of its own ([`Postgres::schema`], [`Redis::prefix`]), so that tests share a server.
//!
//! This file needs the standard library only, so that a crate whose tests come before this package may include it by path:
//! `#[path = "../../../tests/src/servers.rs"] mod servers;`

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How often and how long a starting server is asked whether it is there: 20 s in all.
const POLLS: u32 = 400;
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// A PostgreSQL server with the rights of its superuser.
#[derive(Clone)]
pub struct Postgres {
    url: String,
    own: Option<Arc<Server>>,
}

/// A Redis server.
#[derive(Clone)]
pub struct Redis {
    url: String,
    own: Option<Arc<Server>>,
}

/// A server that this process started, in a directory of its own.
struct Server {
    child: Mutex<Child>,
    /// What has to be run again after a kill.
    command: Mutex<Command>,
    url: String,
    port: u16,
    answers: fn(u16) -> bool,
    dir: PathBuf,
    watch: Mutex<Child>,
}

static SHARED_POSTGRES: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static SHARED_REDIS: Mutex<Weak<Server>> = Mutex::new(Weak::new());

impl Postgres {
    /// Uses the run's server, or starts one for this process.
    pub fn start() -> Self {
        match variable("TEST_POSTGRES_URL") {
            Some(url) => Self { url, own: None },
            None => Self::of(shared(&SHARED_POSTGRES, start_postgres)),
        }
    }

    /// Starts one for this handle alone.
    pub fn private() -> Self {
        Self::of(Arc::new(start_postgres()))
    }

    /// Starts one for this handle alone that keeps what it acknowledges, as one in production does.
    pub fn synced() -> Self {
        Self::of(Arc::new(start_postgres_with(&[])))
    }

    fn of(server: Arc<Server>) -> Self {
        Self { url: server.url.clone(), own: Some(server) }
    }

    /// Returns `postgres://USER:PASSWORD@127.0.0.1:PORT/postgres`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a schema name that no other test has.
    pub fn schema(&self) -> String {
        unique("t")
    }

    /// Stops a private server's processes in their tracks (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&self) {
        self.server().signal("STOP", true);
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        self.server().signal("CONT", true);
    }

    /// Kills a private server (SIGKILL); its data stay.
    pub fn kill(&self) {
        self.server().kill();
    }

    /// Starts a killed private server again, on the same port and data.
    pub fn restart(&self) {
        self.server().restart();
    }

    fn server(&self) -> &Server {
        self.own.as_ref().expect("only a private server may be disturbed")
    }
}

impl Redis {
    /// Uses the run's server, or starts one for this process.
    pub fn start() -> Self {
        match variable("TEST_REDIS_URL") {
            Some(url) => Self { url, own: None },
            None => Self::of(shared(&SHARED_REDIS, start_redis)),
        }
    }

    /// Starts one for this handle alone.
    pub fn private() -> Self {
        Self::of(Arc::new(start_redis()))
    }

    fn of(server: Arc<Server>) -> Self {
        Self { url: server.url.clone(), own: Some(server) }
    }

    /// Returns `redis://:PASSWORD@127.0.0.1:PORT/`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a key prefix that no other test has.
    pub fn prefix(&self) -> String {
        unique("t")
    }

    /// Stops a private server in its tracks (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&self) {
        self.server().signal("STOP", false);
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        self.server().signal("CONT", false);
    }

    /// Kills a private server (SIGKILL); it keeps nothing.
    pub fn kill(&self) {
        self.server().kill();
    }

    /// Starts a killed private server again, empty, on the same port.
    pub fn restart(&self) {
        self.server().restart();
    }

    fn server(&self) -> &Server {
        self.own.as_ref().expect("only a private server may be disturbed")
    }
}

impl Server {
    /// Sends a signal to the server and, where each connection is a process of its own, to those as well.
    fn signal(&self, name: &str, children: bool) {
        let parent = locked(&self.child).id();
        let mut ids = vec![parent.to_string()];
        if children {
            let of_parent = format!("/proc/{parent}/task/{parent}/children");
            ids.extend(fs::read_to_string(of_parent).unwrap_or_default().split_whitespace().map(str::to_owned));
        }
        let sent = Command::new("kill").arg("-s").arg(name).args(&ids).stderr(Stdio::null()).status();
        assert!(sent.is_ok(), "kill is not there");
    }

    fn kill(&self) {
        self.signal("KILL", true);
        let _ = locked(&self.child).wait();
        // The processes of a killed PostgreSQL hold its port and memory until they see that it is gone.
        wait_until("the killed server to let go of its port", || TcpStream::connect(("127.0.0.1", self.port)).is_err());
    }

    fn restart(&self) {
        wait_until("the server to answer", || {
            let mut child = locked(&self.child);
            // A process that a killed PostgreSQL was just begetting holds its memory a moment longer: the next one then ends at once.
            if !matches!(child.try_wait(), Ok(None)) {
                *child = locked(&self.command).spawn().expect("the server starts again");
            }
            drop(child);
            (self.answers)(self.port)
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = locked(&self.watch).kill();
        let _ = locked(&self.watch).wait();
        self.signal("CONT", true);
        // The quick end: what these servers hold is thrown away. SIGQUIT lets PostgreSQL end its children, Redis obeys SIGKILL only.
        self.signal("QUIT", false);
        let mut child = locked(&self.child);
        for _ in 0..POLLS {
            if !matches!(child.try_wait(), Ok(None)) {
                break;
            }
            thread::sleep(POLL_PAUSE);
        }
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Hands out the process's one server, and starts it when nobody has one. It stops with its last handle: a static would never.
fn shared(slot: &Mutex<Weak<Server>>, start: fn() -> Server) -> Arc<Server> {
    let mut slot = locked(slot);
    slot.upgrade().unwrap_or_else(|| {
        let server = Arc::new(start());
        *slot = Arc::downgrade(&server);
        server
    })
}

/// Not synced: these data outlive a killed process, and need not outlive the machine.
fn start_postgres() -> Server {
    start_postgres_with(&["fsync=off", "full_page_writes=off"])
}

fn start_postgres_with(settings: &[&str]) -> Server {
    let bin = postgres_bin();
    let dir = private_dir("postgres");
    let (data, password) = (dir.join("data"), hex(16));
    fs::write(dir.join("password"), &password).expect("the directory is ours");
    let as_user = Account::for_postgres(&dir);
    let mut initdb = as_user.command(&bin.join("initdb"));
    initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "-N"]);
    initdb.arg(format!("--pwfile={}", dir.join("password").display()));
    let made = initdb.output().expect("initdb runs");
    assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
    serve(dir.clone(), &format!("postgres://postgres:{password}@127.0.0.1"), "/postgres", postgres_answers, |port| {
        let mut command = as_user.command(&bin.join("postgres"));
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        let common =
            ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200", "shared_buffers=32MB"];
        for setting in common.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        command
    })
}

fn start_redis() -> Server {
    let binary = find("redis-server").expect("redis-server is missing: apt-get install redis-server, or run make test");
    let dir = private_dir("redis");
    let password = hex(16);
    let url = format!("redis://:{password}@127.0.0.1");
    serve(dir.clone(), &url, "/", redis_answers, |port| {
        let conf = dir.join("conf");
        let text = format!("port {port}\nbind 127.0.0.1\nrequirepass {password}\nsave \"\"\nappendonly no\n");
        fs::write(&conf, text).expect("the directory is ours");
        let mut command = Command::new(&binary);
        command.arg(conf).current_dir(&dir);
        command
    })
}

/// Starts a server on a free port. Between finding the port and using it another process may take it: then it is tried again.
fn serve(dir: PathBuf, url: &str, path: &str, answers: fn(u16) -> bool, make: impl Fn(u16) -> Command) -> Server {
    for _ in 0..8 {
        let port = free_port();
        let log = File::create(dir.join("log")).expect("the directory is ours");
        let mut command = make(port);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let mut child = command.spawn().expect("the server starts");
        for _ in 0..POLLS {
            if !matches!(child.try_wait(), Ok(None)) {
                break;
            }
            if answers(port) {
                let watch = Mutex::new(watch(child.id(), &dir));
                let url = format!("{url}:{port}{path}");
                let (child, command) = (Mutex::new(child), Mutex::new(command));
                return Server { child, command, url, port, answers, dir, watch };
            }
            thread::sleep(POLL_PAUSE);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    panic!("the server does not start: {log}");
}

/// Ends the server should this process be killed before it can.
fn watch(server: u32, dir: &Path) -> Child {
    let script = "while kill -0 \"$1\" 2>/dev/null; do sleep 0.5; done; kill -s CONT \"$2\"; kill -s QUIT \"$2\"; \
                  sleep 1; kill -s KILL \"$2\"; rm -rf \"$3\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "watch", &std::process::id().to_string(), &server.to_string()]).arg(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sh is there")
}

/// Tells whether PostgreSQL takes logins: it listens before it is ready, and refuses until then.
fn postgres_answers(port: u16) -> bool {
    // A start-up packet for a user `ping`: a ready server asks it for a password ('R'), one that is starting sends an error ('E').
    answer(port, b"\0\0\0\x13\0\x03\0\0user\0ping\0\0") == Some(b'R')
}

fn redis_answers(port: u16) -> bool {
    answer(port, b"PING\r\n").is_some()
}

/// Sends a few bytes and returns the first one of the answer.
fn answer(port: u16, question: &[u8]) -> Option<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut answer = [0; 1];
    stream.write_all(question).and_then(|()| stream.read_exact(&mut answer)).ok()?;
    Some(answer[0])
}

/// Who runs the server: PostgreSQL refuses root, for whom the package has made the user `postgres`.
struct Account {
    root: bool,
}

impl Account {
    fn for_postgres(dir: &Path) -> Self {
        let root = run("id", &["-u"]).trim() == "0";
        if root {
            run("chown", &["-R", "postgres", dir.to_str().expect("a path in UTF-8")]);
        }
        Self { root }
    }

    fn command(&self, program: &Path) -> Command {
        if !self.root {
            return Command::new(program);
        }
        // `setpriv` becomes the program; `runuser` would stay as its parent and take our signals in its place.
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
        command
    }
}

fn postgres_bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    let version = |bin: &PathBuf| bin.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    newest
        .max_by_key(version)
        .or_else(|| find("initdb").and_then(|initdb| initdb.parent().map(Path::to_owned)))
        .expect("PostgreSQL is missing: apt-get install postgresql, or run make test")
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.exists())
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
}

/// Makes a directory that its owner alone can enter, outside the source tree: the user `postgres` may not reach that.
fn private_dir(kind: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("lastmile-{kind}-{}", unique("d")));
    fs::create_dir(&dir).expect("the directory for temporary files is writable");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).expect("the directory is ours");
    dir
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}_{}_{}", COUNT.fetch_add(1, Ordering::Relaxed), hex(6))
}

/// Draws that many random bytes, in hexadecimal.
fn hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).expect("the kernel has random bytes");
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("a basic command is there");
    assert!(output.status.success(), "{program} failed");
    String::from_utf8(output.stdout).expect("it prints text")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..POLLS {
        if done() {
            return;
        }
        thread::sleep(POLL_PAUSE);
    }
    panic!("waited in vain for {what}");
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
