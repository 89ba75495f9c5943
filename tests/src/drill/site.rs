//! A cluster of real processes: the simulated world outside in one that never dies with us, and everything of ours, in one process on
//! SQLite or in one per role on PostgreSQL and Redis.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use invariants::{Call, Evidence, Journals, Leaks, Report, World, check_all};
use runtime::Context;
use runtime::crash::Plan;

use super::people::Heard;
use super::process::{Process, free_ports, root};
use super::watch::Watch;
use crate::Topology;
use crate::servers::{Postgres, Redis};
use crate::stores;

/// The roles of ours, in starting order.
const ROLES: [&str; 6] = ["identity", "catalog", "payments", "adapter", "cases", "gateway"];
/// Those that keep something.
const STORES: [&str; 3] = ["identity", "payments", "cases"];
/// How often a stopped cluster that has something left to do is started again to do it.
const RESTS_MAX: u32 = 60;

/// Where the people and systems outside are reached, and where our door is.
#[derive(Clone, Debug)]
pub struct Doors {
    /// "http://ip:port" of the gateway.
    pub public: String,
    /// "ip:port" of the sandbox's control port.
    pub control: String,
    /// The keys of entry points, clerks and operators.
    pub keys: PathBuf,
    /// Where departments put their settlement files, in a folder for each payee.
    pub files: PathBuf,
}

/// What every process reads, in the cluster's directory.
const CONFIG: &str = "drill.toml";

/// The cluster.
pub struct Site {
    /// The sandbox.
    pub outside: Process,
    /// Ours: one process, or one per role.
    pub inside: Vec<Process>,
    doors: Doors,
    context: Context,
    /// Of identity, payments and cases.
    stores: [store::Config; 3],
    binary: PathBuf,
    place: PathBuf,
    watch: Watch,
    /// The shared servers, and the prefix under which everything of ours in Redis is. They run as long as the cluster.
    servers: Option<(Postgres, Redis, String)>,
}

impl Site {
    /// Lays out a cluster in an empty directory; nothing runs yet. `settings` is TOML that every process reads.
    pub fn new(
        context: &Context,
        binary: &Path,
        place: &Path,
        topology: Topology,
        settings: &str,
    ) -> anyhow::Result<Self> {
        let servers = (topology == Topology::Split).then(|| {
            let redis = Redis::start();
            let prefix = redis.prefix();
            (Postgres::start(), redis, prefix)
        });
        let ports: Vec<String> = free_ports(32)?.into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut free = ports.iter();
        let mut port = || free.next().map(String::as_str).context("enough ports");
        let systems = [port()?, port()?, port()?, port()?, port()?];
        let mut config = common(place, settings, systems)?;
        let stores = match &servers {
            None => STORES.map(|role| embedded(place, role)),
            Some(servers) => split(&mut config, place, servers)?,
        };
        let (public, callbacks) = (port()?.to_owned(), port()?.to_owned());
        let groups: Vec<(&str, Vec<&str>)> = match topology {
            Topology::Single => vec![("lastmile", ROLES.to_vec())],
            Topology::Split => ROLES.map(|role| (role, vec![role])).to_vec(),
        };
        let mut planned = Vec::new();
        for (name, roles) in groups {
            let mesh = if topology == Topology::Split { port()?.to_owned() } else { String::new() };
            if !mesh.is_empty() {
                writeln!(config, "[mesh.{name}]\nendpoint = \"https://{mesh}\"")?;
            }
            planned.push((name, roles, mesh, port()?.to_owned(), port()?.to_owned(), port()?.to_owned()));
        }
        let watch = Watch::start()?;
        let files = place.join("departments");
        let departments_dir = files.display().to_string();
        let file = place.join(CONFIG);
        std::fs::write(&file, config)?;
        let process = |name: &str, roles: &[&str], sets: &[(&str, &str)], operations: &str| {
            let mut arguments = vec!["--config".to_owned(), file.display().to_string()];
            arguments.extend(["--data".to_owned(), place.join(name).display().to_string()]);
            arguments.extend(roles.iter().flat_map(|role| ["--role".to_owned(), (*role).to_owned()]));
            for (key, value) in sets.iter().chain(&[("listen.operations", operations)]) {
                arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
            }
            let log = place.join(format!("{name}.log"));
            Process::new(context, &watch.roster(), binary, name, arguments, operations.to_owned(), log)
        };
        let at_sandbox = [("listen.public", "127.0.0.1:0"), ("listen.callbacks", "127.0.0.1:0")];
        let outside = process("sandbox", &["sandbox"], &at_sandbox, port()?);
        let inside = planned.iter().map(|(name, roles, mesh, operations, own_public, own_callbacks)| {
            let public = if roles.contains(&"gateway") { &public } else { own_public };
            let callbacks = if roles.contains(&"payments") { &callbacks } else { own_callbacks };
            let sets = [
                ("listen.public", public.as_str()),
                ("listen.callbacks", callbacks),
                ("listen.mesh", mesh),
                ("payments.reconcile.departments_dir", &departments_dir),
            ];
            process(name, roles, &sets, operations)
        });
        let inside: Vec<_> = inside.collect();
        if topology == Topology::Split {
            certificates(binary, &file, place)?;
        }
        Ok(Self {
            outside,
            inside,
            doors: Doors {
                public: format!("http://{public}"),
                control: systems[0].to_owned(),
                keys: place.join("clients"),
                files,
            },
            context: context.clone(),
            stores,
            binary: binary.to_owned(),
            place: place.to_owned(),
            watch,
            servers,
        })
    }

    /// Where everything is reached.
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Starts everything, the world outside first.
    pub async fn start(&mut self, armed: Option<&Plan>) -> anyhow::Result<()> {
        self.outside.spawn(None)?;
        let death = self.outside.ready().await?;
        ensure!(death.is_none(), "the sandbox: {death:?}");
        for process in &mut self.inside {
            process.spawn(armed)?;
        }
        for process in &mut self.inside {
            let death = process.ready().await?;
            ensure!(death.is_none(), "{}: {death:?}", process.name());
        }
        Ok(())
    }

    /// Fails when the world outside has died: nobody kills it, and without it nothing that is seen means anything.
    pub fn outside_lives(&mut self) -> anyhow::Result<()> {
        let death = self.outside.died()?;
        ensure!(death.is_none(), "the sandbox died by itself: {death:?}");
        Ok(())
    }

    /// Stops ours, the door first; each must drain.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for process in self.inside.iter_mut().rev() {
            process.stop().await?;
        }
        Ok(())
    }

    /// Stops ours and judges every invariant by what is in the stores, logs and journals, by what people heard and by what the processes
    /// took while they ran. While something still has to be done they are started again to do it. The journals are those of the sandbox
    /// that runs on.
    pub async fn judge(&mut self, calls: Vec<Call>, heard: &Heard) -> anyhow::Result<Report> {
        for _ in 0..RESTS_MAX {
            self.outside_lives()?;
            // Most of what is in Redis does not outlive those who put it there for long.
            let cached = self.cached().await?;
            self.stop().await?;
            let [_, payments, cases] = &self.stores;
            let mut world = World {
                payments: Some(store::open(payments, self.context.clone()).await?),
                cases: Some(store::open(cases, self.context.clone()).await?),
                journals: Some(Journals::fetch(&self.doors.control, &self.context).await?),
                calls: Some(calls.clone()),
                probes: Some(heard.probes()),
                ..World::at(self.context.clock.now())
            };
            if rests(&check_all(&world).await?.evidence) {
                let names: Vec<&str> = self.inside.iter().map(Process::name).collect();
                world.bounds = self.watch.bounds(&names);
                world.leaks = Some(self.leaks(heard, cached).await?);
                return check_all(&world).await;
            }
            drop(world);
            for process in &mut self.inside {
                process.spawn(None)?;
            }
            for process in &mut self.inside {
                let death = process.ready().await?;
                ensure!(death.is_none(), "{}: {death:?}", process.name());
            }
            self.context.clock.sleep(std::time::Duration::from_secs(1)).await;
        }
        anyhow::bail!("{} does not come to rest", self.place.display())
    }

    /// What `lastmile ledger verify` finds wrong with the books of one process that is stopped.
    pub async fn unsound(&self) -> anyhow::Result<Option<String>> {
        let [process] = &self.inside[..] else { return Ok(None) };
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.place.join(CONFIG)).arg("--data").arg(self.place.join(process.name()));
        command.args(["ledger", "verify"]).current_dir(root());
        let ended = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        Ok((!ended.status.success()).then_some(said))
    }

    async fn cached(&self) -> anyhow::Result<Option<stores::Text>> {
        match &self.servers {
            Some((_, redis, prefix)) => Ok(Some(stores::redis(redis.url(), prefix).await?)),
            None => Ok(None),
        }
    }

    /// Where personal data must not be: the log of every process, all that the stores hold, the labels of the metrics, and what people
    /// were refused with.
    async fn leaks(&self, heard: &Heard, cached: Option<stores::Text>) -> anyhow::Result<Leaks> {
        let mut texts: Vec<stores::Text> = cached.into_iter().chain(self.cached().await?).collect();
        texts.push(("metrics".to_owned(), self.watch.series().into_bytes()));
        texts.push(("refusals".to_owned(), heard.refusals().into_bytes()));
        let mut files: Vec<_> = self.inside.iter().chain([&self.outside]).map(|of| of.log().to_owned()).collect();
        for store in &self.stores {
            texts.extend(stores::contents(store).await?);
            if let Some(file) = store.url.strip_prefix("sqlite:") {
                let write_ahead = format!("{file}-wal");
                files.extend([file.into(), write_ahead.into()].into_iter().filter(|file: &PathBuf| file.exists()));
            }
        }
        Ok(Leaks { canaries: heard.canaries(), texts, files })
    }
}

/// Whether nobody has anything left to do but clerks.
fn rests(evidence: &Evidence) -> bool {
    evidence.cases.open == evidence.cases.with_clerk && Some(evidence.cases.cursor) == evidence.events
}

/// What every process reads.
pub(super) fn common(place: &Path, settings: &str, systems: [&str; 5]) -> anyhow::Result<String> {
    let [control, wechatpay, alipay, changsha, taiyuan] = systems;
    let mut text = settings.to_owned();
    write!(
        text,
        r#"
[catalog]
data_dir = "{root}/data"
schemas_dir = "{root}/departments/schemas"
[adapter]
departments_dir = "{root}/departments"
[identity]
sandbox_keys_dir = "{place}/clients"
[sandbox]
enabled = true
[sandbox.at]
control = "{control}"
wechatpay = "{wechatpay}"
alipay = "{alipay}"
police_430100 = "{changsha}"
police_140100 = "{taiyuan}"
[sandbox.systems]
data_dir = "{place}/outside"
[sandbox.systems.control]
listen = "{control}"
[sandbox.systems.police_430100]
listen = "{changsha}"
[sandbox.systems.police_140100]
listen = "{taiyuan}"
"#,
        root = root().display(),
        place = place.display(),
    )?;
    // A drill may have settings of its own for these.
    for (system, listen) in [("wechatpay", wechatpay), ("alipay", alipay)] {
        let table = format!("[sandbox.systems.{system}]\n");
        if !text.contains(&table) {
            text.push_str(&table);
        }
        text = text.replace(&table, &format!("{table}listen = \"{listen}\"\n"));
    }
    Ok(text)
}

fn embedded(place: &Path, role: &str) -> store::Config {
    store::Config::new(format!("sqlite:{}", place.join("lastmile").join(format!("{role}.db")).display()))
}

/// Adds what the split topology needs.
fn split(
    config: &mut String,
    place: &Path,
    (postgres, redis, prefix): &(Postgres, Redis, String),
) -> anyhow::Result<[store::Config; 3]> {
    let stores =
        STORES.map(|_| store::Config { schema: Some(postgres.schema()), ..store::Config::new(postgres.url()) });
    for (role, store) in STORES.iter().zip(&stores) {
        let schema = store.schema.as_deref().unwrap_or_default();
        // A machine that is loaded on purpose takes its time to make a connection.
        let patience = "acquire_timeout = \"5s\"";
        writeln!(config, "[store.{role}]\nurl = \"{}\"\nschema = \"{schema}\"\n{patience}", store.url)?;
    }
    writeln!(config, "[cache]\nurl = \"{}\"\nprefix = \"{prefix}\"", redis.url())?;
    writeln!(config, "[tls]\ndirectory = \"{}/tls\"", place.display())?;
    Ok(stores)
}

/// Lets the binary make the certificates with which the roles meet.
pub(super) fn certificates(binary: &Path, file: &Path, place: &Path) -> anyhow::Result<()> {
    let made = Command::new(binary)
        .arg("--config")
        .arg(file)
        .args(["ca", "ensure", "--ca"])
        .arg(place.join("ca"))
        .arg("--out")
        .arg(place.join("tls"))
        .current_dir(root())
        .output()?;
    ensure!(made.status.success(), "ca ensure: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}
