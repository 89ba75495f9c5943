//! `lastmile demo`: plays the slice as a super app's back end and its citizen would.
//!
//! It is a client of the public port and of nothing else of lastmile: the token endpoint, the key set and gRPC. Beside that it plays the
//! world outside through the sandbox's control port: the citizen who pays, the officer, and what goes wrong. Everybody in it is
//! fictitious.

mod fault;
mod fields;
mod outside;
mod play;
mod proof;
mod receipt;
mod super_app;
mod tell;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use runtime::Context;

use crate::Config;

pub use fault::Fault;

use outside::Outside;
use play::Play;
use super_app::SuperApp;
use tell::Teller;

/// The entry point that the demonstration plays.
const ENTRY_POINT: &str = "wechat";

/// Which cities are played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Cities {
    /// Changsha: SOAP 1.1 in GBK
    Changsha,
    /// Taiyuan: fixed columns over TCP in GB 18030
    Taiyuan,
    /// First the one, then the other
    #[default]
    Both,
}

/// A city of the demonstration. Nothing but its region reaches lastmile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct City {
    pub(crate) name: &'static str,
    pub(crate) region: &'static str,
    pub(crate) profile: &'static str,
    /// The sandbox's name of its traffic police.
    pub(crate) system: &'static str,
}

const CHANGSHA: City = City {
    name: "Changsha 长沙 (SOAP 1.1, GBK)",
    region: "430100",
    profile: "traffic/430100",
    system: "police-430100",
};
const TAIYUAN: City = City {
    name: "Taiyuan 太原 (fixed columns over TCP, GB 18030)",
    region: "140100",
    profile: "traffic/140100",
    system: "police-140100",
};

/// What to play.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cities.
    pub cities: Cities,
    /// What goes wrong; nothing, when absent.
    pub fault: Option<Fault>,
    /// The public port as `http://host:port`; by default that of the configuration.
    pub to: Option<String>,
    /// The sandbox's control port as `host:port`; by default that of the configuration.
    pub control: Option<String>,
    /// The directory with the sandbox's entry-point keys; by default that of the configuration.
    pub keys: Option<PathBuf>,
    /// How long one case may take to its end.
    pub patience: Duration,
}

impl Cities {
    fn list(self) -> &'static [City] {
        match self {
            Self::Changsha => &[CHANGSHA],
            Self::Taiyuan => &[TAIYUAN],
            Self::Both => &[CHANGSHA, TAIYUAN],
        }
    }
}

/// Plays, and tells each step.
///
/// Shape: true when every case ended as it must.
/// Errors: something that nothing was promised for, such as that nobody listens.
pub async fn run(options: &Options, config: &Config, context: &Context, out: &mut impl Write) -> anyhow::Result<bool> {
    let config = config.placed();
    let to = options
        .to
        .clone()
        .unwrap_or_else(|| format!("http://{}", crate::health::reachable_text(&config.listen.public)));
    let control = options.control.clone().unwrap_or_else(|| crate::sandbox::control_address(&config));
    let keys = options.keys.clone().unwrap_or_else(|| crate::sandbox::client_keys_dir(&config));
    let super_app = SuperApp::new(context, &to, ENTRY_POINT, &keys)?;
    let outside = Outside::new(context, &control);
    outside.clear_faults().await.with_context(|| format!("no sandbox at {control}: the demonstration needs one"))?;
    let mut teller = Teller::new(out);
    teller.title(&format!("lastmile demo at {to}; every person, plate and key in it is fictitious"))?;
    let mut is_kept = true;
    for city in options.cities.list() {
        let play = Play {
            city,
            fault: options.fault,
            super_app: &super_app,
            outside: &outside,
            context,
            patience: options.patience,
        };
        match play.run(&mut teller).await {
            Ok(()) => {}
            Err(play::Broken::Promise(what)) => {
                teller.broken(&what)?;
                is_kept = false;
            }
            Err(play::Broken::Other(error)) => bail!(error.context(city.name)),
        }
        outside.clear_faults().await?;
    }
    Ok(is_kept)
}
