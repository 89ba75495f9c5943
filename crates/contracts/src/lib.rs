//! The contracts of lastmile as Rust types.
//!
//! Everything under `gen` is written by `make gen` from `proto/` and checked in; a test regenerates it and demands a
//! clean tree. Beside it stand only what every crate needs to speak of the same things: typed ids ([`ids`]) and checked
//! money ([`money`]). There is no behaviour and no I/O here: deleting every service still compiles this crate.

pub mod ids;
pub mod money;

/// Declares one generated package under its own path, so that `lastmile.cases.v1` is `contracts::cases::v1`.
macro_rules! package {
    ($(#[$doc:meta])* $domain:ident, $file:literal) => {
        $(#[$doc])*
        pub mod $domain {
            /// Version 1.
            #[allow(
                clippy::all,
                clippy::pedantic,
                clippy::allow_attributes_without_reason,
                missing_docs,
                unreachable_pub,
                rustdoc::all,
                reason = "generated code: its comments and shapes are those of proto/"
            )]
            pub mod v1 {
                include!($file);
            }
        }
    };
}

package!(
    /// Money, outcomes and who may call what.
    common,
    "gen/lastmile.common.v1.rs"
);
package!(
    /// What every department answers.
    department,
    "gen/lastmile.department.v1.rs"
);
package!(
    /// Tokens, keys and consents.
    identity,
    "gen/lastmile.identity.v1.rs"
);
package!(
    /// Regions, items and routes.
    catalog,
    "gen/lastmile.catalog.v1.rs"
);
package!(
    /// Orders, refunds and the ledger.
    payments,
    "gen/lastmile.payments.v1.rs"
);
package!(
    /// Everything that changes the world.
    cases,
    "gen/lastmile.cases.v1.rs"
);

package!(
    /// What the gateway itself refuses.
    gateway,
    "gen/lastmile.gateway.v1.rs"
);

/// The encoded `FileDescriptorSet` of every package, imports and custom options included, without source comments.
/// Reflection serves it; `rpc` reads the access option of each method from it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptors.bin");
