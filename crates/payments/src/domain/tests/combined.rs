//! Orders that are paid at once.

use super::*;
use crate::domain::combined::{Part, Shape, combined_step};
use crate::domain::plan::OrderStep;
use contracts::ids::CombinedOrderId;

const WHOLE: CombinedOrderId = CombinedOrderId::new(7);

/// Three parts that are being created.
fn parts() -> Vec<Order> {
    let part = |number: u32| {
        let part = Part { of: WHOLE, number, count: 3, request_id: "whole".into() };
        Order { part: Some(part), is_sent: true, ..order() }
    };
    (1..=3).map(part).collect()
}

fn waiting() -> Vec<Order> {
    parts().iter().map(|part| part.created(vec![9]).expect("changes").order).collect()
}

#[test]
fn a_combined_order_goes_the_way_of_its_open_parts() {
    let (early, over) = (at(1), at(1_000));
    assert_eq!(combined_step(&parts(), early), OrderStep::Create);
    assert_eq!(combined_step(&parts(), over), OrderStep::Query);
    assert_eq!(combined_step(&waiting(), early), OrderStep::Query);
    assert_eq!(combined_step(&waiting(), over), OrderStep::Close);
    let unsent: Vec<_> = parts().into_iter().map(|part| Order { is_sent: false, ..part }).collect();
    assert_eq!(combined_step(&unsent, over), OrderStep::Forget);
    let mut some_paid = waiting();
    some_paid[0] = some_paid[0].captured(&capture()).expect("fits").expect("changes").order;
    assert_eq!(combined_step(&some_paid, early), OrderStep::Query);
    assert_eq!(combined_step(&some_paid, over), OrderStep::Close);
    let closed: Vec<_> = waiting().iter().map(|part| part.closed().expect("changes").order).collect();
    assert_eq!(combined_step(&closed, over), OrderStep::Rest);
}

#[test]
fn whoever_closes_one_part_closes_all() {
    for number in 0..3 {
        let mut parts = waiting();
        parts[number] = parts[number].close_asked().expect("changes").order;
        assert_eq!(combined_step(&parts, at(1)), OrderStep::Close, "part {number}");
        parts[number] = parts[number].captured(&capture()).expect("fits").expect("changes").order;
        assert_eq!(
            combined_step(&parts, at(1)),
            OrderStep::Close,
            "part {number} came first, the others are still open"
        );
    }
}

#[test]
fn a_part_is_told_paid_with_its_own_whole_alone() {
    let (part, merchant) = (&waiting()[1], order().terms.merchant.clone());
    let differs = |what| Err(Rule::Differs(what));
    let told = part.told_paid_together(WHOLE, &merchant, "wx0", &capture()).expect("fits").expect("changes");
    assert_eq!((told.order.state, told.entries.len()), (State::Paid, 1));
    assert_eq!(part.told_paid(&merchant, "wx0", &capture()), differs("combine_out_trade_no"));
    let other = CombinedOrderId::new(8);
    assert_eq!(part.told_paid_together(other, &merchant, "wx0", &capture()), differs("combine_out_trade_no"));
    assert_eq!(part.told_paid_together(WHOLE, &merchant, "wx1", &capture()), differs("app_id"));
    let alone = order().told_paid_together(WHOLE, &merchant, "wx0", &capture());
    assert_eq!(alone, differs("combine_out_trade_no"));
    assert_eq!((part.followed_as(), order().followed_as()), (WHOLE.to_string(), order().terms.id.to_string()));
}

#[test]
fn a_combined_order_has_the_parts_that_it_was_made_of() {
    let good = Shape { parts: 3, made: 3, numbers: (1, 3), kinds: Shape::KINDS };
    assert_eq!(good.contradiction(), None);
    for bad in [
        Shape { parts: 1, made: 1, numbers: (1, 1), ..good },
        Shape { parts: 2, numbers: (1, 2), ..good },
        Shape { numbers: (2, 4), ..good },
        Shape { kinds: Shape::KINDS + 1, ..good },
    ] {
        assert!(bad.contradiction().is_some(), "{bad:?}");
    }
}
