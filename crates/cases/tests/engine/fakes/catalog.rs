//! The catalogue: two cities in which a fine can be paid, and one item that cannot.

use contracts::catalog::v1 as pb;
use contracts::catalog::v1::catalog_service_server::CatalogService;
use contracts::common::v1::{AssuranceLevel, Depth};
use futures::StreamExt;
use rpc::BoxStream;
use tonic::{Request, Response, Status};

use crate::not_served;

#[derive(Clone)]
pub(crate) struct Catalog;

fn route(item: &str, region: &str, depth: Depth) -> pb::Route {
    pb::Route {
        item: item.to_owned(),
        region: region.to_owned(),
        entry_point: "wechat".to_owned(),
        depth: depth.into(),
        profile: format!("traffic/{region}"),
        profile_region: region.to_owned(),
        level_min: AssuranceLevel::NameId.into(),
        payee_id: format!("traffic-{region}"),
        currency: "CNY".to_owned(),
        ..pb::Route::default()
    }
}

fn routes() -> Vec<pb::Route> {
    vec![
        route("traffic.violation", "430100", Depth::Pay),
        route("traffic.violation", "140100", Depth::Handle),
        route("traffic.licence", "430100", Depth::Query),
    ]
}

#[tonic::async_trait]
impl CatalogService for Catalog {
    type WatchCatalogStream = BoxStream<pb::WatchCatalogResponse>;

    async fn watch_catalog(
        &self,
        request: Request<pb::WatchCatalogRequest>,
    ) -> Result<Response<Self::WatchCatalogStream>, Status> {
        let parents =
            [("430000", ""), ("430100", "430000"), ("430102", "430100"), ("140000", ""), ("140100", "140000")];
        let snapshot = pb::WatchCatalogResponse {
            version: 1,
            routes: routes(),
            region_parents: parents.map(|(child, parent)| (child.to_owned(), parent.to_owned())).into(),
            publish_time: None,
        };
        let first = (request.get_ref().known_version < 1).then_some(Ok(snapshot));
        Ok(Response::new(Box::pin(futures::stream::iter(first).chain(futures::stream::pending()))))
    }

    async fn get_item(&self, request: Request<pb::GetItemRequest>) -> Result<Response<pb::GetItemResponse>, Status> {
        let asked = request.into_inner();
        let item = pb::Item { item: asked.item, display_name: "交通违法处理".to_owned(), ..pb::Item::default() };
        Ok(Response::new(pb::GetItemResponse { item: Some(item), ..pb::GetItemResponse::default() }))
    }

    async fn explain_route(
        &self,
        request: Request<pb::ExplainRouteRequest>,
    ) -> Result<Response<pb::ExplainRouteResponse>, Status> {
        let asked = request.into_inner();
        let route = routes().into_iter().find(|route| route.item == asked.item && route.region == asked.region);
        Ok(Response::new(pb::ExplainRouteResponse { route, steps: Vec::new() }))
    }

    not_served! {
        pb: list_regions(ListRegionsRequest) -> ListRegionsResponse, list_items(ListItemsRequest) -> ListItemsResponse,
            search_items(SearchItemsRequest) -> SearchItemsResponse, validate(ValidateRequest) -> ValidateResponse,
            publish(PublishRequest) -> PublishResponse, rollback(RollbackRequest) -> RollbackResponse,
            list_versions(ListVersionsRequest) -> ListVersionsResponse;
    }
}
