//! Somebody at the door with bytes of their own, where a generated client would not send such a thing.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use contracts::department::v1::QueryRequest;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lastmile_tests::Cluster;
use lastmile_tests::super_app::{Citizen, ITEM, Outside, SuperApp};
use prost::Message;
use runtime::Context;
use tokio::net::TcpStream;
use tonic::{Code, Response, Status};

pub(super) const QUERY: &str = "/lastmile.department.v1.DepartmentService/Query";
pub(super) const CHANGSHA: (&str, &str) = ("430100", "traffic/430100");
pub(super) const TAIYUAN: (&str, &str) = ("140100", "traffic/140100");
pub(super) const POLICE: &str = "police-430100";
/// No answer of the gateway takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The door, a citizen in front of it, and the world behind it.
pub(super) struct Door {
    pub(super) app: SuperApp,
    pub(super) outside: Outside,
    pub(super) citizen: Citizen,
    /// For Changsha.
    pub(super) token: String,
    context: Context,
    address: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.context.tasks.abort();
    }
}

impl Door {
    /// The n-th citizen comes to the door.
    pub(super) async fn of(cluster: &Cluster, number: u32) -> anyhow::Result<Self> {
        let context = Context::system();
        let app = SuperApp::new(&context, &cluster.public(), "wechat", &cluster.client_keys())?;
        let outside = Outside::new(&context, &cluster.sandbox().control.to_string());
        let citizen = outside.citizen(number).await?;
        let token = app.citizen_token(&citizen, &[CHANGSHA.1]).await?;
        let address = cluster.public().trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&address).await?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        context.tasks.spawn("test.connection", async move {
            let _ = connection.await;
        });
        Ok(Self { app, outside, citizen, token, context, address, sender })
    }

    /// Sends one request as it is; the answer is what a client would make of it.
    pub(super) async fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Result<Response<()>, Status>> {
        let mut request = http::Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let mut sender = self.sender.clone();
        let answered = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            anyhow::ensure!(head.status == 200, "HTTP {}", head.status);
            if let Some(status) = Status::from_header_map(&head.headers) {
                return Ok(status);
            }
            let trailers = body.collect().await?.trailers().cloned().context("trailers")?;
            Status::from_header_map(&trailers).context("a status")
        };
        let status = tokio::time::timeout(PATIENCE, answered).await.context("no answer")??;
        Ok(if status.code() == Code::Ok { Ok(Response::new(())) } else { Err(status) })
    }

    /// Sends a query with the citizen's token.
    pub(super) async fn query(&self, query: &QueryRequest) -> anyhow::Result<Result<Response<()>, Status>> {
        self.send(QUERY, &[("authorization", &bearer(&self.token))], framed(&query.encode_to_vec())).await
    }

    /// What the citizen asks of a city.
    pub(super) fn asks(&self, region: &str) -> anyhow::Result<QueryRequest> {
        Ok(QueryRequest {
            item: ITEM.to_owned(),
            region: region.to_owned(),
            request_id: "door".to_owned(),
            input: Some(self.citizen.input(region)?),
            ..QueryRequest::default()
        })
    }

    /// Lays something in wait for the next call of Changsha's police, whoever makes it.
    pub(super) async fn lie_in_wait(&self) -> anyhow::Result<()> {
        self.outside.stage_for((POLICE, "*", "busy"), 1, "1s").await
    }

    /// Holds that nobody came by since: neither the adapter nor the department was called. Then makes the call that does come by, so
    /// that it is seen that one would have been noticed.
    pub(super) async fn nobody_came(&self, cluster: &Cluster, exchanges: u64) -> anyhow::Result<()> {
        anyhow::ensure!(self.outside.staged(POLICE).await? == 1, "the department was called");
        anyhow::ensure!(cluster.exchanges() == exchanges, "the adapter called the department");
        let came = self.query(&self.asks(CHANGSHA.0)?).await?;
        lastmile_tests::golden::refused(came, "department DEPARTMENT_BUSY", &[])?;
        anyhow::ensure!(self.outside.staged(POLICE).await? == 0, "nothing lay in wait");
        anyhow::ensure!(cluster.exchanges() > exchanges, "the adapter's calls are not counted");
        Ok(())
    }
}

pub(super) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// One message in its frame.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short");
    [&[0][..], &length.to_be_bytes(), message].concat()
}
