use contracts::department::v1::QueryRequest;
use contracts::identity::v1::IssueTokenRequest;
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::{ListValue, Struct, Value, value::Kind as Json};

use super::*;
use crate::Contract;

const QUERY: &str = "/lastmile.department.v1.DepartmentService/Query";
const ISSUE_TOKEN: &str = "/lastmile.identity.v1.IdentityService/IssueToken";

fn check(path: &str, bytes: &[u8]) -> Result<(), Refusal> {
    let contract = Contract::lastmile().expect("loads");
    contract.check_request(contract.method(path).expect("is there"), bytes)
}

fn value(kind: Json) -> Value {
    Value { kind: Some(kind) }
}

fn query(input: Value) -> Vec<u8> {
    let input = Some(Struct { fields: [("x".to_owned(), input)].into() });
    QueryRequest { item: "i".into(), region: "r".into(), input, ..QueryRequest::default() }.encode_to_vec()
}

fn limit(result: Result<(), Refusal>) -> &'static str {
    match result {
        Err(Refusal::TooMuch { limit, .. }) => limit,
        Ok(()) => "none",
        Err(Refusal::Malformed(_)) => "malformed",
    }
}

#[test]
fn struct_values_are_counted() {
    let list = |count: usize| {
        let values = (0..count).map(|_| value(Json::NumberValue(0.0))).collect();
        query(value(Json::ListValue(ListValue { values })))
    };
    // The list itself is a value too.
    assert_eq!(limit(check(QUERY, &list(STRUCT_VALUES_MAX as usize - 1))), "none");
    assert_eq!(limit(check(QUERY, &list(STRUCT_VALUES_MAX as usize))), "structValues");
}

#[test]
fn depth_counts_json_levels() {
    // The request is level 1, its Struct level 2, each list one more.
    let nested = |levels: u32| {
        query(
            (0..levels)
                .fold(value(Json::NullValue(0)), |inner, _| value(Json::ListValue(ListValue { values: vec![inner] }))),
        )
    };
    assert_eq!(limit(check(QUERY, &nested(DEPTH_MAX - 2))), "none");
    assert_eq!(limit(check(QUERY, &nested(DEPTH_MAX - 1))), "messageDepth");
    // What passes is within the decoder's own recursion limit.
    QueryRequest::decode(nested(DEPTH_MAX - 2).as_slice()).expect("decodes");
    // Encoded by hand, for prost itself cannot make so deep a message: Struct { fields { value { struct … } } }.
    let mut deep = Vec::new();
    for _ in 0..1_000 {
        for tag in [0x2a_u8, 0x12, 0x0a] {
            let mut outer = vec![tag];
            prost::encode_length_delimiter(deep.len(), &mut outer).expect("writes");
            outer.append(&mut deep);
            deep = outer;
        }
    }
    let mut request = vec![0x22];
    prost::encode_length_delimiter(deep.len(), &mut request).expect("writes");
    request.append(&mut deep);
    assert_eq!(limit(check(QUERY, &request)), "messageDepth");
}

#[test]
fn elements_are_counted_over_the_whole_message() {
    let many = |count: usize| {
        let audience = vec![String::new(); count];
        IssueTokenRequest { audience, ..IssueTokenRequest::default() }.encode_to_vec()
    };
    assert_eq!(limit(check(ISSUE_TOKEN, &many(ELEMENTS_MAX as usize))), "none");
    assert_eq!(limit(check(ISSUE_TOKEN, &many(ELEMENTS_MAX as usize + 1))), "messageElements");
    // Fields that this version does not know are elements as well.
    let unknown: Vec<u8> = std::iter::repeat_n([0xf8_u8, 0x07, 1], ELEMENTS_MAX as usize + 1).flatten().collect();
    assert_eq!(limit(check(ISSUE_TOKEN, &unknown)), "messageElements");
}

#[test]
fn long_texts_are_refused() {
    let item = |length: usize| QueryRequest { item: "x".repeat(length), ..QueryRequest::default() }.encode_to_vec();
    assert_eq!(limit(check(QUERY, &item(TEXT_BYTES_MAX))), "none");
    assert_eq!(limit(check(QUERY, &item(TEXT_BYTES_MAX + 1))), "textBytes");
}

#[test]
fn what_is_no_message_is_malformed() {
    for (name, bytes) in [
        ("field number 0", &[0x00_u8, 0x01][..]),
        ("cut tag", &[0x80]),
        (
            "number longer than ten bytes",
            &[0xf8, 0x07, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ),
        ("number above 64 bits", &[0xf8, 0x07, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
        ("length past the end", &[0x0a, 0x05, b'a']),
        ("string that is not UTF-8", &[0x0a, 0x02, 0xc3, 0x28]),
        ("wrong wire type", &[0x08, 0x01]),
        ("group", &[0x0b, 0x0c]),
        ("unknown wire type", &[0xfe, 0x07]),
        ("cut fixed64", &[0xf9, 0x07, 0, 0]),
        ("field number above 2^29", &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00]),
    ] {
        assert!(matches!(check(QUERY, bytes), Err(Refusal::Malformed(_))), "{name}: {:?}", check(QUERY, bytes));
    }
    assert_eq!(check(QUERY, &[]), Ok(()), "an empty message is one");
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(value(Json::NullValue(0))),
        any::<bool>().prop_map(|b| value(Json::BoolValue(b))),
        any::<f64>().prop_map(|n| value(Json::NumberValue(n))),
        ".{0,8}".prop_map(|s| value(Json::StringValue(s))),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|values| value(Json::ListValue(ListValue { values }))),
            prop::collection::btree_map(".{0,4}", inner, 0..6)
                .prop_map(|fields| value(Json::StructValue(Struct { fields }))),
        ]
    })
}

/// Every request type of the contract, with the method that takes it.
fn inputs() -> Vec<(String, prost_reflect::MessageDescriptor)> {
    let pool = DescriptorPool::decode(contracts::FILE_DESCRIPTOR_SET).expect("decodes");
    let ours = pool.services().filter(|service| service.package_name().starts_with("lastmile."));
    ours.flat_map(|service| {
        let service_name = service.full_name().to_owned();
        service
            .methods()
            .map(move |method| (format!("/{service_name}/{}", method.name()), method.input()))
            .collect::<Vec<_>>()
    })
    .collect()
}

proptest! {
    #[test]
    fn what_clients_send_passes(input in json()) {
        prop_assert_eq!(check(QUERY, &query(input)), Ok(()));
    }

    /// Whatever passes, decodes: no decoder of the server ever meets bytes that it cannot read.
    #[test]
    fn what_passes_decodes(which in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let inputs = inputs();
        let (path, input) = which.get(&inputs);
        if check(path, &bytes).is_ok() {
            let decoded = DynamicMessage::decode(input.clone(), bytes.as_slice());
            prop_assert!(decoded.is_ok(), "{} {:?}: {:?}", path, bytes, decoded);
        }
    }

    #[test]
    fn a_changed_byte_passes_only_if_it_decodes(input in json(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = query(input);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if check(QUERY, &bytes).is_ok() {
            prop_assert!(QueryRequest::decode(bytes.as_slice()).is_ok(), "{:?}", bytes);
        }
    }
}
