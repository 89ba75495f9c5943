//! The shapes of the catalogue's files.

use crate::domain::{Binding, Entry, ItemInfo};
use contracts::common::v1 as pb;
use contracts::money::Currency;
use rpc::form::is_line;
use std::collections::BTreeMap;

/// Longest name, source, payee or purpose, in characters.
pub(crate) const LINE_CHARS_MAX: usize = 64;
/// Most consents that an item needs.
const CONSENTS_MAX: usize = 16;

/// A row of city_services.csv.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct ServiceRow {
    pub gb2260: String,
    pub service: String,
    pub channel: String,
    pub article: String,
}

/// An entry point of entry_points.yaml.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryPointFile {
    pub id: String,
    #[serde(rename = "name")]
    pub _name: String,
    #[serde(rename = "super_app")]
    pub _super_app: bool,
    pub channels: Vec<String>,
}

/// How deep, as the files write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum DepthName {
    Inform,
    Query,
    Book,
    Pay,
    Handle,
}

impl From<DepthName> for pb::Depth {
    fn from(name: DepthName) -> Self {
        match name {
            DepthName::Inform => Self::Inform,
            DepthName::Query => Self::Query,
            DepthName::Book => Self::Book,
            DepthName::Pay => Self::Pay,
            DepthName::Handle => Self::Handle,
        }
    }
}

/// How sure, as the files write it.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum LevelName {
    Phone,
    NameId,
    TwoWay,
    Face,
}

impl From<LevelName> for pb::AssuranceLevel {
    fn from(name: LevelName) -> Self {
        match name {
            LevelName::Phone => Self::Phone,
            LevelName::NameId => Self::NameId,
            LevelName::TwoWay => Self::TwoWay,
            LevelName::Face => Self::Face,
        }
    }
}

/// An item of items.yaml.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ItemFile {
    pub item: String,
    pub name: String,
    #[serde(rename = "department")]
    pub _department: String,
    pub depth: DepthName,
    pub level_min: LevelName,
    pub names: Vec<ServiceName>,
}

/// A name of city_services.csv that means an item.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceName {
    pub name: String,
    pub depth: Option<DepthName>,
}

impl ItemFile {
    pub(crate) fn info(&self) -> ItemInfo {
        ItemInfo { name: self.name.clone(), level_min: self.level_min.into() }
    }
}

/// A profile of adapters.yaml.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdapterFile {
    pub profile: String,
    pub region: String,
    pub items: BTreeMap<String, Policy>,
}

/// The policy of one item of a profile.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    #[serde(default)]
    payee_id: String,
    #[serde(default)]
    currency: String,
    timeout: runtime::config::Duration,
    concurrency_max: u32,
    /// Calls a minute of one entry point; 0: no quota.
    #[serde(default)]
    quota_per_minute: u32,
    #[serde(default)]
    sensitive: bool,
    #[serde(default)]
    residents_only: bool,
    /// What a citizen must have agreed to, by purpose.
    #[serde(default)]
    consents: Vec<String>,
}

impl Policy {
    /// What the contract names and no service enforces yet, and whether this policy asks for it.
    pub(crate) fn unserved(&self) -> [(&'static str, bool); 2] {
        [("sensitive", self.sensitive), ("residents_only", self.residents_only)]
    }

    /// What does not keep to the contract's lengths and forms.
    pub(crate) fn problems(&self) -> Vec<&'static str> {
        let consents =
            self.consents.len() <= CONSENTS_MAX && self.consents.iter().all(|one| is_line(one, LINE_CHARS_MAX));
        [
            (
                self.payee_id.is_empty() || is_line(&self.payee_id, LINE_CHARS_MAX),
                "payee_id must be at most 64 characters",
            ),
            (
                self.currency.is_empty() || self.currency.parse::<Currency>().is_ok(),
                "currency must be an ISO 4217 code",
            ),
            (consents, "consents must be at most 16, each 1 to 64 characters"),
        ]
        .into_iter()
        .filter_map(|(fits, what)| (!fits).then_some(what))
        .collect()
    }

    pub(crate) fn binding(&self, profile: &str) -> Binding {
        Binding {
            profile: profile.to_owned(),
            payee_id: self.payee_id.clone(),
            currency: self.currency.clone(),
            timeout: self.timeout.into(),
            concurrency_max: self.concurrency_max,
            quota_per_minute: self.quota_per_minute,
            sensitive: self.sensitive,
            residents_only: self.residents_only,
            consents: self.consents.clone(),
        }
    }
}

/// An entry of catalog/sandbox/.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SandboxEntry {
    pub region: String,
    pub item: String,
    pub entry_point: String,
    depth: DepthName,
    display_name: String,
    source: String,
}

impl SandboxEntry {
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            depth: self.depth.into(),
            display_name: self.display_name.clone(),
            source: self.source.clone(),
            sandbox_only: true,
        }
    }
}
