//! What drills need to know.

/// Every crash point of every crate, in the order in which the roles are mounted.
pub fn crash_points() -> impl Iterator<Item = &'static str> {
    let of_operators = payments::OPERATORS_CRASH_POINTS.iter().copied();
    let of_others = [adapter::CRASH_POINTS, cases::CRASH_POINTS];
    std::iter::once(payments::CRASH_POINTS).chain(of_operators).chain(of_others).flatten().copied()
}
