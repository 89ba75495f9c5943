//! What a department is paid over: cut, signed, verified by others, confirmed by two; and two replicas at once.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contracts::payments::v1::{self as pb, RefundState, SettlementState};
use lastmile_tests::drill::process;
use rpc::RemoteFault;
use tonic::Request;

use super::on_each_engine;
use super::rig::{AMOUNT, Engine, Operators, Rig, jsapi, refund, until};

on_each_engine!(
    a_settlement_is_cut_signed_and_paid_over_by_two,
    a_file_is_believed_by_others_and_refused_once_it_was_touched,
    two_replicas_cut_at_once_and_nothing_stands_twice,
);

const PAYEE: &str = "traffic-430100";
/// DER before the 32 bytes of a public key of Ed25519 (RFC 8410).
const ED25519_PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Cut when a test says so.
fn on_demand(config: &mut payments::Config, _: &Path) {
    config.settlement.daily = false;
}

fn by<T>(person: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("played", person.parse().expect("a header"));
    request
}

async fn cut(operators: &Operators, person: &str, request_id: &str) -> Result<pb::CutSettlementResponse, RemoteFault> {
    let request = pb::CutSettlementRequest { request_id: request_id.into(), payee_id: PAYEE.into() };
    let answer = operators.clone().cut_settlement(by(person, request)).await;
    answer.map(tonic::Response::into_inner).map_err(RemoteFault::from)
}

impl Rig {
    async fn posted(&self, name: &str) -> pb::Order {
        let order = self.paid(jsapi(name)).await;
        self.post(name, &order.order_id).await.expect("posts")
    }

    async fn settlement(&self, id: &str) -> Result<pb::Settlement, RemoteFault> {
        let request = pb::GetSettlementRequest { settlement_id: id.into() };
        let answer = self.operators.clone().get_settlement(by("operator-1", request)).await;
        answer.map(|answer| answer.into_inner().settlement.expect("a settlement")).map_err(RemoteFault::from)
    }

    async fn settled(&self, id: &str) -> pb::Settlement {
        until("a signed settlement", async || {
            let one = self.settlement(id).await.expect("is there");
            let is_open = matches!(one.state(), SettlementState::Cutting | SettlementState::Cut);
            (!is_open).then_some(one)
        })
        .await
    }

    async fn settlement_file(&self, id: &str) -> Result<Vec<u8>, RemoteFault> {
        let (mut file, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ReadSettlementFileRequest { settlement_id: id.into(), page_token };
            let answer = self.operators.clone().read_settlement_file(by("operator-1", request)).await;
            let answer = answer.map_err(RemoteFault::from)?.into_inner();
            file.extend(answer.data);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(file);
            }
        }
    }

    async fn settlements(&self, request: pb::ListSettlementsRequest) -> pb::ListSettlementsResponse {
        self.operators.clone().list_settlements(by("operator-1", request)).await.expect("answers").into_inner()
    }

    async fn confirm(
        &self,
        person: &str,
        request_id: &str,
        id: &str,
        reference: &str,
    ) -> Result<pb::ConfirmSettlementResponse, RemoteFault> {
        let (request_id, settlement_id) = (request_id.to_owned(), id.to_owned());
        let request = pb::ConfirmSettlementRequest { request_id, settlement_id, reference: reference.into() };
        let answer = self.operators.clone().confirm_settlement(by(person, request)).await;
        answer.map(tonic::Response::into_inner).map_err(RemoteFault::from)
    }
}

fn reason<T: std::fmt::Debug>(answer: Result<T, RemoteFault>) -> String {
    answer.expect_err("refused").reason().to_owned()
}

fn minor(money: Option<&contracts::common::v1::Money>) -> i64 {
    money.expect("an amount").amount_minor
}

async fn a_settlement_is_cut_signed_and_paid_over_by_two(engine: Engine) {
    let rig = Rig::with(engine, on_demand).await;
    assert_eq!(cut(&rig.operators, "operator-1", "none").await.expect("answers").settlement, None);
    let mut orders = Vec::new();
    for name in ["one", "two", "three"] {
        orders.push(rig.posted(name).await);
    }
    let given = pb::RefundRequest { after_settlement: true, ..refund("back", &orders[0], AMOUNT / 4) };
    let given = rig.refund(given).await.expect("accepts");
    rig.refund_in_state(&given.refund_id, RefundState::Succeeded).await;

    let begun = cut(&rig.operators, "operator-1", "c").await.expect("cuts");
    let id = begun.settlement.clone().expect("there is something").settlement_id;
    assert_eq!(cut(&rig.operators, "operator-1", "c").await.expect("answers"), begun, "the same for ever");
    let one = rig.settled(&id).await;
    let sums = [&one.gross, &one.refunds, &one.carried, &one.net].map(|sum| minor(sum.as_ref()));
    assert_eq!(sums, [3 * AMOUNT, AMOUNT / 4, 0, 3 * AMOUNT - AMOUNT / 4]);
    assert_eq!((one.state(), one.line_count, one.number), (SettlementState::Signed, 4, 1));
    let file = String::from_utf8(rig.settlement_file(&id).await.expect("is signed")).expect("is text");
    for order in &orders {
        assert!(file.contains(&order.order_id) && file.contains("CSJJ-1"), "{file}");
    }

    assert!(rig.confirm("operator-1", "1", &id, "bank 1").await.expect("is taken").needs_second_person);
    assert_eq!(reason(rig.confirm("operator-1", "2", &id, "bank 1").await), "SAME_PERSON");
    assert_eq!(reason(rig.confirm("operator-1", "1", &id, "bank 2").await), "REQUEST_ID_REUSED");
    assert_eq!(rig.balance("payee/traffic-430100").await, (AMOUNT / 4, 3 * AMOUNT), "one word moves nothing");
    let said = (0..16).map(|_| rig.confirm("operator-2", "1", &id, "bank 1"));
    let said = futures::future::join_all(said).await;
    let last = said[0].clone().expect("is agreed");
    assert!(said.iter().all(|one| one.as_ref().ok() == Some(&last)), "one word, said many times at once: {said:#?}");
    let told = last.settlement.clone().expect("the settlement");
    assert!(!last.needs_second_person && told.paid_over_time.is_some());
    assert_eq!((told.first_confirmed_by.as_str(), told.confirmed_by.as_str()), ("operator-1", "operator-2"));
    assert_eq!(rig.confirm("operator-2", "1", &id, "bank 1").await.expect("answers"), last);
    assert_eq!(reason(rig.confirm("operator-3", "1", &id, "bank 1").await), "SETTLEMENT_NOT_SIGNED");
    assert_eq!(rig.balance("payee/traffic-430100").await, (3 * AMOUNT, 3 * AMOUNT), "it is owed nothing more");
    assert_eq!(rig.balance("treasury/traffic-430100").await, (0, 3 * AMOUNT - AMOUNT / 4));
    let request = pb::ListTransfersRequest { account: "treasury/traffic-430100".into(), ..Default::default() };
    let transfers = rig.operators.clone().list_transfers(request).await.expect("answers").into_inner().transfers;
    let told: Vec<_> = transfers.iter().map(|it| (it.order_id.as_str(), it.settlement_id.as_str())).collect();
    assert_eq!(told, [("", id.as_str())]);

    // What is given back now has been paid over: the payee owes it, and the next settlement takes it over.
    let given = pb::RefundRequest { after_settlement: true, ..refund("later", &orders[1], AMOUNT) };
    let given = rig.refund(given).await.expect("accepts");
    rig.refund_in_state(&given.refund_id, RefundState::Succeeded).await;
    let second = cut(&rig.operators, "operator-1", "d").await.expect("cuts").settlement.expect("there is something");
    let second = rig.settled(&second.settlement_id).await;
    assert_eq!((second.state(), minor(second.net.as_ref())), (SettlementState::Carried, -AMOUNT));
    assert_eq!(reason(rig.confirm("operator-1", "3", &second.settlement_id, "b").await), "SETTLEMENT_NOT_SIGNED");
    rig.posted("four").await;
    rig.posted("five").await;
    // Another key in its place signs from here on; what the one before has signed stays as it is.
    std::fs::remove_file(rig.file("settlement.pem")).expect("is there");
    let third = cut(&rig.operators, "operator-1", "e").await.expect("cuts").settlement.expect("there is something");
    let third = rig.settled(&third.settlement_id).await;
    assert_eq!((minor(third.carried.as_ref()), minor(third.net.as_ref())), (-AMOUNT, AMOUNT));
    assert_eq!(third.carried_from, second.settlement_id);
    assert_eq!((one.key == second.key, second.key == third.key), (true, false));

    // Newest first, page by page, one list each.
    let page = pb::ListSettlementsRequest { page_size: 2, payee_id: PAYEE.into(), ..Default::default() };
    let first = rig.settlements(page.clone()).await;
    let numbers = |page: &pb::ListSettlementsResponse| page.settlements.iter().map(|it| it.number).collect::<Vec<_>>();
    assert_eq!(numbers(&first), [3, 2]);
    let next = pb::ListSettlementsRequest { page_token: first.next_page_token, ..page };
    let rest = rig.settlements(next.clone()).await;
    assert_eq!((numbers(&rest), rest.next_page_token.as_str()), (vec![1], ""));
    let other = pb::ListSettlementsRequest { payee_id: String::new(), ..next };
    rig.operators.clone().list_settlements(by("operator-1", other)).await.expect_err("a token of another list");
    let carried = pb::ListSettlementsRequest { state: SettlementState::Carried.into(), ..Default::default() };
    assert_eq!(numbers(&rig.settlements(carried).await), [2]);

    let nobody = "stl_00000000000000000000000000000000";
    assert_eq!(reason(rig.settlement(nobody).await), "SETTLEMENT_NOT_FOUND");
    assert_eq!(reason(rig.confirm("operator-1", "4", nobody, "b").await), "SETTLEMENT_NOT_FOUND");
    assert_eq!(reason(rig.settlement("stl_1").await), "INVALID_REQUEST");
    assert_eq!(reason(rig.confirm("operator-1", "5", &id, "").await), "INVALID_REQUEST");
    let request = pb::CutSettlementRequest { request_id: "x".into(), payee_id: "nobody".into() };
    let refused = rig.operators.clone().cut_settlement(by("operator-1", request)).await.expect_err("refused");
    assert_eq!(RemoteFault::from(&refused).reason(), "PAYEE_UNKNOWN");
    // A role is nobody.
    let request = pb::CutSettlementRequest { request_id: "x".into(), payee_id: PAYEE.into() };
    let refused = rig.client.clone().cut_settlement(request).await.expect_err("refused");
    assert_eq!(RemoteFault::from(&refused).reason(), "CALLER_NOT_ALLOWED");
    let mut gateway = rig.gateway.clone();
    let refused = [
        gateway.list_settlements(pb::ListSettlementsRequest::default()).await.map(drop),
        gateway.get_settlement(pb::GetSettlementRequest::default()).await.map(drop),
        gateway.read_settlement_file(pb::ReadSettlementFileRequest::default()).await.map(drop),
    ];
    for refused in refused {
        assert_eq!(RemoteFault::from(&refused.expect_err("nobody asks")).reason(), "UNAUTHENTICATED");
    }
    rig.assert_sound().await;
}

async fn a_file_is_believed_by_others_and_refused_once_it_was_touched(engine: Engine) {
    let rig = Rig::with(engine, on_demand).await;
    rig.posted("one").await;
    rig.posted("two").await;
    let one = cut(&rig.operators, "operator-1", "c").await.expect("cuts").settlement.expect("there is something");
    let one = rig.settled(&one.settlement_id).await;
    let bytes = rig.settlement_file(&one.settlement_id).await.expect("is signed");
    let (file, key) = (rig.file(&one.file_name), rig.file("payments.jwk"));
    std::fs::write(&file, &bytes).expect("writes");
    std::fs::write(&key, &one.key).expect("writes");
    std::fs::write(rig.file(&format!("{}.jws", one.file_name)), &one.signature).expect("writes");
    let digest = Command::new("sha256sum").arg(&one.file_name).current_dir(rig.directory()).output().expect("runs");
    let digest = String::from_utf8(digest.stdout).expect("is text");
    assert_eq!(digest, format!("{}  {}\n", one.file_sha256, one.file_name), "another's digest");
    std::fs::write(rig.file(&format!("{}.sha256", one.file_name)), &digest).expect("writes");

    // OpenSSL judges the signature, from what docs/settlement.md says alone.
    let jwk: serde_json::Value = serde_json::from_str(&one.key).expect("is JSON");
    let public = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().expect("a point")).expect("decodes");
    let (said, signature) = one.signature.rsplit_once('.').expect("a JWS");
    std::fs::write(rig.file("public.der"), [&ED25519_PUBLIC[..], &public].concat()).expect("writes");
    std::fs::write(rig.file("signature"), URL_SAFE_NO_PAD.decode(signature).expect("decodes")).expect("writes");
    let judged = |said: &str| {
        std::fs::write(rig.file("said"), said).expect("writes");
        let judge = ["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "public.der", "-rawin"];
        let files = ["-in", "said", "-sigfile", "signature"];
        let ended = Command::new("openssl").args(judge).args(files).current_dir(rig.directory()).output();
        ended.expect("runs").status.success()
    };
    assert!(judged(said), "OpenSSL believes it");
    assert!(!judged(&said.replacen("eyJ", "eyK", 1)), "and nothing else");
    let claims = URL_SAFE_NO_PAD.decode(said.split_once('.').expect("a JWS").1).expect("decodes");
    let claims: serde_json::Value = serde_json::from_slice(&claims).expect("is JSON");
    assert_eq!(claims, serde_json::json!({ "file": one.file_name, "sha256": one.file_sha256 }));

    let verified = || {
        let mut command = Command::new(process::binary(None).expect("built"));
        command.args(["settlement", "verify"]).arg(&file).arg("--key").arg(&key).current_dir(process::root());
        let ended = command.output().expect("runs");
        (ended.status.code(), String::from_utf8_lossy(&ended.stdout).into_owned())
    };
    let (code, out) = verified();
    assert!(code == Some(0) && out.contains("net 40000 (minor units of CNY)"), "{out}");
    let touched = String::from_utf8(bytes.clone()).expect("is text").replacen("20000", "20001", 1);
    for (bytes, words) in [
        (touched.into_bytes(), "the totals are not those of the lines"),
        (bytes[..bytes.len() - 1].to_vec(), "the file was cut"),
        ([&bytes[..], b"\n"].concat(), "stands behind the totals"),
    ] {
        std::fs::write(&file, bytes).expect("writes");
        let (code, out) = verified();
        assert!(code == Some(1) && out.starts_with("broken: ") && out.contains(words), "{words}: {out}");
    }
    std::fs::write(&file, &bytes).expect("writes");
    std::fs::write(&key, one.key.replace(jwk["x"].as_str().expect("a point"), "AAAA")).expect("writes");
    assert_eq!(verified().0, Some(1), "another key");
    rig.assert_sound().await;
}

async fn two_replicas_cut_at_once_and_nothing_stands_twice(engine: Engine) {
    let rig = Rig::with(engine, on_demand).await;
    let (other, _world) = rig.replica().await;
    let mut posted = BTreeSet::new();
    for round in 0..4 {
        let names: Vec<_> = (0..3).map(|number| format!("o{round}-{number}")).collect();
        let orders = futures::future::join_all(names.iter().map(|name| rig.posted(name))).await;
        posted.extend(orders.into_iter().map(|order| order.order_id));
        let cuts = (0..4).map(|number| {
            let operators = if number % 2 == 0 { &rig.operators } else { &other };
            let (person, name) = (format!("operator-{number}"), format!("c{round}"));
            async move {
                until("an answer", async || match cut(operators, &person, &name).await {
                    Ok(answer) => Some(answer),
                    Err(fault) => {
                        assert_eq!(fault.reason(), "STORE_UNAVAILABLE");
                        None
                    }
                })
                .await
            }
        });
        futures::future::join_all(cuts).await;
    }
    let all = rig.settlements(pb::ListSettlementsRequest { page_size: 100, ..Default::default() }).await.settlements;
    let (mut lines, mut sum) = (Vec::new(), 0);
    for one in &all {
        let one = rig.settled(&one.settlement_id).await;
        sum += minor(one.net.as_ref());
        let file =
            String::from_utf8(rig.settlement_file(&one.settlement_id).await.expect("is signed")).expect("is text");
        let rows = file.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("is JSON"));
        lines.extend(rows.filter_map(|row| Some(row.get("order_id")?.as_str()?.to_owned())));
    }
    assert_eq!((lines.len(), sum), (posted.len(), AMOUNT * 12), "{all:#?}");
    assert_eq!(lines.into_iter().collect::<BTreeSet<_>>(), posted);
    rig.assert_sound().await;
}
