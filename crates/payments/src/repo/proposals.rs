//! What first persons want given back, until second ones agree.

use contracts::ids::OrderId;
use contracts::money::Money;
use runtime::Timestamp;
use store::{Read, Tx, params};

use super::money;

const KEEP: &str = "INSERT INTO refund_proposals (order_id, proposal_id, amount_minor, currency, reason, person, proposed_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (order_id) DO UPDATE SET proposal_id = excluded.proposal_id, amount_minor = excluded.amount_minor,
    currency = excluded.currency, reason = excluded.reason, person = excluded.person, proposed_at = excluded.proposed_at";

const GET: &str = "SELECT * FROM refund_proposals WHERE order_id = $1";

const END: &str = "DELETE FROM refund_proposals WHERE order_id = $1";

/// What a person wants given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) id: String,
    pub(crate) order: OrderId,
    pub(crate) amount: Money,
    pub(crate) reason: String,
    pub(crate) person: String,
}

/// Keeps a proposal, in the place of an earlier one.
pub(crate) async fn keep(tx: &mut Tx, proposal: &Proposal, now: Timestamp) -> Result<(), store::Error> {
    let Proposal { id, order, amount, reason, person } = proposal;
    let (minor, currency) = (amount.amount_minor(), amount.currency().to_string());
    tx.execute(KEEP, params![order.to_string(), id, minor, currency, reason, person, now]).await.map(|_| ())
}

/// Finds the proposal of an order.
pub(crate) async fn get(reader: &mut impl Read, order: OrderId) -> Result<Option<Proposal>, store::Error> {
    let Some(row) = reader.fetch_opt(GET, params![order.to_string()]).await? else { return Ok(None) };
    Ok(Some(Proposal {
        id: row.get("proposal_id")?,
        order,
        amount: money(&row)?,
        reason: row.get("reason")?,
        person: row.get("person")?,
    }))
}

/// Ends the proposal of an order.
pub(crate) async fn end(tx: &mut Tx, order: OrderId) -> Result<(), store::Error> {
    tx.execute(END, params![order.to_string()]).await.map(|_| ())
}
