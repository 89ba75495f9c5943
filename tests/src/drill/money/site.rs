//! Payments alone, its store, which keeps what it acknowledges, and the world outside.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use contracts::payments::v1::payment_service_client::PaymentServiceClient;
use rpc::stack::{BreakerOptions, ClientOptions};
use rpc::tls::{ClientIdentity, RolePem};
use rpc::{Mesh, RemoteOptions, Role, Wire};
use runtime::Context;
use runtime::crash::Plan;
use tokio::time::Duration;

use super::super::process::{Process, free_ports, root};
use super::super::site::{certificates, common};
use super::super::watch::Roster;
use super::ways::BY_REST;
use super::{Plot, Store};
use crate::servers::Postgres;

/// As by default, but for what a payment waits for after a kill, so that thousands of them pass within minutes.
const SETTINGS: &str = r#"
[payments]
answer_timeout = "2s"
[payments.worker]
interval = "100ms"
lease = "4s"
first_look = "1s"
longest_pause = "4s"
quiet = "2s"
[payments.reconcile]
days_back = 0
[payments.channels.wechatpay]
connect_timeout = "500ms"
call_timeout = "1s"
[payments.channels.alipay]
connect_timeout = "500ms"
call_timeout = "1s"
[telemetry.log]
filter = "warn"
[sandbox.systems.alipay]
refund_after = "100ms"
notify_second = "20ms"
[sandbox.systems.wechatpay]
refund_after = "100ms"
notify_second = "20ms"
"#;
/// What the simulated payees have at Alipay, and a merchant that is asked by REST, in certificate mode, for any payee.
const APPS: [(&str, &str, bool); 3] = [
    ("2021000000430100", "2088000000430100", false),
    ("2021000000140100", "2088000000140100", false),
    ("2021000000990001", "2088000000990001", true),
];
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How callers find a peer again that was away: faster than by default, as it is killed all the time.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// The process under test, and its directory.
const PAYMENTS: &str = "payments";
/// What a process leaves in its log when it stands still at a point.
const STANDS_STILL: &str = ": this process stands still";

pub(super) struct Site {
    /// The sandbox.
    pub(super) outside: Process,
    pub(super) payments: Process,
    /// Payments' database.
    pub(super) store: store::Config,
    /// Payments as cases reaches it.
    pub(super) client: PaymentServiceClient<Wire>,
    /// "ip:port" of the sandbox's control port.
    pub(super) control: String,
    /// None where payments has a file of its own.
    postgres: Option<Postgres>,
    binary: PathBuf,
    place: PathBuf,
    config: PathBuf,
    /// How many lines of the log about standing still were read.
    stops_read: usize,
}

impl Site {
    /// Lays everything out in an empty directory; PostgreSQL runs, nothing else yet. Payments will stand still at `stops`.
    pub(super) async fn new(context: &Context, plot: &Plot, place: &Path, stops: &[Plan]) -> anyhow::Result<Self> {
        let binary = &plot.binary;
        let postgres = match plot.store {
            Store::Postgres => Some(tokio::task::spawn_blocking(Postgres::synced).await?),
            Store::Sqlite => None,
        };
        let ports: Vec<String> = free_ports(12)?.into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut free = ports.iter();
        let mut port = || free.next().map(String::as_str).context("enough ports");
        let systems = [port()?, port()?, port()?, port()?, port()?];
        let mut text = common(place, SETTINGS, systems)?;
        at_alipay(&mut text, place)?;
        let store = match &postgres {
            Some(postgres) => on_postgres(&mut text, postgres)?,
            None => store::Config::new(format!("sqlite:{}", place.join(PAYMENTS).join("payments.db").display())),
        };
        writeln!(text, "[tls]\ndirectory = \"{}/tls\"", place.display())?;
        let stops: Vec<String> = stops.iter().map(|Plan { point, hit }| format!("{point}:{hit}")).collect();
        writeln!(text, "[drill]\nstop = {stops:?}")?;
        let config = place.join("drill.toml");
        std::fs::write(&config, text)?;
        let process = |name: &str, mesh: &str, callbacks: &str, operations: &str| {
            let mut arguments = vec!["--config".to_owned(), config.display().to_string()];
            arguments.extend(["--data".to_owned(), place.join(name).display().to_string()]);
            arguments.extend(["--role".to_owned(), name.to_owned()]);
            let listen =
                [("public", "127.0.0.1:0"), ("mesh", mesh), ("callbacks", callbacks), ("operations", operations)];
            for (key, value) in listen {
                arguments.extend(["--set".to_owned(), format!("listen.{key}={value}")]);
            }
            let log = place.join(format!("{name}.log"));
            Process::new(context, &Roster::default(), binary, name, arguments, operations.to_owned(), log)
        };
        let outside = process("sandbox", "", "127.0.0.1:0", port()?);
        let mesh = port()?;
        let payments = process(PAYMENTS, mesh, port()?, port()?);
        certificates(binary, &config, place)?;
        let client = client(context, &place.join("tls").join("cases"), mesh)?;
        let control = systems[0].to_owned();
        Ok(Self {
            outside,
            payments,
            store,
            client,
            control,
            postgres,
            binary: binary.clone(),
            place: place.to_owned(),
            config,
            stops_read: 0,
        })
    }

    /// Starts the world outside and payments.
    pub(super) async fn start(&mut self, armed: Option<&Plan>) -> anyhow::Result<()> {
        self.outside.spawn(None)?;
        let death = self.outside.ready().await?;
        ensure!(death.is_none(), "the sandbox: {death:?}");
        self.start_payments(armed).await
    }

    /// Starts payments, armed or not. One that is armed may die before it is ready.
    pub(super) async fn start_payments(&mut self, armed: Option<&Plan>) -> anyhow::Result<()> {
        self.payments.spawn(armed)?;
        if armed.is_none() {
            let death = self.payments.ready().await?;
            ensure!(death.is_none(), "payments: {death:?}");
        }
        Ok(())
    }

    /// Fails when the world outside has died: nobody kills it, and without it nothing that is seen means anything.
    pub(super) fn outside_lives(&mut self) -> anyhow::Result<()> {
        let death = self.outside.died()?;
        ensure!(death.is_none(), "the sandbox died by itself: {death:?}");
        Ok(())
    }

    /// kill -9 of the postmaster and its children.
    pub(super) async fn kill_postgres(&self) -> anyhow::Result<()> {
        let postgres = self.postgres.clone().context("payments has no PostgreSQL here")?;
        Ok(tokio::task::spawn_blocking(move || postgres.kill()).await?)
    }

    /// Starts PostgreSQL again, and waits until it has recovered.
    pub(super) async fn restart_postgres(&self) -> anyhow::Result<()> {
        let postgres = self.postgres.clone().context("payments has no PostgreSQL here")?;
        Ok(tokio::task::spawn_blocking(move || postgres.restart()).await?)
    }

    /// Lets others have the store: a file has one process at a time, which is payments until it is stopped.
    pub(super) async fn hand_over(&mut self) -> anyhow::Result<()> {
        match self.postgres {
            Some(_) => Ok(()),
            None => self.payments.stop().await,
        }
    }

    /// Gives the store back to payments.
    pub(super) async fn take_back(&mut self) -> anyhow::Result<()> {
        match self.postgres {
            Some(_) => Ok(()),
            None => self.start_payments(None).await,
        }
    }

    /// One more death at the end, of which nobody is told: of the database, or of the process that has it. Payments runs no more.
    pub(super) async fn last_death(&mut self) -> anyhow::Result<()> {
        if self.postgres.is_none() {
            return self.payments.kill();
        }
        self.payments.stop().await?;
        self.kill_postgres().await?;
        self.restart_postgres().await
    }

    /// Whether payments stands still at a point.
    pub(super) fn stands_still(&self) -> bool {
        let status =
            self.payments.id().map(|id| std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default());
        // The state follows the name, which is in parentheses.
        status.is_some_and(|status| status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    }

    /// Lets it go on.
    pub(super) fn go_on(&self) -> anyhow::Result<()> {
        let id = self.payments.id().context("payments runs")?;
        let sent = Command::new("kill").args(["-s", "CONT", &id.to_string()]).status()?;
        ensure!(sent.success(), "kill: {sent}");
        Ok(())
    }

    /// The points at which it stood still since this was last asked.
    pub(super) fn stopped_at(&mut self) -> anyhow::Result<Vec<String>> {
        let log = std::fs::read_to_string(self.payments.log())?;
        let points = log.lines().filter_map(|line| line.strip_prefix("crash point ")?.strip_suffix(STANDS_STILL));
        let points: Vec<String> = points.skip(self.stops_read).map(str::to_owned).collect();
        self.stops_read += points.len();
        Ok(points)
    }

    /// `lastmile ledger verify` on the database as it is: whether it ended well, and what it said.
    pub(super) async fn verify(&self) -> anyhow::Result<(bool, String)> {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(&self.config).arg("--data").arg(self.place.join(PAYMENTS));
        command.args(["ledger", "verify"]).current_dir(root());
        let ended = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        Ok((ended.status.success(), said))
    }
}

/// Adds the database that payments keeps everything in.
fn on_postgres(text: &mut String, postgres: &Postgres) -> anyhow::Result<store::Config> {
    let store = store::Config {
        schema: Some(postgres.schema()),
        // A machine that is loaded on purpose takes its time to make a connection.
        acquire_timeout: runtime::config::Duration::from_secs(5),
        ..store::Config::new(postgres.url())
    };
    let schema = store.schema.as_deref().unwrap_or_default();
    writeln!(text, "[store.payments]\nurl = \"{}\"\nschema = \"{schema}\"\nacquire_timeout = \"5s\"", store.url)?;
    Ok(store)
}

/// Adds the apps at the simulated Alipay, and the account of the one that is asked by REST.
fn at_alipay(text: &mut String, place: &Path) -> anyhow::Result<()> {
    let apps = APPS.map(|(app_id, pid, certificates)| {
        format!("{{ app_id = \"{app_id}\", pid = \"{pid}\", certificates = {certificates} }}")
    });
    let table = "[sandbox.systems.alipay]\n";
    *text = text.replace(table, &format!("{table}apps = [{}]\n", apps.join(", ")));
    let [.., (app_id, pid, _)] = APPS;
    let keys = place.join("outside/sandbox/alipay");
    write!(
        text,
        r#"
[[payments.merchants]]
channel = "alipay"
entry_point = "{BY_REST}"
payee_id = "*"
app_id = "{app_id}"
mch_id = "{pid}"
api = "v3"
private_key_file = "{keys}/{app_id}/app_private_key.pem"
[payments.merchants.certificates]
app_file = "{keys}/{app_id}/app_certificate.pem"
alipay_file = "{keys}/alipay_certificate.pem"
root_file = "{keys}/alipay_root.pem"
"#,
        keys = keys.display(),
    )?;
    Ok(())
}

/// The client that cases would have.
fn client(context: &Context, identity: &Path, address: &str) -> anyhow::Result<PaymentServiceClient<Wire>> {
    let file = |name: &str| identity.join(name);
    let pem = RolePem::read(&file(rpc::ca::CA_CERT_FILE), &file(rpc::ca::CERT_FILE), &file(rpc::ca::KEY_FILE))?;
    let breaker = BreakerOptions { pause_min: PAUSE_MIN, pause_max: PAUSE_MAX, ..BreakerOptions::default() };
    let options = ClientOptions { call_timeout: CALL_TIMEOUT, breaker, ..ClientOptions::default() };
    let remote = RemoteOptions { backoff_min: PAUSE_MIN, backoff_max: PAUSE_MAX, ..RemoteOptions::default() };
    let mesh = Mesh::new(context.clone(), options, remote);
    mesh.identify(Role::Cases, ClientIdentity::new(&pem)?);
    mesh.bind_remote("payments", address)?;
    Ok(PaymentServiceClient::new(mesh.caller(Role::Cases).wire("payments")))
}
