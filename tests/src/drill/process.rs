//! One `lastmile serve` as an operator starts it: the real binary, killed as the kernel kills it.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use runtime::Context;
use runtime::crash::Plan;
use runtime::http::{Client, Options};
use tokio::time::Instant;

use super::watch::Roster;

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(40);
const GLANCE: Duration = Duration::from_millis(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const SIGKILL: i32 = 9;
/// What is shown of a log when its process does not do what it should.
const LOG_SHOWN_BYTES: usize = 4_000;

/// The project's root, which the relative paths of the configuration start from.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The binary under test: what a drill is told, else the one beside the running test.
///
/// Errors: it was not built.
pub fn binary(told: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let found = match told {
        Some(path) => path,
        None => {
            let own = std::env::current_exe()?;
            // target/PROFILE/deps/it-… and target/PROFILE/lastmile-drill both have it within reach.
            let mut places = own.ancestors().skip(1).take(2).map(|place| place.join("lastmile"));
            places.find(|path| path.is_file()).context("lastmile is not built: cargo build -p lastmile")?
        }
    };
    found.canonicalize().with_context(|| format!("{}: cargo build -p lastmile", found.display()))
}

/// Asks the binary for its crash points.
pub fn crash_points(binary: &Path) -> anyhow::Result<Vec<String>> {
    let output = Command::new(binary).args(["drill", "crash-points"]).output()?;
    ensure!(output.status.success(), "drill crash-points: {}", output.status);
    let points: Vec<String> = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
    ensure!(!points.is_empty(), "no crash points");
    Ok(points)
}

/// Finds free ports, all different, and never gives one out twice.
///
/// They lie below those that the kernel gives to connections, so that a process that is killed finds its own free when it comes back.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let mut found = Vec::new();
    for _ in PORTS {
        if found.len() == count {
            return Ok(found);
        }
        // Processes that drill at the same time begin at different places.
        let place = std::process::id().wrapping_mul(499).wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + u16::try_from(place % u32::from(PORTS.end - PORTS.start))?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            found.push(port);
        }
    }
    bail!("fewer than {count} ports are free")
}

/// How a process ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// By SIGKILL, at the crash point that it named with its last words.
    AtPoint(String),
    /// In any other way; none is expected.
    Otherwise(String),
}

/// A process of the cluster, running or not.
pub struct Process {
    name: String,
    binary: PathBuf,
    arguments: Vec<String>,
    operations: String,
    log: PathBuf,
    child: Option<Child>,
    /// How much was logged before this start.
    logged: u64,
    http: Client,
    roster: Roster,
}

impl Process {
    /// Describes a process; it is not started. `operations` is its operations listener, which it is asked by whether it is ready.
    /// While it runs it stands in the roster.
    pub fn new(
        context: &Context,
        roster: &Roster,
        binary: &Path,
        name: &str,
        arguments: Vec<String>,
        operations: String,
        log: PathBuf,
    ) -> Self {
        Self {
            name: name.to_owned(),
            binary: binary.to_owned(),
            arguments,
            operations,
            log,
            child: None,
            logged: 0,
            http: Client::new(context.net.clone(), context.clock.clone(), Options::default()),
            roster: roster.clone(),
        }
    }

    /// Its name in reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the running process.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Where it logs.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts it, with a crash point armed or none, and does not wait.
    pub fn spawn(&mut self, armed: Option<&Plan>) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        self.logged = log.metadata()?.len();
        // Should the drill itself be killed, the kernel ends what it started.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.binary).arg("serve").args(&self.arguments);
        if let Some(Plan { point, hit }) = armed {
            command.args(["--set", &format!("drill.crash={point}:{hit}")]);
        }
        command.current_dir(root());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("setpriv is there")?;
        self.roster.names().insert(self.name.clone(), (child.id(), self.operations.clone()));
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it is ready, or has died.
    pub async fn ready(&mut self) -> anyhow::Result<Option<Death>> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(death) = self.died()? {
                return Ok(Some(death));
            }
            let asked = http::Request::get(format!("http://{}/health/ready", self.operations));
            let answer = self.http.send(asked.body(bytes::Bytes::new())?, ASK_TIMEOUT, 64 * 1024).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(None);
            }
            ensure!(Instant::now() < deadline, "{} is not ready: {}", self.name, self.last_words());
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Tells how it died, if it did; it can be started again then.
    pub fn died(&mut self) -> anyhow::Result<Option<Death>> {
        let Some(child) = &mut self.child else { bail!("{} does not run", self.name) };
        let status = {
            // Its number is free from the moment in which its end is known.
            let mut living = self.roster.names();
            let Some(status) = child.try_wait()? else { return Ok(None) };
            living.remove(&self.name);
            status
        };
        self.child = None;
        Ok(Some(self.death(status)))
    }

    /// kill -9.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            self.roster.names().remove(&self.name);
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, as an operator stops it; it must drain and end well.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        self.roster.names().remove(&self.name);
        let sent = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status()?;
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                ensure!(status.success(), "{} stopped with {status}: {}", self.name, self.last_words());
                return Ok(());
            }
            tokio::time::sleep(GLANCE).await;
        }
        child.kill()?;
        child.wait()?;
        bail!("{} did not stop (kill: {sent}): {}", self.name, self.last_words())
    }

    /// What it logged since its start.
    fn log_since_start(&self) -> String {
        use std::io::{Read as _, Seek as _, SeekFrom};
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.logged))?;
            file.read_to_end(&mut bytes)
        });
        drop(read);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn death(&self, status: ExitStatus) -> Death {
        let log = self.log_since_start();
        let named = log.lines().rev().find_map(|line| {
            line.strip_prefix("crash point ")?.strip_suffix(": killing this process").map(str::to_owned)
        });
        match named {
            Some(point) if status.signal() == Some(SIGKILL) => Death::AtPoint(point),
            _ => Death::Otherwise(format!("{status}: {}", self.last_words())),
        }
    }

    /// The end of its log, for a failure's message.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let from = text.len().saturating_sub(LOG_SHOWN_BYTES);
        String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to tell whether it worked.
        let _ = self.kill();
    }
}
