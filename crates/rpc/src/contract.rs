//! The contract as the servers read it: every method with its access option and the shape of its request.
//!
//! Built once from the descriptor set. A lastmile method without the option, with an unspecified exposure, or open to nobody refuses
//! the start: access is never decided by what somebody forgot.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use contracts::common::v1::{Access, Credential, Exposure, Role};
use prost_reflect::{DescriptorPool, ExtensionDescriptor, MethodDescriptor};

use crate::principal::Principal;
use crate::shape::{ShapeId, Shapes};

/// Why a descriptor set cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// The bytes are no descriptor set.
    #[error("the descriptor set cannot be read")]
    Descriptor(#[source] prost_reflect::DescriptorError),
    /// The set lacks the option's own definition.
    #[error("the descriptor set lacks the extension lastmile.common.v1.access")]
    NoExtension,
    /// A method does not say who may call it.
    #[error("{method}: {problem}")]
    Method {
        /// Full path, for example "/lastmile.cases.v1.CaseService/OpenCase".
        method: String,
        /// What is wrong with its option.
        problem: &'static str,
    },
    /// The list of methods that are not served names one that is not in the contract.
    #[error("{0} is listed as not served and is not in the contract")]
    UnknownNotServed(&'static str),
}

/// Who may call a method, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// Full path, for example "/lastmile.cases.v1.CaseService/OpenCase".
    pub path: String,
    /// The widest audience.
    pub exposure: Exposure,
    /// The roles that may call it over a role-to-role wire.
    pub callers: Vec<Role>,
    /// What a public caller must present.
    pub credential: Credential,
    /// Whether the answer is a stream; streams end within 15 minutes instead of 30 seconds.
    pub server_streaming: bool,
    /// Whether this version serves it.
    pub served: bool,
    pub(crate) input: ShapeId,
}

impl Method {
    /// Decides by the caller alone, before anything is known of what the request names.
    pub fn admits(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Role(role) => self.callers.contains(role),
            Principal::Anonymous => self.is_open_to(Exposure::Public) && self.credential == Credential::None,
            Principal::EntryPoint { .. } => {
                self.is_open_to(Exposure::Public)
                    && matches!(self.credential, Credential::None | Credential::EntryPoint)
            }
            Principal::Citizen { .. } => {
                // A citizen token carries its entry point (`act`), so it does for both.
                self.is_open_to(Exposure::Public)
                    && matches!(self.credential, Credential::None | Credential::EntryPoint | Credential::Citizen)
            }
            Principal::Staff { operator, .. } => {
                self.credential == Credential::Staff
                    && (self.is_open_to(Exposure::Clerk) || (*operator && self.is_open_to(Exposure::Operator)))
            }
        }
    }

    fn is_open_to(&self, exposure: Exposure) -> bool {
        self.exposure == exposure
    }
}

/// Every method of the contract.
#[derive(Debug)]
pub struct Contract {
    methods: BTreeMap<String, Method>,
    shapes: Shapes,
}

impl Contract {
    /// The contract of this build, read once.
    ///
    /// Errors: as [`Contract::load`]; every later call repeats the first answer.
    pub fn lastmile() -> Result<&'static Self, &'static ContractError> {
        static CONTRACT: OnceLock<Result<Contract, ContractError>> = OnceLock::new();
        CONTRACT.get_or_init(|| Self::load(contracts::FILE_DESCRIPTOR_SET, crate::NOT_SERVED)).as_ref()
    }

    /// Reads a descriptor set; `not_served` lists full paths of methods that this version refuses.
    ///
    /// Errors: the first method whose access cannot be decided.
    pub fn load(descriptors: &[u8], not_served: &[&'static str]) -> Result<Self, ContractError> {
        let pool = DescriptorPool::decode(descriptors).map_err(ContractError::Descriptor)?;
        let access = pool.get_extension_by_name("lastmile.common.v1.access").ok_or(ContractError::NoExtension)?;
        let mut shapes = Shapes::default();
        let mut methods = BTreeMap::new();
        for service in pool.services().filter(|service| service.package_name().starts_with("lastmile.")) {
            for method in service.methods() {
                let method = read_method(&method, &access, not_served, &mut shapes)?;
                methods.insert(method.path.clone(), method);
            }
        }
        if let Some(unknown) = not_served.iter().find(|path| !methods.contains_key(**path)) {
            return Err(ContractError::UnknownNotServed(unknown));
        }
        Ok(Self { methods, shapes })
    }

    /// Finds a method by the path of its request.
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }

    /// Every method, by path.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.methods.values()
    }

    /// Checks one encoded request message before anything decodes it. For the gateway, which passes bodies on undecoded; the server
    /// stack does it by itself.
    ///
    /// Errors: what is malformed or too much, see [`crate::shape::Refusal`].
    pub fn check_request(&self, method: &Method, message: &[u8]) -> Result<(), crate::shape::Refusal> {
        self.shapes.check(method.input, message)
    }
}

fn read_method(
    method: &MethodDescriptor,
    access: &ExtensionDescriptor,
    not_served: &[&'static str],
    shapes: &mut Shapes,
) -> Result<Method, ContractError> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let refuse = |problem| ContractError::Method { method: path.clone(), problem };
    let options = method.options();
    if !options.has_extension(access) {
        return Err(refuse("has no option lastmile.common.v1.access"));
    }
    let value = options.get_extension(access);
    let access: Access = value
        .as_message()
        .and_then(|message| message.transcode_to().ok())
        .ok_or_else(|| refuse("has an access option that cannot be read"))?;
    let exposure = Exposure::try_from(access.exposure).unwrap_or_default();
    let credential = Credential::try_from(access.credential).unwrap_or_default();
    let callers: Vec<_> = access.callers.iter().map(|role| Role::try_from(*role).unwrap_or_default()).collect();
    if callers.contains(&Role::Unspecified) {
        return Err(refuse("names an unknown role as caller"));
    }
    let wanted = match exposure {
        Exposure::Unspecified => return Err(refuse("has no exposure")),
        Exposure::Internal if callers.is_empty() => return Err(refuse("is internal and open to no role")),
        Exposure::Internal => credential == Credential::Unspecified,
        Exposure::Public => {
            matches!(credential, Credential::None | Credential::EntryPoint | Credential::Citizen)
        }
        Exposure::Clerk | Exposure::Operator => credential == Credential::Staff,
    };
    if !wanted {
        return Err(refuse("has a credential that does not fit its exposure"));
    }
    Ok(Method {
        served: !not_served.contains(&path.as_str()),
        exposure,
        callers,
        credential,
        server_streaming: method.is_server_streaming(),
        input: shapes.add(&method.input()),
        path,
    })
}

#[cfg(test)]
mod tests;
