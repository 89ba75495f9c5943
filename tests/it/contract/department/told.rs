//! What an adapter says of what it cannot read or write: profile, field and byte, at the public port, in both cities.
//!
//! The bytes are fetched from the departments past the adapter as well: an offset is held against what stands there.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use contracts::department::v1::QueryRequest;
use lastmile_tests::Cluster;
use lastmile_tests::catalogue::{Catalogue, Departments};
use lastmile_tests::cluster::{on_both, on_both_with};
use lastmile_tests::golden::refused;
use lastmile_tests::super_app::{ITEM, Outside, SuperApp, with_token};
use prost_types::Struct;
use rpc::RemoteFault;
use rpc::oauth::Person;
use rpc::token::Attributes;
use runtime::Context;
use runtime::http::{Client, Options};
use runtime::secret::Pii;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Response, Status};

use super::rig::REGIONS;

/// The longest reply that Changsha's profile takes.
const REPLY_BYTES_MAX: usize = 1_048_576;
/// A reply of any length comes within it, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);
/// The magic plates whose list of violations is spoilt.
const LIST: u32 = 1_000;
/// What a request to Changsha's list begins with, up to the licence's number.
const REQUEST: &str = "<?xml version=\"1.0\" encoding=\"GBK\"?>\n<soapenv:Envelope \
    xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:w=\"urn:csjj:wfcl:1\"><soapenv:Body><w:cxWfxx>\n\
    <jkxlh>CSJJ-SANDBOX-0001</jkxlh>\n<jszh>";

/// A super app's back end and the world outside.
struct Reader {
    app: SuperApp,
    outside: Outside,
}

impl Reader {
    fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let context = Context::system();
        let app = SuperApp::new(&context, &cluster.public(), "wechat", &cluster.client_keys())?;
        Ok(Self { app, outside: Outside::new(&context, &cluster.sandbox().control.to_string()) })
    }

    /// Asks for everything of a citizen whom the token is about.
    async fn query(&self, item: &str, region: &str, token: &str) -> anyhow::Result<Result<Response<()>, Status>> {
        let asked = QueryRequest {
            item: item.to_owned(),
            region: region.to_owned(),
            request_id: "told".to_owned(),
            input: Some(Struct::default()),
            ..QueryRequest::default()
        };
        Ok(self.app.department().query(with_token(asked, token)?).await.map(|answer| answer.map(drop)))
    }
}

fn profile(region: &str) -> String {
    format!("traffic/{region}")
}

/// Where an error says that something is wrong.
fn place(fault: &RemoteFault) -> anyhow::Result<(String, usize)> {
    let field = fault.metadata("field").context("a field")?.to_owned();
    Ok((field, fault.metadata("offsetBytes").context("an offset")?.parse()?))
}

/// The list of a licence as Changsha's police sends it.
async fn changsha(at: SocketAddr, licence: &str) -> anyhow::Result<Vec<u8>> {
    let context = Context::system();
    let http = Client::new(context.net.clone(), context.clock.clone(), Options::default());
    let body = format!("{REQUEST}{licence}</jszh>\n<clbj></clbj>\n<dqy>1</dqy>\n<mys>20</mys>\n</w:cxWfxx>");
    let request = http::Request::post(format!("http://{at}/services/WfclService"))
        .header("content-type", "text/xml; charset=GBK")
        .header("soapaction", "\"urn:csjj:wfcl:1/cxWfxx\"")
        .body(Bytes::from(format!("{body}</soapenv:Body></soapenv:Envelope>")))?;
    Ok(http.send(request, PATIENCE, 8 * REPLY_BYTES_MAX).await?.into_body().to_vec())
}

/// The list of a licence as Taiyuan's police sends it, without its length.
async fn taiyuan(at: SocketAddr, licence: &str) -> anyhow::Result<Vec<u8>> {
    let columns = format!("2101{:12}{:20}20261122093000L{:17}{licence} 000120", "TYSANDBOX001", "TOLD", "");
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(format!("{:06}{columns}", columns.len()).as_bytes()).await?;
    let mut length = [0; 6];
    stream.read_exact(&mut length).await?;
    let mut reply = vec![0; std::str::from_utf8(&length)?.parse()?];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

/// The tag that was opened last before an offset.
fn tag_before(bytes: &[u8], at: usize) -> String {
    let tag = bytes[..at].rsplit(|byte| *byte == b'<').next().unwrap_or_default();
    String::from_utf8_lossy(tag.split(|byte| *byte == b'>').next().unwrap_or_default()).into_owned()
}

/// Holds a place against the bytes of Changsha's SOAP.
fn in_soap(fault: u32, field: &str, at: usize, bytes: &[u8]) -> anyhow::Result<()> {
    let rest = bytes.get(at..).context("the reply is shorter")?;
    let (expected, stands) = match fault {
        10 => ("list.wfxxlb.0.jkbj", rest.starts_with(b"<jkbj>7<")),
        // The first byte of two, and then the next tag.
        11 => ("list.cjjgmc", rest[0] >= 0x81 && rest[1] == b'<' && tag_before(bytes, at) == "cjjgmc"),
        12 => ("list.cjjgmc", rest[0] == 0xff && tag_before(bytes, at) == "cjjgmc"),
        13 => ("list.xml", rest.starts_with(b"<!DOCTYPE ")),
        14 => ("list.fhxx", at == REPLY_BYTES_MAX && tag_before(bytes, at) == "fhxx"),
        // The second of two equal records.
        15 => {
            let before = bytes[..at].windows(6).filter(|tag| tag == b"<wfxx>").count();
            ("list.wfxxlb.1.xh", rest.starts_with(b"<wfxx>") && before == 1)
        }
        other => anyhow::bail!("{other} is not played"),
    };
    ensure!(field == expected && stands, "fault {fault}: {field} at {at}, not {expected}");
    Ok(())
}

/// Holds a place against the columns of Taiyuan. Offsets are those of the manual.
fn in_columns(fault: u32, field: &str, at: usize, bytes: &[u8]) -> anyhow::Result<()> {
    // The header has 102 bytes, the counts 6; in a record the state is at 264, the unit at 339.
    let (state, unit) = (108 + 264, 108 + 339);
    let (expected, stands) = match fault {
        10 => ("list.rows.0.zt", at == state && bytes[at] == b'Z'),
        11 => {
            let is_of_unit = (unit..unit + 40).contains(&at);
            ("list.rows.0.cjjg", is_of_unit && bytes[at] >= 0x81 && bytes[at + 1] == b' ')
        }
        12 => ("list.rows.0.cjjg", at == unit && bytes[at] == 0xff),
        // There is no DOCTYPE in columns; letters stand where digits belong.
        13 => ("list.zjls", at == 102 && bytes[at] == b'X'),
        other => anyhow::bail!("{other} is not played"),
    };
    ensure!(field == expected && stands, "fault {fault}: {field} at {at}, not {expected}");
    Ok(())
}

/// Undefined values, half a character, no character, a DOCTYPE, too much, the same twice: told to the byte, and never as a deadline.
#[test]
fn what_cannot_be_read_is_told_to_the_byte() {
    let departments = Departments::copied().and_then(|copied| copied.with("timeout: 4s", "timeout: 28s"));
    let departments = departments.expect("the profiles");
    let catalogue = Catalogue::with("adapters.yaml", "timeout: 8s", "timeout: 30s").expect("a catalogue");
    let (departments_dir, data_dir) = (departments.dir(), catalogue.data_dir());
    let configure = move |config: &mut lastmile::Config| {
        config.adapter.departments_dir.clone_from(&departments_dir);
        config.catalog.data_dir.clone_from(&data_dir);
    };
    on_both_with(configure, async |cluster| {
        let reader = Reader::of(cluster)?;
        let at = cluster.sandbox();
        for region in REGIONS {
            for fault in 10..=15 {
                let citizen = reader.outside.magic_citizen(LIST + fault * 10).await?;
                let token = reader.app.citizen_token(&citizen, &[&profile(region)]).await?;
                let answer = reader.query(ITEM, region, &token).await?;
                if (region, fault) == ("140100", 15) {
                    // The first of two frames is an answer.
                    ensure!(answer.is_ok(), "{answer:?}");
                    continue;
                }
                let told = refused(answer, "department REPLY_UNREADABLE", &[("profile", &profile(region))]);
                let told = told.with_context(|| format!("{region}, fault {fault}"))?;
                let (field, offset) = place(&told)?;
                match (region, fault) {
                    ("430100", _) => {
                        let bytes = changsha(at.police_430100, citizen.number()).await?;
                        in_soap(fault, &field, offset, &bytes)?;
                    }
                    // Its length alone is too much.
                    (_, 14) => ensure!((field.as_str(), offset) == ("list.length", 0), "{field} at {offset}"),
                    (_, _) => {
                        let bytes = taiyuan(at.police_140100, citizen.number()).await?;
                        in_columns(fault, &field, offset, &bytes)?;
                    }
                }
            }
        }
        Ok(())
    });
}

/// Somebody with a passport has no licence number that these departments could be asked for.
#[test]
fn a_value_that_a_department_cannot_take_is_told_by_its_place_and_not_sent() {
    on_both(async |cluster| {
        let reader = Reader::of(cluster)?;
        let attributes = Attributes {
            name: Some(Pii::new("MARIE CURIE".to_owned())),
            doc_type: Some("passport".to_owned()),
            doc_no: Some(Pii::new("E12345678".to_owned())),
            ..Attributes::default()
        };
        let person = Person { sub: "guest".to_owned(), level: 4, consents: vec![ITEM.to_owned()], attributes };
        let polices = ["police-430100", "police-140100"];
        for police in polices {
            reader.outside.stage_for((police, "*", "busy"), 1, "1s").await?;
        }
        // In SOAP where its text would begin; in columns behind the 68 bytes of those before it.
        for (region, at) in [("430100", REQUEST.len()), ("140100", 68)] {
            let token = reader.app.person_token(&person, &[&profile(region)]).await?;
            let answer = reader.query(ITEM, region, &token).await?;
            let at = at.to_string();
            let place = [("profile", profile(region)), ("field", "list.jszh".to_owned()), ("offsetBytes", at)];
            let place = place.each_ref().map(|(key, value)| (*key, value.as_str()));
            let told = refused(answer, "department VALUE_UNMAPPABLE", &place)?;
            ensure!(!format!("{told:?}").contains("E12345678"), "the value is in the error");
        }
        for police in polices {
            ensure!(reader.outside.staged(police).await? == 1, "{police} was called");
        }
        Ok(())
    });
}

/// A caller's number that the department does not know is our own mistake, not the citizen's and not the department's.
#[test]
fn a_profile_that_its_department_does_not_understand_is_broken() {
    let configure = |config: &mut lastmile::Config| {
        config.sandbox.systems.police_430100.interface_serial = "ANOTHER".to_owned();
        config.sandbox.systems.police_140100.institution = "ANOTHER".to_owned();
    };
    on_both_with(configure, async |cluster| {
        let reader = Reader::of(cluster)?;
        let citizen = reader.outside.citizen(750).await?;
        for region in REGIONS {
            let token = reader.app.citizen_token(&citizen, &[&profile(region)]).await?;
            let answer = reader.query(ITEM, region, &token).await?;
            let place = [("profile", profile(region)), ("field", "list.fhm".to_owned())];
            let place = place.each_ref().map(|(key, value)| (*key, value.as_str()));
            let (_, offset) = self::place(&refused(answer, "department PROFILE_BROKEN", &place)?)?;
            let at = cluster.sandbox();
            let stands = match region {
                "430100" => changsha(at.police_430100, citizen.number()).await?[offset..].starts_with(b"<fhm>1001<"),
                _ => taiyuan(at.police_140100, citizen.number()).await?[offset..].starts_with(b"E103"),
            };
            ensure!(stands, "{region}: the code does not stand at {offset}");
        }
        Ok(())
    });
}

/// A catalogue that promises more than the profile has.
#[test]
fn an_item_that_only_the_catalogue_knows_is_not_offered() {
    let routed = "quota_per_minute: 0 }\n- profile: traffic/140100";
    let more = "quota_per_minute: 0 }\n    library.search: { payee_id: none, currency: CNY, timeout: 8s, concurrency_max: 64, \
                quota_per_minute: 0 }\n- profile: traffic/140100";
    let catalogue = Catalogue::with("adapters.yaml", routed, more).expect("a catalogue");
    let departments = Departments::copied().and_then(|copied| copied.and_schemas(ITEM, "library.search"));
    let departments = departments.expect("the schemas");
    let (data_dir, schemas_dir) = (catalogue.data_dir(), departments.schemas_dir());
    let configure = move |config: &mut lastmile::Config| {
        config.catalog.data_dir.clone_from(&data_dir);
        config.catalog.schemas_dir.clone_from(&schemas_dir);
    };
    on_both_with(configure, async |cluster| {
        let reader = Reader::of(cluster)?;
        let citizen = reader.outside.citizen(751).await?;
        let token = reader.app.citizen_token(&citizen, &["traffic/430100"]).await?;
        refused(reader.query("library.search", "430100", &token).await?, "department ITEM_NOT_OFFERED", &[])?;
        ensure!(cluster.exchanges() == 0, "the department was called");
        ensure!(reader.query(ITEM, "430100", &token).await?.is_ok(), "what it offers it serves");
        Ok(())
    });
}
