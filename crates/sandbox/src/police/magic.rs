//! Magic plates: `AM o ff c`, operation, two digits of fault, copy (docs/sandbox/README.md).

use super::people::{Kind, PersonId};
use super::registry::RecordId;
use crate::faults::{Fault, Operation};

/// How a magic record behaves by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quirk {
    /// Not at all.
    None,
    /// The fine rises after the first reading.
    RisesOnceRead,
    /// The payment is refused by the department.
    Rejected,
    /// The payment is in process, then posted.
    PostsLater,
    /// The payment is in process, then refused.
    RefusesLater,
    /// The money is posted at once, the points follow.
    ClearsLater,
    /// A clerk at a window holds it.
    HeldByClerk,
    /// The payment is in process for ever.
    NeverEnds,
}

/// Copies from here on misbehave on the first call only.
const ONCE_FROM: u32 = 5;

/// Returns how a record behaves by itself. What it starts as (captured, disputed …) is the registry's business.
pub(crate) fn quirk(id: RecordId) -> Quirk {
    if id.person.kind != Kind::Magic {
        return Quirk::None;
    }
    match id.person.index / 10 {
        4 => Quirk::RisesOnceRead,
        5 => Quirk::Rejected,
        6 => Quirk::PostsLater,
        7 => Quirk::RefusesLater,
        8 => Quirk::ClearsLater,
        9 => Quirk::HeldByClerk,
        12 => Quirk::NeverEnds,
        _ => Quirk::None,
    }
}

/// Returns the fault of a call about a magic person, and whether only the first such call shows it.
pub(crate) fn fault(person: PersonId, operation: Operation) -> Option<(Fault, bool)> {
    let PersonId { kind: Kind::Magic, index } = person else { return None };
    let digit = match operation {
        Operation::List => 1,
        Operation::Detail => 2,
        Operation::Lock => 3,
        Operation::Release => 4,
        Operation::Pay => 5,
        Operation::Inquire => 6,
        Operation::Points => 7,
        _ => return None,
    };
    if index / 1_000 != digit {
        return None;
    }
    let fault = match index / 10 % 100 {
        1 => Fault::ErrorAfter,
        2 => Fault::ErrorBefore,
        3 => Fault::Busy,
        4 => Fault::Closed,
        5 => Fault::Slow,
        6 => Fault::Late,
        7 => Fault::Hang,
        8 => Fault::DropAfter,
        9 => Fault::DropBefore,
        10 => Fault::GarbleValue,
        11 => Fault::GarbleCut,
        12 => Fault::GarbleUnmappable,
        13 => Fault::GarbleDoctype,
        14 => Fault::TooLong,
        15 => Fault::Duplicate,
        16 => Fault::Fault,
        _ => return None,
    };
    Some((fault, index % 10 >= ONCE_FROM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn magic(index: u32) -> PersonId {
        PersonId { kind: Kind::Magic, index }
    }

    #[test]
    fn digits_read_as_documented() {
        assert_eq!(fault(magic(5080), Operation::Pay), Some((Fault::DropAfter, false)));
        assert_eq!(fault(magic(5085), Operation::Pay), Some((Fault::DropAfter, true)));
        assert_eq!(fault(magic(5080), Operation::Lock), None, "another operation");
        assert_eq!(fault(magic(1141), Operation::List), Some((Fault::TooLong, false)));
        assert_eq!(fault(magic(1990), Operation::List), None, "no such fault");
        assert_eq!(fault(PersonId { kind: Kind::Load, index: 5080 }, Operation::Pay), None);
        assert_eq!(quirk(RecordId { person: magic(123), ordinal: 1 }), Quirk::NeverEnds);
        assert_eq!(quirk(RecordId { person: magic(1123), ordinal: 1 }), Quirk::None);
    }
}
