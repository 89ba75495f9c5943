//! Roles as text: in certificates, mesh keys, metadata and logs.

pub use contracts::common::v1::Role;

/// Every role, in the order of the contract.
pub const ROLES: [Role; 8] = [
    Role::Gateway,
    Role::Identity,
    Role::Catalog,
    Role::Payments,
    Role::Cases,
    Role::Audit,
    Role::Adapter,
    Role::Sandbox,
];

/// The name of a role, as the command line and the mesh write it.
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "unspecified",
        Role::Gateway => "gateway",
        Role::Identity => "identity",
        Role::Catalog => "catalog",
        Role::Payments => "payments",
        Role::Cases => "cases",
        Role::Audit => "audit",
        Role::Adapter => "adapter",
        Role::Sandbox => "sandbox",
    }
}

/// The role of a name; `None` for a name that is none.
pub fn role_named(name: &str) -> Option<Role> {
    ROLES.into_iter().find(|role| role_name(*role) == name)
}

/// The role that serves a mesh key: the key itself, or what stands before its first slash (`adapter/traffic/430100`).
pub fn role_of_key(key: &str) -> Option<Role> {
    role_named(key.split('/').next().unwrap_or(key))
}

/// The DNS name in the certificate of a role.
pub fn role_dns_name(role: Role) -> String {
    format!("{}.lastmile.internal", role_name(role))
}

/// The role of a DNS name in a certificate.
pub fn role_of_dns_name(name: &str) -> Option<Role> {
    role_named(name.strip_suffix(".lastmile.internal")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for role in ROLES {
            assert_eq!(role_named(role_name(role)), Some(role));
            assert_eq!(role_of_dns_name(&role_dns_name(role)), Some(role));
        }
        assert_eq!(role_named("unspecified"), None);
        assert_eq!(role_of_dns_name("cases.lastmile.internal.evil.example"), None);
        assert_eq!(role_of_dns_name("x.cases.lastmile.internal"), None);
        assert_eq!(role_of_key("adapter/traffic/430100"), Some(Role::Adapter));
        assert_eq!(role_of_key("cases"), Some(Role::Cases));
    }
}
