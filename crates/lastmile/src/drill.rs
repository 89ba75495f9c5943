//! What drills need to know.

/// Every crash point of every crate, in the order in which the roles are mounted.
pub fn crash_points() -> impl Iterator<Item = &'static str> {
    let [settlements, days] = payments::OPERATORS_CRASH_POINTS;
    [payments::CRASH_POINTS, settlements, days, adapter::CRASH_POINTS, cases::CRASH_POINTS]
        .into_iter()
        .flatten()
        .copied()
}
