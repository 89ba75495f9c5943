use std::fmt;

use super::evidence::Evidence;

/// Every invariant that has a service: all but the audit log's.
pub const SERVED: [&str; 9] = ["I1", "I2", "I3", "I4", "I5", "I6", "I8", "I9", "I10"];

/// What became of one invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It held, over what was counted.
    Held,
    /// It did not; each line names one breach.
    Broken(Vec<String>),
    /// The service that it speaks of does not exist yet.
    NotServed,
    /// It could not be judged here, for this reason.
    NotJudged(&'static str),
}

/// One invariant of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// "I1" to "I10".
    pub id: &'static str,
    /// What it says.
    pub what: &'static str,
    /// What became of it.
    pub verdict: Verdict,
    /// What was counted.
    pub counts: Vec<(&'static str, u64)>,
}

/// All invariants, in their order.
#[derive(Clone, Debug)]
pub struct Report {
    /// The lines.
    pub lines: Vec<Line>,
    /// What they were judged by.
    pub evidence: Evidence,
}

impl Report {
    /// The ids of the invariants that did not hold.
    pub fn broken(&self) -> Vec<&'static str> {
        self.lines.iter().filter(|line| matches!(line.verdict, Verdict::Broken(_))).map(|line| line.id).collect()
    }

    /// The verdict on one invariant.
    pub fn verdict(&self, id: &str) -> Option<&Verdict> {
        self.lines.iter().find(|line| line.id == id).map(|line| &line.verdict)
    }

    /// Fails unless these invariants were judged, and everything that was judged held. What nobody brought evidence for has not passed:
    /// every caller says what it must have brought.
    pub fn require(&self, ids: &[&str]) -> anyhow::Result<()> {
        let broken = self.broken();
        let held = |id: &&str| self.verdict(id) == Some(&Verdict::Held);
        let unjudged: Vec<_> = ids.iter().filter(|id| !held(id) && !broken.contains(*id)).collect();
        anyhow::ensure!(
            broken.is_empty() && unjudged.is_empty(),
            "broken invariants {broken:?}, required and not judged {unjudged:?}\n{self}"
        );
        Ok(())
    }
}

/// Breaches that are printed of one invariant; more are counted.
const SHOWN_MAX: usize = 20;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line { id, what, verdict, counts } in &self.lines {
            let word = match verdict {
                Verdict::Held => "held",
                Verdict::Broken(_) => "BROKEN",
                Verdict::NotServed => "not served",
                Verdict::NotJudged(_) => "not judged",
            };
            write!(f, "{id:<4}{word:<11} {what}")?;
            if let Verdict::NotJudged(why) = verdict {
                write!(f, ": {why}")?;
            }
            for (name, count) in counts {
                write!(f, " · {name} {count}")?;
            }
            writeln!(f)?;
            if let Verdict::Broken(breaches) = verdict {
                for breach in breaches.iter().take(SHOWN_MAX) {
                    writeln!(f, "      {breach}")?;
                }
                if let Some(more) = breaches.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
                    writeln!(f, "      … and {more} more")?;
                }
            }
        }
        Ok(())
    }
}
