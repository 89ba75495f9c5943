//! What a channel charged for a day, booked with the day's run.

use runtime::Timestamp;
use store::Tx;

use crate::domain::fees::{due, run_id};
use crate::domain::ledger::{Entry, Subject};
use crate::error::Error;
use crate::repo::ledger;
use crate::repo::runs::Name;

/// Corrections of one day; more are no corrections.
pub(crate) const TRANSFERS_MAX: u32 = 1_000;

/// Books what is missing until the day's transfers come to what was charged. Whoever books the same at once is refused by the transfer's
/// id, and looks again.
pub(super) async fn book(tx: &mut Tx, name: &Name, charged_minor: i64, now: Timestamp) -> Result<(), Error> {
    let run = run_id(&name.merchant, name.day);
    let booked = ledger::of_subject(tx, Subject::Run(run), None, &Default::default(), TRANSFERS_MAX).await?;
    let transfers: Vec<_> = booked.into_iter().map(|booked| booked.transfer).collect();
    let missing = due(run, &name.merchant, &transfers, charged_minor);
    let Some(transfer) = missing.map_err(|_| Error::Internal("a day's fees"))? else { return Ok(()) };
    let entries = [Entry::Post(transfer)];
    ledger::enter(tx, &entries, now).await?;
    Ok(ledger::balance(tx, &entries).await?)
}
