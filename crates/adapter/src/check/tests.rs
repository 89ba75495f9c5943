use std::path::PathBuf;

use super::*;

const PROFILES: [&str; 2] = ["traffic/430100.yaml", "traffic/140100.yaml"];

fn departments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../departments")
}

fn load(name: &str) -> Arc<Plan> {
    let plan = Plan::load(&departments().join(name), &departments().join("schemas"));
    Arc::new(plan.unwrap_or_else(|problems| panic!("{problems}")))
}

#[tokio::test]
async fn every_profile_passes_with_its_golden_cases() {
    for name in PROFILES {
        let report = check(&departments().join(name), &departments().join("schemas")).await;
        assert!(report.is_ok(), "{name}\n{report}");
        assert!(report.cases.len() >= 25, "{name} has {} golden cases", report.cases.len());
    }
}

#[tokio::test]
async fn a_case_that_does_not_hold_says_where() {
    let plan = load(PROFILES[1]);
    let golden =
        |name: &str| plan.profile.golden.iter().find(|case| case.name.starts_with(name)).expect("a case").clone();
    let fails = async |golden: &Golden| run(&plan, golden, Path::new(".")).await.expect_err("it does not hold");

    let mut other_reply = golden("a payment is posted");
    other_reply.reply["outcome"] = json!("PENDING");
    assert!(fails(&other_reply).await.contains("reply.outcome: expected \"PENDING\", made \"DONE\""));
    let mut other_sent = golden("a payment is posted");
    other_sent.exchanges[1].sent.text =
        other_sent.exchanges[1].sent.text.take().map(|text| text.replace("20000", "20001"));
    assert!(fails(&other_sent).await.contains("exchange 1 (`pay`): sent bytes differ at 171"));
    let mut one_more = golden("a payment is posted");
    one_more.exchanges.push(one_more.exchanges[1].clone());
    assert!(fails(&one_more).await.contains("exchange 2 (`pay`) was not made"));
    let mut one_less = golden("a payment is posted");
    one_less.exchanges.pop();
    assert!(fails(&one_less).await.contains("exchange 1 (`pay`) is not in the case"));
    let mut bad_input = golden("by plate");
    bad_input.request["input"]["plate"] = json!("x");
    assert!(fails(&bad_input).await.contains("request.input.plate"));
    let mut escaping = golden("a payment is posted");
    escaping.exchanges[0].reply = LegacyBytes { file: Some("../../Cargo.toml".into()), ..LegacyBytes::default() };
    assert!(fails(&escaping).await.contains("beside the profile"));
}

/// A number that nobody could ask by, and a serial that no ledger takes, are not passed on.
#[tokio::test]
async fn a_number_out_of_form_is_unreadable() {
    let text = std::fs::read_to_string(departments().join(PROFILES[1])).expect("a profile");
    let unreadable = json!({"error": {"reason": "REPLY_UNREADABLE", "field": "bill.bill_no", "offset": 108}});
    let longest = |more: usize| format!("serial: \"('{}' ~ paid.jflsh)[:{}]\"", "x".repeat(200), 200 + more);
    let serial = |made: Json, more| ("serial: paid.jflsh", longest(more), "a payment is posted", made);
    for (from, to, case, made) in [
        ("bill_no: r.wfbh", "bill_no: r.wfbh ~ '号'".to_owned(), "bills: payable", unreadable),
        serial(json!({"outcome": "DONE", "proof": {"department_serial": "x".repeat(200)}}), 0),
        serial(json!({"outcome": "UNKNOWN"}), 1),
    ] {
        assert!(text.contains(from), "{from}");
        let plan = Plan::parse(Path::new("p.yaml"), &text.replace(from, &to), &departments().join("schemas"));
        let plan = Arc::new(plan.unwrap_or_else(|problems| panic!("{problems}")));
        let mut golden =
            plan.profile.golden.iter().find(|golden| golden.name.starts_with(case)).expect("a case").clone();
        if let Some(proof) = made.pointer("/proof/department_serial") {
            golden.reply["proof"]["department_serial"] = proof.clone();
        } else {
            golden.reply = made;
        }
        run(&plan, &golden, Path::new(".")).await.unwrap_or_else(|told| panic!("{to}: {told}"));
    }
}

#[tokio::test]
async fn a_file_that_is_no_profile_is_told_and_nothing_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("p.yaml");
    std::fs::write(&file, "profile: traffic/430100\nversion: x\n").expect("writes");
    let report = check(&file, &departments().join("schemas")).await;
    assert!(!report.is_ok() && report.cases.is_empty());
    assert_eq!(report.problems[0].location.map(|at| at.line), Some(2), "{report}");
    let report = check(&dir.path().join("missing.yaml"), dir.path()).await;
    assert_eq!(report.problems.len(), 1);
}

/// One way of spoiling a reply: the bytes, where they were spoilt, and how.
struct Spoilt {
    bytes: Vec<u8>,
    at: usize,
    how: &'static str,
}

/// Every place of a reply spoilt in every way: cut there, a byte that no charset has, a byte less, a byte more, other bytes.
fn spoil(reply: &[u8], step: usize) -> Vec<Spoilt> {
    let mut all = Vec::new();
    for at in (0..reply.len()).step_by(step) {
        let mut put = |how, bytes: Vec<u8>| all.push(Spoilt { bytes, at, how });
        let with = |byte: u8| {
            let mut bytes = reply.to_vec();
            bytes[at] = byte;
            bytes
        };
        put("cut", reply[..at].to_vec());
        put("no character", with(0xFF));
        put("zero", with(0));
        put("half a character", with(0x81));
        put("a byte less", [&reply[..at], &reply[at + 1..]].concat());
        put("a byte more", [&reply[..at], b"7", &reply[at..]].concat());
        put("a letter", with(b'Z'));
        put("a digit", with(b'7'));
        put("markup", with(b'<'));
    }
    all
}

/// The parts of a reply that may say anything: words, serial, time of posting, points. A change there is another answer, not a bad
/// one; there is no checksum on these wires.
fn is_free(profile: &str, reply: &[u8], at: usize) -> bool {
    if profile.ends_with("140100.yaml") {
        // After the length: the words, our time, the serial, the time of posting, the points, and an inquiry's words of a refusal.
        return [28..88, 88..102, 103..123, 123..137, 170..174, 178..238]
            .iter()
            .any(|free| free.contains(&at.wrapping_sub(6)));
    }
    let before = String::from_utf8_lossy(&reply[..at]).into_owned();
    let open = before.rsplit('<').next().unwrap_or_default();
    let inside = ["fhxx>", "jflsh>", "rzsj>", "ljjfq>", "ljjfh>", "jjyy>"];
    let between_elements = before.ends_with('>') || open.starts_with("?xml") || open.contains("xmlns");
    inside.iter().any(|name| open.starts_with(name)) || between_elements || !before.contains("<fhm>")
}

/// The corpus of garbled replies to a payment and to its inquiry: none is DONE unless all that decides it is as it was, and no
/// panic. Thousands for each city.
#[tokio::test]
async fn a_garbled_reply_is_never_done() {
    let mut count = 0;
    for name in PROFILES {
        let plan = load(name);
        for case in ["a payment is posted", "an inquiry finds the payment"] {
            let golden = plan.profile.golden.iter().find(|golden| golden.name.starts_with(case)).expect("a case");
            let last = golden.exchanges.len() - 1;
            let reply = bytes(&plan, &golden.exchanges[last].reply, Path::new(".")).expect("bytes");
            for Spoilt { bytes: spoilt, at, how } in spoil(&reply, 1) {
                if spoilt == reply {
                    continue;
                }
                let mut golden = golden.clone();
                golden.exchanges[last].reply =
                    LegacyBytes { hex: Some(hex::encode(&spoilt)), ..LegacyBytes::default() };
                let (made, _) = play(&plan, &golden, Path::new(".")).await.expect("plays");
                let is_done = made["outcome"] == json!("DONE");
                assert!(!is_done || is_free(name, &reply, at), "{name}: {how} at {at} is called done");
                let is_bad_text = matches!(how, "cut" | "no character");
                assert!(!is_done || !is_bad_text, "{name}: {how} at {at} is called done");
                count += 1;
            }
        }
    }
    assert!(count > 10_000, "{count} replies");
}

/// The same for what citizens read: a whole answer to a changed byte, or an error; never a panic, never a half.
#[tokio::test]
async fn a_garbled_list_is_whole_or_an_error() {
    for name in PROFILES {
        let plan = load(name);
        let golden = plan.profile.golden.iter().find(|golden| golden.name.starts_with("bills:")).expect("a case");
        let reply = bytes(&plan, &golden.exchanges[0].reply, Path::new(".")).expect("bytes");
        for Spoilt { bytes: spoilt, at, how } in spoil(&reply, 7) {
            let mut golden = golden.clone();
            golden.exchanges[0].reply = LegacyBytes { hex: Some(hex::encode(&spoilt)), ..LegacyBytes::default() };
            let (made, _) = play(&plan, &golden, Path::new(".")).await.expect("plays");
            let is_whole = made["bills"].as_array().is_some_and(|bills| bills.len() == 2);
            assert!(
                is_whole || made.get("error").is_some() || made["outcome"] == json!("REJECTED"),
                "{name}: {how} at {at}: {made}"
            );
            assert!(!is_whole || !matches!(how, "cut" | "no character"), "{name}: {how} at {at}");
        }
    }
}
