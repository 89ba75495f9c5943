//! HTTP, for SOAP.

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Uri, header};
use runtime::http::{Client, Effect, Error, ErrorKind};

use super::{Settings, field_at};
use crate::connector::{Call, Frame, Link, LinkError, LinkErrorKind, ReadFlaw, Reply, Unreadable};

/// Carries SOAP to the one address that the installation configured. Redirects are not followed.
pub struct HttpLink {
    client: Client,
    uri: Uri,
    content_type: HeaderValue,
}

/// An address that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected an address such as \"http://127.0.0.1:7511\": http, host and port, nothing after them; https is not spoken yet"
)]
pub struct BadEndpoint;

impl HttpLink {
    /// Binds a client to an endpoint (`http://host:port`); the path is the profile's.
    pub fn new(client: Client, endpoint: &str, settings: &Settings) -> Result<Self, BadEndpoint> {
        let base: Uri = endpoint.parse().map_err(|_| BadEndpoint)?;
        let parts = base.into_parts();
        let is_http = parts.scheme.as_ref().is_some_and(|scheme| scheme.as_str() == "http");
        let has_path = parts.path_and_query.as_ref().is_some_and(|path| path.as_str() != "/");
        let authority = parts.authority.filter(|authority| !authority.as_str().contains('@')).ok_or(BadEndpoint)?;
        let (Some(scheme), true, false) = (parts.scheme, is_http, has_path) else { return Err(BadEndpoint) };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(settings.path.as_str()).build();
        let content_type = format!("text/xml; charset={}", settings.charset.label().to_uppercase());
        Ok(Self {
            client,
            uri: uri.map_err(|_| BadEndpoint)?,
            content_type: HeaderValue::from_str(&content_type).map_err(|_| BadEndpoint)?,
        })
    }

    fn request(&self, frame: Frame) -> Result<Request<bytes::Bytes>, LinkError> {
        let action = format!("\"{}\"", frame.action.unwrap_or_default());
        Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::CONTENT_TYPE, self.content_type.clone())
            .header("SOAPAction", action)
            .body(frame.bytes)
            .map_err(|_| LinkError { effect: Effect::None, kind: LinkErrorKind::Connect })
    }
}

impl Link for HttpLink {
    fn exchange<'a>(&'a self, frame: Frame, call: Call<'a>) -> BoxFuture<'a, Result<Reply, LinkError>> {
        async move {
            let request = self.request(frame)?;
            let sent = self.client.send(request, call.budget, call.reply_bytes_max).await;
            let reply = sent.map_err(|error| LinkError { effect: error.effect, kind: kind(&error) })?;
            let status = reply.status().as_u16();
            if !matches!(status, 200 | 500) {
                let kind = LinkErrorKind::Reply(Unreadable::new("status", 0, ReadFlaw::Status(status)));
                return Err(LinkError { effect: Effect::Possible, kind });
            }
            let content_type = reply.headers().get(header::CONTENT_TYPE);
            let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            Ok(Reply { status: Some(status), content_type, bytes: reply.into_body() })
        }
        .boxed()
    }
}

fn kind(error: &Error) -> LinkErrorKind {
    match error.kind {
        ErrorKind::Request | ErrorKind::Connect | ErrorKind::Tls => LinkErrorKind::Connect,
        ErrorKind::Timeout => LinkErrorKind::Timeout,
        ErrorKind::Broken => LinkErrorKind::Broken,
        ErrorKind::TooLarge => {
            let at = error.read.len();
            LinkErrorKind::Reply(Unreadable::new(field_at(&error.read, at), at, ReadFlaw::TooLong(at)))
        }
    }
}
