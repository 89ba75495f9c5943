//! What payees were paid over, said a second time.

use store::Reader;

use super::{Audit, ORDERS_PAGE};
use crate::domain::ledger::{Standing, Subject, deltas};
use crate::domain::settlement::{LATE, Settlement, State, Totals};
use crate::repo::{ledger, settlements};

/// Transfers of one settlement that are read at most; there is one.
const TRANSFERS_MAX: u32 = 10;

impl Audit {
    /// Checks every settlement, and that nothing that should stand in one stands in none.
    pub(super) async fn settlements(&mut self, reader: &mut Reader) -> Result<(), store::Error> {
        let mut last: Option<Settlement> = None;
        let mut lines = 0_i64;
        loop {
            let after = last.as_ref().map_or(("", 0), |last| (last.payee.as_str(), last.number));
            let page = settlements::after(reader, after, ORDERS_PAGE).await?;
            if page.is_empty() {
                break;
            }
            for one in page {
                let before = last.take().filter(|last| last.payee == one.payee);
                lines = lines.saturating_add(self.settlement(reader, before.as_ref(), &one).await?);
                last = Some(one);
            }
        }
        if settlements::count_lines(reader).await? != lines {
            self.report.note("settlement_lines", "there are lines of no settlement");
        }
        Ok(())
    }

    /// Checks one settlement beside the one before it; returns how many lines it has.
    async fn settlement(
        &mut self,
        reader: &mut Reader,
        before: Option<&Settlement>,
        one: &Settlement,
    ) -> Result<i64, store::Error> {
        let totals = settlements::totals(reader, one.id).await?;
        let kept = if one.state == State::Cutting { Totals::default() } else { totals };
        let (net, carried) = (one.net(), before.map_or(Some(1), Settlement::net));
        let is_sealed = !matches!(one.state, State::Cutting | State::Cut);
        let is_seal_kept = [&one.sha256, &one.signature, &one.key].iter().all(|kept| kept.is_some() == is_sealed);
        let follows = before.map_or(0, |before| before.number).checked_add(1) == Some(one.number);
        let taken = carried.filter(|net| *net <= 0).and(before).map(|before| before.id);
        let is_paid = one.state == State::PaidOver;
        let two = !one.first_by.is_empty() && !one.second_by.is_empty() && one.first_by != one.second_by;
        let checks = [
            ("the totals are not those of its lines", kept == one.totals),
            ("a line does not tell what the ledger has", settlements::false_lines(reader, one).await? == 0),
            ("the numbers of the payee's settlements have a gap", follows),
            (
                "what the one before came to is not what it takes over",
                carried.map(|net| net.min(0)) == Some(one.carried) && one.carried_from == taken,
            ),
            ("its state and its signature do not fit", is_seal_kept),
            (
                "its state does not fit what it comes to",
                !is_sealed || net.map(|net| net <= 0) == Some(one.state == State::Carried),
            ),
            ("it was not two persons who confirmed it", two == is_paid && one.paid_over_at.is_some() == is_paid),
        ];
        for (what, _) in checks.iter().filter(|(_, holds)| !holds) {
            self.report.note(one.id, *what);
        }
        let booked =
            ledger::of_subject(reader, Subject::Settlement(one.id), None, &Default::default(), TRANSFERS_MAX).await?;
        let found: Vec<_> = booked.iter().map(|booked| (booked.transfer.clone(), booked.standing)).collect();
        let expected: Vec<_> =
            one.transfer().filter(|_| is_paid).map(|it| (it, Standing::Posted)).into_iter().collect();
        if found != expected {
            self.report.note(one.id, "the transfers are not those that its state calls for");
        }
        self.report.settlements = self.report.settlements.saturating_add(1);
        self.report.transfers = self.report.transfers.saturating_add(u64::try_from(found.len()).unwrap_or(u64::MAX));
        let entries: Vec<_> =
            found.iter().filter_map(|(transfer, standing)| super::entry(transfer, *standing)).collect();
        match deltas(&entries) {
            Ok(rows) => rows.into_iter().for_each(|row| self.total(one.id, row)),
            Err(error) => self.report.note(one.id, error.to_string()),
        }
        // What was booked a day before a cut was committed by then.
        let until = one.cut_at.minus(LATE);
        if one.state != State::Cutting
            && settlements::is_anything_open(reader, &one.payee, Default::default(), until).await?
        {
            self.report.note(one.id, "something older than its cut is in no settlement");
        }
        Ok(totals.count)
    }
}
