//! `lastmile adapter check`: profiles against their schemas and golden cases.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::Config;

/// Checks the files, or every profile of the configured folder; true when all of them hold.
pub(crate) async fn check(config: &Config, files: &[PathBuf], out: &mut impl Write) -> anyhow::Result<bool> {
    let files = if files.is_empty() { all(&config.adapter.departments_dir)? } else { files.to_vec() };
    let mut all_hold = true;
    for file in files {
        let report = adapter::check::check(&file, &config.adapter.schemas_dir()).await;
        writeln!(out, "{}", file.display())?;
        for line in report.to_string().lines() {
            writeln!(out, "  {line}")?;
        }
        all_hold &= report.is_ok();
    }
    Ok(all_hold)
}

/// Every `department/region.yaml` below a folder.
fn all(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for department in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        files.extend(
            entries(&department)?.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "yaml")),
        );
    }
    if files.is_empty() {
        bail!("no profile in {}", folder.display());
    }
    files.sort();
    Ok(files)
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    read.map(|entry| Ok(entry?.path())).collect()
}
