//! The service: contract → catalogue → contract.

use crate::convert;
use crate::domain::{Catalogue, EntryKey, Resolution, Unresolved};
use crate::error::Error;
use contracts::catalog::v1 as pb;
use contracts::catalog::v1::catalog_service_server::CatalogService;
use contracts::common::v1::Depth;
use rpc::{Violation, form, page};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// How long a watch stays open before the client asks again; up to a tenth less, so that replicas do not all reconnect at once.
const WATCH_MAX: Duration = Duration::from_secs(15 * 60);
/// Header in which the gateway names the calling entry point. Only the gateway's principal is believed.
const ENTRY_POINT_HEADER: &str = "lastmile-entry-point";

/// The catalogue service.
pub struct Service {
    catalogue: Arc<Catalogue>,
    context: runtime::Context,
}

impl Service {
    pub(crate) fn new(catalogue: Arc<Catalogue>, context: runtime::Context) -> Self {
        Self { catalogue, context }
    }

    fn list_regions(&self, request: &pb::ListRegionsRequest) -> Result<pb::ListRegionsResponse, Error> {
        let list = format!("regions/{}", request.parent);
        let paging = paging(&list, request.page_size, (100, 1_000), &request.page_token);
        let ((size, after), ()) = both(paging, sound([region("parent", &request.parent)]))?;
        if !request.parent.is_empty() && self.catalogue.regions.get(&request.parent).is_none() {
            return Err(Error::RegionUnknown);
        }
        let mut regions: Vec<_> = self
            .catalogue
            .regions
            .children(&request.parent)
            .filter(|region| after.as_deref().is_none_or(|after| region.code.as_bytes() > after))
            .take(size + 1)
            .map(convert::region)
            .collect();
        let next_page_token = next(&list, &mut regions, size, |region| region.code.clone().into_bytes());
        Ok(pb::ListRegionsResponse { regions, next_page_token })
    }

    fn list_items(&self, request: &pb::ListItemsRequest, own: &str) -> Result<pb::ListItemsResponse, Error> {
        let entry_point = if request.entry_point.is_empty() { own } else { &request.entry_point };
        let list = format!("items/{}/{entry_point}/{}", request.region, request.depth_min);
        let paging = paging(&list, request.page_size, (20, 100), &request.page_token);
        let depth = Depth::try_from(request.depth_min)
            .map_err(|_| Error::Invalid(vec![Violation::new("depth_min", "is not a depth of the contract")]));
        let names = sound([region("region", &request.region), name("entry_point", &request.entry_point)]);
        let ((size, after), (depth_min, ())) = both(paging, both(depth, names))?;
        let after = after.as_deref().map(entry_key).transpose()?;
        if !request.region.is_empty() && self.catalogue.regions.get(&request.region).is_none() {
            return Err(Error::RegionUnknown);
        }
        let place = |key: &EntryKey, region: &str| (region.to_owned(), key.1.clone(), key.2.clone());
        let mut items: Vec<_> = self
            .catalogue
            .listed(&request.region)
            .into_iter()
            .filter(|(key, entry, _)| (entry_point.is_empty() || key.2 == entry_point) && entry.depth >= depth_min)
            .filter(|(key, _, region)| after.as_ref().is_none_or(|after| place(key, region) > *after))
            .take(size + 1)
            .map(|(key, entry, region)| convert::item(&self.catalogue, key, entry, region))
            .collect();
        let next_page_token = next(&list, &mut items, size, |item| {
            format!("{}\n{}\n{}", item.region, item.item, item.entry_point).into_bytes()
        });
        Ok(pb::ListItemsResponse { items, next_page_token, version: self.catalogue.version })
    }

    fn get_item(&self, request: &pb::GetItemRequest, own: &str) -> Result<pb::GetItemResponse, Error> {
        whole(&request.item, &request.region, &request.entry_point)?;
        let entry_point = if request.entry_point.is_empty() { own } else { &request.entry_point };
        let found = self.resolve(&request.item, &request.region, entry_point, |_| {})?;
        let key = (found.listed_region.to_owned(), request.item.clone(), entry_point.to_owned());
        let item = convert::item(&self.catalogue, &key, found.entry, &request.region);
        let schemas = found.binding.and_then(|_| self.catalogue.schemas.get(&request.item));
        let (input_schema_json, result_schema_json, schema_version) =
            schemas.map(|of| (of.input.clone(), of.result.clone(), of.version)).unwrap_or_default();
        Ok(pb::GetItemResponse { item: Some(item), input_schema_json, result_schema_json, schema_version })
    }

    fn explain(&self, request: &pb::ExplainRouteRequest, own: &str) -> Result<pb::ExplainRouteResponse, Error> {
        whole(&request.item, &request.region, &request.entry_point)?;
        let entry_point = if request.entry_point.is_empty() { own } else { &request.entry_point };
        let mut steps = Vec::new();
        let found = self.resolve(&request.item, &request.region, entry_point, |step| steps.push(step));
        let route = found.ok().map(|found| {
            let key = (found.listed_region.to_owned(), request.item.clone(), entry_point.to_owned());
            convert::route(&self.catalogue, &key, found.entry)
        });
        Ok(pb::ExplainRouteResponse { route, steps })
    }

    fn resolve(
        &self,
        item: &str,
        region: &str,
        entry_point: &str,
        say: impl FnMut(String),
    ) -> Result<Resolution<'_>, Error> {
        self.catalogue.resolve(item, region, entry_point, say).map_err(|missing| match missing {
            Unresolved::Region => Error::RegionUnknown,
            Unresolved::Item => Error::ItemNotListed,
        })
    }

    fn snapshot(&self) -> pb::WatchCatalogResponse {
        let entries = self.catalogue.entries.iter();
        pb::WatchCatalogResponse {
            version: self.catalogue.version,
            routes: entries.map(|(key, entry)| convert::route(&self.catalogue, key, entry)).collect(),
            region_parents: self.catalogue.regions.parents(),
            publish_time: None,
        }
    }
}

/// Size of the page and the key after which it begins.
fn paging(list: &str, size: i32, (default, max): (u32, u32), token: &str) -> Result<(usize, Option<Vec<u8>>), Error> {
    match (page::size(size, default, max), page::key(list, token)) {
        (Ok(size), Ok(key)) => Ok((size as usize, key)),
        (size, key) => Err(Error::Invalid(size.err().into_iter().chain(key.err()).collect())),
    }
}

/// Both, or the violations of both.
fn both<A, B>(one: Result<A, Error>, other: Result<B, Error>) -> Result<(A, B), Error> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(Error::Invalid(mut violations)), Err(Error::Invalid(more))) => {
            violations.extend(more);
            Err(Error::Invalid(violations))
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// An item is asked for by its code and a region.
fn whole(item: &str, place: &str, entry_point: &str) -> Result<(), Error> {
    let missing = |field, text: &str| text.is_empty().then(|| Violation::new(field, "is required"));
    sound([
        missing("item", item).or_else(|| name("item", item)),
        missing("region", place).or_else(|| region("region", place)),
        name("entry_point", entry_point),
    ])
}

/// What is wrong with a name that is given.
fn name(field: &str, text: &str) -> Option<Violation> {
    let fits = text.is_empty() || form::is_name(text);
    (!fits).then(|| Violation::new(field, "must be 1 to 64 characters of a-z, 0-9, ., _ and -"))
}

/// What is wrong with a region that is given. Whether it is in the tree is another question.
fn region(field: &str, text: &str) -> Option<Violation> {
    let fits = text.is_empty() || form::is_region(text);
    (!fits).then(|| Violation::new(field, "must be 6 or 9 digits"))
}

fn sound(found: impl IntoIterator<Item = Option<Violation>>) -> Result<(), Error> {
    let violations: Vec<_> = found.into_iter().flatten().collect();
    if violations.is_empty() { Ok(()) } else { Err(Error::Invalid(violations)) }
}

/// Cuts the row that was read to see whether there are more, and makes the token for what follows.
fn next<T>(list: &str, rows: &mut Vec<T>, size: usize, key: impl Fn(&T) -> Vec<u8>) -> String {
    if rows.len() <= size {
        return String::new();
    }
    rows.truncate(size);
    rows.last().map(|last| page::token(list, &key(last))).unwrap_or_default()
}

fn entry_key(key: &[u8]) -> Result<EntryKey, Error> {
    let bad = || Error::Invalid(vec![Violation::new("page_token", "is not a token of this list")]);
    let text = std::str::from_utf8(key).map_err(|_| bad())?;
    let mut parts = text.split('\n').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(region), Some(item), Some(entry_point), None) => Ok((region, item, entry_point)),
        _ => Err(bad()),
    }
}

/// The entry point for which the gateway calls; empty for any other caller.
fn own_entry_point<T>(request: &Request<T>) -> String {
    if rpc::principal(request).role() != Some(rpc::Role::Gateway) {
        return String::new();
    }
    let header = request.metadata().get(ENTRY_POINT_HEADER).and_then(|value| value.to_str().ok());
    header.unwrap_or_default().to_owned()
}

fn answer<T>(result: Result<T, Error>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| rpc::status(&error))
}

#[tonic::async_trait]
impl CatalogService for Service {
    async fn list_regions(
        &self,
        request: Request<pb::ListRegionsRequest>,
    ) -> Result<Response<pb::ListRegionsResponse>, Status> {
        answer(self.list_regions(request.get_ref()))
    }

    async fn list_items(
        &self,
        request: Request<pb::ListItemsRequest>,
    ) -> Result<Response<pb::ListItemsResponse>, Status> {
        answer(self.list_items(request.get_ref(), &own_entry_point(&request)))
    }

    async fn get_item(&self, request: Request<pb::GetItemRequest>) -> Result<Response<pb::GetItemResponse>, Status> {
        answer(self.get_item(request.get_ref(), &own_entry_point(&request)))
    }

    async fn explain_route(
        &self,
        request: Request<pb::ExplainRouteRequest>,
    ) -> Result<Response<pb::ExplainRouteResponse>, Status> {
        answer(self.explain(request.get_ref(), &own_entry_point(&request)))
    }

    type WatchCatalogStream = rpc::BoxStream<pb::WatchCatalogResponse>;

    /// Sends the snapshot unless the caller has it, then holds the stream open: the files of a running catalogue do not change.
    async fn watch_catalog(
        &self,
        request: Request<pb::WatchCatalogRequest>,
    ) -> Result<Response<Self::WatchCatalogStream>, Status> {
        let first = (request.get_ref().known_version != self.catalogue.version).then(|| self.snapshot());
        let jitter = self.context.ids.below(u64::try_from(WATCH_MAX.as_millis() / 10).unwrap_or(1));
        let open = WATCH_MAX.saturating_sub(Duration::from_millis(jitter));
        let clock = self.context.clock.clone();
        let stop = self.context.tasks.token();
        let stream = futures::stream::unfold(first.map(Ok), move |first| {
            let (clock, stop) = (clock.clone(), stop.clone());
            async move {
                if let Some(first) = first {
                    return Some((first, None));
                }
                tokio::select! {
                    biased;
                    () = clock.sleep(open) => None,
                    () = stop.cancelled() => None,
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn search_items(
        &self,
        _: Request<pb::SearchItemsRequest>,
    ) -> Result<Response<pb::SearchItemsResponse>, Status> {
        rpc::not_served()
    }

    async fn validate(&self, _: Request<pb::ValidateRequest>) -> Result<Response<pb::ValidateResponse>, Status> {
        rpc::not_served()
    }

    async fn publish(&self, _: Request<pb::PublishRequest>) -> Result<Response<pb::PublishResponse>, Status> {
        rpc::not_served()
    }

    async fn rollback(&self, _: Request<pb::RollbackRequest>) -> Result<Response<pb::RollbackResponse>, Status> {
        rpc::not_served()
    }

    async fn list_versions(
        &self,
        _: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        rpc::not_served()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_regions_are_held_to_their_forms() {
        let fields = |item: &str, place: &str, entry_point: &str| match whole(item, place, entry_point) {
            Err(Error::Invalid(violations)) => violations.into_iter().map(|violation| violation.field).collect(),
            _ => Vec::new(),
        };
        assert!(fields("traffic.violation", "430100", "").is_empty());
        assert!(fields("traffic.violation", "430102001", "wechat").is_empty());
        let long = "x".repeat(65);
        assert_eq!(fields(&long, &long, &long), ["item", "region", "entry_point"]);
        assert_eq!(fields("", "", "We Chat"), ["item", "region", "entry_point"]);
        assert_eq!(fields("a\nb", "湖南省", ""), ["item", "region"]);
        assert!(region("parent", "").is_none() && region("parent", "4301").is_some());
    }
}
