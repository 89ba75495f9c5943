//! What passes through: the body of a read reaches the adapter byte for byte as the client sent it, over a local wire and a remote one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use bytes::Bytes;
use contracts::department::v1::{ListBillsRequest, QueryRequest};
use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lastmile_tests::super_app::ITEM;
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use rpc::jose::{AgreementKey, Curve, SigningKey};
use rpc::keyring::{KeyRing, Options, OwnKey};
use rpc::oauth::{Caller, Person};
use rpc::tls::{ClientIdentity, ServerIdentity};
use rpc::token::Attributes;
use rpc::{ClientOptions, Limits, Mesh, RemoteOptions, Role, Server, ServerOptions, Trust};
use runtime::Context;
use runtime::secret::Pii;
use store::Db;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};

use super::rig::{CHANGSHA, QUERY, bearer, framed};
use crate::wire::rig::{listen, pem, stacked};

const LIST_BILLS: &str = "/lastmile.department.v1.DepartmentService/ListBills";
const ADAPTER: &str = "adapter/traffic/430100";
const PATIENCE: Duration = Duration::from_secs(20);

/// What an adapter was sent: paths and bodies.
type Came = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Stands where the adapter's handlers do, behind the adapter's own stack; answers everything with an empty message.
fn noting(context: &Context, came: &Came) -> Server {
    let came = came.clone();
    let note = move |request: http::Request<axum::body::Body>| {
        let came = came.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.expect("a whole body").to_bytes();
            came.lock().expect("not poisoned").push((path, body.to_vec()));
            let mut trailers = http::HeaderMap::new();
            trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
            let frames = [Ok::<_, Status>(Frame::data(Bytes::from_static(&[0; 5]))), Ok(Frame::trailers(trailers))];
            let mut answer = http::Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
            answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
            answer
        }
    };
    stacked(Routes::from(Router::new().fallback(note)), context, &ServerOptions::default())
}

/// A gateway with the real catalogue, identity and keys, before an adapter that only notes.
struct Passage {
    context: Context,
    address: String,
    token: String,
    came: Came,
    _place: tempfile::TempDir,
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.context.tasks.abort();
    }
}

impl Passage {
    async fn open(remote: bool) -> anyhow::Result<Self> {
        let (context, place, came) = (Context::system(), tempfile::tempdir()?, Came::default());
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mesh = Mesh::new(context.clone(), ClientOptions::default(), RemoteOptions::default());
        let bind = |key: &str, routes| mesh.bind(key, stacked(routes, &context, &ServerOptions::default()), None);
        let config = catalog::Config {
            data_dir: root.join("data"),
            schemas_dir: root.join("departments/schemas"),
            ..catalog::Config::default()
        };
        bind("catalog", catalog::mount(&config, catalog::Deps { context: context.clone() })?.routes)?;
        let (clients, keys_dir) = (place.path().join("clients"), place.path().join("identity"));
        let config =
            identity::Config { sandbox_keys_dir: Some(clients.clone()), keys_dir, ..identity::Config::default() };
        let cache = store::Cache::memory(&store::cache::Config::default(), &context);
        let deps = identity::Deps {
            context: context.clone(),
            db: Db::simulated()?.with_context(context.clone()),
            cache: cache.clone(),
            mesh: mesh.caller(Role::Identity),
        };
        bind("identity", identity::mount(config, deps).await?.routes)?;
        let server = noting(&context, &came);
        if remote {
            let trust = Trust::Mutual(ServerIdentity::mutual(&pem(Role::Adapter))?);
            let address = listen(server, trust, Limits::default(), &context).await;
            mesh.identify(Role::Gateway, ClientIdentity::new(&pem(Role::Gateway))?);
            mesh.bind_remote(ADAPTER, &address)?;
        } else {
            mesh.bind(ADAPTER, server, None)?;
        }
        let signer = SigningKey::generate(&context.ids)?;
        let own = vec![OwnKey::sign(rpc::role_name(Role::Gateway), &signer)];
        let ring = KeyRing::start(&mesh.caller(Role::Gateway), &context, own, Options::default());
        // What identity seals for: cases, and the profile.
        for (role, owner) in [(Role::Cases, "cases"), (Role::Adapter, ADAPTER)] {
            let own = vec![OwnKey::seal(owner, &AgreementKey::generate(Curve::X25519, &context.ids)?)];
            let keys = KeyRing::start(&mesh.caller(role), &context, own, Options::default());
            keys.registered(PATIENCE).await.context("keys are registered")?;
        }
        let deps = gateway::Deps {
            context: context.clone(),
            mesh: mesh.caller(Role::Gateway),
            keys: ring.clone(),
            signer,
            cache,
        };
        let gateway = gateway::start(gateway::Config::default(), deps)?;
        let ready = async {
            while gateway.readiness().check().is_err() {
                context.clock.sleep(Duration::from_millis(10)).await;
            }
        };
        context.clock.timeout(PATIENCE, ready).await.context("the gateway is ready")?;
        ring.read_anew(PATIENCE).await.context("the key list")?;
        let listener = context.net.bind("127.0.0.1:0").await?;
        let address = listener.local_addr().to_string();
        let (proxy, own) = (gateway.proxy(mesh.caller(Role::Gateway)), context.clone());
        context.tasks.spawn("test.serve", async move {
            rpc::serve(listener, Trust::Plain, proxy, Limits::default(), own).await.expect("serves");
        });
        let key = SigningKey::from_pem(&std::fs::read_to_string(clients.join("wechat.pem"))?)?;
        let caller = Caller::new("wechat", key, context.clock.clone(), context.ids.clone());
        let attributes = Attributes {
            name: Some(Pii::new("张三".to_owned())),
            doc_type: Some("resident_id".to_owned()),
            doc_no: Some(Pii::new("11010519491231002X".to_owned())),
            ..Attributes::default()
        };
        let person = Person { sub: "o1".to_owned(), level: 4, consents: vec![ITEM.to_owned()], attributes };
        let seal = ring.seal_key("identity").context("identity has a key to seal for")?;
        let mut identity = IdentityServiceClient::new(mesh.caller(Role::Gateway).wire("identity"));
        let answer = identity.issue_token(caller.citizen_token(&person, &[CHANGSHA.1], &seal)?).await?;
        let token = bearer(&answer.into_inner().access_token);
        Ok(Self { context, address, token, came, _place: place })
    }

    /// Sends a body in pieces of so many bytes; returns what came to the adapter for it.
    async fn pass(&self, path: &str, body: &[u8], piece: usize) -> anyhow::Result<(String, Vec<u8>)> {
        let stream = tokio::net::TcpStream::connect(&self.address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        self.context.tasks.spawn("test.connection", async move {
            let _ = connection.await;
        });
        let pieces: Vec<_> = body
            .chunks(piece)
            .map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
            .collect();
        let request = http::Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", &self.token)
            .body(StreamBody::new(futures::stream::iter(pieces)))?;
        let answered = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let trailers = body.collect().await?.trailers().cloned();
            let status = Status::from_header_map(&head.headers).or_else(|| Status::from_header_map(&trailers?));
            status.context("a status")
        };
        let status = tokio::time::timeout(PATIENCE, answered).await.context("no answer")??;
        ensure!(status.code() == Code::Ok, "{status:?}");
        self.came.lock().expect("not poisoned").pop().context("nothing came")
    }
}

/// A length-delimited field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).expect("short")], bytes].concat()
}

/// The same field with its length in two bytes where one would do.
fn wide(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short");
    [&[number << 3 | 2, length | 0x80, 0], bytes].concat()
}

/// Messages of an item and a region as no encoder of ours would write them, and as it would.
fn messages(input: &Struct, canonical: Vec<u8>) -> Vec<(&'static str, Vec<u8>)> {
    let (item, region) = (field(1, ITEM.as_bytes()), field(2, CHANGSHA.0.as_bytes()));
    // Of the field 1,000 a number, of 1,001 text, of 1,002 eight bytes, of 1,003 four: no message of the contract has them.
    let unknown =
        [&[0xc0, 0x3e, 0x2a, 0xca, 0x3e, 3][..], b"new", &[0xd1, 0x3e], &[7; 8], &[0xdd, 0x3e], &[9; 4]].concat();
    let input = input.encode_to_vec();
    vec![
        ("as it is written", canonical.clone()),
        ("with fields of a later contract", [canonical.as_slice(), &unknown].concat()),
        ("fields of a later contract first", [unknown.as_slice(), &canonical].concat()),
        ("the other way round", [region.as_slice(), &item].concat()),
        ("lengths wider than needed", [wide(1, ITEM.as_bytes()), wide(2, CHANGSHA.0.as_bytes())].concat()),
        ("what is empty written out", [item.as_slice(), &region, &field(3, b""), &field(4, b"")].concat()),
        ("the input in two parts", [item, region, field(4, &input), field(4, &input)].concat()),
    ]
}

async fn passes(remote: bool) -> anyhow::Result<()> {
    let passage = Passage::open(remote).await?;
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = [("plate", "湘A12345"), ("plate_type", "SMALL")].map(|(name, value)| (name.to_owned(), text(value)));
    let input = Struct { fields: fields.into() };
    let (item, region, request_id) = (ITEM.to_owned(), CHANGSHA.0.to_owned(), "as-it-is".to_owned());
    let query = QueryRequest {
        item: item.clone(),
        region: region.clone(),
        request_id: request_id.clone(),
        input: Some(input.clone()),
        ..QueryRequest::default()
    };
    let bills =
        ListBillsRequest { item, region, request_id, input: Some(input.clone()), ..ListBillsRequest::default() };
    for (path, canonical) in [(QUERY, query.encode_to_vec()), (LIST_BILLS, bills.encode_to_vec())] {
        for (what, message) in messages(&input, canonical) {
            let body = framed(&message);
            for piece in [body.len(), 7] {
                let came = passage.pass(path, &body, piece).await.with_context(|| format!("{path}: {what}"))?;
                ensure!(came == (path.to_owned(), body.clone()), "{path}: {what}: {came:02x?}, not {body:02x?}");
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_arrives_as_it_was_sent_over_a_local_wire() {
    passes(false).await.expect("byte for byte");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_arrives_as_it_was_sent_over_a_remote_wire() {
    passes(true).await.expect("byte for byte");
}
