//! What the catalogue knows: the tree of regions, what is listed where, and how a call finds its route.

mod listing;
mod region;
mod resolve;

pub(crate) use listing::{Binding, Catalogue, Entry, EntryKey, ItemInfo, Schemas};
pub(crate) use region::{NATION, Region, RegionTree};
pub(crate) use resolve::{Resolution, Unresolved};
