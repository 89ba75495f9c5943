//! The two operators of payments: payees are settled, days held against the channel's bill and a department's file, breaks resolved, and
//! posted money given back, each with the words of both. What they were answered is asked again in the end, and has to be the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use contracts::common::v1::Money;
use contracts::payments::v1 as pb;
use jiff::civil::Date;
use payments::reconcile::bill::movements::Writer;
use payments::reconcile::{self, Entry, Side, State, What};
use pb::{BreakResolution, BreakState, RunState, SettlementState};
use prost::Message as _;
use tokio::time::Instant;

use super::{Desk, People};
use crate::super_app::with_token;

/// Who is paid over to. The first has a settlement file for each day.
const PAYEES: [&str; 2] = ["treasury-430100-traffic", "treasury-140100-traffic"];
const DAY_SECONDS: u64 = 86_400;
/// What is given back of a posted order, and what a department's file tells that nobody paid, fen.
const PART: i64 = 100;
const PAGE: i32 = 100;
/// The account of a payee says which orders were posted.
const POSTED: &str = "/post";

/// Where the operators sit, and what they remember.
pub(super) struct Office {
    desks: [Desk; 2],
    /// Where departments put their files.
    files: PathBuf,
    deeds: Mutex<Deeds>,
}

/// What they did, and what must be so for ever.
#[derive(Clone, Default)]
struct Deeds {
    /// Each question, whose it was, and the answer.
    said: Vec<(usize, Asked, Vec<u8>)>,
    /// Settlements that both have paid over: the file's digest, and what it came to.
    paid_over: BTreeMap<String, (String, i64)>,
    /// What of a department's file they wrote off, by number.
    written_off: BTreeMap<String, String>,
    /// The refunds that both wanted, by order; empty where only one has said so yet.
    given_back: BTreeMap<String, String>,
}

/// What is asked under a request id.
#[derive(Clone, Debug)]
enum Asked {
    Cut(pb::CutSettlementRequest),
    Confirm(pb::ConfirmSettlementRequest),
    Resolve(pb::ResolveBreakRequest),
    GiveBack(pb::RefundPostedRequest),
}

impl Office {
    pub(super) fn new(desks: [Desk; 2], files: &Path) -> Self {
        Self { desks, files: files.to_owned(), deeds: Mutex::default() }
    }

    fn deeds(&self) -> MutexGuard<'_, Deeds> {
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl People {
    /// Both operators see to the day: what was posted is cut and paid over, yesterday's bill and file are looked at once more, what nobody
    /// can explain is written off, and of one order something goes back.
    pub async fn see_to_the_day(&self, round: u32) -> anyhow::Result<()> {
        for payee_id in PAYEES {
            let request_id = format!("cut-{round}-{payee_id}");
            self.says(0, Asked::Cut(pb::CutSettlementRequest { request_id, payee_id: payee_id.to_owned() })).await?;
            for one in self.settlements(payee_id, SettlementState::Signed).await? {
                self.pay_over(&one).await?;
            }
        }
        let now = self.context.clock.now().minus(Duration::from_secs(DAY_SECONDS));
        let yesterday =
            jiff::tz::Offset::constant(8).to_datetime(jiff::Timestamp::from_microsecond(now.micros())?).date();
        let channel = "wechatpay".to_owned();
        self.hold(pb::ReconcileRequest { request_id: format!("day-{round}"), channel, ..of_day(yesterday) }).await?;
        self.write_off(round, yesterday).await?;
        self.give_back(round).await
    }

    /// Both say that a settlement was paid over.
    async fn pay_over(&self, signed: &pb::Settlement) -> anyhow::Result<()> {
        for (operator, desk) in self.office.desks.iter().enumerate() {
            let confirm = pb::ConfirmSettlementRequest {
                request_id: format!("{}-{}", desk.name, signed.settlement_id),
                settlement_id: signed.settlement_id.clone(),
                reference: "bank slip 7".to_owned(),
            };
            self.says(operator, Asked::Confirm(confirm)).await?;
        }
        let net = signed.net.as_ref().context("what it comes to")?.amount_minor;
        self.office.deeds().paid_over.insert(signed.settlement_id.clone(), (signed.file_sha256.clone(), net));
        Ok(())
    }

    /// Holds a day against a bill or file, until that is done.
    async fn hold(&self, day: pb::ReconcileRequest) -> anyhow::Result<Vec<pb::Run>> {
        let deadline = self.deadline();
        loop {
            let ask = async |desk: &Desk, token: String| {
                Ok(desk.app.payments().reconcile(with_token(day.clone(), &token)?).await)
            };
            let runs = self.told(0, "reconcile", ask).await?.runs;
            if runs.iter().all(|run| run.state() == RunState::Done) {
                return Ok(runs);
            }
            ensure!(runs.iter().all(|run| run.state() == RunState::Waiting), "{}: {runs:?}", day.request_id);
            ensure!(Instant::now() < deadline, "{} is never done: {runs:?}", day.request_id);
            self.pause().await;
        }
    }

    /// A department's file of a day tells of a payment that nobody made: both write it off.
    async fn write_off(&self, round: u32, day: Date) -> anyhow::Result<()> {
        let (payee_id, number) = (PAYEES[0].to_owned(), format!("stranger-{round}"));
        let folder = self.office.files.join(&payee_id);
        std::fs::create_dir_all(&folder)?;
        let mut file = Writer::create(&folder.join(format!("{day}.csv")), day, &[&format!("department/{payee_id}")])?;
        file.write(&Entry {
            side: Side::Department,
            what: What::Settlement,
            party: payee_id.as_str().into(),
            number: number.clone(),
            amount: reconcile::Money { minor: PART, currency: *b"CNY" },
            state: State::Done,
            at: day.at(12, 0, 0, 0),
            age_days: 0,
        })?;
        file.finish()?;
        self.hold(pb::ReconcileRequest { request_id: format!("file-{round}"), payee_id, ..of_day(day) }).await?;
        let open = self.breaks(BreakState::Open).await?;
        let [found] = &open.iter().filter(|one| one.number == number).collect::<Vec<_>>()[..] else {
            return Err(anyhow!("{number} is not open once: {open:?}"));
        };
        for (operator, desk) in self.office.desks.iter().enumerate() {
            let resolve = pb::ResolveBreakRequest {
                request_id: format!("{}-{}", desk.name, found.break_id),
                break_id: found.break_id.clone(),
                note: "nobody knows of it".to_owned(),
                resolution: BreakResolution::WrittenOff.into(),
            };
            let told = self.says(operator, Asked::Resolve(resolve)).await?;
            let needs_second = pb::ResolveBreakResponse::decode(&*told)?.needs_second_person;
            ensure!(needs_second == (operator == 0), "{number}: the word of {} and one more is wanted", desk.name);
        }
        self.office.deeds().written_off.insert(number, found.break_id.clone());
        Ok(())
    }

    /// Both have a payee give back a part of an order that was posted, one that they have not had it give back yet.
    async fn give_back(&self, round: u32) -> anyhow::Result<()> {
        let payee = PAYEES[round as usize % PAYEES.len()];
        let listed =
            pb::ListTransfersRequest { account: format!("payee/{payee}"), page_size: 1_000, ..Default::default() };
        let ask = async |desk: &Desk, token: String| {
            Ok(desk.app.payments().list_transfers(with_token(listed.clone(), &token)?).await)
        };
        let transfers = self.told(0, "transfers", ask).await?.transfers;
        let order_id = {
            let deeds = self.office.deeds();
            let posted = transfers.into_iter().filter(|transfer| transfer.transfer_id.ends_with(POSTED));
            posted.map(|transfer| transfer.order_id).find(|order_id| !deeds.given_back.contains_key(order_id))
        };
        let Some(order_id) = order_id else { return Ok(()) };
        self.office.deeds().given_back.insert(order_id.clone(), String::new());
        for (operator, desk) in self.office.desks.iter().enumerate() {
            let back = pb::RefundPostedRequest {
                request_id: format!("{}-{order_id}", desk.name),
                order_id: order_id.clone(),
                amount: Some(Money { amount_minor: PART, currency: "CNY".to_owned() }),
                reason: "withdrawn".to_owned(),
            };
            let told = self.says(operator, Asked::GiveBack(back)).await?;
            let told = pb::RefundPostedResponse::decode(&*told)?;
            ensure!(told.needs_second_person == (operator == 0), "{order_id}: {told:?}");
            if let Some(refund) = told.refund {
                self.office.deeds().given_back.insert(order_id.clone(), refund.refund_id);
            }
        }
        Ok(())
    }

    /// What is not so any more that both were told, or is so twice.
    pub async fn operators_were_wrong(&self) -> anyhow::Result<Vec<String>> {
        let Deeds { said, paid_over, written_off, .. } = self.office.deeds().clone();
        let mut wrong = Vec::new();
        for (operator, asked, answer) in &said {
            if self.answer(*operator, asked).await? != *answer {
                wrong.push(format!("it was answered in two ways: {asked:?}"));
            }
        }
        let mut settled = BTreeMap::new();
        for payee in PAYEES {
            let all = self.settlements(payee, SettlementState::Unspecified).await?;
            let mut numbers: Vec<_> = all.iter().map(|one| one.number).collect();
            numbers.sort_unstable();
            if !numbers.iter().copied().eq(1..=i64::try_from(all.len())?) {
                wrong.push(format!("{payee}: settlements {numbers:?}"));
            }
            let over: Vec<_> = all.into_iter().filter(|one| one.state() == SettlementState::PaidOver).collect();
            let net = |one: &pb::Settlement| one.net.as_ref().map_or(0, |net| net.amount_minor);
            let sum: i64 = over.iter().map(net).sum();
            if !over.is_empty() && self.treasury(payee).await? != sum {
                wrong.push(format!("{payee}: the ledger paid over something else than {sum}"));
            }
            settled
                .extend(over.into_iter().map(|one| (one.settlement_id.clone(), (one.file_sha256.clone(), net(&one)))));
        }
        for (settlement_id, told) in &paid_over {
            if settled.get(settlement_id) != Some(told) {
                wrong.push(format!("{settlement_id}: was paid over as {told:?}, is {:?}", settled.get(settlement_id)));
            }
            let file = self.file(settlement_id).await?;
            if hex::encode(rpc::digest::sha256(&file)) != told.0 {
                wrong.push(format!("{settlement_id}: its file is not the one that was signed"));
            }
        }
        let resolved = self.breaks(BreakState::Resolved).await?;
        for (number, break_id) in &written_off {
            let mut found = resolved.iter().filter(|one| one.number == *number);
            let is_kept = found
                .next()
                .is_some_and(|one| one.break_id == *break_id && one.resolution() == BreakResolution::WrittenOff);
            if !is_kept || found.next().is_some() {
                wrong.push(format!("{number} is not written off, once, as {break_id}"));
            }
        }
        Ok(wrong)
    }

    /// Says it under its request id until there is an answer, and remembers that.
    async fn says(&self, operator: usize, asked: Asked) -> anyhow::Result<Vec<u8>> {
        let answer = self.answer(operator, &asked).await?;
        self.office.deeds().said.push((operator, asked, answer.clone()));
        Ok(answer)
    }

    async fn answer(&self, operator: usize, asked: &Asked) -> anyhow::Result<Vec<u8>> {
        match asked {
            Asked::Cut(cut) => {
                let ask = async |desk: &Desk, token: String| {
                    Ok(desk.app.payments().cut_settlement(with_token(cut.clone(), &token)?).await)
                };
                Ok(self.told(operator, &cut.request_id, ask).await?.encode_to_vec())
            }
            Asked::Confirm(confirm) => {
                let ask = async |desk: &Desk, token: String| {
                    Ok(desk.app.payments().confirm_settlement(with_token(confirm.clone(), &token)?).await)
                };
                Ok(self.told(operator, &confirm.request_id, ask).await?.encode_to_vec())
            }
            Asked::Resolve(resolve) => {
                let ask = async |desk: &Desk, token: String| {
                    Ok(desk.app.payments().resolve_break(with_token(resolve.clone(), &token)?).await)
                };
                Ok(self.told(operator, &resolve.request_id, ask).await?.encode_to_vec())
            }
            Asked::GiveBack(back) => {
                let ask = async |desk: &Desk, token: String| {
                    Ok(desk.app.payments().refund_posted(with_token(back.clone(), &token)?).await)
                };
                Ok(self.told(operator, &back.request_id, ask).await?.encode_to_vec())
            }
        }
    }

    /// Asks at an operator's desk until there is an answer; a refusal is an error.
    async fn told<T>(
        &self,
        operator: usize,
        what: &str,
        ask: impl AsyncFn(&Desk, String) -> anyhow::Result<Result<tonic::Response<T>, tonic::Status>>,
    ) -> anyhow::Result<T> {
        let desk = self.office.desks.get(operator).context("an operator")?;
        let answer = self.insist(what, async || ask(desk, self.sits_down(desk).await?).await).await?;
        answer.map_err(|fault| anyhow!("{}, {what}: {fault}", desk.name))
    }

    async fn settlements(&self, payee: &str, state: SettlementState) -> anyhow::Result<Vec<pb::Settlement>> {
        let mut found = Vec::new();
        let mut asked = pb::ListSettlementsRequest {
            payee_id: payee.to_owned(),
            state: state.into(),
            page_size: PAGE,
            page_token: String::new(),
        };
        loop {
            let ask = async |desk: &Desk, token: String| {
                Ok(desk.app.payments().list_settlements(with_token(asked.clone(), &token)?).await)
            };
            let page = self.told(0, "settlements", ask).await?;
            found.extend(page.settlements);
            if page.next_page_token.is_empty() {
                return Ok(found);
            }
            asked.page_token = page.next_page_token;
        }
    }

    /// The breaks of the payee that has files.
    async fn breaks(&self, state: BreakState) -> anyhow::Result<Vec<pb::Break>> {
        let mut found = Vec::new();
        let mut asked = pb::ListBreaksRequest {
            state: state.into(),
            payee_id: PAYEES[0].to_owned(),
            page_size: PAGE,
            ..Default::default()
        };
        loop {
            let ask = async |desk: &Desk, token: String| {
                Ok(desk.app.payments().list_breaks(with_token(asked.clone(), &token)?).await)
            };
            let page = self.told(0, "breaks", ask).await?;
            found.extend(page.breaks);
            if page.next_page_token.is_empty() {
                return Ok(found);
            }
            asked.page_token = page.next_page_token;
        }
    }

    /// What the ledger has paid over to a payee.
    async fn treasury(&self, payee: &str) -> anyhow::Result<i64> {
        let asked = pb::GetAccountRequest { account: format!("treasury/{payee}") };
        let ask = async |desk: &Desk, token: String| {
            Ok(desk.app.payments().get_account(with_token(asked.clone(), &token)?).await)
        };
        let account = self.told(0, "account", ask).await?;
        Ok(account.credit_minor - account.debit_minor)
    }

    async fn file(&self, settlement_id: &str) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut asked =
            pb::ReadSettlementFileRequest { settlement_id: settlement_id.to_owned(), page_token: String::new() };
        loop {
            let ask = async |desk: &Desk, token: String| {
                Ok(desk.app.payments().read_settlement_file(with_token(asked.clone(), &token)?).await)
            };
            let page = self.told(0, "file", ask).await?;
            bytes.extend(page.data);
            if page.next_page_token.is_empty() {
                return Ok(bytes);
            }
            asked.page_token = page.next_page_token;
        }
    }

    /// The refunds that both operators were told of.
    pub fn given_back(&self) -> Vec<String> {
        self.office.deeds().given_back.values().filter(|refund| !refund.is_empty()).cloned().collect()
    }
}

fn of_day(day: Date) -> pb::ReconcileRequest {
    pb::ReconcileRequest { day: day.to_string(), ..Default::default() }
}
