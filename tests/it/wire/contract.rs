//! Every method of the contract: who may call it, whether it is served, and that the proto says the same.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use contracts::common::v1::Role;
use http_body_util::BodyExt;
use rpc::stack::{Authenticate, Refused};
use rpc::{ClientOptions, Door, Effect, NOT_SERVED, Peer, Principal, ROLES, RemoteFault, Server, ServerOptions, Wire};
use runtime::Context;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use super::rig::{contract, stacked};

/// One empty message in its frame.
const EMPTY: &[u8] = &[0, 0, 0, 0, 0];

/// Routes that answer OK to anything: what is refused here, the stack refused.
fn open_house() -> Routes {
    let answer = || async {
        let mut response = http::Response::new(Body::empty());
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        response.headers_mut().insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
        response
    };
    Routes::from(Router::new().fallback(answer))
}

fn request(path: &str) -> rpc::Request {
    let body = Body::new(http_body_util::Full::new(bytes::Bytes::from_static(EMPTY)));
    let request = http::Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    request.body(body).expect("a request")
}

fn verdict(response: &rpc::Response) -> &'static str {
    let Some(status) = Status::from_header_map(response.headers()) else { return "no status" };
    let fault = RemoteFault::from(&status);
    match status.code() {
        Code::Ok => "allowed",
        Code::PermissionDenied if fault.is_common("CALLER_NOT_ALLOWED") => "denied",
        Code::Unauthenticated if fault.is_common("UNAUTHENTICATED") => "unauthenticated",
        Code::Unimplemented if fault.is_common("NOT_SERVED") && fault.effect() == Effect::None => "not served",
        _ => "something else",
    }
}

#[tokio::test]
async fn each_role_may_call_what_its_methods_say_and_nothing_else() {
    let context = Context::system();
    let server = stacked(open_house(), &context, &ServerOptions::default());
    for role in ROLES {
        let wire = Wire::local("cases", server.clone(), None, role, &context, &ClientOptions::default());
        for method in contract().methods() {
            let expected = match (method.callers.contains(&role), method.served) {
                (false, _) => "denied",
                (true, false) => "not served",
                (true, true) => "allowed",
            };
            let got = verdict(&wire.send(request(&method.path)).await);
            assert_eq!(got, expected, "{} by {role:?}", method.path);
        }
    }
}

/// A public door that believes a header: only so that each kind of caller can be played.
struct Played;

impl Authenticate for Played {
    fn authenticate(&self, headers: &http::HeaderMap, _: Option<&Peer>) -> Result<Principal, Refused> {
        let subject: Arc<str> = "someone".into();
        Ok(match headers.get("played").map(http::HeaderValue::as_bytes) {
            Some(b"entry") => Principal::EntryPoint { id: "wechat".into() },
            Some(b"citizen") => Principal::Citizen { entry_point: "wechat".into(), subject },
            Some(b"clerk") => Principal::Staff { subject, operator: false },
            Some(b"operator") => Principal::Staff { subject, operator: true },
            Some(b"bad") => return Err(Refused { check: "exp" }),
            _ => Principal::Anonymous,
        })
    }
}

fn public_door(context: &Context) -> Server {
    let door = Door::Custom(Arc::new(Played));
    rpc::stack::server(open_house(), door, contract(), context, &ServerOptions::default())
}

/// The whole table, checked in: a new method, or one whose access changes, shows here.
#[tokio::test]
async fn who_may_call_what() {
    let context = Context::system();
    let mesh = stacked(open_house(), &context, &ServerOptions::default());
    let public = public_door(&context);
    let callers = ["anonymous", "entry", "citizen", "clerk", "operator"];
    let mut table = String::from("method | roles | anonymous | entry point | citizen | clerk | operator\n");
    for method in contract().methods() {
        let mut roles = Vec::new();
        for role in ROLES {
            let wire = Wire::local("cases", mesh.clone(), None, role, &context, &ClientOptions::default());
            if verdict(&wire.send(request(&method.path)).await) != "denied" {
                roles.push(rpc::role_name(role));
            }
        }
        let mut row = vec![method.path.trim_start_matches("/lastmile.").to_owned(), roles.join(" ")];
        for caller in callers {
            let mut request = request(&method.path);
            request.headers_mut().insert("played", http::HeaderValue::from_static(caller));
            row.push(verdict(&public.handle(request).await).to_owned());
        }
        writeln!(table, "{}", row.join(" | ")).expect("writes");
    }
    insta::assert_snapshot!(table);
}

#[tokio::test]
async fn a_credential_that_does_not_verify_names_the_check() {
    let mut request = request("/lastmile.cases.v1.CaseService/GetCase");
    request.headers_mut().insert("played", http::HeaderValue::from_static("bad"));
    let response = public_door(&Context::system()).handle(request).await;
    let fault = RemoteFault::from(&Status::from_header_map(response.headers()).expect("a status"));
    assert!(fault.is_common("UNAUTHENTICATED"));
    assert_eq!(fault.metadata("check"), Some("exp"));
}

#[tokio::test]
async fn a_path_outside_of_the_contract_is_not_served_and_not_repeated() {
    let context = Context::system();
    let server = stacked(open_house(), &context, &ServerOptions::default());
    let wire = Wire::local("cases", server, None, Role::Gateway, &context, &ClientOptions::default());
    for path in ["/lastmile.cases.v1.CaseService/Nothing", "/x", "/grpc.health.v1.Healthy/Check", "/110101199001011234"]
    {
        let response = wire.send(request(path)).await;
        assert_eq!(verdict(&response), "not served", "{path}");
        let status = Status::from_header_map(response.headers()).expect("a status");
        assert!(!format!("{status:?}").contains("1101011990"), "{status:?}");
    }
}

/// "Not yet served" in the comments of proto/ and the list in rpc are the same.
#[test]
fn the_proto_says_what_is_not_served() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/lastmile");
    let mut said = BTreeSet::new();
    for domain in fs::read_dir(root).expect("proto/") {
        let domain = domain.expect("a directory").path();
        let name = domain.file_name().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(domain.join(format!("v1/{name}.proto"))).expect("a proto file");
        let (mut service, mut comment) = (String::new(), String::new());
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("service ") {
                service = name.trim_end_matches(" {").to_owned();
            } else if let Some(words) = line.strip_prefix("//") {
                comment.push_str(words);
            } else if let Some(method) = line.strip_prefix("rpc ") {
                let method = method.split('(').next().unwrap_or_default();
                if comment.contains("Not yet served") {
                    said.insert(format!("/lastmile.{name}.v1.{service}/{method}"));
                }
                comment.clear();
            } else {
                comment.clear();
            }
        }
    }
    let listed: BTreeSet<String> = NOT_SERVED.iter().map(ToString::to_string).collect();
    assert_eq!(said, listed);
    assert!(NOT_SERVED.is_sorted(), "sorted, so that a change reads well");
}

/// Routes that read the request to its end, as every decoder does, and answer with what the body said.
fn reading_house() -> Routes {
    let answer = |request: http::Request<axum::body::Body>| async {
        let read = Body::new(request.into_body()).collect().await;
        let mut headers = http::HeaderMap::new();
        match read {
            Ok(_) => drop(headers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"))),
            Err(status) => status.add_header(&mut headers).expect("a status is a header"),
        }
        let mut response = http::Response::new(Body::empty());
        response.headers_mut().extend(headers);
        response
    };
    Routes::from(Router::new().fallback(answer))
}

/// No method was forgotten: each has the limits on what its decoder may be given.
#[tokio::test]
async fn every_method_weighs_what_it_is_sent() {
    let context = Context::system();
    let server = stacked(reading_house(), &context, &ServerOptions::default());
    let framed =
        |message: &[u8]| [&[0][..], &u32::try_from(message.len()).expect("short").to_be_bytes(), message].concat();
    let too_long = [&[0][..], &(1024_u32 * 1024 + 1).to_be_bytes()].concat();
    // Fields that no message of the contract has.
    let too_many: Vec<u8> = std::iter::repeat_n([0xf8, 0xff, 0x7f, 0x01], 10_001).flatten().collect();
    let mut weighed = 0;
    for method in contract().methods().filter(|method| method.served && !method.callers.is_empty()) {
        let wire = Wire::local("x", server.clone(), None, method.callers[0], &context, &ClientOptions::default());
        for (name, body, limit) in [
            ("too long", too_long.clone(), Some("messageBytes")),
            ("too many", framed(&too_many), Some("messageElements")),
            ("malformed", framed(&[0x07]), None),
        ] {
            let mut request = request(&method.path);
            *request.body_mut() = Body::new(http_body_util::Full::new(bytes::Bytes::from(body)));
            let response = wire.send(request).await;
            let fault = RemoteFault::from(&Status::from_header_map(response.headers()).expect("a status"));
            assert_eq!(fault.metadata("limit"), limit, "{name}: {}: {fault:?}", method.path);
            assert_eq!(
                (fault.code(), fault.effect()),
                (Code::InvalidArgument, Effect::None),
                "{name}: {}",
                method.path
            );
        }
        weighed += 1;
    }
    assert!(weighed >= 25, "{weighed} methods");
}

/// The map of the stacks is the stacks.
#[test]
fn the_map_shows_the_stacks_as_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("reads");
    let (code, map) = (read("crates/rpc/src/stack.rs"), read("ARCHITECTURE.md"));
    for (function, heading) in [("pub fn server(", "| server |"), ("pub(crate) fn client(", "| client |")] {
        let body = code.split_once(function).expect("the function").1.split_once("\n}").expect("its end").0;
        let steps: Vec<_> = body.lines().filter_map(|line| line.trim().strip_prefix(".layer(")).collect();
        let steps: Vec<_> = steps.iter().map(|step| step.split([':', ')']).next().unwrap_or_default()).collect();
        let table = map.split_once(heading).expect("the table").1;
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let rows: Vec<_> = rows.filter_map(|line| line.split('`').nth(1)).collect();
        assert_eq!(rows, steps, "{heading}");
        assert!(steps.len() >= 4, "{steps:?}");
    }
}

/// Idempotency digests rest on it: no map whose order is a matter of chance.
#[test]
fn generated_code_has_ordered_maps_only() {
    let generated = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/contracts/src/gen");
    let mut files = 0;
    for file in fs::read_dir(generated).expect("generated code") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            files += 1;
            assert!(!fs::read_to_string(&path).expect("reads").contains("HashMap"), "{}", path.display());
        }
    }
    assert!(files >= 6, "{files} generated files");
}

#[tokio::test]
async fn health_and_reflection_answer_every_caller() {
    let context = Context::system();
    let (routes, reporter) = rpc::standard(open_house()).await.expect("standard services");
    let server = stacked(routes, &context, &ServerOptions::default());
    let wire = Wire::local("cases", server, None, Role::Adapter, &context, &ClientOptions::default());
    let mut health = HealthClient::new(wire.clone());
    let check = HealthCheckRequest { service: String::new() };
    let answer = health.check(check.clone()).await.expect("answers").into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing, "until told otherwise");
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    assert_eq!(health.check(check).await.expect("answers").into_inner().status(), ServingStatus::Serving);

    let services = reflected_v1(wire.clone()).await;
    for name in ["lastmile.cases.v1.CaseService", "lastmile.payments.v1.PaymentService", "grpc.health.v1.Health"] {
        assert!(services.iter().any(|service| service == name), "{services:?}");
    }
    assert_eq!(reflected_v1alpha(wire).await, services, "older clients see the same");
}

macro_rules! reflected {
    ($name:ident, $version:ident) => {
        pub(super) async fn $name(wire: Wire) -> Vec<String> {
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let ask = ServerReflectionRequest {
                message_request: Some(MessageRequest::ListServices(String::new())),
                ..ServerReflectionRequest::default()
            };
            let mut client = ServerReflectionClient::new(wire);
            let answers = client.server_reflection_info(futures::stream::once(async { ask })).await.expect("answers");
            let answer = answers.into_inner().message().await.expect("flows").expect("one answer");
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("a list") };
            let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
            names.retain(|name| !name.starts_with("grpc.reflection."));
            names.sort();
            names
        }
    };
}

reflected!(reflected_v1, v1);
reflected!(reflected_v1alpha, v1alpha);

#[tokio::test]
async fn an_answer_without_details_gets_them() {
    let refuse = || async {
        let mut response = http::Response::new(Body::empty());
        response.headers_mut().insert(Status::GRPC_STATUS, http::HeaderValue::from_static("13"));
        response.headers_mut().insert(Status::GRPC_MESSAGE, http::HeaderValue::from_static("secret"));
        response
    };
    let context = Context::system();
    let server = stacked(Routes::from(Router::new().fallback(refuse)), &context, &ServerOptions::default());
    let wire = Wire::local("cases", server, None, Role::Gateway, &context, &ClientOptions::default());
    let response = wire.send(request("/lastmile.cases.v1.CaseService/GetCase")).await;
    let status = Status::from_header_map(response.headers()).expect("a status");
    assert!(RemoteFault::from(&status).is_common("INTERNAL"), "{status:?}");
    assert!(!status.message().contains("secret"));
    assert_eq!(response.into_body().collect().await.expect("empty").to_bytes().len(), 0);
}
