//! A server with one handler, and a wire to it: local, or remote over real sockets with mutual TLS.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use rpc::ca::Ca;
use rpc::tls::{ClientIdentity, RolePem, ServerIdentity};
use rpc::{ClientOptions, Contract, Door, Limits, RemoteOptions, Role, Server, ServerOptions, Trust, Wire};
use runtime::Context;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

pub(crate) const GET_ORDER: &str = "/lastmile.payments.v1.PaymentService/GetOrder";
pub(crate) const WATCH_CASE: &str = "/lastmile.cases.v1.CaseService/WatchCase";
pub(crate) const QUERY: &str = "/lastmile.department.v1.DepartmentService/Query";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Which wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Local,
    LocalThread,
    Remote,
}

pub(crate) const EVERY: [Over; 3] = [Over::Local, Over::LocalThread, Over::Remote];

/// What a case may change.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(crate) server: ServerOptions,
    pub(crate) client: ClientOptions,
    pub(crate) limits: Limits,
    pub(crate) remote: RemoteOptions,
}

/// A wire in the name of `caller` to a server with these routes, and what must live as long.
pub(crate) struct Rig {
    pub(crate) wire: Wire,
    pub(crate) context: Context,
    _service: Option<ServiceRuntime>,
}

impl Rig {
    pub(crate) async fn new(over: Over, caller: Role, routes: Routes) -> Self {
        Self::with(over, caller, routes, Setup::default()).await
    }

    pub(crate) async fn with(over: Over, caller: Role, routes: Routes, setup: Setup) -> Self {
        let context = Context::system();
        let server = stacked(routes, &context, &setup.server);
        let (wire, service) = match over {
            Over::Local => (Wire::local("payments", server, None, caller, &context, &setup.client), None),
            Over::LocalThread => {
                let service = ServiceRuntime::new();
                let handle = Some(service.handle());
                (Wire::local("payments", server, handle, caller, &context, &setup.client), Some(service))
            }
            Over::Remote => {
                let trust = Trust::Mutual(ServerIdentity::mutual(&pem(Role::Payments)).expect("a server identity"));
                let address = listen(server, trust, setup.limits, &context).await;
                let identity = Some(ClientIdentity::new(&pem(caller)).expect("a client identity"));
                (Wire::remote("payments", &address, identity, &context, setup.remote, &setup.client), None)
            }
        };
        Self { wire, context, _service: service }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.context.tasks.abort();
    }
}

/// A runtime of its own for services, as the single process has one.
pub(crate) struct ServiceRuntime(Option<tokio::runtime::Runtime>);

impl ServiceRuntime {
    pub(crate) fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let built = builder.worker_threads(1).thread_name("service").enable_all().build();
        Self(Some(built.expect("a runtime")))
    }

    pub(crate) fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().expect("lives until dropped").handle().clone()
    }
}

impl Drop for ServiceRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn contract() -> &'static Contract {
    Contract::lastmile().expect("the contract is sound")
}

pub(crate) fn stacked(routes: Routes, context: &Context, options: &ServerOptions) -> Server {
    rpc::stack::server(routes, Door::Mesh, contract(), context, options)
}

/// Serves on a free port and returns its address.
pub(crate) async fn listen(server: Server, trust: Trust, limits: Limits, context: &Context) -> String {
    let listener = context.net.bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().to_string();
    let (own, tasks) = (context.clone(), context.tasks.clone());
    tasks.spawn("test.serve", async move {
        rpc::serve(listener, trust, server, limits, own).await.expect("serves");
    });
    address
}

/// The test CA's certificate for a role. One CA for the whole binary.
pub(crate) fn pem(role: Role) -> RolePem {
    static CA: OnceLock<Ca> = OnceLock::new();
    let context = Context::system();
    let ca = CA.get_or_init(|| Ca::generate(&context).expect("a CA"));
    ca.issue(&context, role, DAY).expect("a certificate")
}

/// Routes with one unary method.
pub(crate) fn unary<I, O, F, A>(path: &str, handler: F) -> Routes
where
    I: prost::Message + Default + Send + 'static,
    O: prost::Message + Default + Send + 'static,
    F: Fn(Request<I>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response<O>, Status>> + Send + 'static,
{
    let answer = move |request: http::Request<axum::body::Body>| {
        let service = tower::service_fn(handler.clone());
        async move {
            let codec = tonic_prost::ProstCodec::<O, I>::default();
            tonic::server::Grpc::new(codec).unary(service, request.map(Body::new)).await
        }
    };
    Routes::from(Router::new().route(path, any(answer)).fallback(not_found))
}

/// Routes with one method that streams its answer.
pub(crate) fn streaming<I, O, F, A>(path: &str, handler: F) -> Routes
where
    I: prost::Message + Default + Send + 'static,
    O: prost::Message + Default + Send + 'static,
    F: Fn(Request<I>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Response<rpc::BoxStream<O>>, Status>> + Send + 'static,
{
    let answer = move |request: http::Request<axum::body::Body>| {
        let service = tower::service_fn(handler.clone());
        async move {
            let codec = tonic_prost::ProstCodec::<O, I>::default();
            tonic::server::Grpc::new(codec).server_streaming(service, request.map(Body::new)).await
        }
    };
    Routes::from(Router::new().route(path, any(answer)).fallback(not_found))
}

async fn not_found() -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    response.headers_mut().insert(Status::GRPC_STATUS, http::HeaderValue::from_static("12"));
    response
}

/// A counter that tells when it changed.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<std::sync::Mutex<Vec<String>>>, Arc<tokio::sync::Notify>);

impl Seen {
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.0.lock().expect("not poisoned").push(what.into());
        self.1.notify_waiters();
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").clone()
    }

    /// Waits until nothing was noted for a while, and returns how much there is. A producer that never rests fails the test.
    pub(crate) async fn rests(&self) -> usize {
        const QUIET: Duration = Duration::from_millis(200);
        let resting = async {
            loop {
                let before = self.all().len();
                tokio::time::sleep(QUIET).await;
                if self.all().len() == before {
                    return before;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), resting).await.expect("comes to rest")
    }

    /// Waits until something was noted `count` times, with a deadline.
    pub(crate) async fn wait_for(&self, what: &str, count: usize) {
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let changed = self.1.notified();
                if self.all().iter().filter(|one| *one == what).count() >= count {
                    return;
                }
                let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
            }
        });
        assert!(waited.await.is_ok(), "{what} was not seen {count} times: {:?}", self.all());
    }
}
