//! The policy by table.

use super::*;
use contracts::catalog::v1::WatchCatalogResponse;

fn routes() -> RouteTable {
    let route = |item: &str, region: &str, depth: Depth, profile: &str| Route {
        item: item.into(),
        region: region.into(),
        entry_point: "wechat".into(),
        depth: depth.into(),
        profile: profile.into(),
        level_min: AssuranceLevel::NameId.into(),
        timeout_ms: 8_000,
        ..Route::default()
    };
    let consent =
        Route { consents: vec!["report".into()], ..route("report", "430100", Depth::Query, "traffic/430100") };
    RouteTable::new(WatchCatalogResponse {
        version: 1,
        routes: vec![
            route("violation", "430100", Depth::Pay, "traffic/430100"),
            route("violation", "140100", Depth::Query, "traffic/140100"),
            route("library", "430100", Depth::Query, ""),
            consent,
        ],
        region_parents: [("430100", "430000"), ("430000", ""), ("140100", "")]
            .map(|(child, parent)| (child.to_owned(), parent.to_owned()))
            .into(),
        publish_time: None,
    })
}

fn citizen(level: AssuranceLevel, audiences: &[&str]) -> Caller {
    Caller {
        principal: Principal::Citizen { entry_point: "wechat".into(), subject: "pairwise".into() },
        level,
        consents: Vec::new(),
        sealed: audiences.iter().map(|audience| ((*audience).to_owned(), "sealed".to_owned())).collect(),
    }
}

fn staff(operator: bool) -> Caller {
    Caller { principal: Principal::Staff { subject: "s-1".into(), operator }, ..Caller::anonymous() }
}

fn plans() -> Plans {
    Plans::new(Contract::lastmile().expect("the contract"))
}

const QUERY: &str = "/lastmile.department.v1.DepartmentService/Query";
const BILLS: &str = "/lastmile.department.v1.DepartmentService/ListBills";
const BREAKS: &str = "/lastmile.payments.v1.PaymentService/ListBreaks";
const OPEN: &str = "/lastmile.cases.v1.CaseService/OpenCase";

fn ask(path: &str, caller: &Caller, item: &str, region: &str) -> Result<Decision, Refusal> {
    let plans = plans();
    let plan = plans.get(path).ok_or(Refusal::MethodUnknown)?;
    admit(plan, caller)?;
    let envelope = Envelope { item, region, message: &[] };
    decide(plan, &routes(), caller, plan.peeks().then_some(&envelope))
}

#[test]
fn an_admitted_query_goes_to_its_profile() {
    let caller = citizen(AssuranceLevel::Face, &["traffic/430100"]);
    let decision = ask(QUERY, &caller, "violation", "430100").expect("admitted");
    assert!(matches!(&decision.upstream, Upstream::Profile(route) if route.profile == "traffic/430100"));
    assert_eq!(decision.timeout, Duration::from_secs(8));
    let case = ask(OPEN, &caller, "violation", "430100").expect("admitted");
    assert_eq!(case.upstream, Upstream::Role("cases"));
}

/// Payments reads the tokens of staff itself, and is told of citizens nothing but where they come from.
#[test]
fn payments_is_told_of_staff_alone() {
    let decision = ask(BREAKS, &staff(true), "", "").expect("admitted");
    assert_eq!((decision.upstream, decision.quota), (Upstream::Role("payments"), None));
    let plans = plans();
    let mut seen = 0;
    for method in Contract::lastmile().expect("the contract").methods() {
        let Some(plan) = plans.get(&method.path).filter(|_| method.path.contains(".PaymentService/")) else { continue };
        let expected = if method.credential == Credential::Staff { Attach::Token } else { Attach::EntryPoint };
        assert_eq!((plan.attach, plan.repeatable), (expected, false), "{}", method.path);
        seen += 1;
    }
    assert!(seen >= 5, "{seen} methods");
}

#[test]
fn refusals_by_name() {
    let audiences = ["traffic/430100", "traffic/140100"];
    let known = citizen(AssuranceLevel::NameId, &audiences);
    let phone = citizen(AssuranceLevel::Phone, &audiences);
    let elsewhere = citizen(AssuranceLevel::NameId, &["traffic/140100"]);
    let entry_point = Caller { principal: Principal::EntryPoint { id: "wechat".into() }, ..known.clone() };
    let other = Caller {
        principal: Principal::Citizen { entry_point: "alipay".into(), subject: "pairwise".into() },
        ..known.clone()
    };
    let anonymous = Caller::anonymous();
    let slots = "/lastmile.department.v1.DepartmentService/ListSlots";
    let settle = "/lastmile.department.v1.DepartmentService/SettleBill";
    let tasks = "/lastmile.cases.v1.CaseService/ListTasks";
    let unlisted: Refusal = Refusal::ItemNotListed;
    let cases: &[(&str, &Caller, &str, &str, Refusal)] = &[
        (QUERY, &known, "violation", "999999", Refusal::RegionUnknown),
        (QUERY, &known, "nothing", "430100", unlisted.clone()),
        (QUERY, &other, "violation", "430100", unlisted),
        (QUERY, &known, "library", "430100", Refusal::NoAdapter),
        (BILLS, &known, "violation", "140100", Refusal::DepthNotOffered { depth: "DEPTH_QUERY" }),
        (OPEN, &known, "violation", "140100", Refusal::DepthNotOffered { depth: "DEPTH_QUERY" }),
        (QUERY, &phone, "violation", "430100", Refusal::LevelTooLow { level_min: "ASSURANCE_LEVEL_NAME_ID" }),
        (QUERY, &known, "report", "430100", Refusal::ConsentMissing { purpose: "report".into() }),
        (QUERY, &elsewhere, "violation", "430100", Refusal::AudienceMissing { profile: "traffic/430100".into() }),
        (QUERY, &anonymous, "violation", "430100", Refusal::Unauthenticated { check: "missing" }),
        (QUERY, &entry_point, "violation", "430100", Refusal::CallerNotAllowed { caller: "entry_point" }),
        (tasks, &known, "", "", Refusal::CallerNotAllowed { caller: "citizen" }),
        (slots, &known, "violation", "430100", Refusal::NotServed),
        (settle, &known, "violation", "430100", Refusal::MethodUnknown),
        ("/lastmile.payments.v1.PaymentService/CreateOrder", &known, "", "", Refusal::MethodUnknown),
        (BREAKS, &known, "", "", Refusal::CallerNotAllowed { caller: "citizen" }),
        (BREAKS, &staff(false), "", "", Refusal::CallerNotAllowed { caller: "staff" }),
        (BREAKS, &anonymous, "", "", Refusal::Unauthenticated { check: "missing" }),
    ];
    for (path, caller, item, region, expected) in cases {
        assert_eq!(ask(path, caller, item, region), Err(expected.clone()), "{path} {item} {region}");
    }
}

#[test]
fn every_refusal_keeps_to_its_row() {
    use crate::error::REASONS;
    use rpc::Fault;
    let refusals = [
        Refusal::MethodUnknown,
        Refusal::Envelope(crate::peek::PeekError::Repeated),
        Refusal::LevelTooLow { level_min: "x" },
        Refusal::ConsentMissing { purpose: "x".into() },
        Refusal::AudienceMissing { profile: "x".into() },
        Refusal::QuotaExceeded { entry_point: "x".into(), after: Duration::from_secs(1) },
        Refusal::NotReady,
        Refusal::ProfileBusy,
    ];
    assert_eq!(refusals.len(), REASONS.reasons.len());
    for refusal in refusals {
        assert_eq!(REASONS.check(&refusal), Ok(()));
    }
    let violation = rpc::Violation::new("grpc-timeout", "is malformed");
    let limit = Refusal::Limit { limit: "body", max: 1, unit: "bytes" };
    for refusal in [Refusal::NotServed, Refusal::Deadline, limit, Refusal::Invalid(violation)] {
        assert_eq!(rpc::COMMON.check(&refusal), Ok(()), "{}", refusal.reason());
    }
}
