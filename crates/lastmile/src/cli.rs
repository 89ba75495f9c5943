//! The command line: what it understands, and how each command ends.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use jiff::civil::{Date, Time};
use payments::reconcile::{CUT_OFF, Options, ledger::Scope};
use runtime::config::{Fault, Loaded, environment};
use runtime::lifecycle::Signals;
use runtime::{Context, telemetry};

use crate::app::Listeners;
use crate::data::DataDir;
use crate::demo::{self, Cities};
use crate::doctor::Verdict;
use crate::{
    App, Config, Role, announce, ca, doctor, drill, health, inspect, ledger, ops, profiles, reconcile, sandbox,
    settlement,
};

/// The flags or the configuration were not understood (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;
/// How long certificates are good that `ca ensure` makes, and how long before their end it makes others.
const CERTIFICATE_DAYS: u32 = 365;
const RENEW_DAYS: u32 = 30;
const WORKER_STACK_BYTES: usize = 4 * 1024 * 1024;

/// Last-mile service delivery: one contract for super apps, one profile per department back end.
#[derive(Debug, Parser)]
#[command(name = "lastmile", version, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    layers: Layers,
    #[command(subcommand)]
    command: Command,
}

/// The layers of the configuration that the command line adds.
#[derive(Debug, Args)]
struct Layers {
    /// A TOML file over the built-in defaults; may be given again, the later wins
    #[arg(long, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Sets one key over all else, such as listen.public=127.0.0.1:0; may be given again
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = pair)]
    sets: Vec<(String, String)>,
    /// What is logged, such as payments=debug,info (telemetry.log.filter)
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    /// The data directory (data.directory)
    #[arg(long, global = true, value_name = "DIRECTORY")]
    data: Option<String>,
    /// Simulates departments, channel and people (sandbox.enabled); never in production
    #[arg(long, global = true)]
    sandbox: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs roles until SIGTERM or SIGINT
    Serve {
        /// A role to run; may be given again. None: all of them (serve.roles)
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<Role>,
    },
    /// Looks at the configuration
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Looks at everything that a start needs, and says what to do
    Doctor,
    /// Asks a running process whether it is ready
    Health,
    /// Plays a fine from the query to the cleared points, as a super app and its citizen would
    Demo(DemoArgs),
    /// Departments' profiles
    Adapter {
        #[command(subcommand)]
        verb: AdapterVerb,
    },
    /// The double-entry ledger
    Ledger {
        #[command(subcommand)]
        verb: LedgerVerb,
    },
    /// Holds a channel's bills, the ledger and departments' settlement files of a day against each other
    Reconcile(ReconcileArgs),
    /// What departments are paid over
    Settlement {
        #[command(subcommand)]
        verb: SettlementVerb,
    },
    /// What drills need to know
    Drill {
        #[command(subcommand)]
        verb: DrillVerb,
    },
    /// The simulated departments and channels
    Sandbox {
        #[command(subcommand)]
        verb: SandboxVerb,
    },
    /// The internal certificate authority of the split topology
    Ca {
        #[command(subcommand)]
        verb: CaVerb,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Tells every fault, or nothing
    Check,
    /// Prints every value and where it came from
    Show,
    /// Prints the JSON Schema
    Schema,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Stages something that goes wrong, and shows how it ends
    #[arg(long, value_enum, value_name = "NAME")]
    fault: Option<demo::Fault>,
    /// Where
    #[arg(long, value_enum, default_value_t)]
    city: Cities,
    /// The public port, http://host:port; by default listen.public
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// The sandbox's control port, host:port; by default that of the configuration
    #[arg(long, value_name = "ADDRESS")]
    control: Option<String>,
    /// The directory of the sandbox's entry-point keys; by default in the data directory
    #[arg(long, value_name = "DIRECTORY")]
    keys: Option<PathBuf>,
    /// How many seconds one case may take to its end
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
}

/// Holds a channel's bills, the ledger and departments' settlement files of a day against each other.
///
/// Each file is known by its first bytes, in any order: WeChat Pay's trade bill (bill_type=ALL), Alipay's business bill (zip or csv),
/// and lastmile's own file of movements: what `lastmile ledger export` writes, what a department settles by, what the day before carried
/// over. Files are read as streams; memory is bounded whatever their length.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Breaks: long (the other side has it, the ledger not), short (the ledger has it alone), amount (other amounts or currencies), state (it
stands otherwise, or on another day). A table of them goes to standard output, the sums to standard error. What happened after the cut-off
and stands on one side alone may come in the other's file of the next day: it is written to --carry-to, and given among the files then.

Ends with 0 when all agree, with 1 when breaks are left or a file cannot be used: that one is named, with line and column.

  lastmile ledger export --day 2026-11-22 --to ledger.csv
  lastmile reconcile ledger.csv wechat-bill.csv 20880001_20261122.csv.zip traffic-430100.csv carried-21.csv --carry-to carried-22.csv

Formats: docs/reconciliation.md")]
struct ReconcileArgs {
    /// Bills, ledger exports, settlement files, and what the day before carried over
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The day in Beijing's time, such as 2026-11-22; by default that of the ledger export
    #[arg(long, value_name = "DAY")]
    day: Option<Date>,
    /// From when on a movement that one side alone has may come in the other's file of the next day, Beijing's time
    #[arg(long, value_name = "HH:MM", default_value_t = CUT_OFF)]
    cut_off: Time,
    /// Where what may come tomorrow is written
    #[arg(long, value_name = "FILE")]
    carry_to: Option<PathBuf>,
    /// Prints each break as a line of JSON
    #[arg(long)]
    json: bool,
    /// Where what does not fit into memory is sorted; by default the system's temporary directory
    #[arg(long, value_name = "DIRECTORY")]
    scratch: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The day in Beijing's time, such as 2026-11-22
    #[arg(long, value_name = "DAY")]
    day: Date,
    /// Where the file of movements is written
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// One channel alone, such as wechatpay
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// One merchant account alone
    #[arg(long, value_name = "NUMBER")]
    merchant: Option<String>,
}

#[derive(Debug, Subcommand)]
enum DrillVerb {
    /// Prints every point at which drill.crash can kill the process
    CrashPoints,
}

#[derive(Debug, Subcommand)]
enum LedgerVerb {
    /// Recomputes every balance and rule from the transfers, up to the first break; payments must not be running on the same file
    Verify {
        /// Tells how far it is after so many orders
        #[arg(long, value_name = "ORDERS", default_value_t = 100_000)]
        tell_every: u64,
    },
    /// Writes what the ledger tells of a day, for `lastmile reconcile`; payments must not be running on the same file
    Export(ExportArgs),
}

#[derive(Debug, Subcommand)]
enum SettlementVerb {
    /// Checks a settlement's file offline: its signature, its digest, each line and its totals
    ///
    /// The signature is FILE.jws; where there is FILE.sha256, it is checked too. Ends with 1 and the first thing that is wrong.
    Verify {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The key that the payments service signs with, a JWK or a JWKS, from a source that you trust
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum AdapterVerb {
    /// Checks profiles: form, templates, mappings, golden cases
    Check {
        /// department/region.yaml; all in adapter.departments_dir when none is named
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum SandboxVerb {
    /// Makes the keys of the simulated WeChat Pay where they are missing: for payments, when it starts apart from the sandbox
    Keys,
}

#[derive(Debug, Subcommand)]
enum CaVerb {
    /// Makes the CA of this installation
    Init {
        /// Where it is kept; by default `ca` in the data directory
        #[arg(long, value_name = "DIRECTORY")]
        ca: Option<PathBuf>,
    },
    /// Makes the CA and the certificates of all roles where they are missing or end within 30 days
    Ensure {
        /// Where the CA is kept; by default `ca` in the data directory
        #[arg(long, value_name = "DIRECTORY")]
        ca: Option<PathBuf>,
        /// Where each role's directory is put; by default `tls` in the data directory
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
    },
    /// Issues, or renews, the certificate of a role
    Issue {
        /// The role
        #[arg(long)]
        role: Role,
        /// Where the CA is kept; by default `ca` in the data directory
        #[arg(long, value_name = "DIRECTORY")]
        ca: Option<PathBuf>,
        /// Where cert.pem, key.pem and ca.pem are put; by default `tls/ROLE` in the data directory
        #[arg(long, value_name = "DIRECTORY")]
        out: Option<PathBuf>,
        /// For how many days it is good
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
}

/// What a command comes to.
enum End {
    Done,
    /// The answer is no; it was printed.
    No,
    /// The configuration was not understood.
    Faults(Vec<Fault>),
}

/// Runs the command line and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(WORKER_STACK_BYTES).build();
    let ended = runtime.context("starting the async runtime").and_then(|runtime| runtime.block_on(run(cli)));
    let mut stderr = io::stderr();
    match ended {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::No) => ExitCode::FAILURE,
        Ok(End::Faults(faults)) => {
            let _ = inspect::faults(&faults, &mut stderr);
            ExitCode::from(EXIT_USAGE)
        }
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr, "lastmile: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The reader of our output, such as `head`, has read enough.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn run(cli: Cli) -> anyhow::Result<End> {
    let mut stdout = io::stdout();
    if let Command::Config { verb: ConfigVerb::Schema } = cli.command {
        inspect::schema(&mut stdout)?;
        return Ok(End::Done);
    }
    let loaded = match load(&cli) {
        Ok(loaded) => loaded,
        Err(faults) => return Ok(End::Faults(faults)),
    };
    let config = &loaded.value;
    let context = Context::system();
    match cli.command {
        Command::Serve { .. } => return serve(config, context).await,
        Command::Config { verb: ConfigVerb::Show } => inspect::show(&loaded, &mut stdout)?,
        Command::Config { .. } => writeln!(stdout, "the configuration is right")?,
        Command::Doctor => return diagnose(config, &context, &mut stdout).await,
        Command::Health => {
            let answer = health::ask(&context, &config.listen.operations, ops::READY_PATH).await?;
            writeln!(stdout, "{}", answer.text)?;
            return Ok(if answer.is_success { End::Done } else { End::No });
        }
        Command::Demo(args) => return demonstrate(args, config, &context, &mut stdout).await,
        Command::Drill { verb: DrillVerb::CrashPoints } => {
            drill::crash_points().try_for_each(|point| writeln!(stdout, "{point}"))?;
        }
        Command::Ledger { verb: LedgerVerb::Verify { tell_every } } => {
            let sound = ledger::verify(config, &context, tell_every, &mut stdout, &mut io::stderr()).await?;
            return Ok(if sound { End::Done } else { End::No });
        }
        Command::Ledger { verb: LedgerVerb::Export(ExportArgs { day, to, channel, merchant }) } => {
            let db = ledger::open(config, &context).await?;
            reconcile::export(&db, day, &Scope { channel, merchant }, &to).await?;
        }
        Command::Reconcile(ReconcileArgs { files, day, cut_off, carry_to, json, scratch }) => {
            let options = Options { day, cut_off, files, carry_to, scratch };
            let all = reconcile::reconcile(&options, json, stdout, &mut io::stderr())?;
            return Ok(if all { End::Done } else { End::No });
        }
        Command::Settlement { verb: SettlementVerb::Verify { file, key } } => {
            let is_sound = settlement::verify(&file, &key, &mut stdout)?;
            return Ok(if is_sound { End::Done } else { End::No });
        }
        Command::Adapter { verb: AdapterVerb::Check { files } } => {
            let all = profiles::check(config, &files, &mut stdout).await?;
            return Ok(if all { End::Done } else { End::No });
        }
        Command::Sandbox { verb: SandboxVerb::Keys } => {
            let directories = sandbox::make_keys(config, &context)?;
            directories.iter().try_for_each(|directory| writeln!(stdout, "{}", directory.display()))?;
        }
        Command::Ca { verb } => authority(verb, config, &context, &mut stdout)?,
    }
    Ok(End::Done)
}

fn load(cli: &Cli) -> Result<Loaded<Config>, Vec<Fault>> {
    let Layers { config, sets, log, data, sandbox } = &cli.layers;
    let mut loader = config.iter().fold(Config::loader(), |loader, file| loader.file(file)).environment(environment());
    if let Some(filter) = log {
        loader = loader.flag("--log", "telemetry.log.filter", filter);
    }
    if let Some(directory) = data {
        loader = loader.flag("--data", "data.directory", directory);
    }
    if *sandbox {
        loader = loader.flag("--sandbox", "sandbox.enabled", "true");
    }
    if let Command::Serve { roles } = &cli.command
        && !roles.is_empty()
    {
        let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        loader = loader.flag("--role", "serve.roles", &names.join(","));
    }
    let loader = sets.iter().fold(loader, |loader, (key, value)| loader.flag("--set", key, value));
    loader.load(Config::validate)
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    if key.is_empty() { Err("must be KEY=VALUE".to_owned()) } else { Ok((key.to_owned(), value.to_owned())) }
}

/// The name under which spans are exported: the role's, where there is one only.
fn service_name(config: &Config) -> String {
    match config.roles().as_slice() {
        [role] => format!("lastmile-{role}"),
        _ => "lastmile".to_owned(),
    }
}

/// Serves until the end; telemetry goes last, also when the start fails.
async fn serve(config: &Config, context: Context) -> anyhow::Result<End> {
    let signals = Signals::new().context("taking over signals")?;
    let telemetry = telemetry::start(&config.telemetry, &service_name(config), &context.metrics)?;
    let tasks = context.tasks.clone();
    let ended = async {
        // The lock comes before the ports: it names the process that is in the way.
        let data = DataDir::open(&config.data.directory)?;
        let listeners = Listeners::bind(&context, &config.listen).await?;
        let app = App::build(config, context, data, listeners).await?;
        let ready = app.ready(config.serve.ready_timeout.get()).await;
        if let Err(missing) = &ready {
            tracing::warn!(missing = missing.join("; "), "not every role is ready yet");
        }
        announce::print(&app, &ready, config, &mut io::stdout())?;
        Ok(app.run(signals).await)
    };
    let ended: anyhow::Result<_> = ended.await;
    tasks.abort();
    telemetry.shutdown().await;
    Ok(if ended?.is_success() { End::Done } else { End::No })
}

async fn demonstrate(args: DemoArgs, config: &Config, context: &Context, out: &mut impl Write) -> anyhow::Result<End> {
    let DemoArgs { fault, city, to, control, keys, patience } = args;
    let patience = std::time::Duration::from_secs(patience);
    let options = demo::Options { cities: city, fault, to, control, keys, patience };
    Ok(if demo::run(&options, config, context, out).await? { End::Done } else { End::No })
}

async fn diagnose(config: &Config, context: &Context, out: &mut impl Write) -> anyhow::Result<End> {
    let findings = doctor::examine(config, context).await;
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    writeln!(out, "{} looked at, {bad} bad", findings.len())?;
    Ok(if bad == 0 { End::Done } else { End::No })
}

fn authority(verb: CaVerb, config: &Config, context: &Context, out: &mut impl Write) -> anyhow::Result<()> {
    let data = &config.data.directory;
    match verb {
        CaVerb::Init { ca } => {
            let file = ca::init(context, &ca.unwrap_or_else(|| data.join("ca")))?;
            writeln!(out, "{}", file.display())?;
        }
        CaVerb::Ensure { ca, out: tls } => {
            let (ca, tls) = (ca.unwrap_or_else(|| data.join("ca")), tls.unwrap_or_else(|| data.join("tls")));
            let (life, renew) = (ca::days(CERTIFICATE_DAYS), ca::days(RENEW_DAYS));
            for role in ca::ensure(context, &ca, &tls, &Role::ALL, life, renew)? {
                writeln!(out, "{}", tls.join(role.name()).display())?;
            }
        }
        CaVerb::Issue { role, ca, out: directory, days } => {
            let ca = ca.unwrap_or_else(|| data.join("ca"));
            let directory = directory.unwrap_or_else(|| data.join("tls").join(role.name()));
            let issued = ca::issue(context, &ca, role, ca::days(days), &directory)?;
            for file in [issued.cert, issued.key, issued.ca] {
                writeln!(out, "{}", file.display())?;
            }
        }
    }
    Ok(())
}
