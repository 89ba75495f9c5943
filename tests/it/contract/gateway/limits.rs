//! Sizes, counts and times.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use contracts::department::v1::QueryRequest;
use lastmile_tests::cluster::{on_both, on_both_with};
use lastmile_tests::golden::refused;
use prost::Message;
use prost_types::{ListValue, Struct, Value, value::Kind};
use rpc::RemoteFault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::rig::{CHANGSHA, Door, POLICE, QUERY, bearer, framed};

const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Shorter than the department takes when it is slow, longer than a machine full of tests needs for an answer.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(2);
const DEPARTMENT: &str = "department.lastmile";
const TIMEOUT: &str = "DEPARTMENT_TIMEOUT";

fn text(text: String) -> Value {
    Value { kind: Some(Kind::StringValue(text)) }
}

fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

fn with(query: &QueryRequest, name: &str, value: Value) -> QueryRequest {
    let mut fields = query.input.clone().unwrap_or_default().fields;
    fields.insert(name.to_owned(), value);
    QueryRequest { input: Some(Struct { fields }), ..query.clone() }
}

/// The query, filled up to a body of that many bytes.
fn filled(query: &QueryRequest, bytes: usize) -> Vec<u8> {
    let texts = |last: usize| {
        let mut texts = vec![text("x".repeat(200_000)); 5];
        texts.push(text("x".repeat(last)));
        framed(&with(query, "x", list(texts)).encode_to_vec())
    };
    // Lengths below 16,384 have headers of the same length.
    let spare = bytes - texts(20_000).len();
    let body = texts(20_000 + spare);
    assert_eq!(body.len(), bytes);
    body
}

#[test]
fn what_is_too_much_stays_outside() {
    on_both(async |cluster| {
        let door = Door::of(cluster, 710).await?;
        let (query, credential) = (door.asks(CHANGSHA.0)?, bearer(&door.token));
        let send = async |body: Vec<u8>| door.send(QUERY, &[("authorization", &credential)], body).await;
        door.lie_in_wait().await?;

        let too_long = [("limit", "body"), ("max", "1048576"), ("unit", "bytes")];
        refused(send(filled(&query, BODY_BYTES_MAX + 1)).await?, "common LIMIT_EXCEEDED", &too_long)?;
        refused(send(framed(&vec![0; 3 * BODY_BYTES_MAX])).await?, "common LIMIT_EXCEEDED", &too_long)?;
        // One byte less goes on to the adapter, which holds it to its schema.
        refused(send(filled(&query, BODY_BYTES_MAX)).await?, "department INPUT_INVALID", &[])?;

        let many = with(&query, "x", list(vec![text(String::new()); 1_001]));
        let deep = (0..40).fold(text(String::new()), |inner, _| list(vec![inner]));
        let long = with(&query, "x", text("x".repeat(256 * 1024 + 1)));
        for (what, asked, limit, max) in [
            ("values", many, "structValues", "1000"),
            ("levels", with(&query, "x", deep), "messageDepth", "32"),
            ("bytes of text", long, "textBytes", "262144"),
        ] {
            let answer = send(framed(&asked.encode_to_vec())).await?;
            refused(answer, "common LIMIT_EXCEEDED", &[("limit", limit), ("max", max)])
                .with_context(|| what.to_owned())?;
        }
        // Fields that no message of the contract has are counted too.
        let mut unknown = query.encode_to_vec();
        unknown.extend([0xa0, 0x06, 0x01].repeat(10_001));
        refused(
            send(framed(&unknown)).await?,
            "common LIMIT_EXCEEDED",
            &[("limit", "messageElements"), ("max", "10000")],
        )?;
        // More headers than a listener reads: HTTP says so before there is a call.
        let (good, huge) = (framed(&query.encode_to_vec()), "x".repeat(20_000));
        let headers = [("authorization", credential.as_str()), ("x-huge", huge.as_str())];
        let refusal = door.send(QUERY, &headers, good).await;
        ensure!(refusal.is_err_and(|error| error.to_string().contains("HTTP 431")), "20,000 bytes of headers are read");
        door.nobody_came(cluster, 0).await
    });
}

/// What `public.limits` says is what the listener does.
#[test]
fn an_address_has_the_connections_that_the_configuration_gives_it() {
    let configure = |config: &mut lastmile::Config| config.public.limits.connections_per_ip_max = 2;
    on_both_with(configure, async |cluster| {
        let address = cluster.public().trim_start_matches("http://").to_owned();
        let first = served(&address).await?.context("the first has a place")?;
        let second = served(&address).await?.context("the second has a place")?;
        for _ in 0..3 {
            ensure!(served(&address).await?.is_none(), "a third has a place");
        }
        drop(first);
        let deadline = Instant::now() + Duration::from_secs(10);
        while served(&address).await?.is_none() {
            ensure!(Instant::now() < deadline, "the place of the first is not given back");
        }
        drop(second);
        Ok(())
    });
}

/// A connection that was answered and stays open; none when it was closed without an answer.
async fn served(address: &str) -> anyhow::Result<Option<TcpStream>> {
    let mut stream = TcpStream::connect(address).await?;
    let asked = stream.write_all(b"GET /.well-known/jwks.json HTTP/1.1\r\nhost: gateway\r\n\r\n").await;
    let mut answer = [0; 12];
    let read = async { stream.read_exact(&mut answer).await };
    let read = tokio::time::timeout(Duration::from_secs(10), read).await.context("neither answered nor closed")?;
    if asked.is_err() || read.is_err() {
        return Ok(None);
    }
    ensure!(&answer == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&answer));
    Ok(Some(stream))
}

#[test]
fn a_timeout_is_read_capped_and_kept() {
    let configure = |config: &mut lastmile::Config| config.gateway.call_timeout_max = CALL_TIMEOUT_MAX.into();
    on_both_with(configure, async |cluster| {
        let door = Door::of(cluster, 711).await?;
        let credential = bearer(&door.token);
        let query = framed(&door.asks(CHANGSHA.0)?.encode_to_vec());
        let send = async |timeouts: &[&str]| {
            let mut headers = vec![("authorization", credential.as_str())];
            headers.extend(timeouts.iter().map(|timeout| ("grpc-timeout", *timeout)));
            door.send(QUERY, &headers, query.clone()).await
        };
        door.lie_in_wait().await?;
        for malformed in [&["10"][..], &["S"], &["1s"], &["-1S"], &["123456789S"], &["1.5S"], &["1S", "1S"]] {
            let fault = refused(send(malformed).await?, "common INVALID_REQUEST", &[])?;
            let told: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
            ensure!(told == ["grpc-timeout"], "{malformed:?}: {told:?}");
        }
        // Over before it began: nothing was sent on.
        for short in ["0S", "1n", "1u"] {
            refused(send(&[short]).await?, "common DEADLINE_EXCEEDED", &[("effect", "NONE")])?;
        }
        door.nobody_came(cluster, 0).await?;

        // None is as good as one that is long enough: the gateway's own counts.
        for timeouts in [&[][..], &["20S"], &["99999999H"]] {
            ensure!(send(timeouts).await?.is_ok(), "{timeouts:?}");
        }
        // And that is kept, however long the caller would wait.
        for (timeouts, at_most) in [
            (&["300m"][..], Duration::from_millis(1_500)),
            (&[], Duration::from_millis(3_500)),
            (&["99999999H"], Duration::from_millis(3_500)),
        ] {
            door.outside.stage_for((POLICE, "list", "slow"), 1, "6s").await?;
            let begun = Instant::now();
            let answer = send(timeouts).await?;
            // Whoever of the two notices first: the adapter has the same deadline, less the way to it.
            let by_adapter = answer.as_ref().is_err_and(|status| RemoteFault::from(status).is(DEPARTMENT, TIMEOUT));
            let reason = if by_adapter { "department DEPARTMENT_TIMEOUT" } else { "common DEADLINE_EXCEEDED" };
            refused(answer, reason, &[("effect", "POSSIBLE")])?;
            ensure!(begun.elapsed() < at_most, "{timeouts:?} took {:?}", begun.elapsed());
            ensure!(door.outside.staged(POLICE).await? == 0, "the department was not slow");
        }
        Ok(())
    });
}
