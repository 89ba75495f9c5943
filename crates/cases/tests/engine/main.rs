//! The whole case engine against scripted peers: every role that cases calls is a small honest model of itself, written against the
//! generated server traits, that can be told to lose answers, refuse, hang or change its mind.
//!
//! `lives` leads cases through every way they can take, on every store; `crashes` does it while cases is killed at every crash point.

#[allow(dead_code, unreachable_pub, reason = "shared with other tests, which use the rest of it")]
#[path = "../../../../tests/src/servers.rs"]
mod servers;

mod bench;
mod citizens;
mod crashes;
mod fakes;
mod judge;
mod life;
mod lives;
mod rules;
