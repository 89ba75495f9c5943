//! How departments are spoken to. Each connector is a module of its own behind one trait.
//!
//! A connector that moves bytes is two halves: a [`Codec`], which is pure and is what golden cases and mutated replies are run
//! against, and a [`Link`], which carries the bytes and knows whether any left. Neither takes an address from anything but the
//! installation's configuration.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use minijinja::Value;

pub use runtime::http::Effect;

use crate::template::{Templates, Vars};

pub mod fixed_tcp;
mod flaw;
pub mod soap;

pub use flaw::{ReadFlaw, Unreadable, Unwritable, WriteFlaw};

/// Bytes for a department, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The bytes.
    pub bytes: Bytes,
    /// What goes into `SOAPAction`, where there is such a thing.
    pub action: Option<String>,
}

/// Bytes of a department, as they came off the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The bytes, framing included.
    pub bytes: Bytes,
    /// HTTP status, where there is such a thing.
    pub status: Option<u16>,
    /// `Content-Type`, where there is such a thing.
    pub content_type: Option<String>,
}

/// A reply that was read.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The department's return code.
    pub code: String,
    /// The department's name for the field that it stands in.
    pub code_field: String,
    /// Where that is, in bytes.
    pub code_at: usize,
    /// The department's own words.
    pub text: String,
    /// The fields of the reply, where the code says that there are any.
    pub body: Option<Value>,
    /// SHA-256 of the reply's bytes.
    pub digest: [u8; 32],
}

/// One call of a department.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The exchange.
    pub exchange: &'a str,
    /// Its values.
    pub vars: &'a Vars,
    /// How long it may take, everything included.
    pub budget: Duration,
    /// Longest reply, in bytes.
    pub reply_bytes_max: usize,
    /// The crash point to pass when the bytes are out and the reply is not in.
    pub sent_point: Option<&'static str>,
}

/// A call that brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request cannot be written. Nothing was sent.
    #[error("the request cannot be written")]
    Unwritable(#[source] Unwritable),
    /// The bytes did not go there and back.
    #[error("the department did not answer")]
    Link(#[source] LinkError),
    /// The reply cannot be read. Bytes were sent.
    #[error("the reply cannot be read")]
    Unreadable(#[source] Unreadable),
}

/// Bytes that did not go there and back.
#[derive(Debug, thiserror::Error)]
#[error("{kind} (effect {effect:?})")]
pub struct LinkError {
    /// Whether the department may have acted.
    pub effect: Effect,
    /// What happened.
    pub kind: LinkErrorKind,
}

/// What happened to the bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkErrorKind {
    /// No connection came about.
    #[error("no connection")]
    Connect,
    /// The time was over.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke")]
    Broken,
    /// What came is not taken: too long, or no reply of the protocol.
    #[error("the reply cannot be read")]
    Reply(#[source] Unreadable),
}

/// A way of speaking to a department.
pub trait Connector: Send + Sync {
    /// Makes one call, once.
    fn call<'a>(&'a self, templates: &'a Templates, call: Call<'a>) -> BoxFuture<'a, Result<Answer, CallError>>;
}

/// The pure half of a connector that moves bytes.
pub trait Codec: Send + Sync {
    /// Writes a request.
    fn write(&self, templates: &Templates, exchange: &str, vars: &Vars) -> Result<Frame, Unwritable>;

    /// Reads a reply to the request of `vars`.
    fn read(&self, templates: &Templates, exchange: &str, vars: &Vars, reply: &Reply) -> Result<Answer, Unreadable>;
}

/// The half that carries the bytes.
pub trait Link: Send + Sync {
    /// Sends a frame and waits for its reply.
    fn exchange<'a>(&'a self, frame: Frame, call: Call<'a>) -> BoxFuture<'a, Result<Reply, LinkError>>;
}

/// A codec and the link that it speaks over.
pub struct Spoken<L> {
    codec: Arc<dyn Codec>,
    link: L,
}

impl<L: Link> Spoken<L> {
    /// Puts the halves together.
    pub fn new(codec: Arc<dyn Codec>, link: L) -> Self {
        Self { codec, link }
    }
}

impl<L: Link> Connector for Spoken<L> {
    fn call<'a>(&'a self, templates: &'a Templates, call: Call<'a>) -> BoxFuture<'a, Result<Answer, CallError>> {
        async move {
            let frame = self.codec.write(templates, call.exchange, call.vars).map_err(CallError::Unwritable)?;
            let span = tracing::Span::current();
            span.record("request_bytes", frame.bytes.len());
            let reply = self.link.exchange(frame, call).await.map_err(CallError::Link)?;
            span.record("reply_bytes", reply.bytes.len());
            self.codec.read(templates, call.exchange, call.vars, &reply).map_err(CallError::Unreadable)
        }
        .boxed()
    }
}
