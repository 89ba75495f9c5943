//! Who is calling.

use std::sync::Arc;

use crate::role::{Role, role_name};

/// The caller of a method, as the stack established it. Never read from a header that the caller could write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Another role of the mesh: by its certificate, or by the local wire it came over.
    Role(Role),
    /// A public caller that showed nothing.
    Anonymous,
    /// A public caller with an entry point's own access token.
    EntryPoint {
        /// The entry point, for example "wechat".
        id: Arc<str>,
    },
    /// A public caller with a citizen token issued to it.
    Citizen {
        /// The entry point that acts.
        entry_point: Arc<str>,
        /// The citizen's pairwise subject at this entry point. Stands for a person: never log it.
        subject: Arc<str>,
    },
    /// A clerk or operator.
    Staff {
        /// The subject of the staff token.
        subject: Arc<str>,
        /// True for an operator, false for a clerk.
        operator: bool,
    },
}

impl Principal {
    /// The role, when a role is calling.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Role(role) => Some(*role),
            Self::Anonymous | Self::EntryPoint { .. } | Self::Citizen { .. } | Self::Staff { .. } => None,
        }
    }

    /// What may be written in logs and metadata: the kind of caller, a role's name, no subject.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Role(role) => role_name(*role),
            Self::Anonymous => "anonymous",
            Self::EntryPoint { .. } => "entry_point",
            Self::Citizen { .. } => "citizen",
            Self::Staff { .. } => "staff",
        }
    }
}

/// Returns who is calling. Inside a handler behind the server stack there always is one; without the stack it is `Anonymous`.
pub fn principal<T>(request: &tonic::Request<T>) -> &Principal {
    request.extensions().get().unwrap_or(&Principal::Anonymous)
}
