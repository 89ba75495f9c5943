//! What the transport knows of the other end.

use std::net::SocketAddr;

use crate::role::Role;

/// The other end of a connection, or the role at the other end of a local wire.
///
/// Shape: only this crate makes one. It travels as a request extension from the accept loop or the local wire to the strip step, which
/// keeps it and throws away every other extension; so nothing that a caller can write becomes an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    role: Option<Role>,
    address: Option<SocketAddr>,
}

impl Peer {
    /// A role of the same process.
    pub(crate) fn local(role: Role) -> Self {
        Self { role: Some(role), address: None }
    }

    /// A connection; `role` where its certificate (or a simulation's address book) proved one.
    pub(crate) fn remote(address: SocketAddr, role: Option<Role>) -> Self {
        Self { role, address: Some(address) }
    }

    /// The proven role.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// Where the connection came from; `None` for a local wire.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}
