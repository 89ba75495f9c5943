//! A cluster of real processes: the simulated world outside in one that never dies with us, and everything of ours, in one process on
//! SQLite or in one per role on PostgreSQL and Redis.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use runtime::Context;
use runtime::crash::Plan;

use super::process::{Process, free_ports, root};
use crate::Topology;
use crate::invariants::{Call, Evidence, Journals, Report, World, judge};
use crate::servers::{Postgres, Redis};

/// The roles of ours, in starting order.
const ROLES: [&str; 6] = ["identity", "catalog", "payments", "adapter", "cases", "gateway"];
/// How often a stopped cluster that has something left to do is started again to do it.
const RESTS_MAX: u32 = 60;

/// Where the people and systems outside are reached, and where our door is.
#[derive(Clone, Debug)]
pub struct Doors {
    /// "http://ip:port" of the gateway.
    pub public: String,
    /// "ip:port" of the sandbox's control port.
    pub control: String,
    /// The keys of entry points and clerks.
    pub keys: PathBuf,
}

/// The cluster.
pub struct Site {
    /// The sandbox.
    pub outside: Process,
    /// Ours: one process, or one per role.
    pub inside: Vec<Process>,
    doors: Doors,
    context: Context,
    stores: (store::Config, store::Config),
    place: PathBuf,
    /// Keep the servers running as long as the cluster.
    _servers: Option<(Postgres, Redis)>,
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
        let servers = (topology == Topology::Split).then(|| (Postgres::start(), Redis::start()));
        let ports: Vec<String> = free_ports(32)?.into_iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut free = ports.iter();
        let mut port = || free.next().map(String::as_str).context("enough ports");
        let systems = [port()?, port()?, port()?, port()?];
        let mut config = common(place, settings, systems)?;
        let stores = match &servers {
            None => ["payments", "cases"].map(|role| embedded(place, role)),
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
        let file = place.join("drill.toml");
        std::fs::write(&file, config)?;
        let process = |name: &str, roles: &[&str], sets: &[(&str, &str)], operations: &str| {
            let mut arguments = vec!["--config".to_owned(), file.display().to_string()];
            arguments.extend(["--data".to_owned(), place.join(name).display().to_string()]);
            arguments.extend(["--set".to_owned(), format!("serve.roles={}", roles.join(","))]);
            for (key, value) in sets.iter().chain(&[("listen.operations", operations)]) {
                arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
            }
            let log = place.join(format!("{name}.log"));
            Process::new(context, binary, name, arguments, operations.to_owned(), log)
        };
        let at_sandbox = [("listen.public", "127.0.0.1:0"), ("listen.callbacks", "127.0.0.1:0")];
        let outside = process("sandbox", &["sandbox"], &at_sandbox, port()?);
        let inside = planned.iter().map(|(name, roles, mesh, operations, own_public, own_callbacks)| {
            let public = if roles.contains(&"gateway") { &public } else { own_public };
            let callbacks = if roles.contains(&"payments") { &callbacks } else { own_callbacks };
            let sets = [("listen.public", public.as_str()), ("listen.callbacks", callbacks), ("listen.mesh", mesh)];
            process(name, roles, &sets, operations)
        });
        let inside = inside.collect();
        if topology == Topology::Split {
            certificates(binary, &file, place)?;
        }
        let [payments, cases] = stores;
        Ok(Self {
            outside,
            inside,
            doors: Doors {
                public: format!("http://{public}"),
                control: systems[0].to_owned(),
                keys: place.join("clients"),
            },
            context: context.clone(),
            stores: (payments, cases),
            place: place.to_owned(),
            _servers: servers,
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

    /// Stops ours, the door first; each must drain.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for process in self.inside.iter_mut().rev() {
            process.stop().await?;
        }
        Ok(())
    }

    /// Stops ours and judges every invariant by what is in the stores and journals. While something still has to be done it is
    /// started again to do it. The journals are those of the sandbox that runs on.
    pub async fn judge(&mut self, calls: Vec<Call>) -> anyhow::Result<(Report, Evidence)> {
        for _ in 0..RESTS_MAX {
            self.stop().await?;
            let payments = store::open(&self.stores.0, self.context.clone()).await?;
            let cases = store::open(&self.stores.1, self.context.clone()).await?;
            let journals = Journals::fetch(&self.doors.control, &self.context).await?;
            let world = World {
                now: self.context.clock.now(),
                payments: Some(payments),
                cases: Some(cases),
                journals: Some(journals),
                calls: Some(calls.clone()),
                probes: None,
                bounds: None,
                leaks: None,
            };
            let evidence = Evidence::gather(&world).await?;
            if evidence.cases.open == evidence.cases.with_clerk && evidence.cases.cursor == evidence.events {
                return Ok((judge(&evidence), evidence));
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
}

/// What every process reads.
fn common(place: &Path, settings: &str, systems: [&str; 4]) -> anyhow::Result<String> {
    let [control, wechatpay, changsha, taiyuan] = systems;
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
    // The settings of a drill end in this table.
    Ok(text.replace("[sandbox.systems.wechatpay]", &format!("[sandbox.systems.wechatpay]\nlisten = \"{wechatpay}\"")))
}

fn embedded(place: &Path, role: &str) -> store::Config {
    store::Config::new(format!("sqlite:{}", place.join("lastmile").join(format!("{role}.db")).display()))
}

/// Adds what the split topology needs.
fn split(config: &mut String, place: &Path, servers: &(Postgres, Redis)) -> anyhow::Result<[store::Config; 2]> {
    let (postgres, redis) = servers;
    let stores = ["identity", "payments", "cases"]
        .map(|role| (role, store::Config { schema: Some(postgres.schema()), ..store::Config::new(postgres.url()) }));
    for (role, store) in &stores {
        let schema = store.schema.as_deref().unwrap_or_default();
        // A machine that is loaded on purpose takes its time to make a connection.
        let patience = "acquire_timeout = \"5s\"";
        writeln!(config, "[store.{role}]\nurl = \"{}\"\nschema = \"{schema}\"\n{patience}", store.url)?;
    }
    writeln!(config, "[cache]\nurl = \"{}\"\nprefix = \"{}\"", redis.url(), redis.prefix())?;
    writeln!(config, "[tls]\ndirectory = \"{}/tls\"", place.display())?;
    let [_, (_, payments), (_, cases)] = stores;
    Ok([payments, cases])
}

/// Lets the binary make the certificates with which the roles meet.
fn certificates(binary: &Path, file: &Path, place: &Path) -> anyhow::Result<()> {
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
