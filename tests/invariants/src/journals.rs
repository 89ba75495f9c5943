use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use runtime::{Context, http};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(30);
const BYTES_MAX: usize = 512 * 1024 * 1024;
const CHANNELS: [&str; 2] = ["wechatpay", "alipay"];
/// The departments' systems, with their profiles.
const DEPARTMENTS: [(&str, &str); 2] = [("police-430100", "traffic/430100"), ("police-140100", "traffic/140100")];

/// What the simulated systems wrote down before they answered.
#[derive(Clone, Debug, Default)]
pub struct Journals {
    /// The lines of the channels; no two have an order of the same number.
    pub channel: Vec<Value>,
    /// The lines of each department, by its profile.
    pub departments: BTreeMap<String, Vec<Value>>,
}

impl Journals {
    /// Asks the sandbox's control port, "ip:port", for every journal.
    pub async fn fetch(control: &str, context: &Context) -> anyhow::Result<Self> {
        let client = http::Client::new(context.net.clone(), context.clock.clone(), http::Options::default());
        let mut all = BTreeMap::new();
        for system in systems() {
            let request = ::http::Request::get(format!("http://{control}/journal/{system}")).body(Bytes::new())?;
            let answer = client.send(request, TIMEOUT, BYTES_MAX).await.context("the control port")?;
            anyhow::ensure!(answer.status().is_success(), "journal of {system}: {}", answer.status());
            all.insert(system, answer.body().to_vec());
        }
        Self::of(|system| Ok(all.remove(system).unwrap_or_default()))
    }

    /// Reads the journal files of a sandbox that has stopped.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        Self::of(|system| {
            let path = directory.join(format!("{system}.journal"));
            Ok(if path.exists() { std::fs::read(&path)? } else { Vec::new() })
        })
    }

    /// Reads the text of each system's journal.
    pub fn of(mut text: impl FnMut(&str) -> anyhow::Result<Vec<u8>>) -> anyhow::Result<Self> {
        let mut channel = Vec::new();
        for system in CHANNELS {
            channel.extend(lines(&text(system)?)?);
        }
        let mut departments = BTreeMap::new();
        for (system, profile) in DEPARTMENTS {
            departments.insert(profile.to_owned(), lines(&text(system)?)?);
        }
        Ok(Self { channel, departments })
    }
}

fn systems() -> impl Iterator<Item = &'static str> {
    CHANNELS.into_iter().chain(DEPARTMENTS.map(|(system, _)| system))
}

/// Reads NDJSON. A last line without its end was never answered.
fn lines(bytes: &[u8]) -> anyhow::Result<Vec<Value>> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = bytes.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a journal line")).collect()
}
