//! What changes a police system: one event is one journal line.

use runtime::Timestamp;
use serde::{Deserialize, Serialize};

/// A change. Amounts are fen, times microseconds since 1970 UTC. Names and identity numbers never stand in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The first start: every record is laid out relative to this day (Beijing, `yyyy-MM-dd`).
    Opened {
        /// The day.
        day: String,
    },
    /// An officer changed a record.
    Edited {
        /// Record number.
        record: String,
        /// What was done.
        edit: Edit,
    },
    /// A caller holds a record's amount.
    Locked {
        /// Record number.
        record: String,
        /// Lock number.
        lock: String,
        /// The caller's key.
        key: String,
        /// Held until.
        until: Timestamp,
        /// Fine as held.
        fine_minor: i64,
        /// Late fee as held.
        late_minor: i64,
    },
    /// A lock was given back.
    Released {
        /// Lock number.
        lock: String,
    },
    /// A payment was taken, posted or refused. A later line of the same order replaces the earlier one.
    Payment(Payment),
    /// The points of a posted payment were cleared, later than the money.
    Cleared {
        /// The caller's order number.
        order: String,
        /// The driver's points now.
        points_after: u32,
    },
}

/// What an officer does to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub(crate) enum Edit {
    /// Confirms a capture: a decision is made, dated now.
    Confirm,
    /// Marks it disputed.
    Dispute,
    /// Ends the dispute.
    SettleDispute,
    /// Sets another fine, in fen.
    SetFine {
        /// The new fine.
        fine_minor: i64,
    },
}

/// A payment notice under one order number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payment {
    /// The caller's order number: the key.
    pub order: String,
    /// Record number.
    pub record: String,
    /// Amount, in fen.
    pub amount_minor: i64,
    /// The channel's transaction number.
    pub channel_number: String,
    /// Our serial.
    pub serial: String,
    /// What became of it.
    #[serde(flatten)]
    pub state: PaymentState,
}

/// What became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum PaymentState {
    /// In process until `due`, then as `then` says.
    Taken {
        /// When it leaves this state.
        due: Timestamp,
        /// What then.
        then: Next,
    },
    /// The money is posted.
    Posted {
        /// When.
        posted_at: Timestamp,
        /// The driver's points before.
        points_before: u32,
        /// The driver's points after; as before while they are not cleared.
        points_after: u32,
        /// When the points follow, if they did not fall at once.
        clears: Option<Timestamp>,
    },
    /// Refused for good.
    Refused {
        /// Why.
        reason: Refusal,
    },
}

/// What a payment in process ends as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Next {
    /// Posted.
    Post,
    /// Refused by the department.
    Refuse,
}

/// Why the police system says no. Nothing was changed by the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// No such record.
    NoRecord,
    /// No such driver.
    NoDriver,
    /// Captured only.
    NotConfirmed,
    /// Under dispute.
    Disputed,
    /// Paid, or nothing to pay.
    AlreadyPaid,
    /// Another amount than the record's.
    WrongAmount,
    /// No such lock.
    NoLock,
    /// Somebody else's lock runs.
    LockedByOther,
    /// The key was used with other content.
    KeyReused,
    /// The department's own reasons.
    Rejected,
    /// No payment under this order number.
    NoPayment,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_documented() {
        let payment = Event::Payment(Payment {
            order: "o1".into(),
            record: "4301001000000001".into(),
            amount_minor: 20_000,
            channel_number: "420000".into(),
            serial: "430100JF000000000001".into(),
            state: PaymentState::Posted {
                posted_at: Timestamp::from_micros(7),
                points_before: 6,
                points_after: 0,
                clears: None,
            },
        });
        let text = serde_json::to_string(&payment).expect("JSON");
        assert_eq!(
            text,
            r#"{"event":"payment","order":"o1","record":"4301001000000001","amount_minor":20000,"channel_number":"420000","serial":"430100JF000000000001","state":"posted","posted_at":7,"points_before":6,"points_after":0,"clears":null}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).expect("an event"), payment);
        let edit = r#"{"event":"edited","record":"1","edit":{"action":"set_fine","fine_minor":5}}"#;
        assert_eq!(
            serde_json::from_str::<Event>(edit).expect("an event"),
            Event::Edited { record: "1".into(), edit: Edit::SetFine { fine_minor: 5 } }
        );
    }
}
