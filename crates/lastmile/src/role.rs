//! The roles of the mesh that this binary can play: those of the contract that are served, with their names on the command line.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A part of lastmile that can run in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The public door.
    Gateway,
    /// People, entry points, tokens, keys.
    Identity,
    /// Items, regions, routes.
    Catalog,
    /// Orders, refunds, the ledger, the channels' callbacks.
    Payments,
    /// Everything that changes the world.
    Cases,
    /// The departments' profiles.
    Adapter,
    /// Simulated departments and channels; development only.
    Sandbox,
}

impl Role {
    /// Every role, in the order in which they are mounted: what others call comes first.
    pub const ALL: [Self; 7] =
        [Self::Sandbox, Self::Identity, Self::Catalog, Self::Payments, Self::Adapter, Self::Cases, Self::Gateway];

    /// The name on the command line, in mesh keys, certificates and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => rpc::role_name(rpc::Role::Gateway),
            Self::Identity => rpc::role_name(rpc::Role::Identity),
            Self::Catalog => rpc::role_name(rpc::Role::Catalog),
            Self::Payments => rpc::role_name(rpc::Role::Payments),
            Self::Cases => rpc::role_name(rpc::Role::Cases),
            Self::Adapter => rpc::role_name(rpc::Role::Adapter),
            Self::Sandbox => rpc::role_name(rpc::Role::Sandbox),
        }
    }

    /// The name in the role's certificate.
    pub fn dns_name(self) -> String {
        rpc::role::role_dns_name(self.into())
    }
}

/// The role as the contract names it.
impl From<Role> for rpc::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Gateway => Self::Gateway,
            Role::Identity => Self::Identity,
            Role::Catalog => Self::Catalog,
            Role::Payments => Self::Payments,
            Role::Cases => Self::Cases,
            Role::Adapter => Self::Adapter,
            Role::Sandbox => Self::Sandbox,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given} is not a role that is served; known are gateway, identity, catalog, payments, cases, adapter and sandbox"
)]
pub struct UnknownRole {
    given: String,
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        let found = Self::ALL.into_iter().find(|role| role.name() == name);
        found.ok_or_else(|| UnknownRole { given: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_everywhere() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert_eq!(serde_json::to_string(&role).expect("serialises"), format!("\"{role}\""));
            assert!(UnknownRole { given: String::new() }.to_string().contains(role.name()), "{role} is not told");
        }
        assert!("audit".parse::<Role>().is_err(), "a role without a service is refused");
    }
}
