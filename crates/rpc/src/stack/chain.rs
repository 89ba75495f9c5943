//! How steps are put around a handler: statically, with one allocation for the whole chain.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tonic::body::Body;
use tower::Service;

/// A gRPC request as every wire and server moves it.
pub type Request = http::Request<Body>;
/// A gRPC response as every wire and server moves it.
pub type Response = http::Response<Body>;

/// The future of a wire's or server's answer.
pub type Answering = futures::future::Map<BoxFuture<'static, Response>, fn(Response) -> Result<Response, Infallible>>;

/// Something that answers requests and never fails: what goes wrong is a gRPC status in the answer.
pub(crate) trait Handle: Send + Sync + 'static {
    fn handle(&self, request: Request) -> impl Future<Output = Response> + Send;
}

/// Something that stands around a handler.
pub(crate) trait Step: Send + Sync + 'static {
    fn run(&self, request: Request, next: &impl Handle) -> impl Future<Output = Response> + Send;
}

/// A step around what comes after it.
pub(crate) struct Layered<S, H> {
    step: S,
    next: H,
}

impl<S: Step, H: Handle> Handle for Layered<S, H> {
    fn handle(&self, request: Request) -> impl Future<Output = Response> + Send {
        self.step.run(request, &self.next)
    }
}

/// Steps in the order in which a request meets them.
pub(crate) struct Steps<T>(T);

/// Starts an empty list of steps.
pub(crate) fn steps() -> Steps<()> {
    Steps(())
}

impl<T> Steps<T> {
    /// Adds a step inside of those before it.
    pub(crate) fn layer<S: Step>(self, step: S) -> Steps<(T, S)> {
        Steps((self.0, step))
    }

    /// Puts the steps around a handler.
    pub(crate) fn over<H: Handle>(self, handler: H) -> T::Chain
    where
        T: Around<H>,
    {
        self.0.around(handler)
    }
}

/// A list of steps that can stand around `H`.
pub(crate) trait Around<H> {
    type Chain: Handle;
    fn around(self, handler: H) -> Self::Chain;
}

impl<H: Handle> Around<H> for () {
    type Chain = H;
    fn around(self, handler: H) -> H {
        handler
    }
}

impl<T: Around<Layered<S, H>>, S: Step, H: Handle> Around<H> for (T, S) {
    type Chain = T::Chain;
    fn around(self, handler: H) -> T::Chain {
        self.0.around(Layered { step: self.1, next: handler })
    }
}

/// The object-safe face of [`Handle`].
trait DynHandle: Send + Sync {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<'static, Response>;
}

impl<H: Handle> DynHandle for H {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<'static, Response> {
        Box::pin(async move { Handle::handle(self.as_ref(), request).await })
    }
}

/// A handler of any shape. Cheap to clone; every clone is the same handler.
#[derive(Clone)]
pub(crate) struct Boxed(Arc<dyn DynHandle>);

impl Boxed {
    pub(crate) fn new(handler: impl Handle) -> Self {
        Self(Arc::new(handler))
    }

    pub(crate) fn call(&self, request: Request) -> BoxFuture<'static, Response> {
        self.0.clone().handle(request)
    }
}

/// Routes as the innermost handler.
pub(crate) struct Innermost(pub(crate) tonic::service::Routes);

impl Handle for Innermost {
    async fn handle(&self, request: Request) -> Response {
        let mut routes = self.0.clone();
        // axum's router is always ready; polling it keeps to tower's contract.
        let ready = std::future::poll_fn(|cx: &mut Context<'_>| Service::<Request>::poll_ready(&mut routes, cx));
        let Ok(()): Result<(), Infallible> = ready.await;
        let Ok(response): Result<Response, Infallible> = routes.call(request).await;
        response
    }
}

impl Service<Request> for Boxed {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        futures::FutureExt::map(Boxed::call(self, request), Ok)
    }
}
