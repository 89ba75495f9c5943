//! Where the catalogue's files are.

use std::path::PathBuf;

/// Configuration of the catalogue.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the open data and of `catalog/`.
    pub data_dir: PathBuf,
    /// Folder of the item schemas, `<item>/{input,result,record}.json`.
    pub schemas_dir: PathBuf,
    /// Also load `catalog/sandbox/`: items that the articles do not give a city. Only beside the sandbox.
    pub sandbox: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { data_dir: "data".into(), schemas_dir: "departments/schemas".into(), sandbox: false }
    }
}
