//! Writing a header block: without a table of its own, so that nothing has to be remembered and any two blocks are independent.

use bytes::{BufMut, BytesMut};
use http::uri::{Scheme, Uri};
use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::table::number;

/// The line `:status 200` of the static table, and those of the other codes that have one.
const STATUS: u8 = 8;

/// The head of a response.
pub(crate) fn status(out: &mut BytesMut, status: StatusCode) {
    match status.as_u16() {
        200 => indexed(out, STATUS),
        204 => indexed(out, 9),
        206 => indexed(out, 10),
        304 => indexed(out, 11),
        400 => indexed(out, 12),
        404 => indexed(out, 13),
        500 => indexed(out, 14),
        _ => literal(out, STATUS, status.as_str().as_bytes(), false),
    }
}

/// Lines of the static table for a request.
const AUTHORITY: u8 = 1;
const METHOD: u8 = 2;
const POST: u8 = 3;
const PATH: u8 = 4;
const HTTP: u8 = 6;
const HTTPS: u8 = 7;

/// The head of a request.
pub(crate) fn request(out: &mut BytesMut, method: &Method, uri: &Uri) {
    if *method == Method::POST {
        indexed(out, POST)
    } else {
        literal(out, METHOD, method.as_str().as_bytes(), false)
    }
    indexed(out, if uri.scheme() == Some(&Scheme::HTTPS) { HTTPS } else { HTTP });
    if let Some(authority) = uri.authority() {
        literal(out, AUTHORITY, authority.as_str().as_bytes(), false);
    }
    literal(out, PATH, uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes(), false);
}

/// Says that there is no table.
pub(crate) fn no_table(out: &mut BytesMut) {
    out.put_u8(0x20);
}

/// Fields of a head or of trailers. Sensitive values are marked, so that no hop puts them into a table.
pub(crate) fn fields(out: &mut BytesMut, fields: &HeaderMap) {
    for (name, value) in fields {
        field(out, name, value.as_bytes(), value.is_sensitive());
    }
}

fn field(out: &mut BytesMut, name: &HeaderName, value: &[u8], is_sensitive: bool) {
    match number(name) {
        Some(number) => literal(out, number, value, is_sensitive),
        None => {
            out.put_u8(if is_sensitive { 0x10 } else { 0 });
            string(out, name.as_str().as_bytes());
            string(out, value);
        }
    }
}

fn indexed(out: &mut BytesMut, number: u8) {
    out.put_u8(0x80 | number);
}

fn literal(out: &mut BytesMut, number: u8, value: &[u8], is_sensitive: bool) {
    integer(out, 4, if is_sensitive { 0x10 } else { 0 }, usize::from(number));
    string(out, value);
}

/// Plain: coding would spare a fifth of the bytes and cost more than they do.
fn string(out: &mut BytesMut, text: &[u8]) {
    integer(out, 7, 0, text.len());
    out.put_slice(text);
}

fn integer(out: &mut BytesMut, bits: u32, flags: u8, value: usize) {
    let most = (1_usize << bits) - 1;
    if value < most {
        return out.put_u8(flags | value as u8);
    }
    out.put_u8(flags | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.put_u8(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hpack::{Decoder, Name};
    use http::HeaderValue;

    #[test]
    fn what_is_written_is_read_again() {
        let mut head = HeaderMap::new();
        head.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        head.insert("lastmile-assertion", HeaderValue::from_str(&"x".repeat(5_000)).expect("is a value"));
        let mut secret = HeaderValue::from_static("Bearer t");
        secret.set_sensitive(true);
        head.insert(http::header::AUTHORIZATION, secret);
        let mut out = BytesMut::new();
        fields(&mut out, &head);
        let mut read = Vec::new();
        let sink = |name, value: crate::hpack::Value| read.push((name, value.text().expect("is plain")));
        Decoder::new(0).read(out.freeze(), sink).expect("reads");
        let named: HeaderMap = read
            .into_iter()
            .filter_map(|(name, value)| match name {
                Name::Field(name) => Some((name, HeaderValue::from_maybe_shared(value).expect("is a value"))),
                _ => None,
            })
            .collect();
        assert_eq!(named, head);
    }

    #[test]
    fn the_head_of_a_request_is_read_again() {
        for (method, uri, expected) in [
            ("POST", "http://adapter:7440/a.B/C", ["POST", "http", "adapter:7440", "/a.B/C"]),
            ("GET", "https://adapter/health?x=1", ["GET", "https", "adapter", "/health?x=1"]),
        ] {
            let mut out = BytesMut::new();
            no_table(&mut out);
            request(&mut out, &method.parse().expect("is a method"), &uri.parse().expect("is an URI"));
            let mut read = Vec::new();
            let sink = |name, value: crate::hpack::Value| read.push((name, value.text().expect("is plain")));
            Decoder::new(0).read(out.freeze(), sink).expect("reads");
            let names = [Name::Method, Name::Scheme, Name::Authority, Name::Path];
            let expected = names.into_iter().zip(expected.map(bytes::Bytes::from));
            assert_eq!(read, expected.collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_status_is_one_of_the_table_or_three_digits() {
        for code in [200, 204, 206, 304, 400, 404, 500, 431, 503] {
            let mut out = BytesMut::new();
            status(&mut out, StatusCode::from_u16(code).expect("is a status"));
            let mut read = Vec::new();
            let sink = |name, value: crate::hpack::Value| read.push((name, value.text().expect("is plain")));
            Decoder::new(0).read(out.freeze(), sink).expect("reads");
            assert_eq!(read, [(Name::Status, code.to_string().into())]);
        }
    }
}
