//! Drills on real processes: the binary that operators run, killed as the kernel kills it, with the world outside in a process of its
//! own that remembers everything.
//!
//! [`points`] kills it once at every crash point that it names, [`load`] at random moments under load. What is judged in the end is what
//! ledger, cases and the journals of channel and departments have written down. [`money`] does both to payments alone, or to its database.

pub mod lives;
pub mod load;
pub mod money;
pub mod people;
pub mod points;
pub mod process;
pub mod site;
pub mod watch;
