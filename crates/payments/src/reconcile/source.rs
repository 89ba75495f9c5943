//! Where the bills and departments' files come from.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::civil::Date;
use runtime::config::{Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::channel::{BillKind, Channel, ChannelError};

/// How days are reconciled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where somebody puts the channels' bills, as CHANNEL/MERCHANT/YYYY-MM-DD.csv or .zip; below the data directory unless
    /// absolute. Empty: they are fetched from the channels.
    pub bills_dir: PathBuf,
    /// Where somebody puts departments' settlement files, as PAYEE/YYYY-MM-DD.csv; below the data directory unless absolute. A payee
    /// that has a directory there is to have a file for each day. Empty: there are none.
    pub departments_dir: PathBuf,
    /// How long after the end of a day, in Beijing's time, its bill is there.
    pub ready_after: Duration,
    /// How long before the end of a day a movement may stand in the next day's bill.
    pub edge: Duration,
    /// How many days back a day is still reconciled by itself; 0: only when it is asked for.
    pub days_back: u32,
    /// From an attempt that found no bill to the next.
    pub retry: Duration,
    /// For how long a channel is not believed that nothing happened on a day of which the ledger has movements; it is asked again.
    pub doubt_empty: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bills_dir: PathBuf::new(),
            departments_dir: PathBuf::new(),
            ready_after: Duration::from_secs(10 * 3_600 + 1_800),
            edge: Duration::from_secs(600),
            days_back: 3,
            retry: Duration::from_secs(600),
            doubt_empty: Duration::from_secs(86_400),
        }
    }
}

impl Settings {
    /// Notes everything that is wrong, each under its dotted path below `path`.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut note = |key: &str, message: &str| problems.push(Problem::new(format!("{path}.{key}"), message));
        if self.edge.get() > std::time::Duration::from_secs(12 * 3_600) {
            note("edge", "must be at most 12 hours");
        }
        if self.retry.get().is_zero() {
            note("retry", "must be more than zero");
        }
        if self.days_back > 90 {
            note("days_back", "must be from 0 to 90");
        }
    }
}

/// Gives the bills of a channel.
pub trait BillSource: Send + Sync {
    /// Fetches the bill of a day, in Beijing's time, of a merchant account into `file`, with the channel's own hash checked.
    ///
    /// Errors: NotKnown where there is none because nothing happened on that day; NotNow while it is not made yet.
    fn bill<'a>(&'a self, merchant: &'a str, day: Date, file: &'a Path) -> BoxFuture<'a, Result<u64, ChannelError>>;
}

/// Bills that a channel gives.
pub(crate) struct OfChannel(pub(crate) Arc<dyn Channel>);

impl BillSource for OfChannel {
    fn bill<'a>(&'a self, merchant: &'a str, day: Date, file: &'a Path) -> BoxFuture<'a, Result<u64, ChannelError>> {
        self.0.bill(merchant, day, BillKind::Trades, file)
    }
}

/// Bills, or departments' files, that somebody puts into a directory.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// Whether there is a directory of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.join(name).is_dir()
    }
}

impl BillSource for Folder {
    fn bill<'a>(&'a self, merchant: &'a str, day: Date, file: &'a Path) -> BoxFuture<'a, Result<u64, ChannelError>> {
        async move {
            for ending in ["csv", "zip"] {
                match tokio::fs::copy(self.0.join(merchant).join(format!("{day}.{ending}")), file).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(ChannelError::NotNow { code: format!("BILL_{:?}", error.kind()) }),
                }
            }
            Err(ChannelError::NotNow { code: "BILL_MISSING".to_owned() })
        }
        .boxed()
    }
}
