use std::fs;
use std::path::Path;

use super::*;
use prost::Message;

const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");

/// Compiles a service with one method whose option is `option`.
fn load(option: &str, not_served: &[&'static str]) -> Result<Contract, ContractError> {
    let place = tempfile::tempdir().expect("a directory");
    let text = format!(
        r#"syntax = "proto3"; package lastmile.test.v1; import "lastmile/common/v1/common.proto";
        message M {{}} service S {{ rpc Do(M) returns (M) {{ {option} }} }}"#
    );
    fs::write(place.path().join("test.proto"), text).expect("writes");
    // The compiler's own bytes: prost's descriptor types would lose the option.
    let mut compiler = protox::Compiler::new([place.path(), Path::new(PROTO)]).expect("a compiler");
    compiler.include_imports(true).open_file("test.proto").expect("compiles");
    Contract::load(&compiler.encode_file_descriptor_set(), not_served)
}

fn refusal(option: &str) -> String {
    load(option, &[]).expect_err("refused").to_string()
}

#[test]
fn the_contract_of_this_build_is_sound() {
    let contract = Contract::lastmile().expect("loads");
    let query = contract.method("/lastmile.department.v1.DepartmentService/Query").expect("is there");
    assert_eq!((query.exposure, query.credential), (Exposure::Public, Credential::Citizen));
    assert_eq!(query.callers, [Role::Gateway, Role::Cases]);
    assert!(query.served && !query.server_streaming);
    assert!(contract.method("/lastmile.cases.v1.CaseService/WatchCase").expect("is there").server_streaming);
    assert!(!contract.method("/lastmile.cases.v1.CaseService/RateCase").expect("is there").served);
    assert!(contract.method("/lastmile.cases.v1.CaseService/Nothing").is_none());
}

#[test]
fn a_method_that_does_not_say_who_may_call_it_refuses_the_start() {
    for (option, problem) in [
        ("", "has no option"),
        ("option (lastmile.common.v1.access) = { callers: [ROLE_CASES] };", "has no exposure"),
        ("option (lastmile.common.v1.access) = { exposure: EXPOSURE_INTERNAL };", "open to no role"),
        (
            "option (lastmile.common.v1.access) = { exposure: EXPOSURE_INTERNAL callers: [ROLE_UNSPECIFIED] };",
            "unknown role",
        ),
        (
            "option (lastmile.common.v1.access) = { exposure: EXPOSURE_INTERNAL callers: [ROLE_CASES]
             credential: CREDENTIAL_CITIZEN };",
            "does not fit its exposure",
        ),
        ("option (lastmile.common.v1.access) = { exposure: EXPOSURE_PUBLIC };", "does not fit its exposure"),
        (
            "option (lastmile.common.v1.access) = { exposure: EXPOSURE_OPERATOR credential: CREDENTIAL_NONE };",
            "does not fit its exposure",
        ),
        (
            "option (lastmile.common.v1.access) = { exposure: EXPOSURE_CLERK credential: CREDENTIAL_ENTRY_POINT };",
            "does not fit its exposure",
        ),
    ] {
        let said = refusal(option);
        assert!(said.contains(problem) && said.contains("/lastmile.test.v1.S/Do"), "{option}: {said}");
    }
}

#[test]
fn a_method_that_says_it_is_read() {
    let option =
        "option (lastmile.common.v1.access) = { exposure: EXPOSURE_INTERNAL callers: [ROLE_CASES, ROLE_GATEWAY] };";
    let contract = load(option, &[]).expect("loads");
    let method = contract.method("/lastmile.test.v1.S/Do").expect("is there");
    assert_eq!(method.callers, [Role::Cases, Role::Gateway]);
    assert!(method.served);
    assert!(
        !load(option, &["/lastmile.test.v1.S/Do"])
            .expect("loads")
            .method("/lastmile.test.v1.S/Do")
            .expect("is there")
            .served
    );
    assert!(matches!(load(option, &["/lastmile.test.v1.S/Else"]), Err(ContractError::UnknownNotServed(_))));
}

#[test]
fn options_that_were_lost_on_the_way_refuse_the_start() {
    // A descriptor set that went through a program which does not know the extension.
    let mut set = prost_types::FileDescriptorSet::decode(contracts::FILE_DESCRIPTOR_SET).expect("decodes");
    for method in set.file.iter_mut().flat_map(|file| &mut file.service).flat_map(|service| &mut service.method) {
        method.options = None;
    }
    assert!(matches!(Contract::load(&set.encode_to_vec(), &[]), Err(ContractError::Method { .. })));
    assert!(matches!(Contract::load(b"\xff", &[]), Err(ContractError::Descriptor(_))));
}

fn method(exposure: Exposure, credential: Credential, callers: &[Role]) -> Method {
    Method {
        path: "/x/Y".into(),
        exposure,
        callers: callers.to_vec(),
        credential,
        server_streaming: false,
        served: true,
        input: ShapeId::default(),
    }
}

#[test]
fn who_is_admitted() {
    let role = Principal::Role;
    let entry = Principal::EntryPoint { id: "wechat".into() };
    let citizen = Principal::Citizen { entry_point: "wechat".into(), subject: "s".into() };
    let clerk = Principal::Staff { subject: "c".into(), operator: false };
    let operator = Principal::Staff { subject: "o".into(), operator: true };
    let all = [role(Role::Cases), role(Role::Gateway), Principal::Anonymous, entry, citizen, clerk, operator];
    let admitted = |method: &Method| all.iter().map(|one| u8::from(method.admits(one))).collect::<Vec<_>>();
    for (exposure, credential, expected) in [
        (Exposure::Internal, Credential::Unspecified, [1, 0, 0, 0, 0, 0, 0]),
        (Exposure::Public, Credential::None, [1, 0, 1, 1, 1, 0, 0]),
        (Exposure::Public, Credential::EntryPoint, [1, 0, 0, 1, 1, 0, 0]),
        (Exposure::Public, Credential::Citizen, [1, 0, 0, 0, 1, 0, 0]),
        (Exposure::Clerk, Credential::Staff, [1, 0, 0, 0, 0, 1, 1]),
        (Exposure::Operator, Credential::Staff, [1, 0, 0, 0, 0, 0, 1]),
    ] {
        let method = method(exposure, credential, &[Role::Cases]);
        assert_eq!(admitted(&method), expected, "{exposure:?} {credential:?}");
    }
}
