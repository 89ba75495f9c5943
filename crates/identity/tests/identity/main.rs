//! Identity as its callers meet it: behind its stack, over a wire, on a real store.

mod assertions;
mod citizens;
mod grants;
mod keys;
mod once;
mod pepper;
mod rig;
mod secrecy;
#[path = "../../../../tests/src/servers.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of other crates, which use the rest")]
mod servers;
mod vectors;
