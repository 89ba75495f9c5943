//! Settling: what a payee is owed is cut into a settlement, its file is signed, and two persons confirm that it was paid over.
//!
//! Every step can be taken by any replica, after any crash, any number of times: a cut is marked once, a line stands in one settlement
//! because its transfer is the line's key, and each state follows on one other.

use std::time::Duration;

use contracts::ids::SettlementId;
use contracts::payments::v1 as pb;
use prost::Message;
use rpc::jose::SigningKey;
use runtime::{Timestamp, crash};
use store::Tx;
use store::lease::Lease;

use super::Till;
use crate::beijing;
use crate::convert::{self, ConfirmAsk};
use crate::domain::ledger::Account;
use crate::domain::settlement::{Place, Settlement, State};
use crate::error::{Error, Thing};
use crate::repo::requests::Key;
use crate::repo::settlements::{self, After};
use crate::repo::{days, ledger, work};
use crate::settlement::{self, LINE_BYTES_MAX};

/// Where the keys of this work begin.
pub(crate) const PREFIX: &str = "settle/";
/// Lines that are gathered in one transaction.
const GATHERED_MAX: u32 = if cfg!(test) { 3 } else { 5_000 };
/// Lines that are read together: as many as fit into an answer, however long they are.
const PAGE_LINES: u32 = if cfg!(test) { 2 } else { 250 };
/// The same where nobody but the digest reads them.
const SIGNED_LINES: u32 = if cfg!(test) { 3 } else { 2_000 };
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Every moment at which a test may kill the settling of a payee, in its order.
pub(crate) const CRASH_POINTS: &[&str] = &[
    "payments.settle.before_begin",
    "payments.settle.after_begin",
    "payments.settle.after_lines",
    "payments.settle.after_cut",
    "payments.settle.before_seal",
    "payments.settle.after_seal",
    "payments.settle.before_confirm",
    "payments.settle.after_confirm",
];

impl Till {
    /// Makes the day's cut for every payee that has something to settle.
    pub(crate) async fn plan_settlements(&self) -> Result<(), Error> {
        if !self.config.settlement.daily {
            return Ok(());
        }
        let cut_at = last_cut(self.now(), self.config.settlement.cut.get());
        for account in days::accounts(&mut self.db.read().await?, "payee").await? {
            let Account::Payee(payee) = account else { continue };
            if !settlements::is_marked(&mut self.db.read().await?, &payee, cut_at).await? {
                match self.db.transact(async |mut tx: Tx| self.begin(&mut tx, &payee, cut_at).await).await {
                    Ok(None) => {}
                    Ok(Some(_)) => crash::point("payments.settle.after_begin"),
                    // The one before is still being cut: it is tried again when days are planned next.
                    Err(Error::Raced) => tracing::info!(payee, "the settlement before is not cut yet"),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Begins a settlement up to a moment, unless there is nothing to settle, or that cut was made.
    ///
    /// Errors: Raced, while the one before is still being cut.
    async fn begin(&self, tx: &mut Tx, payee: &str, cut_at: Timestamp) -> Result<Option<Settlement>, Error> {
        if !settlements::mark(tx, payee, cut_at).await? {
            return Ok(None);
        }
        let last = settlements::last(tx, payee).await?;
        let account = Account::Payee(payee.to_owned());
        let Some((currency, _)) = ledger::sum(tx, &account).await? else { return Ok(None) };
        // A cut between two days is of the day that ends.
        let day = beijing::civil(Timestamp::from_micros(cut_at.micros().saturating_sub(1))).date();
        let of_day = settlements::of_day(tx, payee, &day.to_string()).await?;
        let place = Place { of_day, day, cut_at, currency };
        let new = Settlement::after(last.as_ref(), payee, place, |number| id(payee, number)).ok_or(Error::Raced)?;
        if !settlements::is_anything_open(tx, payee, new.from, cut_at).await? {
            return Ok(None);
        }
        if !settlements::insert(tx, &new).await? {
            return Err(Error::Raced);
        }
        let now = tx.now()?;
        work::due(tx, &subject(new.id), now).await?;
        crash::point("payments.settle.before_begin");
        Ok(Some(new))
    }

    /// Cuts what a payee is owed now, unless this request has done so; hands back the encoded answer.
    pub(crate) async fn cut_now(&self, key: &Key, payee: &str) -> Result<Vec<u8>, Error> {
        if !self.config.has_payee(payee) {
            return Err(Error::PayeeUnknown);
        }
        let answer = self
            .db
            .transact(async |mut tx: Tx| {
                if let Some(answer) = self.known(&mut tx, key).await?.and_then(|known| known.answer) {
                    return Ok(answer);
                }
                let now = tx.now()?;
                let begun = self.begin(&mut tx, payee, now).await?;
                let settlement = begun.as_ref().map(convert::settlement).transpose()?;
                let answer = pb::CutSettlementResponse { settlement }.encode_to_vec();
                super::days::claim(&mut tx, key, payee.to_owned(), Some(answer.clone()), now).await?;
                Ok::<_, Error>(answer)
            })
            .await?;
        crash::point("payments.settle.after_begin");
        self.nudge.notify_one();
        Ok(answer)
    }

    /// Gathers the lines of a settlement that is claimed, fixes its totals and signs its file.
    pub(crate) async fn look_settlement(&self, lease: &Lease) -> Result<(), Error> {
        let id: SettlementId = lease.key.strip_prefix(PREFIX).unwrap_or_default().parse().map_err(|_| unreadable())?;
        self.keeping(lease, self.settle(id)).await??;
        let done = std::collections::BTreeSet::from([lease.key.clone()]);
        self.db.transact(async |mut tx: Tx| work::done_all(&mut tx, &done).await).await.map_err(from_store)?;
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    pub(super) async fn settle(&self, id: SettlementId) -> Result<(), Error> {
        while self.db.transact(async |mut tx: Tx| gather(&mut tx, id).await).await? {
            crash::point("payments.settle.after_lines");
        }
        crash::point("payments.settle.after_cut");
        let one = self.settlement(id).await?;
        if one.state != State::Cut {
            return Ok(());
        }
        // Read each time: a file that replaced it counts from now on.
        let key = SigningKey::load_or_create(&self.config.settlement.key_file, &self.context.ids)
            .map_err(|_| Error::Internal("the settlement key cannot be used"))?;
        let mut digest = settlement::digest();
        let mut place: Option<After> = None;
        loop {
            let (bytes, next) = self.part(&one, place.as_ref(), SIGNED_LINES).await?;
            digest.update(&bytes);
            match next {
                Some(next) => place = Some(next),
                None => break,
            }
        }
        let seal = settlement::seal(&one.file_name(), digest, &key).ok_or(Error::Internal("a seal"))?;
        let signed = one.signed(seal.sha256, seal.signature, seal.key).ok_or(Error::Internal("a settlement"))?;
        crash::point("payments.settle.before_seal");
        // Where another replica was first, its signature is as good.
        let keep = async |mut tx: Tx| settlements::update(&mut tx, State::Cut, &signed).await;
        self.db.transact(keep).await.map_err(from_store)?;
        crash::point("payments.settle.after_seal");
        Ok(())
    }

    /// Writes a part of the file, and says behind which line the next part begins; None at the end.
    async fn part(&self, one: &Settlement, after: Option<&After>, max: u32) -> Result<(Vec<u8>, Option<After>), Error> {
        let bug = || Error::Internal("a line of a settlement");
        let mut bytes = match after {
            None => settlement::head(one).ok_or_else(bug)?,
            Some(_) => Vec::new(),
        };
        let from = after.cloned().unwrap_or((Timestamp::from_micros(i64::MIN), String::new()));
        let lines = settlements::lines(&mut self.db.read().await?, one.id, &from, max).await?;
        for line in &lines {
            let text = settlement::line(line).ok_or_else(bug)?;
            debug_assert!(text.len() <= LINE_BYTES_MAX, "what an order keeps is bounded");
            bytes.extend(text);
        }
        let is_full = u32::try_from(lines.len()).is_ok_and(|found| found >= max);
        let next = lines.last().filter(|_| is_full).map(|last| (last.at, last.transfer.as_str().to_owned()));
        if next.is_none() {
            bytes.extend(settlement::tail(one).ok_or_else(bug)?);
        }
        Ok((bytes, next))
    }

    /// Reads a part of a signed file.
    ///
    /// Errors: NotSigned before.
    pub(crate) async fn file_part(
        &self,
        id: SettlementId,
        after: Option<&After>,
    ) -> Result<(Vec<u8>, Option<After>), Error> {
        let one = self.settlement(id).await?;
        if matches!(one.state, State::Cutting | State::Cut) {
            return Err(crate::domain::settlement::Refused::NotSigned.into());
        }
        self.part(&one, after, PAGE_LINES).await
    }

    /// Finds a settlement that must be there.
    pub(crate) async fn settlement(&self, id: SettlementId) -> Result<Settlement, Error> {
        settlements::get(&mut self.db.read().await?, id).await?.ok_or_else(|| missing(id))
    }

    /// Records a person's word that a settlement was paid over, and books it when two have given it; hands back the encoded answer.
    pub(crate) async fn confirm(&self, ask: &ConfirmAsk, person: &str) -> Result<Vec<u8>, Error> {
        let answer = self
            .db
            .transact(async |mut tx: Tx| {
                // First the lock: whoever asks the same at once has answered by then.
                let one = settlements::lock(&mut tx, ask.id).await?;
                if let Some(answer) = self.known(&mut tx, &ask.key).await?.and_then(|known| known.answer) {
                    return Ok(answer);
                }
                let now = tx.now()?;
                let one = one.ok_or_else(|| missing(ask.id))?;
                let (next, entry) = one.confirmed(&ask.reference, person, now)?;
                if !settlements::update(&mut tx, one.state, &next).await? {
                    return Err(Error::Raced);
                }
                let entries: Vec<_> = entry.into_iter().collect();
                ledger::enter(&mut tx, &entries, now).await?;
                ledger::balance(&mut tx, &entries).await?;
                let needs_second_person = next.state != State::PaidOver;
                let settlement = Some(convert::settlement(&next)?);
                let answer = pb::ConfirmSettlementResponse { settlement, needs_second_person }.encode_to_vec();
                super::days::claim(&mut tx, &ask.key, ask.id.to_string(), Some(answer.clone()), now).await?;
                crash::point("payments.settle.before_confirm");
                Ok::<_, Error>(answer)
            })
            .await?;
        crash::point("payments.settle.after_confirm");
        Ok(answer)
    }
}

/// Gathers the next lines, or fixes the totals where there are none; false when it is cut.
async fn gather(tx: &mut Tx, id: SettlementId) -> Result<bool, Error> {
    // Whoever holds the row gathers; what another has gathered meanwhile is seen behind the lock.
    let one = settlements::lock(tx, id).await?.ok_or_else(|| missing(id))?;
    if one.state != State::Cutting {
        return Ok(false);
    }
    if settlements::gather(tx, &one, GATHERED_MAX).await? > 0 {
        return Ok(true);
    }
    let cut = Settlement { state: State::Cut, totals: settlements::totals(tx, id).await?, ..one };
    if cut.net().is_none() {
        return Err(Error::Internal("the sums of a settlement"));
    }
    settlements::update(tx, State::Cutting, &cut).await?;
    Ok(false)
}

/// The last moment of a cut that is not ahead.
fn last_cut(now: Timestamp, cut: Duration) -> Timestamp {
    let today = beijing::begin(beijing::civil(now).date()).plus(cut);
    if today <= now { today } else { today.minus(DAY) }
}

/// The same settlement has the same id whoever begins it.
fn id(payee: &str, number: i64) -> SettlementId {
    let digest = rpc::digest::sha256(format!("settlement/{payee}/{number}").as_bytes());
    let (bits, _) = digest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    SettlementId::new(u128::from_be_bytes(*bits))
}

fn subject(id: SettlementId) -> String {
    format!("{PREFIX}{id}")
}

fn missing(id: SettlementId) -> Error {
    Error::NotFound { what: Thing::Settlement, name: id.to_string() }
}

fn unreadable() -> Error {
    Error::Internal("the key of a settlement")
}

fn from_store(error: store::Error) -> Error {
    error.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_lies_on_the_last_moment_that_is_over() {
        let at = |text: &str| {
            let at: jiff::Timestamp = text.parse().expect("a time");
            Timestamp::from_micros(at.as_microsecond())
        };
        // Midnight in Beijing is 16:00 UTC.
        for (now, cut, expected) in [
            ("2026-11-22T15:59:59.999999Z", 0, "2026-11-21T16:00:00Z"),
            ("2026-11-22T16:00:00Z", 0, "2026-11-22T16:00:00Z"),
            ("2026-11-22T16:00:00Z", 84_600, "2026-11-22T15:30:00Z"),
            ("2026-11-22T15:29:59Z", 84_600, "2026-11-21T15:30:00Z"),
        ] {
            assert_eq!(last_cut(at(now), Duration::from_secs(cut)), at(expected), "{now} {cut}");
        }
    }
}
