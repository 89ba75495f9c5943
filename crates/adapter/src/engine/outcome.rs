//! What operations come to, in the engine's own words.

use runtime::Timestamp;
use serde_json::Value;

/// What the department said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did it, or answered in full.
    Done,
    /// It refused, definitively.
    Rejected,
    /// It took it and has not decided.
    Pending,
    /// Bytes were sent and no usable answer came.
    Unknown,
}

/// Why the department refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// lastmile's code.
    pub code: String,
    /// The department's own code.
    pub department_code: String,
    /// The department's own words.
    pub department_text: String,
}

/// Records of a citizen.
#[derive(Clone, Debug, PartialEq)]
pub struct Queried {
    /// The result, or why there is none.
    pub result: Result<Value, Rejection>,
    /// Where the next page begins; none on the last.
    pub next_offset: Option<u64>,
}

/// Bills of a citizen.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The bills, or why there are none.
    pub bills: Result<Vec<Bill>, Rejection>,
    /// Where the next page begins; none on the last.
    pub next_offset: Option<u64>,
}

/// Whether a bill can be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BillState {
    /// Now.
    Payable,
    /// Captured and not confirmed.
    Unconfirmed,
    /// Contested.
    Disputed,
    /// Paid, or nothing to pay.
    Paid,
    /// Held by another payment.
    Held,
}

/// Something that can be paid.
#[derive(Clone, Debug, PartialEq)]
pub struct Bill {
    /// The department's number.
    pub bill_no: String,
    /// What is asked, in fen.
    pub amount_minor: i64,
    /// The late fee in it, in fen.
    pub late_fee_minor: i64,
    /// The department's payment code, where it has one.
    pub payment_code: Option<String>,
    /// Whether it can be paid.
    pub state: BillState,
    /// The record, held to the item's schema.
    pub record: Value,
    /// Digest of record, amount and state.
    pub digest: [u8; 32],
}

/// What a settlement, or the inquiry after it, came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The outcome.
    pub outcome: Outcome,
    /// Set when it was rejected.
    pub rejection: Option<Rejection>,
    /// Set when it is done.
    pub receipt: Option<Receipt>,
}

/// What the department gave as evidence of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its serial number.
    pub serial: String,
    /// When it posted.
    pub time: Timestamp,
    /// What it took, in fen.
    pub amount_minor: i64,
    /// SHA-256 of the reply's bytes.
    pub reply_digest: [u8; 32],
}

impl BillState {
    /// Reads the name that mappings use.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "PAYABLE" => Self::Payable,
            "UNCONFIRMED" => Self::Unconfirmed,
            "DISPUTED" => Self::Disputed,
            "PAID" => Self::Paid,
            "HELD" => Self::Held,
            _ => return None,
        })
    }

    /// Returns the name that mappings and digests use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Payable => "PAYABLE",
            Self::Unconfirmed => "UNCONFIRMED",
            Self::Disputed => "DISPUTED",
            Self::Paid => "PAID",
            Self::Held => "HELD",
        }
    }

    /// The rejection code of a bill that cannot be held in this state.
    #[must_use]
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Payable => None,
            Self::Unconfirmed => Some("RECORD_UNCONFIRMED"),
            Self::Disputed => Some("RECORD_DISPUTED"),
            Self::Paid => Some("ALREADY_PAID"),
            Self::Held => Some("BILL_HELD"),
        }
    }
}

impl Settled {
    /// An outcome without more.
    #[must_use]
    pub fn plain(outcome: Outcome) -> Self {
        Self { outcome, rejection: None, receipt: None }
    }

    /// A refusal.
    #[must_use]
    pub fn rejected(rejection: Rejection) -> Self {
        Self { outcome: Outcome::Rejected, rejection: Some(rejection), receipt: None }
    }
}

impl Rejection {
    /// A refusal of our own, out of what the department's record says.
    #[must_use]
    pub fn of(code: &str) -> Self {
        Self { code: code.to_owned(), department_code: String::new(), department_text: String::new() }
    }
}
