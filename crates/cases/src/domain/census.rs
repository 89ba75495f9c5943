/// How many cases there are, by who answers for them.
///
/// accepted = terminal + open within their deadline + with a clerk + silent, and silent = 0: that is the promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// All that were ever opened.
    pub accepted: i64,
    /// Those that have ended.
    pub terminal: i64,
    /// Open, and their deadline is still to come.
    pub open_in_time: i64,
    /// Open, and a clerk's task answers for them.
    pub with_clerk: i64,
}

impl Census {
    /// Cases that nobody answers for. Anything but 0 is a bug.
    #[must_use]
    pub const fn silent(&self) -> i64 {
        self.accepted - self.terminal - self.open_in_time - self.with_clerk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_answers_for_is_silent() {
        let census = Census { accepted: 10, terminal: 5, open_in_time: 3, with_clerk: 1 };
        assert_eq!(census.silent(), 1);
    }
}
