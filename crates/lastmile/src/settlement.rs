//! `lastmile settlement verify`: what a department was sent, checked without us.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use payments::settlement;

/// Checks a file with its signature beside it; false where something is wrong, which goes to `out`.
///
/// Errors: a file that cannot be read, or has no name.
pub(crate) fn verify(file: &Path, key: &Path, out: &mut impl Write) -> anyhow::Result<bool> {
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else {
        bail!("{} has no name", file.display());
    };
    let told = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let (signature, keys) = (told(&beside(file, ".jws"))?, told(key)?);
    let sidecar = match fs::read_to_string(beside(file, ".sha256")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(read.context("the .sha256 file")?),
    };
    let content = File::open(file).with_context(|| file.display().to_string())?;
    match settlement::verify(name, BufReader::new(content), &signature, &keys, sidecar.as_deref()) {
        Ok(report) => {
            let settlement::Report { settlement_id, payee, currency, gross, refunds, carried, net, kid, .. } = &report;
            writeln!(out, "sound: {name} of {settlement_id}, payee {payee}")?;
            for (what, number) in &report.lines {
                writeln!(out, "  {what}: {number}")?;
            }
            writeln!(
                out,
                "  gross {gross}, refunds {refunds}, carried {carried}, net {net} (minor units of {currency})"
            )?;
            writeln!(out, "  sha256 {}, signed by {kid}", report.sha256)?;
            Ok(true)
        }
        Err(error) => {
            writeln!(out, "broken: {name}: {error}")?;
            Ok(false)
        }
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
