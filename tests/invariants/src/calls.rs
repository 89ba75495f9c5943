use std::time::Duration;

use rpc::{Kind, RemoteFault};
use runtime::Clock;

/// How soon after recovery whoever lost an answer must learn what became of the call.
pub const RESOLVED_WITHIN: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

/// What a request id was given to, and so what tells later what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// OpenCase; GetCase tells.
    #[default]
    Case,
    /// CreateOrder; GetOrder tells.
    Order,
    /// Refund; GetRefund tells.
    Refund,
    /// SettleBill; InquireBill tells.
    Settlement,
    /// Something of the test's own peer.
    Own,
}

/// What a client did under one request id, as the client wrote it down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// What it wanted.
    pub deed: Deed,
    /// Who asked: an entry point or a role. For a settlement, the profile that was asked.
    pub caller: String,
    /// The request id.
    pub request_id: String,
    /// What every answer that it got was about, in order: a case, an order, a refund, a serial.
    pub answers: Vec<String>,
    /// A terminal state of the case that it saw, by the contract's name without prefix.
    pub ended_as: Option<String>,
    /// How often it ended without an answer: nothing proves that there was no effect.
    pub lost: u32,
    /// What it learned when it asked by the request id, or from a refusal that proves that there was no effect.
    pub found: Option<Found>,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was done; this is what it made.
    Done(String),
    /// It never happened.
    Never,
}

/// Something that was done under a request id; listed as often as it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// What was done.
    pub deed: Deed,
    /// For whom; as [`Call::caller`].
    pub caller: String,
    /// The request id.
    pub request_id: String,
    /// What it made.
    pub id: String,
}

/// Asks by the request id until somebody says what became of a call; `None` when nobody does within [`RESOLVED_WITHIN`] from now,
/// which should be the recovery.
pub async fn inquire(clock: &Clock, ask: impl AsyncFn() -> Result<String, RemoteFault>) -> Option<Found> {
    let deadline = clock.now().plus(RESOLVED_WITHIN);
    loop {
        match ask().await {
            Ok(id) => return Some(Found::Done(id)),
            Err(fault) if fault.kind() == Kind::NotFound => return Some(Found::Never),
            Err(_) if clock.now() >= deadline => return None,
            Err(_) => clock.sleep(PAUSE).await,
        }
    }
}
