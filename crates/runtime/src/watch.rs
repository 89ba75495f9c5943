//! A value that many wait on to change.
//!
//! As `tokio::sync::watch`, with one difference: whoever waited longest is woken first. Tokio spreads its waiters over queues that it
//! draws at random, and a simulation in which two of them wait could not be replayed.

use std::fmt;
use std::ops::Deref;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Changes the value. Clones change the same value; with the last of them gone nobody waits any more.
pub struct Sender<T>(Arc<Held<T>>);

/// Sees the value, and waits for its next change.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The version that was seen last.
    seen: u64,
}

/// Every sender is gone: the value changes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody changes the value any more")]
pub struct Closed;

/// The value, as long as it is looked at. Do not wait for anything while holding it.
pub struct Ref<'a, T>(MutexGuard<'a, State<T>>);

struct Held<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

struct State<T> {
    value: T,
    version: u64,
    is_closed: bool,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Starts with a value.
    pub fn new(value: T) -> Self {
        let state = Mutex::new(State { value, version: 0, is_closed: false });
        Self(Arc::new(Held(Arc::new(Shared { state, changed: Notify::new() }))))
    }

    /// Changes the value and wakes everybody who waits, in the order in which they came.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        let shared = &self.0.0;
        {
            let mut state = shared.state();
            change(&mut state.value);
            state.version = state.version.wrapping_add(1);
        }
        shared.changed.notify_waiters();
    }

    /// Looks at the value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.0.state())
    }

    /// Starts waiting: the present value counts as seen.
    pub fn subscribe(&self) -> Receiver<T> {
        let shared = self.0.0.clone();
        let seen = shared.state().version;
        Receiver { shared, seen }
    }
}

impl<T> Receiver<T> {
    /// Waits for a change since the value that was seen last. Cancelling it loses nothing.
    ///
    /// Errors: [`Closed`].
    pub async fn changed(&mut self) -> Result<(), Closed> {
        let shared = self.shared.clone();
        loop {
            let mut told = pin!(shared.changed.notified());
            // In the queue before the look, so that no change falls between the two.
            told.as_mut().enable();
            {
                let state = shared.state();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.is_closed {
                    return Err(Closed);
                }
            }
            told.await;
        }
    }

    /// Waits until the value is as wanted, which it may be already.
    ///
    /// Errors: [`Closed`].
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<(), Closed> {
        loop {
            {
                let state = self.shared.state();
                self.seen = state.version;
                if wanted(&state.value) {
                    return Ok(());
                }
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_waiters();
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receiver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tasks;

    #[tokio::test]
    async fn those_who_waited_longest_are_woken_first() {
        const WAITERS: u32 = 40;
        let (tasks, value) = (Tasks::new(), Sender::new(0));
        let order = Arc::new(Mutex::new(Vec::new()));
        for waiter in 0..WAITERS {
            let (mut changes, order) = (value.subscribe(), order.clone());
            tasks.spawn("waits", async move {
                changes.changed().await.expect("it changes");
                order.lock().expect("not poisoned").push(waiter);
            });
        }
        tokio::task::yield_now().await;
        value.send_modify(|value| *value += 1);
        assert!(tasks.wait(std::time::Duration::from_secs(5)).await);
        assert_eq!(*order.lock().expect("not poisoned"), (0..WAITERS).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_change_before_the_waiting_is_not_missed_and_counts_once() {
        let value = Sender::new(1);
        let mut changes = value.subscribe();
        value.clone().send_modify(|value| *value = 2);
        assert_eq!(changes.changed().await, Ok(()));
        assert_eq!(*value.borrow(), 2);
        assert!(futures::poll!(pin!(changes.changed())).is_pending(), "it was seen");
        assert_eq!(changes.wait_for(|value| *value == 2).await, Ok(()));
    }

    #[tokio::test]
    async fn nobody_waits_for_senders_that_are_gone() {
        let value = Sender::new(1);
        let mut changes = value.subscribe();
        let other = value.clone();
        drop(value);
        let mut waiting = pin!(changes.wait_for(|value| *value == 9));
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "one is left");
        drop(other);
        assert_eq!(waiting.await, Err(Closed));
    }
}
