//! The judgement at the end of what goes wrong with a store: what writers were told, against the rows that are there.

use std::collections::BTreeMap;

use invariants::{Call, Deed, Effect, Found, World, check_all};
use runtime::Timestamp;
use store::Error;

/// Who writes in these tests.
const WRITER: &str = "writer";

/// What a writer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It is done.
    Done,
    /// Nothing happened.
    Nothing,
    /// It may be done.
    Unknown,
}

impl<T> From<&Result<T, Error>> for Told {
    fn from(answer: &Result<T, Error>) -> Self {
        match answer {
            Ok(_) => Self::Done,
            Err(error) if error.had_no_effect() => Self::Nothing,
            Err(_) => Self::Unknown,
        }
    }
}

/// Every row that somebody wanted to write, with what he was told of it, against those that are there. What nobody was told of is looked
/// up: that is a store's inquiry.
pub(crate) async fn assert_held(told: &BTreeMap<String, Told>, rows: &[String]) {
    let call = |(id, told): (&String, &Told)| {
        let (deed, caller, request_id) = (Deed::Own, WRITER.to_owned(), id.clone());
        let call = Call { deed, caller, request_id, ..Call::default() };
        match told {
            Told::Done => Call { answers: vec![id.clone()], ..call },
            Told::Nothing => Call { found: Some(Found::Never), ..call },
            Told::Unknown if rows.contains(id) => Call { lost: 1, found: Some(Found::Done(id.clone())), ..call },
            Told::Unknown => Call { lost: 1, found: Some(Found::Never), ..call },
        }
    };
    let effect = |id: &String| {
        let (deed, caller, request_id) = (Deed::Own, WRITER.to_owned(), id.clone());
        Effect { deed, caller, request_id, id: id.clone() }
    };
    let world = World {
        calls: Some(told.iter().map(call).collect()),
        effects: Some(rows.iter().map(effect).collect()),
        ..World::at(Timestamp::default())
    };
    let report = check_all(&world).await.expect("reads");
    let any = |what| told.values().any(|told| *told == what);
    let mut required = Vec::new();
    required.extend(any(Told::Done).then_some("I2"));
    required.extend((!rows.is_empty()).then_some("I3"));
    required.extend((any(Told::Nothing) || any(Told::Unknown)).then_some("I4"));
    report.require(&required).expect("what writers were told is true");
    assert!(rows.iter().all(|id| told.contains_key(id)), "rows that nobody wrote: {rows:?}");
}
