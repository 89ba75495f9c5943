use std::path::Path;

use super::*;

fn departments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../departments")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(departments().join(name)).expect("a profile")
}

fn parse(text: &str) -> Result<Plan, Problems> {
    Plan::parse(Path::new("p.yaml"), text, &departments().join("schemas"))
}

/// Breaks the Changsha profile in one place and hands back what is said.
fn broken(profile: &str, from: &str, to: &str) -> Vec<Problem> {
    let text = text(profile);
    assert!(text.contains(from), "{from} is not in {profile}");
    match parse(&text.replacen(from, to, 1)) {
        Ok(_) => panic!("{from} → {to}: nothing was said"),
        Err(problems) => problems.0,
    }
}

/// Every message names the line that was changed, the field, and what would be right.
#[track_caller]
fn check(profile: &str, from: &str, to: &str, field: &str, says: &str) {
    let problems = broken(profile, from, to);
    let found = problems.iter().find(|problem| problem.field.contains(field) && problem.what.contains(says));
    let Some(problem) = found else {
        let said: Vec<_> = problems.iter().map(Problem::to_string).collect();
        panic!("{from} → {to}: expected {field:?} and {says:?} in\n{}", said.join("\n"));
    };
    let line = problem.location.expect("a line").line;
    let changed = text(profile).lines().position(|line| line.contains(from.lines().next().unwrap_or(from)));
    let changed = changed.map_or(0, |changed| changed + 1);
    // What is missing is told at the map that should hold it, which begins before it.
    let fits = if to.is_empty() { line <= changed } else { line.abs_diff(changed) <= 4 };
    assert!(fits, "{problem}: the change is in line {changed}");
}

const CHANGSHA: &str = "traffic/430100.yaml";
const TAIYUAN: &str = "traffic/140100.yaml";

#[test]
fn the_form_is_told_with_its_line() {
    check(CHANGSHA, "version: 1", "version: one", "version", "u32");
    check(CHANGSHA, "profile: traffic/430100", "profile: Traffic/430100", "profile", "department, slash, region");
    check(CHANGSHA, "regions: [\"430100\"]", "regions: [\"4301\"]", "regions", "six digits");
    check(CHANGSHA, "zone: \"+08:00\"", "zone: Asia/Shanghai", "zone", "+08:00");
    check(CHANGSHA, "  wait: 1s", "  wait: 1", "limits", "\"5s\"");
    check(CHANGSHA, "  wait: 1s", "  wait: 1s\n  waits: 2s", "limits", "expected one of");
    check(CHANGSHA, "\"1001\": broken", "\"1001\": brken", "codes", "`broken`");
    check(CHANGSHA, "\"1001\": broken", "\"0001\": broken", "codes", "twice");
    check(CHANGSHA, "    idempotency: key", "    idempotency: keyed", "idempotency", "`by_bill`");
    check(
        CHANGSHA,
        "input: traffic.violation/input@1",
        "input: ../../etc/passwd@1",
        "input",
        "traffic.violation/record@1",
    );
    check(
        TAIYUAN,
        "{name: wfbh, bytes: 20, type: record_no}",
        "{name: wfbh, bytes: 20, typ: record_no}",
        "groups",
        "expected one of",
    );
}

#[test]
fn names_that_lead_nowhere_are_told_with_those_that_do() {
    check(CHANGSHA, "        xh: record_no", "        xh: recordno", "records.violation.xh", "expected one of");
    check(CHANGSHA, "call: list", "call: lst", "call", "expected one of list, detail");
    check(
        CHANGSHA,
        "{list: violation, entry: wfxx",
        "{list: violations, entry: wfxx",
        "reply.wfxxlb",
        "expected one of violation, evidence",
    );
    check(CHANGSHA, "entry: wfxx, key: xh", "entry: wfxx, key: xhh", "reply.wfxxlb", "no field `xhh`");
    check(CHANGSHA, "expect: {dqy: page}", "expect: {dqq: page}", "expect", "expected one of zjls, dqy");
    check(TAIYUAN, "count: bcs, max: 20", "count: bsc, max: 20", "reply", "no `bsc`");
    check(
        TAIYUAN,
        "group: violation, count",
        "group: violations, count",
        "reply",
        "expected one of violation, evidence",
    );
    check(TAIYUAN, "    code: fhm", "    code: fhx", "code", "expected a column of `reply`");
    check(
        CHANGSHA,
        "record: traffic.violation/record@1",
        "record: traffic.violation/record@2",
        "schemas.record",
        "x-lastmile-version",
    );
}

#[test]
fn what_an_expression_asks_for_must_be_there() {
    check(CHANGSHA, "owner: r.jszh", "owner: r.jszhh", "row.owner", "no field `jszhh`");
    check(
        CHANGSHA,
        "paid.jkzt == \"POSTED\" and paid.jkbj == \"PAID\" and paid.clbj == \"HANDLED\"",
        "paid.jkz == \"POSTED\"",
        "outcome",
        "no field `jkz`",
    );
    check(CHANGSHA, "$map: {number: e.zjbh", "$map: {number: e.zjb", "evidence.$map.number", "no field `zjb`");
    check(CHANGSHA, "plate: input.plate", "plate: inpt.plate", "with.plate", "no variable `inpt`");
    check(CHANGSHA, "plate: input.plate", "plate: input.plat", "with.plate", "no field `plat`");
    check(CHANGSHA, "violation: r.wfms", "violation: r.wfms +", "row.record.violation", "syntax error");
    check(CHANGSHA, "{record_no: one.xh}", "{recordno: one.xh}", "with", "no variable `record_no`");
    check(
        CHANGSHA,
        "{{ record_no | legacy(\"record_no\") }}",
        "{{ record_no | legacy(\"record_no\" }}",
        "body",
        "syntax error",
    );
    check(TAIYUAN, "value: settings.jgdm", "value: settings.jgd", "request", "no field `jgd`");
}

#[test]
fn what_is_promised_must_be_there() {
    check(
        CHANGSHA,
        "      licence: {attribute: document_number, otherwise: refuse}\n",
        "",
        "subjects",
        "`licence_no` is bound",
    );
    check(CHANGSHA, "      owner: r.jszh\n", "", "row", "owner");
    check(CHANGSHA, "      bill_no: r.xh\n", "", "row", "bill_no");
    check(CHANGSHA, "  \"soap:Server\": unknown\n", "", "codes", "soap:Server");
    check(CHANGSHA, "reserved: 16", "reserved: 64", "limits.reserved", "less than");
    check(CHANGSHA, "department: 长沙市公安局交通警察支队", "department: \"\"", "department", "1 to 64 characters");
    let long = format!("input: traffic.violation/{}@1", "x".repeat(111));
    check(CHANGSHA, "input: traffic.violation/input@1", &long, "input", "expected a schema");
    check(CHANGSHA, "\"9998\": busy", "\"9998\": skip", "codes.9998", "step's own");
    check(CHANGSHA, "    path: /services/WfclService", "    path: http://169.254.169.254/x", "path", "installation");
    check(CHANGSHA, "  soap:\n    charset: gbk", "  sap:\n    charset: gbk", "connector", "expected");
}

#[test]
fn all_of_it_is_told_at_once_in_file_order() {
    let text = text(CHANGSHA).replace("reserved: 16", "reserved: 99").replace("owner: r.jszh", "owner: r.x");
    let Err(Problems(problems)) = parse(&text) else { panic!("two things are wrong") };
    assert_eq!(problems.len(), 2, "{}", Problems(problems.clone()));
    assert!(problems[0].location < problems[1].location);
    assert!(problems[0].to_string().starts_with("p.yaml:1"), "{}", problems[0]);
}

#[test]
fn a_profile_says_what_it_offers() {
    for name in [CHANGSHA, TAIYUAN] {
        let plan = parse(&text(name)).unwrap_or_else(|problems| panic!("{problems}"));
        let item = plan.items.get("traffic.violation").expect("the item");
        assert_eq!(item.item.depth, Depth::Pay);
        assert_eq!(item.item.settle_quiet_period.get().as_secs(), 10);
        assert!(item.operations.query.is_some() && item.operations.inquire.is_some());
    }
}

/// One schema for two dialects: what differs between the cities is never the item.
#[test]
fn both_cities_offer_the_item_under_the_same_schemas() {
    let [one, other] =
        [CHANGSHA, TAIYUAN].map(|name| parse(&text(name)).unwrap_or_else(|problems| panic!("{problems}")));
    let of = |plan: &Plan| {
        let item = &plan.items["traffic.violation"].item;
        (item.schemas.input.clone(), item.schemas.result.clone(), item.schemas.record.clone(), item.depth)
    };
    assert_eq!(of(&one), of(&other));
}

#[test]
fn the_result_schema_carries_the_record_schema() {
    let read = |name: &str| -> serde_json::Value {
        let path = departments().join(format!("schemas/traffic.violation/{name}.json"));
        serde_json::from_str(&std::fs::read_to_string(path).expect("a schema")).expect("JSON")
    };
    let mut record = read("record");
    for own in ["$schema", "$id", "x-lastmile-version"] {
        record.as_object_mut().expect("an object").remove(own);
    }
    assert_eq!(read("result")["$defs"]["record"], record);
}

/// The JSON Schema of profiles is generated, checked in, and true of every profile.
#[test]
fn the_schema_of_profiles_is_current_and_holds() {
    let generated = serde_json::to_value(schemars::schema_for!(crate::profile::Profile)).expect("JSON");
    let path = departments().join("profile.schema.json");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap_or_default();
    if kept != generated {
        let fresh = std::env::temp_dir().join("profile.schema.json");
        std::fs::write(&fresh, format!("{generated:#}\n")).expect("writes");
        panic!("{} is stale; the current one is {}", path.display(), fresh.display());
    }
    let validator = jsonschema::validator_for(&generated).expect("a schema");
    for name in [CHANGSHA, TAIYUAN] {
        let profile: serde_json::Value = serde_yaml_ng::from_str(&text(name)).expect("YAML");
        let errors: Vec<_> =
            validator.iter_errors(&profile).map(|error| format!("{} {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}
