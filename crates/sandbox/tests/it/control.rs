//! The control port over a real socket.

use runtime::Context;
use sandbox::{Config, Running};
use serde_json::{Value, json};

use crate::client::{Http, element};

/// A sandbox on free ports in a directory of its own.
pub(crate) async fn started(context: &Context) -> (Running, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = Config { data_dir: directory.path().into(), ..Config::default() };
    let free = || "127.0.0.1:0".to_owned();
    config.control.listen = free();
    config.wechatpay.listen = free();
    config.alipay.listen = free();
    config.police_430100.listen = free();
    config.police_140100.listen = free();
    (sandbox::start(config, context.clone()).await.expect("starts"), directory)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_are_staged_shown_cleared_and_checked() {
    let context = Context::system();
    let (running, _directory) = started(&context).await;
    let http = Http::new(&context);
    let url = format!("http://{}/faults", running.addresses.control);
    let fault = json!({ "system": "police-430100", "operation": "pay", "fault": "slow", "times": 2, "delay": "250ms" });
    let (status, staged) = http.control("POST", &url, &fault).await;
    assert_eq!((status, &staged[0]), (201, &fault));
    assert_eq!(http.control("GET", &url, &Value::Null).await.1, json!([fault]));
    assert_eq!(http.control("DELETE", &url, &Value::Null).await.0, 204);
    assert_eq!(http.control("GET", &url, &Value::Null).await.1, json!([]));
    for bad in [
        json!({}),
        json!({ "system": "police-999999", "operation": "pay", "fault": "slow" }),
        json!({ "system": "wechatpay", "operation": "pay", "fault": "slow" }),
        json!({ "system": "police-430100", "operation": "pay", "fault": "nonsense" }),
        json!({ "system": "police-430100", "operation": "pay", "fault": "slow", "delay": 5 }),
        json!({ "system": "police-430100", "operation": "pay", "fault": "slow", "more": 1 }),
    ] {
        let (status, told) = http.control("POST", &url, &bad).await;
        assert!(status == 400 && told["error"].is_string(), "{bad}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_officer_confirms_and_the_citizen_may_pay() {
    let context = Context::system();
    let (running, _directory) = started(&context).await;
    let http = Http::new(&context);
    let control = format!("http://{}", running.addresses.control);
    let soap = running.addresses.police_430100.to_string();
    let person = http.control("GET", &format!("{control}/citizens/magic/10"), &Value::Null).await.1;
    assert_eq!(person["records"][0]["state"], "captured");
    let number = person["records"][0]["number"].as_str().expect("a number").to_owned();
    let lock = [("xh", number.as_str()), ("ywlsh", "k"), ("sdfz", "30")];
    assert_eq!(element(&http.changsha(&soap, "sdWfjl", &lock).await.expect("a reply"), "fhm"), "3001");

    let url = format!("{control}/police/430100/records/{number}");
    let (status, record) = http.control("POST", &url, &json!({ "action": "confirm" })).await;
    assert_eq!((status, &record["state"]), (200, &json!("unpaid")));
    let fine = json!({ "action": "set_fine", "fine_minor": 12_345 });
    assert_eq!(http.control("POST", &url, &fine).await.1["fine_minor"], 12_345);
    let reply = http.changsha(&soap, "sdWfjl", &lock).await.expect("a reply");
    assert_eq!((element(&reply, "fhm"), element(&reply, "zje")), ("0000", "123.45"));

    let paid = http.control("GET", &format!("{control}/citizens/magic/30"), &Value::Null).await.1;
    let paid = paid["records"][0]["number"].as_str().expect("a number");
    let url = |region: &str, number: &str| format!("{control}/police/{region}/records/{number}");
    let dispute = json!({ "action": "dispute" });
    assert_eq!(http.control("POST", &url("430100", paid), &dispute).await.0, 409);
    assert_eq!(http.control("POST", &url("430100", "1"), &dispute).await.0, 409);
    assert_eq!(http.control("POST", &url("110000", paid), &dispute).await.0, 404);
    let negative = json!({ "action": "set_fine", "fine_minor": -1 });
    assert_eq!(http.control("POST", &url("430100", &number), &negative).await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cast_is_listed_and_journals_are_told() {
    let context = Context::system();
    let (running, directory) = started(&context).await;
    let http = Http::new(&context);
    let control = format!("http://{}", running.addresses.control);
    let get = async |path: &str| http.control("GET", &format!("{control}{path}"), &Value::Null).await;
    let (status, cast) = get("/citizens").await;
    assert_eq!((status, cast["citizens"].as_array().map(Vec::len)), (200, Some(10)));
    assert_eq!(cast["citizens"][8]["records"].as_array().map(Vec::len), Some(120), "sixty in each city");
    assert_eq!(get("/citizens/load/169999").await.1["vehicles"][0]["plate"], "湘AD99999");
    assert_eq!((get("/citizens/load/170000").await.0, get("/citizens/other/1").await.0), (404, 404));
    let (status, journal) = get("/journal/police-140100").await;
    assert!(status == 200 && journal["event"] == "opened", "{journal}");
    assert_eq!(get("/journal/nothing").await.0, 404);
    assert!(directory.path().join("sandbox/police-140100.journal").exists());
    for (pay, nothing) in [("wechatpay/pay", "weixin://nothing"), ("alipay/pay", "https://qr.alipay.com/nothing")] {
        let name = if pay.starts_with("wechatpay") { "code_url" } else { "qr_code" };
        let pay = format!("{control}/{pay}");
        assert_eq!(http.control("POST", &pay, &json!({ name: nothing })).await.0, 404);
        assert_eq!(http.control("POST", &pay, &json!({})).await.0, 404);
        assert_eq!(http.control("POST", &pay, &json!({ "stranger": 1 })).await.0, 400);
    }
    let (status, told) = http.control("POST", &format!("{control}/alipay/dance"), &json!({})).await;
    assert_eq!((status, &told["error"]), (404, &json!("open, pay, close or finish")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_soap_port_says_plainly_what_it_does_not_serve() {
    let context = Context::system();
    let (running, _directory) = started(&context).await;
    let http = Http::new(&context);
    let url = format!("http://{}/services/WfclService", running.addresses.police_430100);
    let send = async |method: &str, url: &str, body: Vec<u8>| {
        let request = http::Request::builder().method(method).uri(url).body(body.into()).expect("a request");
        http.send(request).await.expect("an answer")
    };
    let wsdl = send("GET", &format!("{url}?WSDL"), Vec::new()).await;
    let (text, _, broken) = encoding_rs::GBK.decode(wsdl.body());
    assert!(!broken && text.contains(&format!("<soap:address location=\"{url}\"/>")));
    assert_eq!(send("GET", &url, Vec::new()).await.status(), 404);
    assert_eq!(send("POST", &url, vec![b' '; 70_000]).await.status(), 413);
    let fault = send("POST", &url, b"<!DOCTYPE a><a/>".to_vec()).await;
    assert_eq!(fault.status(), 500);
    assert!(encoding_rs::GBK.decode(fault.body()).0.contains("<faultcode>soap:Client</faultcode>"));
}
