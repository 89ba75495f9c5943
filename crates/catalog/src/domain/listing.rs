//! What is listed where: one entry for each region, item and entry point, as deep as the deepest name that lists it.

use super::region::RegionTree;
use contracts::common::v1::{AssuranceLevel, Depth};
use std::collections::BTreeMap;
use std::time::Duration;

/// Region, item, entry point.
pub(crate) type EntryKey = (String, String, String);

/// A canonical item.
#[derive(Debug, Clone)]
pub(crate) struct ItemInfo {
    pub name: String,
    pub level_min: AssuranceLevel,
}

/// An item as one region lists it for one entry point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub depth: Depth,
    /// The name that the region and entry point give it.
    pub display_name: String,
    /// Where the entry comes from.
    pub source: String,
    /// Stands in the sandbox's labelled file only.
    pub sandbox_only: bool,
}

/// The policy of a profile's item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub profile: String,
    pub payee_id: String,
    pub currency: String,
    pub timeout: Duration,
    pub concurrency_max: u32,
    pub quota_per_minute: u32,
    pub sensitive: bool,
    pub residents_only: bool,
    pub consents: Vec<String>,
}

/// What goes in and comes out of an item that a profile serves: JSON Schemas, as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schemas {
    pub input: String,
    pub result: String,
    /// Of both, counted from 1.
    pub version: i32,
}

/// An immutable version of the catalogue.
#[derive(Debug)]
pub(crate) struct Catalogue {
    /// Made of the content: equal files give the equal version on every replica. It names a content, not an order.
    pub version: i64,
    pub regions: RegionTree,
    pub items: BTreeMap<String, ItemInfo>,
    pub entries: BTreeMap<EntryKey, Entry>,
    /// By item and profile region.
    pub bindings: BTreeMap<(String, String), Binding>,
    /// By item; of the items that have a binding.
    pub schemas: BTreeMap<String, Schemas>,
}

impl Catalogue {
    /// Lists an item, or deepens what is listed: of two names for the same item the deeper one counts, its source with it.
    pub(crate) fn list(entries: &mut BTreeMap<EntryKey, Entry>, key: EntryKey, entry: Entry) {
        match entries.get_mut(&key) {
            Some(listed) if listed.depth >= entry.depth => {}
            Some(listed) => *listed = entry,
            None => {
                entries.insert(key, entry);
            }
        }
    }

    /// What is listed, in the order of its key: under every region, or in one with what the regions above it list. Of an item that
    /// stands in several of those the lowest counts.
    ///
    /// Shape: the key under which it is listed, the entry, and the region for which it is listed.
    pub(crate) fn listed<'a>(&'a self, region: &'a str) -> Vec<(&'a EntryKey, &'a Entry, &'a str)> {
        if region.is_empty() {
            return self.entries.iter().map(|(key, entry)| (key, entry, key.0.as_str())).collect();
        }
        let mut found = BTreeMap::new();
        for above in self.regions.upward(region) {
            let from = (above.code.clone(), String::new(), String::new());
            for (key, entry) in self.entries.range(from..).take_while(|(key, _)| key.0 == above.code) {
                found.entry((&key.1, &key.2)).or_insert((key, entry, region));
            }
        }
        found.into_values().collect()
    }

    /// The binding that serves an item in a region, and the profile's region: most specific wins.
    pub(crate) fn binding(&self, item: &str, region: &str) -> Option<(&str, &Binding)> {
        self.regions.upward(region).find_map(|above| {
            let binding = self.bindings.get(&(item.to_owned(), above.code.clone()))?;
            Some((above.code.as_str(), binding))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deeper_name_counts() {
        let key = || ("430100".to_owned(), "traffic.violation".to_owned(), "wechat".to_owned());
        let entry = |depth, name: &str| Entry {
            depth,
            display_name: name.into(),
            source: "article 000".into(),
            sandbox_only: false,
        };
        for order in [[Depth::Query, Depth::Pay], [Depth::Pay, Depth::Query]] {
            let mut entries = BTreeMap::new();
            for depth in order {
                Catalogue::list(&mut entries, key(), entry(depth, depth.as_str_name()));
            }
            assert_eq!(entries.get(&key()), Some(&entry(Depth::Pay, "DEPTH_PAY")));
        }
    }
}
