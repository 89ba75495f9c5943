//! The national tree of regions: provinces, prefectures, counties, towns.

use std::collections::BTreeMap;

/// The code that services without a place of their own are listed under.
pub(crate) const NATION: &str = "000000";

/// A region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    /// GB/T 2260 code of six digits, nine for a town.
    pub code: String,
    /// Chinese name.
    pub name: String,
    /// 0 the nation, 1 province, 2 prefecture, 3 county, 4 town.
    pub level: u8,
    /// Code of the parent; empty for a province and the nation.
    pub parent: String,
    /// A row of the statistics that is not a place (市辖区).
    pub placeholder: bool,
}

/// All regions by code, with their children in code order.
#[derive(Debug, Default)]
pub(crate) struct RegionTree {
    regions: BTreeMap<String, Region>,
    children: BTreeMap<String, Vec<String>>,
}

impl RegionTree {
    /// Builds the tree.
    /// Errors: the code that stands twice, or whose parent does not stand at all.
    pub(crate) fn build(rows: Vec<Region>) -> Result<Self, String> {
        let mut tree = Self::default();
        for region in rows {
            tree.children.entry(region.parent.clone()).or_default().push(region.code.clone());
            let code = region.code.clone();
            if tree.regions.insert(code.clone(), region).is_some() {
                return Err(format!("region {code} stands twice"));
            }
        }
        for region in tree.regions.values() {
            if !region.parent.is_empty() && !tree.regions.contains_key(&region.parent) {
                return Err(format!("region {} has the unknown parent {}", region.code, region.parent));
            }
        }
        for codes in tree.children.values_mut() {
            codes.sort();
        }
        Ok(tree)
    }

    pub(crate) fn get(&self, code: &str) -> Option<&Region> {
        self.regions.get(code)
    }

    /// Children of a region in code order; those of "" are the provinces.
    pub(crate) fn children(&self, parent: &str) -> impl Iterator<Item = &Region> {
        self.children.get(parent).into_iter().flatten().filter_map(|code| self.regions.get(code))
    }

    /// The region itself, then each region above it.
    pub(crate) fn upward<'a>(&'a self, code: &str) -> impl Iterator<Item = &'a Region> {
        std::iter::successors(self.get(code), |region| self.get(&region.parent))
    }

    /// Child to parent (empty at the top), towns left out: what the gateway needs to resolve upward.
    pub(crate) fn parents(&self) -> BTreeMap<String, String> {
        let above_towns = self.regions.values().filter(|r| r.level < 4);
        above_towns.map(|r| (r.code.clone(), r.parent.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(code: &str, parent: &str, level: u8) -> Region {
        Region { code: code.into(), name: code.into(), level, parent: parent.into(), placeholder: false }
    }

    #[test]
    fn resolves_upward() {
        let tree = RegionTree::build(vec![
            region("430000", "", 1),
            region("430100", "430000", 2),
            region("430102", "430100", 3),
        ])
        .expect("a tree");
        let path: Vec<_> = tree.upward("430102").map(|r| r.code.as_str()).collect();
        assert_eq!(path, ["430102", "430100", "430000"]);
        assert_eq!(tree.upward("999999").count(), 0);
    }

    #[test]
    fn refuses_orphans_and_twins() {
        assert!(RegionTree::build(vec![region("430100", "430000", 2)]).is_err());
        assert!(RegionTree::build(vec![region("430000", "", 1), region("430000", "", 1)]).is_err());
    }
}
