//! Callers of the sandbox, as small as they can be.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use runtime::Context;
use runtime::http::{Client, Error, Options};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const SERIAL: &str = "CSJJ-SANDBOX-0001";
const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Any caller over HTTP.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client,
}

impl Http {
    pub(crate) fn new(context: &Context) -> Self {
        let client = Client::new(context.net.clone(), context.clock.clone(), Options::default());
        Self { client }
    }

    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Error> {
        self.client.send(request, TIMEOUT, ANSWER_BYTES_MAX).await
    }

    /// Sends JSON to the control port.
    pub(crate) async fn control(&self, method: &str, url: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let answer = self.send(request.body(body).expect("a request")).await.expect("an answer");
        let told = serde_json::from_slice(answer.body())
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(answer.body()).into_owned()));
        (answer.status().as_u16(), told)
    }

    /// Calls a Changsha operation; returns the reply as text.
    pub(crate) async fn changsha(&self, at: &str, operation: &str, fields: &[(&str, &str)]) -> Result<String, Error> {
        let inner: String = fields.iter().map(|(name, value)| format!("<{name}>{value}</{name}>")).collect();
        let body = format!(
            "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
             <w:{operation} xmlns:w=\"urn:csjj:wfcl:1\"><jkxlh>{SERIAL}</jkxlh>{inner}</w:{operation}></s:Body></s:Envelope>"
        );
        let request = Request::post(format!("http://{at}/services/WfclService")).header("content-type", "text/xml");
        let answer = self.send(request.body(Bytes::from(body)).expect("a request")).await?;
        let (text, _, _) = encoding_rs::GBK.decode(answer.body());
        Ok(text.into_owned())
    }
}

/// The text of the first element of a name.
pub(crate) fn element<'a>(reply: &'a str, name: &str) -> &'a str {
    let rest = reply.split_once(&format!("<{name}>")).map_or("", |(_, rest)| rest);
    rest.split_once(&format!("</{name}>")).map_or("", |(text, _)| text)
}

/// Calls a Taiyuan transaction on a connection of its own; returns return code and body.
pub(crate) async fn taiyuan(context: &Context, at: &str, code: &str, body: &str) -> std::io::Result<(String, Vec<u8>)> {
    let mut io = context.net.connect(at, TIMEOUT).await?;
    let frame = format!("{code:4}{:12}{:020}{}{body}", "TYSANDBOX001", 7, "20261122093000");
    io.write_all(format!("{:06}{frame}", frame.len()).as_bytes()).await?;
    let mut length = [0; 6];
    io.read_exact(&mut length).await?;
    let length = std::str::from_utf8(&length).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let mut reply = vec![0; length];
    io.read_exact(&mut reply).await?;
    let body = reply.split_off(102);
    Ok((String::from_utf8_lossy(&reply[24..28]).into_owned(), body))
}

/// The columns of a Taiyuan payment notice of a record without a lock.
pub(crate) fn taiyuan_payment(order: &str, record: &str, fen: i64) -> String {
    format!("{order:64}{record:20}{:20}{fen:012}20261122093000WX{:32}", "", "4200001234")
}
