//! What the demonstration prints.

use std::io::{self, Write};

/// Prints numbered steps.
pub(crate) struct Teller<'a> {
    out: &'a mut dyn Write,
    step: u32,
}

impl<'a> Teller<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out, step: 0 }
    }

    /// A line over what follows.
    pub(crate) fn title(&mut self, text: &str) -> io::Result<()> {
        self.step = 0;
        writeln!(self.out, "\n{text}")
    }

    /// A step: who does something, and what comes of it.
    pub(crate) fn step(&mut self, what: &str, result: &str) -> io::Result<()> {
        self.step += 1;
        writeln!(self.out, "{:>3}  {what:<11}{result}", self.step)?;
        self.out.flush()
    }

    /// More on the step before.
    pub(crate) fn detail(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "                {text}")
    }

    /// The end was not the promised one.
    pub(crate) fn broken(&mut self, what: &str) -> io::Result<()> {
        writeln!(self.out, "BROKEN  {what}")
    }
}

/// Fen as yuan.
pub(crate) fn yuan(minor: i64) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    let fen = minor.unsigned_abs();
    format!("{sign}{}.{:02} yuan", fen / 100, fen % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fen_are_printed_as_yuan() {
        assert_eq!(yuan(20_005), "200.05 yuan");
        assert_eq!(yuan(-5), "-0.05 yuan");
        assert_eq!(yuan(0), "0.00 yuan");
    }

    #[test]
    fn steps_are_counted_anew_under_each_title() {
        let mut out = Vec::new();
        let mut teller = Teller::new(&mut out);
        teller
            .title("one")
            .and_then(|()| teller.step("token", "a"))
            .and_then(|()| teller.title("two"))
            .expect("writes");
        teller.step("token", "b").expect("writes");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.matches("  1  token").count(), 2, "{text}");
    }
}
