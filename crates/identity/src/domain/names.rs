//! The forms of the names that meet here.

use contracts::common::v1::Role;

/// Before the profile in the mesh key of an adapter.
const ADAPTER: &str = "adapter/";
const NAME_LENGTH_MAX: usize = 63;

/// Tells whether a text is the id of an entry point or clerk: 1 to 63 characters of `[a-z0-9-]`, a letter first.
pub fn is_client(id: &str) -> bool {
    is_name(id) && id.starts_with(|first: char| first.is_ascii_lowercase())
}

/// Tells whether a text is a profile: a department and a region, `traffic/430100`.
pub fn is_profile(profile: &str) -> bool {
    profile.split_once('/').is_some_and(|(department, region)| is_client(department) && is_region(region))
}

/// Tells whether a text has the form of a region's code: six digits (GB/T 2260).
pub fn is_region(region: &str) -> bool {
    region.len() == 6 && region.bytes().all(|b| b.is_ascii_digit())
}

fn is_name(text: &str) -> bool {
    (1..=NAME_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The mesh key of a profile's adapter.
pub fn adapter(profile: &str) -> String {
    format!("{ADAPTER}{profile}")
}

/// Tells whether a role may hold a key under the name `owner`: its own name, or for the adapter role the mesh key of a profile.
pub fn may_own(role: Role, owner: &str) -> bool {
    if role == Role::Adapter {
        return owner == rpc::role_name(role) || owner.strip_prefix(ADAPTER).is_some_and(is_profile);
    }
    role != Role::Unspecified && owner == rpc::role_name(role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_a_department_and_a_region() {
        for good in ["traffic/430100", "social-security/110000"] {
            assert!(is_profile(good), "{good}");
        }
        for bad in [
            "",
            "traffic",
            "traffic/",
            "/430100",
            "traffic/43010x",
            "traffic/4301",
            "traffic/430100/1",
            "Traffic/430100",
            "a b/1",
        ] {
            assert!(!is_profile(bad), "{bad}");
        }
    }

    #[test]
    fn a_role_owns_its_own_name_and_adapters_own_profiles() {
        for (role, owner, may) in [
            (Role::Gateway, "gateway", true),
            (Role::Cases, "cases", true),
            (Role::Adapter, "adapter/traffic/430100", true),
            (Role::Adapter, "adapter", true),
            (Role::Cases, "gateway", false),
            (Role::Gateway, "identity", false),
            (Role::Adapter, "cases", false),
            (Role::Adapter, "adapter/", false),
            (Role::Adapter, "adapter/identity", false),
            (Role::Adapter, "traffic/430100", false),
            (Role::Cases, "adapter/traffic/430100", false),
            (Role::Unspecified, "unspecified", false),
        ] {
            assert_eq!(may_own(role, owner), may, "{role:?} {owner}");
        }
    }
}
