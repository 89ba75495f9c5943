use crate::{Clock, Ids, Net, Tasks, crash, telemetry::Metrics};

/// The outside world of one role: everything it may use that is not its own state.
///
/// Shape: a bundle of cheap handles; clone it freely. One per process, or one per simulated host.
#[derive(Clone, Debug)]
pub struct Context {
    /// The time, and waiting.
    pub clock: Clock,
    /// Ids and random bytes.
    pub ids: Ids,
    /// Sockets.
    pub net: Net,
    /// Background work and the stop signal.
    pub tasks: Tasks,
    /// Where counters and histograms are registered.
    pub metrics: Metrics,
    /// Where a drill makes the process (or the simulated host) die.
    pub crash: crash::Points,
}

impl Context {
    /// Builds the context of a real process: system time, operating system randomness, TCP.
    pub fn system() -> Self {
        let clock = Clock::system();
        Self {
            ids: Ids::system(clock.clone()),
            net: Net::system(),
            tasks: Tasks::new(),
            metrics: Metrics::new(),
            crash: crash::Points::process(),
            clock,
        }
    }

    /// Builds the context of one simulated host.
    ///
    /// Shape: call it inside the host's own runtime, once per start of the host; `now` is the simulation's time at this call, so that
    /// a restarted host does not go back in time. `points` outlives the host: it counts across restarts and freezes the host's
    /// sockets and tasks from the moment a crash point fires (see [`crash::Points::simulated`]).
    pub fn simulated(now: crate::Timestamp, seed: u64, net: Net, points: crash::Points) -> Self {
        let clock = Clock::simulated(now);
        Self {
            ids: Ids::seeded(clock.clone(), seed),
            net: net.frozen_by(points.clone()),
            tasks: Tasks::with_crash_points(points.clone()),
            metrics: Metrics::new(),
            crash: points,
            clock,
        }
    }
}
