//! `lastmile config check | show | schema`.

use std::io::{self, Write};

use runtime::config::{Fault, Loaded};

use crate::Config;

/// Prints every value with its source, in an order that does not change.
pub fn show(loaded: &Loaded<Config>, out: &mut impl Write) -> io::Result<()> {
    let entries = loaded.entries();
    let width = entries.iter().map(|entry| entry.path.len() + entry.value.len()).filter(|width| *width < 72).max();
    for entry in &entries {
        let line = format!("{} = {}", entry.path, entry.value);
        writeln!(out, "{line:<width$}  # {}", entry.source, width = width.unwrap_or(0) + " = ".len())?;
    }
    Ok(())
}

/// Prints the JSON Schema of the configuration.
pub fn schema(out: &mut impl Write) -> io::Result<()> {
    let schema = schemars::schema_for!(Config);
    let text = serde_json::to_string_pretty(&schema).map_err(io::Error::other)?;
    writeln!(out, "{text}")
}

/// Prints every fault, one a line.
pub fn faults(faults: &[Fault], out: &mut impl Write) -> io::Result<()> {
    for fault in faults {
        writeln!(out, "{fault}")?;
    }
    let count = faults.len();
    writeln!(out, "{count} {} in the configuration; nothing was started", if count == 1 { "fault" } else { "faults" })
}
