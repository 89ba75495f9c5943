//! The rules, without I/O and without a clock.

pub mod document;
