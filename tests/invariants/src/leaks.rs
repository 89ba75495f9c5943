use std::path::PathBuf;

use aho_corasick::AhoCorasick;
use anyhow::Context as _;

/// Where personal data must not be.
#[derive(Clone, Debug, Default)]
pub struct Leaks {
    /// Unique markers that went through every flow as personal data.
    pub canaries: Vec<String>,
    /// Logs, metrics, traces, errors and the contents of stores, by name.
    pub texts: Vec<(String, Vec<u8>)>,
    /// Files that are read as bytes: database files and their journals, logs.
    pub files: Vec<PathBuf>,
}

/// What a search came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Which canary is where.
    pub found: Vec<String>,
    /// How many canaries were looked for.
    pub canaries: u64,
    /// Texts and files that were looked at.
    pub texts: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Leaks {
    /// Looks for every canary everywhere.
    pub(super) fn search(&self) -> anyhow::Result<Searched> {
        let canaries: Vec<&String> = self.canaries.iter().filter(|canary| !canary.is_empty()).collect();
        let all = AhoCorasick::new(&canaries)?;
        let mut searched = Searched { canaries: canaries.len() as u64, ..Searched::default() };
        let mut look = |name: &str, bytes: &[u8]| {
            searched.texts += 1;
            searched.bytes += bytes.len() as u64;
            if let Some(hit) = all.find(bytes) {
                // The marker itself is not repeated: the report goes into logs.
                searched.found.push(format!(
                    "canary {} is in {name}, at byte {}",
                    hit.pattern().as_usize(),
                    hit.start()
                ));
            }
        };
        for (name, text) in &self.texts {
            look(name, text);
        }
        for path in &self.files {
            look(&path.display().to_string(), &std::fs::read(path).with_context(|| path.display().to_string())?);
        }
        Ok(searched)
    }
}
