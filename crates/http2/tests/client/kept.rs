//! Against servers that keep the rules: hyper's and ours.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use http2::{Caller, Lost, Received, Wanted};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Body, Ended, PIPE_BYTES, WHOLE, call, connect, in_time, limits, lost, post};

/// A client, and hyper's server on the other end.
fn against_hyper() -> (Caller<Body>, Ended) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
        let path = request.uri().path().to_owned();
        let note = request.headers().get("x-note").cloned();
        let mut response = match path.as_str() {
            "/echo" => {
                let data = request.into_body().collect().await.expect("comes whole").to_bytes();
                Response::new(with_trailers(vec![data]))
            }
            "/pieces" => Response::new(with_trailers(vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")])),
            "/long" => Response::new(Full::from(vec![7; 3_000_000]).boxed_unsync()),
            "/never" => std::future::pending().await,
            "/empty" => Response::new(Full::default().boxed_unsync()),
            _ => {
                let mut missing = Response::new(Full::from("no such path").boxed_unsync());
                *missing.status_mut() = http::StatusCode::NOT_FOUND;
                missing
            }
        };
        if let Some(note) = note {
            response.headers_mut().insert("x-note", note);
        }
        Ok::<_, Infallible>(response)
    });
    tokio::spawn(async move {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(theirs), service)
            .await
    });
    connect(ours, limits())
}

fn with_trailers(pieces: Vec<Bytes>) -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = pieces.into_iter().map(|piece| Ok(Frame::data(piece))).chain([Ok(Frame::trailers(trailers))]);
    StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>())).boxed_unsync()
}

#[tokio::test]
async fn an_answer_comes_whole_with_its_fields_and_trailers() {
    let (caller, _) = against_hyper();
    let mut request = post("/echo", "hello");
    request.headers_mut().insert("x-note", HeaderValue::from_static("kept"));
    let (head, body) = call(&caller, request).await.expect("is answered").into_parts();
    assert_eq!((head.status.as_u16(), head.headers["x-note"].as_bytes()), (200, b"kept".as_slice()));
    let Received::Whole { data, trailers } = body else { panic!("is whole") };
    assert_eq!(data, "hello");
    assert_eq!(trailers.expect("come")["grpc-status"], "0");
    for (path, status, length) in [("/empty", 200, 0), ("/other", 404, 12)] {
        let answer = call(&caller, post(path, "")).await.expect("is answered");
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.into_body().collect().await.expect("is whole").to_bytes().len(), length, "{path}");
    }
}

#[tokio::test]
async fn bodies_longer_than_every_window_come_through_both_ways() {
    let (caller, _) = against_hyper();
    let bytes: Bytes = (0..3_000_000_u32).map(|number| number as u8).collect::<Vec<_>>().into();
    let answer = call(&caller, post("/echo", bytes.clone())).await.expect("is answered");
    assert!(answer.into_body().collect().await.expect("is whole").to_bytes() == bytes);
    let answers = join_all((0..20).map(|_| call(&caller, post("/long", "")))).await;
    for answer in answers {
        let body = answer.expect("is answered").into_body().collect().await.expect("is whole");
        assert_eq!(body.to_bytes().len(), 3_000_000);
    }
}

#[tokio::test]
async fn more_calls_than_streams_wait_for_their_turn() {
    let (caller, _) = against_hyper();
    let answers = join_all((0..1_000).map(|number| call(&caller, post("/echo", number.to_string())))).await;
    for (number, answer) in answers.into_iter().enumerate() {
        let body = answer.expect("is answered").into_body().collect().await.expect("is whole");
        assert_eq!(body.to_bytes(), number.to_string());
    }
}

#[tokio::test]
async fn an_answer_in_pieces_comes_as_it_comes() {
    let (caller, _) = against_hyper();
    let answer = in_time(caller.call(post("/pieces", ""), Wanted::Pieces)).await.expect("is answered");
    let Received::Pieces(_) = answer.body() else { panic!("comes in pieces") };
    let body = in_time(answer.into_body().collect()).await.expect("comes to its end");
    assert_eq!(body.trailers().expect("come")["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "onetwo");
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_given_up() {
    let (caller, _) = against_hyper();
    let answer = in_time(caller.call(post("/long", ""), Wanted::Whole { bytes_max: 1_000_000 })).await;
    assert_eq!(lost(answer), Lost::TooLong);
    assert!(call(&caller, post("/echo", "next")).await.is_ok(), "the connection goes on");
}

#[tokio::test]
async fn the_connection_ends_with_its_last_answer_after_the_last_caller() {
    let (caller, ended) = against_hyper();
    let clone = caller.clone();
    let answer = clone.call(post("/echo", "last"), WHOLE);
    drop((caller, clone));
    in_time(answer).await.expect("is answered");
    in_time(ended).await.expect("does not panic").expect("ends well");
}

#[tokio::test]
async fn our_server_and_our_client_understand_each_other() {
    struct Echo;
    impl http2::Handler for Echo {
        type Body = Body;
        type Answer = futures::future::BoxFuture<'static, Response<Body>>;
        fn answer(&self, request: Request<Received>) -> Self::Answer {
            Box::pin(async move {
                let data = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
                Response::new(with_trailers(vec![data.unwrap_or_default()]))
            })
        }
    }
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    tokio::spawn(http2::Connection::new(theirs, BytesMut::new(), Echo, limits()));
    let (caller, ended) = connect(ours, limits());
    let calls = (0..300_usize).map(|number| call(&caller, post("/echo", vec![7; number * 1_000])));
    for (number, answer) in join_all(calls).await.into_iter().enumerate() {
        let body = answer.expect("is answered").into_body().collect().await.expect("is whole");
        assert_eq!(body.trailers().expect("come")["grpc-status"], "0");
        assert_eq!(body.to_bytes().len(), number * 1_000);
    }
    drop(caller);
    in_time(ended).await.expect("does not panic").expect("ends well");
}
