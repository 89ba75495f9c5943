//! Who may ask, and for whom. Everything that is refused here is refused before a byte leaves for the department.

use contracts::common::v1::Outcome;
use rpc::token::{CASES, Grant};
use rpc::{RemoteFault, Role};
use sandbox::people::Kind;

use super::rig::{Citizen, ITEM, REGIONS, Rig, Shown, bills, citizen, list, query, reason, text};

async fn ask(rig: &Rig, region: &str, person: &Citizen, shown: &Shown) -> Result<(), RemoteFault> {
    let request = rig.envelope(query(region, &[("evidence", "OMIT")]), person, shown);
    let role = if shown.issuer == CASES { Role::Cases } else { Role::Gateway };
    let answer = rig.client(region, role).query(request).await;
    answer.map(drop).map_err(|status| RemoteFault::from(&status))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assertion_is_for_one_profile_item_and_region() {
    let rig = Rig::new().await;
    let person = citizen(Kind::Cast, 0);
    let [changsha, taiyuan] = REGIONS;
    let good = rig.by_gateway(changsha);
    ask(&rig, changsha, &person, &good).await.expect("the good one");
    let grant = |operations: &[&str], item: &str| {
        let operations = operations.iter().map(|operation| (*operation).to_owned()).collect();
        Some(Grant { case_id: "case_1".into(), item: item.into(), operations })
    };
    let bad = [
        ("of another profile", Shown { profile: format!("traffic/{taiyuan}"), ..good.clone() }, "aud"),
        ("of another item", Shown { item: "traffic.licence".into(), ..good.clone() }, "item"),
        ("of another region", Shown { region: taiyuan.into(), ..good.clone() }, "region"),
        ("past", Shown { assertion_life: -10, ..good.clone() }, "exp"),
        ("too long", Shown { assertion_life: 600, ..good.clone() }, "life"),
        ("over another sealed token", Shown { other_sealed: true, ..good.clone() }, "binding"),
        ("over a sealed token that is past", Shown { inner_life: -10, ..good.clone() }, "exp"),
        ("by the gateway over a case's grant", Shown { grant: grant(&["Query"], ITEM), ..good.clone() }, "grant"),
        ("by cases without a grant", Shown { issuer: CASES, ..good.clone() }, "grant"),
        (
            "by cases for another operation",
            Shown { issuer: CASES, grant: grant(&["SettleBill"], ITEM), ..good.clone() },
            "grant",
        ),
        ("by cases for another item", Shown { issuer: CASES, grant: grant(&["Query"], "x"), ..good.clone() }, "grant"),
    ];
    for (what, shown, check) in bad {
        let fault = ask(&rig, changsha, &person, &shown).await.expect_err(what);
        assert_eq!((fault.reason(), fault.metadata("check")), ("ASSERTION_INVALID", Some(check)), "{what}");
        assert_eq!(fault.code(), tonic::Code::PermissionDenied, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_headers_nothing_is_said() {
    let rig = Rig::new().await;
    let region = REGIONS[0];
    let bare = tonic::Request::new(query(region, &[]));
    let refused = rig.client(region, Role::Gateway).query(bare).await.expect_err("no assertion");
    assert_eq!(reason(refused), "ASSERTION_INVALID");
    // Nor may a role that the contract does not name.
    let request = rig.envelope(query(region, &[]), &citizen(Kind::Cast, 0), &rig.by_gateway(region));
    let refused = rig.client(region, Role::Payments).query(request).await.expect_err("payments may not");
    assert_eq!(reason(refused), "CALLER_NOT_ALLOWED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_anothers_record() {
    let rig = Rig::new().await;
    let (own, other) = (citizen(Kind::Cast, 0), citizen(Kind::Cast, 1));
    for region in REGIONS {
        let gateway = rig.by_gateway(region);
        let mut client = rig.client(region, Role::Gateway);
        let theirs = rig.envelope(query(region, &[("evidence", "OMIT")]), &other, &gateway);
        let theirs = client.query(theirs).await.expect("their own").into_inner().result.expect("a result");
        let their_plate = text(list(&theirs, "violations")[0], "plate").to_owned();
        let plate = [("plate", their_plate.as_str()), ("plate_type", "SMALL")];
        let known = Citizen { plates: vec!["湘A00000".into()], ..own.clone() };
        for (what, asker, fields) in [
            ("their licence", &own, &[("licence_no", other.number.as_str())][..]),
            ("their plate, told by the records", &own, &plate[..]),
            ("their plate, told by identity", &known, &plate[..]),
        ] {
            let refused = client.query(rig.envelope(query(region, fields), asker, &gateway)).await.expect_err(what);
            let fault = RemoteFault::from(&refused);
            assert_eq!(fault.reason(), "SUBJECT_MISMATCH", "{what}");
            assert!(!refused.message().contains(&their_plate), "{what}");
            let refused =
                client.list_bills(rig.envelope(bills(region, fields), asker, &gateway)).await.expect_err(what);
            assert_eq!(reason(refused), "SUBJECT_MISMATCH", "{what}");
        }
        // Their bill is answered like one that does not exist.
        let bill = rig.bill(region, &other).await;
        let mut unknown = bill.clone();
        unknown.bill_no = format!("{}9", &bill.bill_no[..bill.bill_no.len() - 1]);
        for bill in [&bill, &unknown] {
            let locked = rig.lock(region, &own, bill, "thief").await.expect("answers");
            assert_eq!((locked.outcome(), locked.bill), (Outcome::Rejected, None));
            assert_eq!(locked.rejection.expect("refused").code, "NOT_FOUND");
        }
        // A plate that identity knows to be the citizen's needs no more.
        let listed = Citizen { plates: vec![their_plate.clone()], ..other.clone() };
        client.query(rig.envelope(query(region, &plate), &listed, &gateway)).await.expect("their own plate");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_are_held_to_their_schema() {
    let rig = Rig::new().await;
    let person = citizen(Kind::Cast, 0);
    for region in REGIONS {
        for (what, fields) in [
            ("a plate without its type", &[("plate", "湘A8K2J6")][..]),
            (
                "plate and licence",
                &[("plate", "湘A8K2J6"), ("plate_type", "SMALL"), ("licence_no", person.number.as_str())][..],
            ),
            ("a plate that is none", &[("plate", "O0O0O0O"), ("plate_type", "SMALL")][..]),
            ("a type that is none", &[("plate", "湘A8K2J6"), ("plate_type", "02")][..]),
            ("markup", &[("plate", "湘A</hphm>"), ("plate_type", "SMALL")][..]),
            ("a field that is not declared", &[("endpoint", "http://169.254.169.254/")][..]),
        ] {
            let request = rig.envelope(query(region, fields), &person, &rig.by_gateway(region));
            let refused = rig.client(region, Role::Gateway).query(request).await.expect_err(what);
            let fault = RemoteFault::from(&refused);
            assert_eq!((fault.reason(), fault.effect()), ("INPUT_INVALID", rpc::Effect::None), "{what}");
            assert!(!refused.message().contains("169.254"), "{what}");
        }
    }
}
