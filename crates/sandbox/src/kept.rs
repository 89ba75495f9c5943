//! A state that is kept: changed under one lock, journalled in the order of its changes, answered from only when it is synced.

use std::sync::{Mutex, MutexGuard, PoisonError};

use runtime::{Clock, Timestamp};
use serde::Serialize;

use crate::journal::{Journal, NotKept};

/// A state that changes by events alone.
pub(crate) trait State {
    /// A change.
    type Event: Serialize;

    /// Applies a change that happened at `at`; live and at replay alike.
    fn apply(&mut self, event: &Self::Event, at: Timestamp);

    /// Decides what has fallen due by itself.
    fn due(&self, now: Timestamp) -> Vec<Self::Event>;
}

/// A state with its journal.
#[derive(Debug)]
pub(crate) struct Kept<S> {
    state: Mutex<S>,
    journal: Journal,
    clock: Clock,
}

impl<S: State> Kept<S> {
    /// Takes a replayed state.
    pub(crate) fn new(state: S, journal: Journal, clock: Clock) -> Self {
        Self { state: Mutex::new(state), journal, clock }
    }

    /// Returns the journal.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Returns the time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Looks at the state without answering anybody from it.
    pub(crate) fn peek<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.locked())
    }

    /// Changes the state and answers from it, once the change and everything that the answer shows is synced.
    pub(crate) async fn change<T, E>(
        &self,
        decide: impl FnOnce(&S, Timestamp) -> Result<Vec<S::Event>, E>,
        view: impl FnOnce(&S, Timestamp) -> Result<T, E>,
    ) -> Result<Result<T, E>, NotKept> {
        let (answer, seq) = {
            let (mut state, now) = self.ready()?;
            let answer = decide(&state, now).and_then(|events| {
                self.apply(&mut state, now, events);
                view(&state, now)
            });
            (answer, self.journal.last())
        };
        self.journal.durable(seq).await?;
        Ok(answer)
    }

    /// Answers from the state as it was, and then changes it by what the answering causes.
    pub(crate) async fn read<T>(
        &self,
        find: impl FnOnce(&S, Timestamp) -> T,
        effect: impl FnOnce(&S, &T) -> Vec<S::Event>,
    ) -> Result<T, NotKept> {
        let (found, seq) = {
            let (mut state, now) = self.ready()?;
            let found = find(&state, now);
            let events = effect(&state, &found);
            self.apply(&mut state, now, events);
            (found, self.journal.last())
        };
        self.journal.durable(seq).await?;
        Ok(found)
    }

    /// Does what has fallen due.
    pub(crate) async fn sweep(&self) -> Result<(), NotKept> {
        self.read(|_, _| (), |_, ()| Vec::new()).await
    }

    /// Takes the state with everything done that has fallen due.
    fn ready(&self) -> Result<(MutexGuard<'_, S>, Timestamp), NotKept> {
        let mut state = self.locked();
        self.journal.ready()?;
        let now = self.now();
        let due = state.due(now);
        self.apply(&mut state, now, due);
        Ok((state, now))
    }

    fn apply(&self, state: &mut S, now: Timestamp, events: Vec<S::Event>) {
        for event in events {
            state.apply(&event, now);
            self.journal.append(now, event);
        }
    }

    fn locked(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
