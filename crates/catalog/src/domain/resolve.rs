//! How a call finds its route: item × region × entry point, most specific region wins, and every step can be told.

use super::listing::{Binding, Catalogue, Entry};

/// A route that was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolution<'a> {
    /// Region under which the item is listed.
    pub listed_region: &'a str,
    pub entry: &'a Entry,
    /// The profile's region and binding; absent while no adapter is connected.
    pub binding: Option<(&'a str, &'a Binding)>,
}

/// Why there is no route.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    Region,
    Item,
}

impl Catalogue {
    /// Resolves, and tells each step to `say` in plain words.
    pub(crate) fn resolve(
        &self,
        item: &str,
        region: &str,
        entry_point: &str,
        mut say: impl FnMut(String),
    ) -> Result<Resolution<'_>, Unresolved> {
        if self.regions.get(region).is_none() {
            say(format!("region {region} is not in the tree"));
            return Err(Unresolved::Region);
        }
        for above in self.regions.upward(region) {
            let key = (above.code.clone(), item.to_owned(), entry_point.to_owned());
            let Some((key, entry)) = self.entries.get_key_value(&key) else {
                say(format!("{} {}: {item} is not listed for {entry_point}", above.code, above.name));
                continue;
            };
            say(format!("{} {}: {item} is listed for {entry_point} ({})", above.code, above.name, entry.source));
            // From where it is listed: the gateway's routes know no lower place.
            let binding = self.binding(item, &above.code);
            match binding {
                Some((at, binding)) => say(format!("{at}: profile {} serves it", binding.profile)),
                None => say(format!("no adapter is connected for {item} in {} or above", above.code)),
            }
            return Ok(Resolution { listed_region: &key.0, entry, binding });
        }
        Err(Unresolved::Item)
    }
}
