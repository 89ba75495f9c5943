//! The rules, without I/O and without a clock.

pub mod citizen;
pub mod document;
pub mod level;
pub mod names;
pub mod person;
