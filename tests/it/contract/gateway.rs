//! The gateway's door: what is refused there, in which words, and that nobody behind it hears of what is refused.

mod crowd;
mod limits;
mod operators;
mod passage;
mod policy;
mod rig;
mod tokens;
