//! The check code, and how often one can be guessed at. Pure.

use std::time::Duration;

use contracts::ids::OrderId;
use contracts::money::{Currency, Money};
use runtime::{Clock, secret};

use super::*;

/// 2023-11-15 in Beijing, and still the day before in Greenwich.
const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn seal(bytes: [u8; 32]) -> Seal {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("receipt.key");
    secret::create_private(&path, &bytes).expect("writes");
    Seal::open(&path, &Ids::system(Clock::system())).expect("opens")
}

fn known() -> Seal {
    seal(std::array::from_fn(|index| u8::try_from(index).expect("32 bytes")))
}

fn due() -> Due {
    Due {
        order: OrderId::new(7),
        code: "43010123".into(),
        payee_id: "traffic-430100".into(),
        amount: Money::new(20_000, Currency::CNY).expect("in range"),
        at: AT,
    }
}

/// The answer was computed by Python's own HMAC.
#[test]
fn a_known_answer() {
    let receipt = known().issue(due(), 1);
    assert_eq!((receipt.check_code.as_str(), receipt.key_id.as_str()), ("261367", "d0941feef4fc3519"));
    assert_eq!(receipt.printed_number(), "0000000001");
}

#[test]
fn the_check_code_is_of_everything_that_is_printed() {
    let (seal, right) = (known(), known().issue(due(), 1));
    let dollars = Money::new(20_000, "USD".parse().expect("a code")).expect("in range");
    let more = Money::new(20_001, Currency::CNY).expect("in range");
    let others = [
        (due(), 2),
        (Due { code: "43010124".into(), ..due() }, 1),
        (Due { payee_id: "traffic-430101".into(), ..due() }, 1),
        (Due { amount: more, ..due() }, 1),
        (Due { amount: dollars, ..due() }, 1),
        (Due { at: AT.plus(Duration::from_secs(86_400)), ..due() }, 1),
    ];
    for (other, number) in others {
        assert_ne!(seal.issue(other.clone(), number).check_code, right.check_code, "{other:?} {number}");
        // Changed in the store, it is not true with the check code that was printed.
        let changed = Receipt { due: other, number, ..right.clone() };
        assert!(!seal.is_true(&changed, &right.check_code), "{changed:?}");
    }
    // The order is not printed, nor is the time of the day.
    let same = Due { order: OrderId::new(8), at: AT.plus(Duration::from_secs(3_600)), ..due() };
    assert_eq!(seal.issue(same, 1).check_code, right.check_code);
    assert_ne!(self::seal([9; 32]).issue(due(), 1).check_code, right.check_code, "another key");
}

#[test]
fn a_receipt_is_true_with_its_own_check_code_alone() {
    let (seal, receipt) = (known(), known().issue(due(), 1));
    assert!(seal.is_true(&receipt, "261367"));
    for wrong in ["261366", "000000", "", "26136", "2613670", "２61367"] {
        assert!(!seal.is_true(&receipt, wrong), "{wrong:?}");
    }
    let forged = Receipt { check_code: "261366".into(), ..receipt };
    assert!(!seal.is_true(&forged, "261366"), "what was written over in the store is not ours");
}

/// What was issued under a key that was replaced keeps its check code.
#[test]
fn a_replaced_key_leaves_receipts_true() {
    let receipt = known().issue(due(), 1);
    let next = seal([9; 32]);
    assert!(next.is_true(&receipt, "261367"));
    assert!(!next.is_true(&receipt, &next.issue(due(), 1).check_code));
}

#[test]
fn wrong_tries_end_and_come_back_with_time() {
    let tries = Tries::default();
    let after = |seconds: u64| AT.plus(Duration::from_secs(seconds));
    for number in 0..TRIES_MAX {
        assert_eq!(tries.begin("one", after(u64::from(number))), Ok(()));
    }
    assert_eq!(tries.begin("one", after(60)), Err(Duration::from_secs(7_140)));
    assert_eq!(tries.begin("two", after(60)), Ok(()), "another number does not");
    // In the next hour they still count, whenever that is first looked at; in the one after that they do not.
    assert_eq!(tries.begin("one", after(4_000)), Err(Duration::from_secs(3_200)));
    assert_eq!(tries.begin("one", after(7_199)), Err(Duration::from_secs(1)));
    assert_eq!(tries.begin("one", after(7_200)), Ok(()));
    // Nothing is left of what is long ago.
    for _ in 1..TRIES_MAX {
        assert_eq!(tries.begin("one", after(7_200)), Ok(()));
    }
    assert_eq!(tries.begin("one", after(7_200 + 2 * 3_600)), Ok(()));
}

#[test]
fn right_tries_cost_nothing() {
    let tries = Tries::default();
    for _ in 0..3 * TRIES_MAX {
        assert_eq!(tries.begin("one", AT), Ok(()));
        tries.forgive("one");
    }
    // Those that run at once count until they are known to be right.
    for _ in 0..TRIES_MAX {
        assert_eq!(tries.begin("one", AT), Ok(()));
    }
    assert!(tries.begin("one", AT).is_err());
}

#[test]
fn what_is_remembered_is_bounded() {
    let tries = Tries::default();
    for number in 0..3 * REMEMBERED_MAX {
        assert_eq!(tries.begin(&number.to_string(), AT), Ok(()));
    }
    let counted = tries.0.lock().expect("no test panicked with it");
    assert!(counted.recent.len() + counted.older.len() <= 2 * REMEMBERED_MAX);
}

#[test]
fn settings_that_mean_nothing_are_noted() {
    let series =
        |payee_id: &str, code_prefix: &str| Series { payee_id: payee_id.into(), code_prefix: code_prefix.into() };
    let noted = |settings: &Settings| {
        let mut problems = Vec::new();
        settings.validate("x", |payee| payee == "known", &mut problems);
        problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    assert_eq!(noted(&Settings::default()), [""; 0], "nobody has receipts");
    assert_eq!(noted(&Settings { key_file: PathBuf::new(), ..Settings::default() }), ["x.key_file"]);
    let right = Settings {
        verify_url: "https://city.example/receipts".into(),
        payees: vec![series("known", "430101")],
        ..Settings::default()
    };
    assert_eq!(noted(&right), [""; 0]);
    for url in ["", "http://city.example", "https://city.example/?a=1", "https://city.example/#a", "https://city.例"] {
        assert_eq!(noted(&Settings { verify_url: url.into(), ..right.clone() }), ["x.verify_url"], "{url}");
    }
    let payees = vec![series("known", "43010"), series("known", "430101"), series("unknown", "43010x")];
    let expected = ["x.payees.0.code_prefix", "x.payees.1.payee_id", "x.payees.2.payee_id", "x.payees.2.code_prefix"];
    assert_eq!(noted(&Settings { payees, ..right }), expected);
}
