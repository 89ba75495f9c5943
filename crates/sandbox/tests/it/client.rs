//! Callers of the sandbox, as small as they can be.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use runtime::Context;
use runtime::http::{Client, Error, Options};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const SERIAL: &str = "CSJJ-SANDBOX-0001";
pub(crate) const MERCHANT: &str = "1900430100";
const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Any caller over HTTP.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client,
    context: Context,
}

impl Http {
    pub(crate) fn new(context: &Context) -> Self {
        let client = Client::new(context.net.clone(), context.clock.clone(), Options::default());
        Self { client, context: context.clone() }
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

    /// Calls WeChat Pay as a merchant.
    pub(crate) async fn wechat(
        &self,
        at: &str,
        key: &Merchant,
        method: &str,
        target: &str,
        body: &str,
    ) -> (u16, Value) {
        let (seconds, _) = self.context.clock.now().seconds_nanos();
        let nonce = self.context.ids.hex(32);
        let signature = key.sign(&format!("{method}\n{target}\n{seconds}\n{nonce}\n{body}\n"));
        let serial = &key.serial;
        let authorization = format!(
            "WECHATPAY2-SHA256-RSA2048 mchid=\"{MERCHANT}\",serial_no=\"{serial}\",nonce_str=\"{nonce}\",\
             timestamp=\"{seconds}\",signature=\"{signature}\""
        );
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{at}{target}"))
            .header("authorization", authorization);
        let request = request.body(Bytes::copy_from_slice(body.as_bytes())).expect("a request");
        let answer = self.send(request).await.expect("an answer");
        (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
    }
}

/// A merchant's key, from the sandbox's own directory.
pub(crate) struct Merchant {
    key: KeyPair,
    serial: String,
}

impl Merchant {
    pub(crate) fn read(keys_dir: &Path) -> Self {
        let directory = keys_dir.join(MERCHANT);
        let pem = std::fs::read_to_string(directory.join("private_key.pem")).expect("a key");
        let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let key = KeyPair::from_pkcs8(&STANDARD.decode(der).expect("base64")).expect("a key");
        let serial = std::fs::read_to_string(directory.join("serial_no.txt")).expect("a serial number");
        Self { key, serial: serial.trim().into() }
    }

    fn sign(&self, text: &str) -> String {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).expect("signs");
        STANDARD.encode(signature)
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
