//! Catalogue ⇄ contract.

use crate::domain::{Binding, Catalogue, Entry, EntryKey, Region};
use contracts::catalog::v1 as pb;

pub(crate) fn region(region: &Region) -> pb::Region {
    pb::Region {
        code: region.code.clone(),
        name: region.name.clone(),
        level: i32::from(region.level),
        parent: region.parent.clone(),
        placeholder: region.placeholder,
    }
}

/// An entry as the contract shows it. `region` is the one asked for, which may lie below the one that lists the item.
pub(crate) fn item(catalogue: &Catalogue, key: &EntryKey, entry: &Entry, region: &str) -> pb::Item {
    let (listed, item, entry_point) = key;
    let info = catalogue.items.get(item);
    let availability = match catalogue.binding(item, listed) {
        Some(_) => pb::Availability::Served,
        None => pb::Availability::NoAdapter,
    };
    pb::Item {
        item: item.clone(),
        name: info.map(|i| i.name.clone()).unwrap_or_default(),
        display_name: entry.display_name.clone(),
        region: region.to_owned(),
        entry_point: entry_point.clone(),
        depth: entry.depth.into(),
        availability: availability.into(),
        level_min: info.map(|i| i.level_min).unwrap_or_default().into(),
        source: entry.source.clone(),
        sandbox_only: entry.sandbox_only,
    }
}

/// The route of an entry: what the gateway needs to know and nothing more.
pub(crate) fn route(catalogue: &Catalogue, key: &EntryKey, entry: &Entry) -> pb::Route {
    let (region, item, entry_point) = key;
    let level_min = catalogue.items.get(item).map(|i| i.level_min).unwrap_or_default();
    let listed = pb::Route {
        item: item.clone(),
        region: region.clone(),
        entry_point: entry_point.clone(),
        depth: entry.depth.into(),
        level_min: level_min.into(),
        ..pb::Route::default()
    };
    match catalogue.binding(item, region) {
        Some((profile_region, binding)) => bound(listed, profile_region, binding),
        None => listed,
    }
}

fn bound(listed: pb::Route, profile_region: &str, binding: &Binding) -> pb::Route {
    pb::Route {
        profile: binding.profile.clone(),
        profile_region: profile_region.to_owned(),
        payee_id: binding.payee_id.clone(),
        currency: binding.currency.clone(),
        sensitive: binding.sensitive,
        residents_only: binding.residents_only,
        timeout_ms: i64::try_from(binding.timeout.as_millis()).unwrap_or(i64::MAX),
        concurrency_max: i32::try_from(binding.concurrency_max).unwrap_or(i32::MAX),
        quota_per_minute: binding.quota_per_minute.into(),
        consents: binding.consents.clone(),
        ..listed
    }
}
