//! From fields to the head of a request or an answer (RFC 9113, 8.3), or to trailers.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, request};

use crate::hpack::{LINE_BYTES, Name, Value};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// A common head has no more, so that the map of them is made once.
const FIELDS_COMMON: usize = 12;

/// The `authorization` header as it came, an extension of the request. It is not among the headers: its text costs more than all the
/// rest of a head, and whoever has seen it before need not see it again.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// The first of them.
    pub value: Value,
    /// Whether there is another.
    pub is_repeated: bool,
}

impl Authorization {
    /// Puts it where all other headers are, marked as sensitive, for whoever looks for it there. A repeated one stands there twice.
    pub fn restore<B>(request: &mut http::Request<B>) {
        let Some(authorization) = request.extensions_mut().remove::<Self>() else { return };
        let is_repeated = authorization.is_repeated;
        // A text that is no header value verifies nowhere: an empty one stands for it.
        let text = authorization.value.text().unwrap_or_default();
        let mut value = HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        if is_repeated {
            request.headers_mut().append(AUTHORIZATION, value.clone());
        }
        request.headers_mut().append(AUTHORIZATION, value);
    }

    /// Takes it from where HTTP/1 has it.
    pub fn take<B>(request: &mut http::Request<B>) {
        let http::header::Entry::Occupied(values) = request.headers_mut().entry(AUTHORIZATION) else { return };
        let (_, mut values) = values.remove_entry_mult();
        if let Some(first) = values.next() {
            let value = Value::plain(Bytes::copy_from_slice(first.as_bytes()));
            let is_repeated = values.next().is_some();
            drop(values);
            request.extensions_mut().insert(Self { value, is_repeated });
        }
    }
}

/// Why a head is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Against the rules: the stream is reset.
    Malformed,
    /// More fields than are taken.
    TooLarge,
}

/// Collects the fields of one block.
#[derive(Debug)]
pub(crate) struct Collector {
    method: Option<Bytes>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    status: Option<Bytes>,
    headers: HeaderMap,
    authorization: Option<Authorization>,
    has_fields: bool,
    fault: Option<Fault>,
    room: usize,
}

impl Collector {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            method: None,
            scheme: None,
            authority: None,
            path: None,
            status: None,
            headers: HeaderMap::with_capacity(FIELDS_COMMON),
            authorization: None,
            has_fields: false,
            fault: None,
            room: bytes_max,
        }
    }

    pub(crate) fn take(&mut self, name: Name, value: Value) {
        if self.fault.is_some() {
            return;
        }
        let taken = match name {
            Name::Method => self.pseudo(|this| &mut this.method, value),
            Name::Scheme => self.pseudo(|this| &mut this.scheme, value),
            Name::Authority => self.pseudo(|this| &mut this.authority, value),
            Name::Path => self.pseudo(|this| &mut this.path, value),
            Name::Status => self.pseudo(|this| &mut this.status, value),
            Name::Malformed(_) => Err(Fault::Malformed),
            Name::Field(name) => self.field(name, value),
        };
        self.fault = taken.err();
    }

    fn pseudo(&mut self, slot: impl Fn(&mut Self) -> &mut Option<Bytes>, value: Value) -> Result<(), Fault> {
        self.count(LINE_BYTES + value.len_max())?;
        let text = value.text().ok_or(Fault::Malformed)?;
        if self.has_fields || slot(self).replace(text).is_some() {
            return Err(Fault::Malformed);
        }
        Ok(())
    }

    fn field(&mut self, name: HeaderName, value: Value) -> Result<(), Fault> {
        self.has_fields = true;
        self.count(LINE_BYTES + name.as_str().len() + value.len_max())?;
        if name == AUTHORIZATION {
            match &mut self.authorization {
                Some(first) => first.is_repeated = true,
                none => *none = Some(Authorization { value, is_repeated: false }),
            }
            return Ok(());
        }
        let text = value.text().ok_or(Fault::Malformed)?;
        if is_forbidden(&name, &text) {
            return Err(Fault::Malformed);
        }
        let value = HeaderValue::from_maybe_shared(text).map_err(|_| Fault::Malformed)?;
        self.headers.try_append(name, value).map(drop).map_err(|_| Fault::TooLarge)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Fault> {
        self.room = self.room.checked_sub(bytes).ok_or(Fault::TooLarge)?;
        Ok(())
    }

    /// The head of a request, when it is whole; with the length of the body where it is declared.
    pub(crate) fn request(mut self) -> Result<(request::Parts, Option<u64>), Fault> {
        self.check(&[&self.status])?;
        let declared = self.declared()?;
        let (Some(method), Some(scheme), Some(path)) = (self.method.take(), self.scheme.take(), self.path.take())
        else {
            return Err(Fault::Malformed);
        };
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::try_from(scheme.as_ref()).map_err(|_| Fault::Malformed)?);
        uri.path_and_query = Some(PathAndQuery::from_maybe_shared(path).map_err(|_| Fault::Malformed)?);
        // Where there is no authority it is in `host`; without either the request goes to whoever listens.
        let authority = self.authority.filter(|authority| !authority.is_empty());
        let authority = match authority {
            Some(authority) => Authority::from_maybe_shared(authority).map_err(|_| Fault::Malformed)?,
            None => Authority::from_static("localhost"),
        };
        uri.authority = Some(authority);
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = Method::from_bytes(&method).map_err(|_| Fault::Malformed)?;
        parts.uri = Uri::from_parts(uri).map_err(|_| Fault::Malformed)?;
        parts.version = Version::HTTP_2;
        parts.headers = self.headers;
        if let Some(authorization) = self.authorization {
            parts.extensions.insert(authorization);
        }
        Ok((parts, declared))
    }

    /// The head of an answer, with the length of the body where it is declared.
    pub(crate) fn answer(self) -> Result<(StatusCode, HeaderMap, Option<u64>), Fault> {
        self.check(&[&self.method, &self.scheme, &self.authority, &self.path])?;
        let declared = self.declared()?;
        let status = StatusCode::from_bytes(self.status.as_deref().unwrap_or_default());
        Ok((status.map_err(|_| Fault::Malformed)?, self.headers, declared))
    }

    /// The fields after a body.
    pub(crate) fn trailers(self) -> Result<HeaderMap, Fault> {
        self.check(&[&self.method, &self.scheme, &self.authority, &self.path, &self.status])?;
        Ok(self.headers)
    }

    /// Nothing was wrong on the way, and nothing is there that belongs elsewhere.
    fn check(&self, foreign: &[&Option<Bytes>]) -> Result<(), Fault> {
        match self.fault {
            Some(fault) => Err(fault),
            None if foreign.iter().any(|field| field.is_some()) => Err(Fault::Malformed),
            None => Ok(()),
        }
    }

    fn declared(&self) -> Result<Option<u64>, Fault> {
        match self.headers.get(CONTENT_LENGTH).map(|length| length.to_str().map(str::parse::<u64>)) {
            None => Ok(None),
            Some(Ok(Ok(length))) => Ok(Some(length)),
            Some(_) => Err(Fault::Malformed),
        }
    }
}

/// What belongs to a connection has no place in HTTP/2 (RFC 9113, 8.2.2).
fn is_forbidden(name: &HeaderName, value: &[u8]) -> bool {
    let of_connection = [CONNECTION, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION];
    if *name == TE { value != b"trailers" } else { of_connection.contains(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(fields: &[(&'static str, &'static str)]) -> Collector {
        let mut collector = Collector::new(1_000);
        for (name, value) in fields {
            collector.take(Name::read(name.as_bytes()), Value::plain(Bytes::from_static(value.as_bytes())));
        }
        collector
    }

    fn collect(fields: &[(&'static str, &'static str)]) -> Result<(request::Parts, Option<u64>), Fault> {
        collector(fields).request()
    }

    const HEAD: [(&str, &str); 3] = [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C")];

    fn with(more: &[(&'static str, &'static str)]) -> Result<(request::Parts, Option<u64>), Fault> {
        collect(&[&HEAD, more].concat())
    }

    #[test]
    fn a_head_is_read() {
        let (parts, length) =
            with(&[("te", "trailers"), ("content-length", "12"), ("authorization", "Bearer t")]).expect("is a head");
        assert_eq!((parts.method.as_str(), parts.uri.path(), length), ("POST", "/a.B/C", Some(12)));
        assert!(parts.headers.get(AUTHORIZATION).is_none());
        let authorization = parts.extensions.get::<Authorization>().expect("is there");
        assert_eq!(authorization.value.as_sent(), (b"Bearer t".as_slice(), false));
        assert!(!authorization.is_repeated);
        let (parts, _) = with(&[("authorization", "a"), ("authorization", "b")]).expect("is a head");
        assert!(parts.extensions.get::<Authorization>().is_some_and(|authorization| authorization.is_repeated));
    }

    #[test]
    fn what_is_against_the_rules_is_no_head() {
        for (fields, why) in [
            (vec![(":method", "POST"), (":scheme", "http")], "no path"),
            (vec![(":scheme", "http"), (":path", "/")], "no method"),
            (vec![(":method", "POST"), (":path", "/")], "no scheme"),
            ([&HEAD[..], &[(":path", "/b")]].concat(), "two paths"),
            ([&HEAD[..2], &[("a", "b")], &HEAD[2..]].concat(), "a pseudo-header after a field"),
            ([&HEAD[..], &[(":status", "200")]].concat(), "a response's"),
            ([&HEAD[..], &[(":other", "x")]].concat(), "unknown"),
            ([&HEAD[..], &[("Upper", "x")]].concat(), "upper case"),
            ([&HEAD[..], &[("connection", "close")]].concat(), "of a connection"),
            ([&HEAD[..], &[("keep-alive", "1")]].concat(), "of a connection"),
            ([&HEAD[..], &[("te", "gzip")]].concat(), "te"),
            ([&HEAD[..], &[("content-length", "-1")]].concat(), "no length"),
            ([&HEAD[..], &[("a", "b\r\nc")]].concat(), "a line break"),
            (vec![(":method", "POST"), (":scheme", "http"), (":path", "")], "an empty path"),
            (vec![(":method", "P OST"), (":scheme", "http"), (":path", "/")], "a method of two words"),
        ] {
            assert_eq!(collect(&fields).map(drop), Err(Fault::Malformed), "{why}");
        }
    }

    #[test]
    fn an_answer_has_a_status_and_trailers_have_none() {
        let ok = (":status", "200");
        let (status, headers, length) = collector(&[ok, ("content-length", "3")]).answer().expect("is a head");
        assert_eq!((status, headers.len(), length), (StatusCode::OK, 1, Some(3)));
        for (fields, why) in [
            (vec![], "no status"),
            (vec![ok, ok], "two"),
            (vec![(":status", "20")], "two digits"),
            (vec![ok, (":path", "/")], "a request's"),
            (vec![("a", "b"), ok], "a pseudo-header after a field"),
            (vec![ok, ("connection", "close")], "of a connection"),
        ] {
            assert_eq!(collector(&fields).answer().map(drop), Err(Fault::Malformed), "{why}");
        }
        assert_eq!(collector(&[("grpc-status", "0")]).trailers().map(|fields| fields.len()), Ok(1));
        assert_eq!(collector(&[ok]).trailers(), Err(Fault::Malformed));
    }

    #[test]
    fn fields_have_a_bound() {
        let line = LINE_BYTES + 1 + 1;
        let room = (1_000 - 3 * LINE_BYTES - "POST".len() - "http".len() - "/a.B/C".len()) / line;
        assert!(with(&vec![("a", "b"); room]).is_ok());
        assert_eq!(with(&vec![("a", "b"); room + 1]).map(drop), Err(Fault::TooLarge));
    }
}
