//! The wire between roles, and everything that stands around it.
//!
//! A contract becomes client, server and in-process call without any code of its own: a service implements the generated trait, and
//! its callers use the generated client over a [`Wire`], one type whether the peer is in the same process or across a network. So no
//! service knows where its peers are, and every test of a contract holds for both. Four things would differ by themselves and are
//! made equal here: request extensions are stripped, the limits live in our stack on the routes and not in a transport, a panic
//! becomes a status, and a local call carries its caller's role as explicitly as a certificate does.
//!
//! The parts: [`Wire`] and [`Mesh`] (ways to peers), [`stack`] (the steps around every call), [`serve()`] (the accept loop), [`Contract`]
//! (who may call what), [`Fault`] and [`RemoteFault`] (what goes wrong), [`jose`] and [`token`] (keys and what they sign), [`ca`] and
//! [`tls`] (certificates between roles), and small things that every service needs: [`time`], [`page`], [`digest`],
//! [`form`], [`call`].
//!
//! This crate owns no data and knows no domain.

#![warn(missing_docs)]

pub mod ca;
pub mod call;
pub mod contract;
pub mod digest;
pub mod fault;
pub mod form;
pub mod jose;
pub mod keyring;
pub mod oauth;
pub mod page;
pub mod role;
pub mod routes;
pub mod serve;
pub mod shape;
pub mod stack;
pub mod time;
pub mod tls;
pub mod token;
pub mod wire;

mod frames;
mod mounted;
mod not_served;
mod peer;
mod principal;
mod standard;

pub use contract::{Contract, ContractError, Method};
pub use fault::{
    COMMON, Details, Effect, Fault, Kind, Origin, ReasonSpec, ReasonTable, RemoteFault, Retry, Violation, not_served,
    status,
};
pub use http2::Authorization;
pub use mounted::{Mounted, Readiness};
pub use not_served::NOT_SERVED;
pub use peer::Peer;
pub use principal::{Principal, principal};
pub use role::{ROLES, Role, role_name, role_named, role_of_key};
pub use serve::{Inbound, Limits, Trust, serve, with_beat};
pub use stack::{ClientOptions, Door, Request, Response, Server, ServerOptions};
pub use standard::{ReflectionError, standard};
pub use wire::{MESH_KEY, Mesh, MeshError, RemoteOptions, Wire};

use std::time::Duration;

/// A boxed stream, as the streaming methods of the generated traits want one.
pub type BoxStream<T> = std::pin::Pin<Box<dyn futures::Stream<Item = Result<T, tonic::Status>> + Send>>;

/// Spreads a span by up to 10 % in either direction, so that what began together does not end together.
pub(crate) fn jitter(ids: &runtime::Ids, span: Duration) -> Duration {
    let tenth = span / 10;
    span - tenth + part(ids, tenth * 2)
}

/// Shortens a span by up to 10 %.
pub(crate) fn jitter_below(ids: &runtime::Ids, span: Duration) -> Duration {
    span - part(ids, span / 10)
}

fn part(ids: &runtime::Ids, most: Duration) -> Duration {
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(ids.below(micros.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use runtime::{Clock, Ids};

    use super::*;

    /// What is drawn stays within a tenth, uses all of it, and follows from the seed.
    #[test]
    fn ages_are_drawn_within_a_tenth() {
        let age = Duration::from_secs(30 * 60);
        let draw = |seed: u64, draw: fn(&Ids, Duration) -> Duration| {
            let ids = Ids::seeded(Clock::system(), seed);
            (0..500).map(|_| draw(&ids, age)).collect::<Vec<_>>()
        };
        for seed in 0..20 {
            for (how, lowest, highest) in [(jitter as fn(&Ids, Duration) -> Duration, 27, 33), (jitter_below, 27, 30)] {
                let [lowest, highest] = [lowest, highest].map(|minutes| Duration::from_secs(minutes * 60));
                let drawn = draw(seed, how);
                assert!(drawn.iter().all(|age| (lowest..=highest).contains(age)), "seed {seed}: {drawn:?}");
                let edge = (highest - lowest) / 20;
                assert!(drawn.iter().any(|age| *age < lowest + edge) && drawn.iter().any(|age| *age > highest - edge));
                assert_eq!(drawn, draw(seed, how), "seed {seed}");
                assert_ne!(drawn, draw(seed + 1, how), "seed {seed}");
            }
        }
    }
}
