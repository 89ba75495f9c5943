use std::fmt;

/// What became of one invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It held, over what was counted.
    Held,
    /// It did not; each line names one breach.
    Broken(Vec<String>),
    /// The service that it speaks of does not exist yet.
    NotServed,
    /// The test brought nothing to judge it by.
    NotJudged,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The lines.
    pub lines: Vec<Line>,
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

    /// Fails the test unless everything that could be judged held.
    pub fn assert_held(&self) {
        assert!(self.broken().is_empty(), "broken invariants {:?}\n{self}", self.broken());
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
                Verdict::NotJudged => "not judged",
            };
            write!(f, "{id:<4}{word:<11} {what}")?;
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
