//! The routing snapshot: item × region × entry point → route, as the gateway and cases hold it in memory.
//!
//! A snapshot is built once from what `CatalogService.WatchCatalog` sends and never changed. A lookup allocates nothing.

use std::sync::Arc;

use contracts::catalog::v1::{Route, WatchCatalogResponse};
use runtime::Lookup;

/// Why there is no route. The reasons are those of `lastmile.catalog.v1.ErrorReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteRefusal {
    /// The region is not in the tree: REGION_UNKNOWN.
    RegionUnknown,
    /// Neither the region nor one above it lists the item for the entry point: ITEM_NOT_LISTED.
    ItemNotListed,
    /// It is listed and no adapter is connected: NO_ADAPTER.
    NoAdapter,
}

/// Regions to routes of one item at one entry point.
type ByRegion = Lookup<String, Arc<Route>>;

/// An immutable routing snapshot.
#[derive(Debug, Default)]
pub struct RouteTable {
    version: i64,
    by_entry_point: Lookup<String, Lookup<String, ByRegion>>,
    parents: Lookup<String, String>,
}

impl RouteTable {
    /// Builds the snapshot of a catalogue version.
    pub fn new(catalogue: WatchCatalogResponse) -> Self {
        let mut by_entry_point: Lookup<String, Lookup<String, ByRegion>> = Lookup::default();
        for route in catalogue.routes {
            let items = by_entry_point.or_default(route.entry_point.clone());
            let regions = items.or_default(route.item.clone());
            regions.insert(route.region.clone(), Arc::new(route));
        }
        let parents = catalogue.region_parents.into_iter().collect();
        Self { version: catalogue.version, by_entry_point, parents }
    }

    /// Version of the catalogue that it was built from; 0 before there was one.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Finds the route of a call: most specific region wins, then each region above it.
    ///
    /// Errors: the first thing that is missing.
    pub fn resolve(&self, item: &str, region: &str, entry_point: &str) -> Result<&Arc<Route>, RouteRefusal> {
        let listed = self.by_entry_point.get(entry_point).and_then(|items| items.get(item));
        let mut at = known(&self.parents, region).ok_or(RouteRefusal::RegionUnknown)?;
        let listed = listed.ok_or(RouteRefusal::ItemNotListed)?;
        loop {
            if let Some(route) = listed.get(at) {
                return if route.profile.is_empty() { Err(RouteRefusal::NoAdapter) } else { Ok(route) };
            }
            at = match self.parents.get(at) {
                Some(parent) if !parent.is_empty() => parent,
                _ => return Err(RouteRefusal::ItemNotListed),
            };
        }
    }
}

/// The region to begin with: itself where it is in the tree, the county of a town (the first six of its nine digits).
fn known<'a>(parents: &Lookup<String, String>, region: &'a str) -> Option<&'a str> {
    let county = if region.len() == 9 { region.get(..6)? } else { region };
    parents.contains_key(county).then_some(county)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RouteTable {
        let route = |item: &str, region: &str, entry_point: &str, profile: &str| Route {
            item: item.into(),
            region: region.into(),
            entry_point: entry_point.into(),
            profile: profile.into(),
            ..Route::default()
        };
        RouteTable::new(WatchCatalogResponse {
            version: 7,
            routes: vec![
                route("traffic.violation", "430100", "wechat", "traffic/430100"),
                route("traffic.violation", "430000", "wechat", "traffic/430000"),
                route("library.search", "430100", "wechat", ""),
            ],
            region_parents: [("430000", ""), ("430100", "430000"), ("430102", "430100"), ("430200", "430000")]
                .map(|(child, parent)| (child.to_owned(), parent.to_owned()))
                .into(),
            publish_time: None,
        })
    }

    #[test]
    fn the_most_specific_region_wins() {
        let table = table();
        let profile = |region| table.resolve("traffic.violation", region, "wechat").map(|r| r.profile.as_str());
        assert_eq!(profile("430100"), Ok("traffic/430100"));
        assert_eq!(profile("430102"), Ok("traffic/430100"));
        assert_eq!(profile("430102001"), Ok("traffic/430100"));
        assert_eq!(profile("430200"), Ok("traffic/430000"));
    }

    #[test]
    fn says_what_is_missing() {
        let table = table();
        let refusal = |item, region, entry_point| table.resolve(item, region, entry_point).map(|_| ()).unwrap_err();
        assert_eq!(refusal("traffic.violation", "999999", "wechat"), RouteRefusal::RegionUnknown);
        assert_eq!(refusal("traffic.violation", "430100", "alipay"), RouteRefusal::ItemNotListed);
        assert_eq!(refusal("library.search", "430200", "wechat"), RouteRefusal::ItemNotListed);
        assert_eq!(refusal("library.search", "430102", "wechat"), RouteRefusal::NoAdapter);
        assert_eq!(refusal("library.search", "", "wechat"), RouteRefusal::RegionUnknown);
    }
}
