use proptest::prelude::*;

use super::*;

/// The published example of a mixed order.
fn split() -> Split {
    Split {
        total: 202_000,
        funds: Funds { government: 100_000, personal: 45_000, other: 5_000 },
        cash: 50_000,
        added: vec![(AddType::Freight, 2_000)],
        reduced: vec![(ReduceType::Default, 10_000)],
        paid_in_cash: 42_000,
    }
}

fn broken(split: &Split) -> Vec<Identity> {
    match split.check(MixType::CashAndInsurance) {
        Err(Wrong::Identities(broken)) => broken.iter().map(|broken| broken.identity).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_published_split_holds() {
    assert_eq!(split().check(MixType::CashAndInsurance), Ok(()));
}

#[test]
fn one_wrong_sum_breaks_the_two_identities_that_it_stands_in() {
    use Identity::{Cash, TotalByPayment, TotalBySettlement};
    let good = split();
    assert_eq!(broken(&Split { total: 202_001, ..good.clone() }), [TotalByPayment, TotalBySettlement]);
    assert_eq!(broken(&Split { paid_in_cash: 42_001, ..good.clone() }), [TotalByPayment, Cash]);
    assert_eq!(broken(&Split { cash: 49_999, ..good.clone() }), [TotalBySettlement, Cash]);
    assert_eq!(broken(&Split { reduced: vec![], ..good.clone() }), [TotalByPayment, Cash]);
    assert_eq!(broken(&Split { added: vec![], ..good.clone() }), [TotalBySettlement, Cash]);
    let funds = Funds { other: 4_999, ..good.funds };
    assert_eq!(broken(&Split { funds, ..good }), [TotalByPayment, TotalBySettlement]);
}

#[test]
fn a_refusal_names_both_sides() {
    let wrong = Split { paid_in_cash: 42_001, ..split() }.check(MixType::CashAndInsurance).expect_err("wrong");
    let text = "the split breaks total_by_payment (202000 is not 202001), cash (42001 is not 42000)";
    assert_eq!(wrong.to_string(), text);
}

#[test]
fn each_type_has_its_legs_and_no_other() {
    let cash = Split { total: 300, cash: 300, paid_in_cash: 300, ..Split::default() };
    let funds = Funds { government: 300, ..Funds::default() };
    let insurance = Split { total: 300, funds, ..Split::default() };
    let waived = Split { cash: 50, total: 350, reduced: vec![(ReduceType::Hospital, 50)], ..insurance.clone() };
    assert_eq!(cash.check(MixType::CashOnly), Ok(()));
    assert_eq!(insurance.check(MixType::InsuranceOnly), Ok(()));
    assert_eq!(waived.check(MixType::InsuranceOnly), Ok(()), "what is left to the citizen is waived");
    assert_eq!(cash.check(MixType::InsuranceOnly), Err(Wrong::LegMissing("funds")));
    assert_eq!(cash.check(MixType::CashAndInsurance), Err(Wrong::LegMissing("funds")));
    assert_eq!(insurance.check(MixType::CashOnly), Err(Wrong::LegTooMany("funds")));
    assert_eq!(insurance.check(MixType::CashAndInsurance), Err(Wrong::LegMissing("paid_in_cash")));
    assert_eq!(split().check(MixType::CashOnly), Err(Wrong::LegTooMany("funds")));
    assert_eq!(split().check(MixType::InsuranceOnly), Err(Wrong::LegTooMany("paid_in_cash")));
}

#[test]
fn what_is_no_amount_is_refused_before_it_is_added() {
    let check = |split: Split| split.check(MixType::CashAndInsurance).expect_err("wrong");
    let funds = Funds { personal: -1, ..split().funds };
    assert_eq!(check(Split { funds, ..split() }), Wrong::Amount("personal"));
    assert_eq!(check(Split { cash: -1, ..split() }), Wrong::Amount("cash"));
    assert_eq!(check(Split { added: vec![(AddType::Default, 0)], ..split() }), Wrong::Amount("added"));
    assert_eq!(check(Split { reduced: vec![(ReduceType::Deposit, -5)], ..split() }), Wrong::Amount("reduced"));
    let funds = Funds { government: i64::MAX, personal: 1, other: 0 };
    assert_eq!(check(Split { funds, ..split() }), Wrong::TooLarge);
    assert_eq!(check(Split { cash: i64::MAX, ..split() }), Wrong::TooLarge);
}

#[test]
fn each_type_has_its_papers() {
    type Change = fn(&mut Papers, bool);
    let all = Papers { pay_order_id: true, pay_auth_no: true, geo_location: true, insurance_created_at: true };
    let none = Papers::default();
    assert_eq!(none.check(MixType::CashOnly), Ok(()));
    assert_eq!(all.check(MixType::InsuranceOnly), Ok(()));
    assert_eq!(all.check(MixType::CashAndInsurance), Ok(()));
    let with = |change: Change, is_there: bool| {
        let mut papers = if is_there { none } else { all };
        change(&mut papers, is_there);
        papers
    };
    let fields: [(&'static str, Change); 4] = [
        ("pay_order_id", |papers, is_there| papers.pay_order_id = is_there),
        ("pay_auth_no", |papers, is_there| papers.pay_auth_no = is_there),
        ("geo_location", |papers, is_there| papers.geo_location = is_there),
        ("med_ins_order_create_time", |papers, is_there| papers.insurance_created_at = is_there),
    ];
    for (name, change) in fields {
        assert_eq!(with(change, true).check(MixType::CashOnly), Err(Wrong::Forbidden(name)));
        assert_eq!(with(change, false).check(MixType::InsuranceOnly), Err(Wrong::Missing(name)));
        assert_eq!(with(change, false).check(MixType::CashAndInsurance), Err(Wrong::Missing(name)));
    }
}

#[test]
fn words_are_the_channels_own() {
    for word in ["CASH_ONLY", "INSURANCE_ONLY", "CASH_AND_INSURANCE"] {
        assert_eq!(word.parse::<MixType>().map(|known| known.to_string()).as_deref(), Ok(word));
    }
    for (_, word) in ADD_TYPES {
        assert_eq!(word.parse::<AddType>().map(|known| known.to_string()).as_deref(), Ok(word));
    }
    for (_, word) in REDUCE_TYPES {
        assert_eq!(word.parse::<ReduceType>().map(|known| known.to_string()).as_deref(), Ok(word));
    }
    assert!("cash_only".parse::<MixType>().is_err() && "FREIGHT".parse::<ReduceType>().is_err());
}

#[test]
fn a_half_is_never_paid() {
    use LegState::{Absent, Failed, Paid, Pending, Returned};
    let of = |whole, cash, insurance| standing(MixType::CashAndInsurance, whole, cash, insurance);
    let half = |cash, insurance| Standing::Half { cash, insurance };
    for (whole, cash, insurance, expected) in [
        (Paid, Paid, Paid, Standing::Paid),
        (Returned, Returned, Paid, Standing::Paid),
        (Pending, Paid, Paid, Standing::Pending),
        (Pending, Paid, Pending, Standing::Pending),
        (Paid, Paid, Pending, Standing::Differs),
        (Paid, Failed, Paid, Standing::Differs),
        (Failed, Paid, Pending, Standing::Pending),
        (Failed, Failed, Failed, Standing::Failed),
        (Failed, Paid, Failed, half(true, false)),
        (Failed, Failed, Paid, half(false, true)),
        (Failed, Paid, Paid, half(true, true)),
        (Failed, Returned, Failed, Standing::Failed),
        (Paid, Paid, Absent, Standing::Differs),
        (Absent, Paid, Paid, Standing::Differs),
    ] {
        assert_eq!(of(whole, cash, insurance), expected, "{whole:?} {cash:?} {insurance:?}");
    }
    assert_eq!(standing(MixType::CashOnly, Paid, Paid, Absent), Standing::Paid);
    assert_eq!(standing(MixType::CashOnly, Paid, Paid, Paid), Standing::Differs);
    assert_eq!(standing(MixType::InsuranceOnly, Paid, Absent, Paid), Standing::Paid);
    assert_eq!(standing(MixType::InsuranceOnly, Paid, Absent, Absent), Standing::Differs);
}

#[test]
fn a_refund_that_a_leg_cannot_give_names_the_leg() {
    let came = Legs::of(&split());
    let given = Legs { cash: 40_000, funds: Funds { personal: 45_000, ..Funds::default() } };
    let asked = |cash, personal, other| Legs { cash, funds: Funds { government: 0, personal, other } };
    let given_too = came.give(given, asked(2_000, 0, 5_000)).expect("there is as much");
    assert_eq!(given_too, Legs { cash: 42_000, funds: Funds { personal: 45_000, other: 5_000, government: 0 } });
    let refused = |leg, asked, rest| Err(BadReturn::Exceeds { leg, asked, rest });
    assert_eq!(came.give(given, asked(2_001, 0, 0)), refused(Leg::Cash, 2_001, 2_000));
    assert_eq!(came.give(given, asked(0, 1, 0)), refused(Leg::Personal, 1, 0));
    assert_eq!(came.give(given, asked(0, 0, 5_001)), refused(Leg::Other, 5_001, 5_000));
    assert_eq!(came.give(given, asked(0, 0, 0)), Err(BadReturn::Amount));
    assert_eq!(came.give(given, asked(-1, 1, 0)), Err(BadReturn::Amount));
    assert_eq!(Legs::default().give(given, asked(1, 0, 0)), Err(BadReturn::Sums));
    assert_eq!(Legs::default().take_back(asked(1, 0, 0)), Err(BadReturn::Sums));
}

prop_compose! {
    /// A split that holds.
    fn any_split()(
        parts in prop::array::uniform3(0..1_000_000_i64),
        cash in 0..1_000_000_i64,
        added in prop::collection::vec(1..1_000_i64, 0..4),
        reduced in prop::collection::vec(1..1_000_i64, 0..4),
    ) -> Split {
        let [government, personal, other] = parts;
        let funds = Funds { government, personal, other };
        let (more, less): (i64, i64) = (added.iter().sum(), reduced.iter().sum());
        // Enough that the reductions do not eat all of it.
        let cash = cash + less + 1;
        Split {
            total: funds.sum().expect("small") + cash + more,
            funds,
            cash,
            added: added.into_iter().map(|minor| (AddType::Default, minor)).collect(),
            reduced: reduced.into_iter().map(|minor| (ReduceType::Default, minor)).collect(),
            paid_in_cash: cash + more - less,
        }
    }
}

proptest! {
    #[test]
    fn a_split_holds_until_any_one_sum_is_changed(split in any_split(), which in 0..6, by in 1..1_000_i64) {
        let mix = if split.funds.sum() == Some(0) { MixType::CashOnly } else { MixType::CashAndInsurance };
        prop_assert_eq!(split.check(mix), Ok(()));
        let mut wrong = split;
        let sum = match which {
            0 => &mut wrong.total,
            1 => &mut wrong.cash,
            2 => &mut wrong.paid_in_cash,
            3 => &mut wrong.funds.government,
            4 => &mut wrong.funds.personal,
            _ => &mut wrong.funds.other,
        };
        *sum += by;
        match wrong.check(mix) {
            Err(Wrong::Identities(broken)) => {
                prop_assert_eq!(broken.len(), 2);
                prop_assert!(broken.iter().all(|broken| broken.left.abs_diff(broken.right) == by.unsigned_abs()));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn no_sum_makes_it_overflow(sums in prop::array::uniform6(any::<i64>()), more in any::<i64>(), less in any::<i64>()) {
        let [total, government, personal, other, cash, paid_in_cash] = sums;
        let split = Split {
            total,
            funds: Funds { government, personal, other },
            cash,
            added: vec![(AddType::Default, more)],
            reduced: vec![(ReduceType::Default, less)],
            paid_in_cash,
        };
        let _ = split.check(MixType::CashAndInsurance);
    }

    #[test]
    fn a_leg_never_gives_more_than_came(
        split in any_split(),
        asks in prop::collection::vec((prop::array::uniform4(0..400_000_i64), any::<bool>()), 0..24),
    ) {
        let came = Legs::of(&split);
        let mut given = Legs::default();
        for ([cash, government, personal, other], fails) in asks {
            let ask = Legs { cash, funds: Funds { government, personal, other } };
            let Ok(next) = came.give(given, ask) else { continue };
            for ((_, came), (_, given)) in came.each().into_iter().zip(next.each()) {
                prop_assert!(given <= came);
            }
            given = if fails {
                let back = next.take_back(ask);
                prop_assert_eq!(back, Ok(given));
                given
            } else {
                next
            };
        }
    }
}
