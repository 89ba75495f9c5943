//! Staged faults: what the next calls of a system shall suffer. Magic plates name the same faults.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long `slow` and `late` wait when nothing else is said.
pub(crate) const DELAY: Duration = Duration::from_secs(5);
/// How long `hang` keeps a connection.
pub(crate) const HANG: Duration = Duration::from_secs(120);
/// How many faults may be staged at once.
const STAGED_MAX: usize = 1_000;

/// A call that can suffer a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Police: violations of a plate or licence.
    List,
    /// Police: one record.
    Detail,
    /// Police: hold an amount.
    Lock,
    /// Police: give a hold back.
    Release,
    /// Police: take a payment.
    Pay,
    /// Police: what became of a payment.
    Inquire,
    /// Police: a driver's points.
    Points,
    /// A payment channel: make an order.
    Order,
    /// A payment channel: ask for an order.
    Query,
    /// A payment channel: close an order.
    Close,
    /// A payment channel: refund.
    Refund,
    /// A payment channel: ask for a refund.
    RefundQuery,
    /// WeChat Pay: platform certificates.
    Certificates,
    /// WeChat Pay: make a mixed order, when its cash leg is there.
    MixedOrder,
    /// WeChat Pay: ask for a mixed order.
    MixedQuery,
    /// WeChat Pay: be told what the insurance centre gave back.
    MixedReturn,
    /// A payment channel: a bill.
    Bill,
    /// A payment channel: the file of a bill.
    Download,
    /// A payment channel: the callback.
    Notify,
    /// Any call of the system.
    #[serde(rename = "*")]
    Any,
}

/// What goes wrong. The pages say what each looks like on each wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is described in docs/sandbox")]
pub enum Fault {
    ErrorAfter,
    ErrorBefore,
    Busy,
    Closed,
    Slow,
    Late,
    Hang,
    DropAfter,
    DropBefore,
    GarbleValue,
    GarbleCut,
    GarbleUnmappable,
    GarbleDoctype,
    TooLong,
    Duplicate,
    Fault,
    Unsigned,
    BadSignature,
    Abnormal,
    Stuck,
    Lost,
    Doubled,
    Reordered,
    Forged,
    WrongSerial,
    Probe,
}

/// A staged fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    /// The system: `police-430100`, `police-140100`, `wechatpay`, `alipay`.
    pub system: String,
    /// Which call.
    pub operation: Operation,
    /// What happens to it.
    pub fault: Fault,
    /// How many calls suffer it.
    #[serde(default = "once")]
    pub times: u32,
    /// How long `slow`, `late`, and a late or reordered callback wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<runtime::config::Duration>,
}

/// A fault that a call is to suffer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suffer {
    /// What happens.
    pub fault: Fault,
    /// How long it waits, where it waits.
    pub delay: Duration,
}

/// The board of staged faults; shared by the systems and the control port.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Staged>>>);

/// Why a fault cannot be staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotStaged {
    /// Such a system does not exist.
    #[error("no such system")]
    System,
    /// The system has no such call, or its wire has no such fault.
    #[error("this fault does not exist for this operation of this system")]
    Combination,
    /// `times` is zero, or the board is full.
    #[error("nothing to stage, or too many faults staged")]
    Count,
}

fn once() -> u32 {
    1
}

impl Suffer {
    /// A fault with the usual delay.
    pub fn usual(fault: Fault) -> Self {
        Self { fault, delay: DELAY }
    }
}

impl Faults {
    /// Stages a fault.
    pub fn stage(&self, staged: Staged) -> Result<(), NotStaged> {
        check(&staged)?;
        let mut board = self.board();
        if staged.times == 0 || board.len() >= STAGED_MAX {
            return Err(NotStaged::Count);
        }
        board.push(staged);
        Ok(())
    }

    /// Returns what is staged, oldest first.
    pub fn staged(&self) -> Vec<Staged> {
        self.board().clone()
    }

    /// Forgets everything staged.
    pub fn clear(&self) {
        self.board().clear();
    }

    /// Takes the oldest fault staged for a call of a system.
    pub fn take(&self, system: &str, operation: Operation) -> Option<Suffer> {
        let mut board = self.board();
        let at = board
            .iter()
            .position(|s| s.system == system && (s.operation == operation || s.operation == Operation::Any))?;
        let staged = board.get_mut(at)?;
        let suffer = Suffer { fault: staged.fault, delay: staged.delay.map_or(DELAY, Duration::from) };
        staged.times -= 1;
        if staged.times == 0 {
            board.remove(at);
        }
        Some(suffer)
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Vec<Staged>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(staged: &Staged) -> Result<(), NotStaged> {
    use Operation as O;
    let police = match staged.system.as_str() {
        "police-430100" | "police-140100" => true,
        "wechatpay" => false,
        "alipay" => return if for_alipay(staged) { Ok(()) } else { Err(NotStaged::Combination) },
        _ => return Err(NotStaged::System),
    };
    let of_police =
        matches!(staged.operation, O::List | O::Detail | O::Lock | O::Release | O::Pay | O::Inquire | O::Points);
    let fits = match staged.operation {
        O::Any if police => for_police(staged.fault),
        O::Any => for_wechatpay(staged.fault),
        O::Notify => !police && for_notify(staged.fault),
        O::Refund => !police && (for_wechatpay(staged.fault) || ends_refund(staged.fault)),
        _ if of_police => police && for_police(staged.fault),
        _ => !police && for_wechatpay(staged.fault),
    };
    if fits { Ok(()) } else { Err(NotStaged::Combination) }
}

fn for_police(fault: Fault) -> bool {
    !matches!(fault, Fault::Unsigned | Fault::BadSignature | Fault::Abnormal | Fault::Stuck) && !only_notify(fault)
}

fn for_wechatpay(fault: Fault) -> bool {
    use Fault as F;
    match fault {
        F::ErrorAfter | F::ErrorBefore | F::Busy | F::Slow | F::Late | F::Hang | F::DropAfter | F::DropBefore => true,
        F::GarbleValue | F::GarbleCut | F::TooLong | F::Unsigned | F::BadSignature => true,
        F::Closed | F::GarbleUnmappable | F::GarbleDoctype | F::Duplicate | F::Fault | F::Abnormal | F::Stuck => false,
        F::Lost | F::Doubled | F::Reordered | F::Forged | F::WrongSerial | F::Probe => false,
    }
}

fn for_alipay(staged: &Staged) -> bool {
    use Operation as O;
    let of_a_call = for_wechatpay(staged.fault) || staged.fault == Fault::Fault;
    match staged.operation {
        O::Any | O::Order | O::Query | O::Close | O::RefundQuery | O::Bill => of_a_call,
        O::Refund => of_a_call || staged.fault == Fault::Stuck,
        O::Download => matches!(
            staged.fault,
            Fault::ErrorBefore | Fault::DropBefore | Fault::Slow | Fault::Hang | Fault::GarbleCut
        ),
        O::Notify => {
            for_notify(staged.fault) && !matches!(staged.fault, Fault::Probe | Fault::Reordered | Fault::WrongSerial)
        }
        O::List | O::Detail | O::Lock | O::Release | O::Pay | O::Inquire | O::Points | O::Certificates => false,
        O::MixedOrder | O::MixedQuery | O::MixedReturn => false,
    }
}

/// How a refund can end otherwise than well.
fn ends_refund(fault: Fault) -> bool {
    matches!(fault, Fault::Abnormal | Fault::Closed | Fault::Stuck)
}

fn for_notify(fault: Fault) -> bool {
    only_notify(fault) || matches!(fault, Fault::Late)
}

fn only_notify(fault: Fault) -> bool {
    use Fault as F;
    matches!(fault, F::Lost | F::Doubled | F::Reordered | F::Forged | F::WrongSerial | F::Probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(system: &str, operation: Operation, fault: Fault, times: u32) -> Staged {
        Staged { system: system.into(), operation, fault, times, delay: None }
    }

    #[test]
    fn a_fault_is_taken_as_often_as_staged_and_oldest_first() {
        let faults = Faults::default();
        faults.stage(staged("police-430100", Operation::Pay, Fault::DropAfter, 2)).expect("staged");
        faults.stage(staged("police-430100", Operation::Any, Fault::Busy, 1)).expect("staged");
        let taken = || faults.take("police-430100", Operation::Pay).map(|suffer| suffer.fault);
        assert_eq!(
            [taken(), taken(), taken(), taken()],
            [Some(Fault::DropAfter), Some(Fault::DropAfter), Some(Fault::Busy), None]
        );
        faults.stage(staged("police-430100", Operation::Pay, Fault::Busy, 1)).expect("staged");
        assert_eq!(faults.take("police-140100", Operation::Pay), None, "another system");
        assert_eq!(faults.take("police-430100", Operation::Lock), None, "another call");
    }

    #[test]
    fn what_a_wire_cannot_suffer_is_not_staged() {
        let faults = Faults::default();
        let refused =
            |system, operation, fault, times| faults.stage(staged(system, operation, fault, times)).unwrap_err();
        assert_eq!(refused("police-999999", Operation::Pay, Fault::Busy, 1), NotStaged::System);
        assert_eq!(refused("wechatpay", Operation::Pay, Fault::Busy, 1), NotStaged::Combination);
        assert_eq!(refused("wechatpay", Operation::Any, Fault::GarbleDoctype, 1), NotStaged::Combination);
        assert_eq!(refused("police-430100", Operation::Any, Fault::Unsigned, 1), NotStaged::Combination);
        assert_eq!(refused("police-430100", Operation::Pay, Fault::Lost, 1), NotStaged::Combination);
        assert_eq!(refused("wechatpay", Operation::Notify, Fault::Busy, 1), NotStaged::Combination);
        assert_eq!(refused("wechatpay", Operation::Query, Fault::Stuck, 1), NotStaged::Combination);
        assert_eq!(refused("wechatpay", Operation::Order, Fault::Closed, 1), NotStaged::Combination);
        assert_eq!(refused("police-430100", Operation::Bill, Fault::Busy, 1), NotStaged::Combination);
        assert_eq!(refused("wechatpay", Operation::Notify, Fault::Lost, 0), NotStaged::Count);
        assert_eq!(refused("alipay", Operation::Pay, Fault::Busy, 1), NotStaged::Combination);
        assert_eq!(refused("alipay", Operation::Notify, Fault::Probe, 1), NotStaged::Combination);
        assert_eq!(refused("alipay", Operation::Download, Fault::BadSignature, 1), NotStaged::Combination);
        assert_eq!(refused("alipay", Operation::Query, Fault::Stuck, 1), NotStaged::Combination);
        faults.stage(staged("alipay", Operation::Refund, Fault::Stuck, 1)).expect("staged");
        faults.stage(staged("alipay", Operation::Any, Fault::Fault, 1)).expect("staged");
        faults.stage(staged("wechatpay", Operation::Any, Fault::Busy, 1)).expect("staged");
        faults.stage(staged("police-140100", Operation::Any, Fault::Closed, 1)).expect("staged");
        assert_eq!(faults.staged().len(), 4);
        faults.clear();
        assert!(faults.staged().is_empty());
    }
}
