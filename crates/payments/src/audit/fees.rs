//! What channels charged, said a second time.

use store::Reader;

use super::{Audit, ORDERS_PAGE};
use crate::domain::fees::{booked, run_id};
use crate::domain::ledger::{Standing, Subject, deltas};
use crate::repo::runs::{self, Name, Run};
use crate::repo::{ledger, unreadable};
use crate::till::FEES_MAX;

impl Audit {
    /// Checks that each day's transfers come to what its bill said, and that no other day has any.
    pub(super) async fn fees(&mut self, reader: &mut Reader) -> Result<(), store::Error> {
        let mut last: Option<Name> = None;
        loop {
            let page = runs::after(reader, last.as_ref(), ORDERS_PAGE).await?;
            let Some(end) = page.last() else { return Ok(()) };
            last = Some(end.name.clone());
            for run in page {
                self.fee(reader, &run).await?;
            }
        }
    }

    async fn fee(&mut self, reader: &mut Reader, run: &Run) -> Result<(), store::Error> {
        let Name { merchant, day } = &run.name;
        let id = run_id(merchant, *day);
        let kept = ledger::of_subject(reader, Subject::Run(id), None, &Default::default(), FEES_MAX).await?;
        let is_posted = kept.iter().all(|kept| kept.standing == Standing::Posted);
        let sum = booked(id, merchant, kept.iter().map(|kept| &kept.transfer)).filter(|_| is_posted);
        if sum != Some(run.fee_minor.unwrap_or(0)) {
            self.report.note(id, "the transfers are not what the channel charged for the day");
        }
        let count = u64::try_from(kept.len()).map_err(|_| unreadable("transfers"))?;
        self.report.transfers = self.report.transfers.saturating_add(count);
        let entries: Vec<_> = kept.iter().filter_map(|kept| super::entry(&kept.transfer, kept.standing)).collect();
        match deltas(&entries) {
            Ok(rows) => rows.into_iter().for_each(|row| self.total(id, row)),
            Err(error) => self.report.note(id, error.to_string()),
        }
        Ok(())
    }
}
