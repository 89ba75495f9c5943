//! One client plays a fine from reading to proof. It runs once for each city, and nothing in it but the region differs.

use std::collections::BTreeSet;

use contracts::common::v1::Outcome;
use contracts::department::v1 as pb;
use rpc::Role;
use sandbox::people::Kind;

use super::rig::{ITEM, REGIONS, Rig, bills, citizen, list, number, query, text};

/// What the client saw that must not depend on the city.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    schemas: [(String, i32); 2],
    name: String,
    plate_types: Vec<String>,
    states: Vec<String>,
    points: (i64, i64),
    bill_points: i64,
    proof_fields: BTreeSet<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_for_both_cities() {
    let rig = Rig::new().await;
    let [changsha, taiyuan] = [play(&rig, REGIONS[0]).await, play(&rig, REGIONS[1]).await];
    assert_eq!(changsha, taiyuan);
    assert_eq!(changsha.name, "王䶮", "a name that GBK cannot write");
    assert_eq!(changsha.points, (6, 0));
}

async fn play(rig: &Rig, region: &str) -> Seen {
    let person = citizen(Kind::Cast, 1);
    let gateway = rig.by_gateway(region);
    let mut client = rig.client(region, Role::Gateway);

    // The citizen reads.
    let ask = |fields: &[(&str, &str)]| rig.envelope(query(region, fields), &person, &gateway);
    let read = client.query(ask(&[])).await.expect("answers").into_inner();
    assert_eq!(read.outcome(), Outcome::Done);
    assert!(read.as_of.is_some() && read.next_page_token.is_empty());
    let result = read.result.expect("a result");
    let records = list(&result, "violations");
    assert_eq!(number(&result, "total"), records.len() as i64);
    for record in &records {
        check_record(record);
    }
    let states: Vec<_> = records.iter().map(|record| text(record, "state").to_owned()).collect();
    let plate_types = records.iter().map(|record| text(record, "plate_type").to_owned()).collect();
    let before = number(&result, "driver.points");
    let name = text(&result, "driver.name").to_owned();
    assert_eq!(name, text(records[0], "party.name"));

    // By plate it is the same.
    let plate = text(records[0], "plate");
    let by_plate = [("plate", plate), ("plate_type", text(records[0], "plate_type"))];
    let again = client.query(ask(&by_plate)).await.expect("answers").into_inner().result.expect("a result");
    assert_eq!(list(&again, "violations"), records);

    // The bill is what was read; paying it clears the points.
    let listed = client.list_bills(rig.envelope(bills(region, &[]), &person, &gateway)).await.expect("answers");
    let listed = listed.into_inner();
    let record_schema = listed.schema.expect("a schema");
    let [bill] = listed.bills.as_slice() else { panic!("{} bills", listed.bills.len()) };
    let payable = records.iter().find(|record| text(record, "state") == "PAYABLE").expect("a payable record");
    assert_eq!(bill.record.as_ref(), Some(*payable));
    assert_eq!(bill.amount.as_ref().expect("an amount").amount_minor.to_string(), text(payable, "total_minor"));
    // One city gives payment codes, the other has none.
    let code = &bill.payment_code;
    let is_ours = code.len() == 20 && code.starts_with(region) && code.bytes().all(|digit| digit.is_ascii_digit());
    assert!(if region == REGIONS[0] { is_ours } else { code.is_empty() }, "{code}");
    let locked = rig.lock(region, &person, bill, "life").await.expect("locks");
    assert_eq!((locked.outcome(), locked.bill.as_ref()), (Outcome::Done, Some(bill)));
    assert_eq!(
        rig.lock(region, &person, bill, "life").await.expect("locks again"),
        locked,
        "the key brings the same hold"
    );
    let sent = rig.context.clock.now();
    let settled = rig.settle(region, &person, bill, "life").await.expect("settles");
    assert_eq!(settled.outcome(), Outcome::Done, "{:?}", settled.rejection);
    let proof = settled.proof.expect("a proof");
    let proof_fields = check_proof(rig, region, bill, &proof);

    // Told twice, it is the same payment; asked, it is the same answer.
    let twice = rig.settle(region, &person, bill, "life").await.expect("settles").proof.expect("a proof");
    assert_eq!((&twice.department_serial, &twice.department_time), (&proof.department_serial, &proof.department_time));
    let asked = rig.inquire(region, &person, bill, "life", sent).await.expect("answers");
    assert_eq!(asked.outcome(), Outcome::Done);
    assert_eq!(asked.proof.expect("a proof").department_serial, proof.department_serial);
    let released = rig.release(region, &person, bill, "life").await.expect("answers");
    assert_eq!(released.outcome(), Outcome::Done, "what is not held is given back already");
    let other = rig.lock(region, &person, bill, "other").await.expect("answers");
    assert_eq!(other.rejection.expect("refused").code, "ALREADY_PAID");

    let after = client.query(ask(&[])).await.expect("answers").into_inner().result.expect("a result");
    let handled = list(&after, "violations").into_iter().find(|record| text(record, "record_no") == bill.bill_no);
    let handled = handled.expect("still there");
    assert_eq!(text(handled, "state"), "HANDLED");
    assert!(text(handled, "handled_time").ends_with('Z'));
    let none = client.list_bills(rig.envelope(bills(region, &[]), &person, &gateway)).await.expect("answers");
    assert_eq!(none.into_inner().bills, []);
    let schemas = [read.schema.expect("a schema"), record_schema].map(|schema| (schema.id, schema.version));
    let points = (before, number(&after, "driver.points"));
    Seen { schemas, name, plate_types, states, points, bill_points: number(payable, "points"), proof_fields }
}

/// What holds for every record of every city: money and identifiers are text, times are UTC, evidence is counted.
fn check_record(record: &prost_types::Struct) {
    for money in ["fine_minor", "late_fee_minor", "total_minor"] {
        assert!(text(record, money).bytes().all(|b| b.is_ascii_digit()), "{money}");
    }
    let minor = |field: &str| text(record, field).parse::<i64>().expect("fen");
    assert_eq!(minor("total_minor"), minor("fine_minor") + minor("late_fee_minor"));
    assert!(minor("fine_minor") >= 1_000, "fen, not yuan");
    for time in ["time", "decision.time"] {
        assert!(adapter::kind::parse_rfc3339(text(record, time)).is_some() && text(record, time).ends_with('Z'));
    }
    let evidence = list(record, "evidence");
    assert_eq!(number(record, "evidence_count"), evidence.len() as i64);
    for piece in evidence {
        assert_eq!(text(piece, "sha256").len(), 64);
        assert!(!text(piece, "reference").is_empty());
    }
    assert!(!text(record, "law.rule").is_empty() && !text(record, "law.penalty").is_empty());
}

/// The signature is the profile's, and it is over what the proof says.
fn check_proof(rig: &Rig, region: &str, bill: &pb::Bill, proof: &pb::Proof) -> BTreeSet<String> {
    let parsed = rpc::jose::parse(&proof.jws, 8 * 1024).expect("a compact JWS");
    assert_eq!(parsed.header().typ.as_deref(), Some(adapter::PROOF_TYPE));
    let claims = parsed.verify(&rig.proof_key(region)).expect("signed by the profile");
    let claim = |name: &str| claims.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    assert_eq!(claim("profile"), proof.profile);
    assert_eq!(claim("item"), ITEM);
    assert_eq!(claim("bill_no"), bill.bill_no);
    assert_eq!(claim("request_id"), "life-settle");
    assert_eq!(claim("amount_minor"), bill.amount.as_ref().expect("an amount").amount_minor.to_string());
    assert_eq!(claim("department_serial"), proof.department_serial);
    assert_eq!(claim("reply_digest"), rpc::jose::base64url(&proof.reply_digest));
    assert_eq!((proof.profile.as_str(), proof.reply_digest.len()), (format!("traffic/{region}").as_str(), 32));
    let other = REGIONS.into_iter().find(|other| *other != region).expect("another city");
    let forged = rpc::jose::parse(&proof.jws, 8 * 1024).expect("a compact JWS").verify(&rig.proof_key(other));
    assert!(forged.is_err(), "another city's key verifies nothing");
    claims.keys().cloned().collect()
}

/// Both dialects of each value: plate types, dates, names of every width.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_dialects_write_differently_reads_the_same() {
    let rig = Rig::new().await;
    for (index, name, plate_type) in [
        (2, "赵㼆", "SMALL"),
        (3, "刘𬭚", "SMALL_NEW_ENERGY"),
        (4, "郭建军", "LARGE"),
        (9, "吴海涛", "LARGE_NEW_ENERGY"),
    ] {
        let person = citizen(Kind::Cast, index);
        let mut seen = Vec::new();
        for region in REGIONS {
            let request = rig.envelope(query(region, &[]), &person, &rig.by_gateway(region));
            let answer = rig.client(region, Role::Gateway).query(request).await.expect("answers").into_inner();
            let result = answer.result.expect("a result");
            let record = list(&result, "violations").into_iter().next().expect("a record");
            assert_eq!((text(record, "party.name"), text(record, "plate_type")), (name, plate_type), "{region}");
            let cycle = (text(&result, "driver.cycle_start").to_owned(), text(&result, "driver.cycle_end").to_owned());
            seen.push((cycle, text(&result, "driver.classes").to_owned(), number(&result, "driver.points")));
        }
        assert_eq!(seen[0], seen[1], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_lists_come_in_pages() {
    let rig = Rig::new().await;
    let person = citizen(Kind::Cast, 8);
    for region in REGIONS {
        let (mut token, mut pages, mut numbers) = (String::new(), 0, BTreeSet::new());
        loop {
            let mut ask = query(region, &[("evidence", "OMIT")]);
            // The size of the first page holds for all of them.
            (ask.page_size, ask.page_token) = (if pages == 0 { 17 } else { 5 }, token);
            let request = rig.envelope(ask, &person, &rig.by_gateway(region));
            let answer = rig.client(region, Role::Gateway).query(request).await.expect("answers").into_inner();
            let result = answer.result.expect("a result");
            let rows = list(&result, "violations");
            assert_eq!(number(&result, "total"), 60);
            numbers.extend(rows.iter().map(|record| text(record, "record_no").to_owned()));
            (token, pages) = (answer.next_page_token, pages + 1);
            if token.is_empty() {
                break;
            }
            assert_eq!(rows.len(), 17);
        }
        assert_eq!((pages, numbers.len()), (4, 60), "{region}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_department_says_what_it_is() {
    let rig = Rig::new().await;
    for region in REGIONS {
        let described = rig.client(region, Role::Cases).describe(pb::DescribeRequest {}).await.expect("answers");
        let described = described.into_inner();
        assert_eq!((described.profile.as_str(), described.sandbox), (format!("traffic/{region}").as_str(), true));
        assert_eq!(described.regions, [region]);
        let [ability] = described.items.as_slice() else { panic!("one item") };
        assert_eq!((ability.item.as_str(), ability.depth()), (ITEM, contracts::common::v1::Depth::Pay));
        assert_eq!((ability.idempotency.as_str(), ability.settle_quiet_period_ms), ("key", 10_000));
    }
}
