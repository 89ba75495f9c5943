use std::sync::{Arc, Mutex, PoisonError};

/// What a test makes a database do wrong (see [`crate::Db::with_faults`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers with an error at once, as a server that shuts down.
    Fail,
    /// Does not answer: the caller waits out its deadline.
    Hang,
    /// Does the thing, then loses the connection before the answer arrives.
    Tear,
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// When a transaction begins.
    Begin,
    /// At the n-th statement from the arming on, counted from 1, over all handles that share the faults.
    Statement(u32),
    /// When COMMIT is about to be sent: the transaction has no effect, but after `Hang` or `Tear` the caller cannot know.
    BeforeCommit,
    /// When the engine has committed: the answer is lost, whatever the fault.
    AfterCommit,
}

/// A set of armed faults. Each strikes once.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    armed: Vec<(Fault, At)>,
    struck: u32,
}

impl Faults {
    /// Starts with nothing armed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Arms one fault, beside those armed before.
    pub fn arm(&self, fault: Fault, at: At) {
        self.locked(|state| state.armed.push((fault, at)));
    }

    /// Takes all faults away.
    pub fn disarm(&self) {
        self.locked(|state| state.armed.clear());
    }

    /// Returns how many faults have struck, so that a test can show that its fault was hit.
    pub fn struck(&self) -> u32 {
        self.locked(|state| state.struck)
    }

    /// Counts a statement down, and takes the fault that strikes at it.
    pub(crate) fn at_statement(&self) -> Option<Fault> {
        self.locked(|state| {
            for (_, at) in &mut state.armed {
                if let At::Statement(left) = at {
                    *left = left.saturating_sub(1);
                }
            }
            state.take(At::Statement(0))
        })
    }

    /// Takes the fault that strikes at a place other than a statement.
    pub(crate) fn at(&self, place: At) -> Option<Fault> {
        self.locked(|state| state.take(place))
    }

    fn locked<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn take(&mut self, place: At) -> Option<Fault> {
        let index = self.armed.iter().position(|(_, at)| *at == place)?;
        self.struck = self.struck.saturating_add(1);
        Some(self.armed.remove(index).0)
    }
}
