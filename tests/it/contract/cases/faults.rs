//! Whatever department and channel do to an answer, a case that was accepted ends as promised, and nothing is done twice: both
//! topologies, every fault that each of them can stage, judged by everybody's books.

use anyhow::ensure;
use contracts::cases::v1::{self as pb, CaseState};
use runtime::config::Duration;

use super::rig::{CHANGSHA, Debtor, Run, TAIYUAN, on_both, on_both_with};

/// The faults of the magic plates; docs/sandbox/README.md names them.
const DEPARTMENT_FAULTS: u32 = 16;
/// Operations of the magic plates.
const LOCK: u32 = 3;
const PAYMENT: u32 = 5;
/// The copy of a magic plate that misbehaves on the first call only.
const ONCE: u32 = 5;

/// What the sandbox does to an answer of the channel; `contract/payments` has every one of them.
const ORDER_FAULTS: [&str; 8] =
    ["error_after", "error_before", "busy", "hang", "drop_after", "drop_before", "garble_cut", "bad_signature"];
const REFUND_FAULTS: [&str; 5] = ["error_after", "hang", "drop_after", "drop_before", "unsigned"];
const CALLBACK_FAULTS: [&str; 5] = ["lost", "doubled", "forged", "probe", "late"];

impl Run {
    async fn ended(&mut self, debtor: &Debtor, request_id: &str, case_id: &str, end: CaseState) -> anyhow::Result<()> {
        let history = self.history(debtor, case_id).await?;
        ensure!(history.last().map(pb::CaseEvent::to_state) == Some(end), "{request_id}: {history:?}");
        let name = end.as_str_name().trim_start_matches("CASE_STATE_");
        self.call(request_id).ended_as = Some(name.to_owned());
        Ok(())
    }
}

/// The payment under all sixteen faults in both cities, the lock in one: the bill is held in the end, the payment is taken once, and the
/// case has the proof.
#[test]
fn whatever_the_department_answers_the_fine_is_paid_once() {
    on_both(async |run| {
        let mut opened = Vec::new();
        for (city, name, operation) in
            [(CHANGSHA, "changsha", PAYMENT), (TAIYUAN, "taiyuan", PAYMENT), (TAIYUAN, "taiyuan", LOCK)]
        {
            for fault in 1..=DEPARTMENT_FAULTS {
                let debtor = run.magic_debtor(operation * 1_000 + fault * 10 + ONCE, city).await?;
                let request_id = format!("{name}-{operation}-{fault}");
                let case_id = run.open(&debtor, &request_id).await?.case_id;
                opened.push((debtor, request_id, case_id));
            }
        }
        for (debtor, _, case_id) in &opened {
            run.pay(debtor, case_id).await?;
        }
        for (debtor, request_id, case_id) in &opened {
            run.ended(debtor, request_id, case_id, CaseState::Done).await?;
        }
        Ok(())
    });
}

/// Creation, refund and callback, each under faults: one order, one capture, one refund.
#[test]
fn whatever_the_channel_answers_money_moves_once() {
    let configure = |config: &mut lastmile::Config| {
        config.payments.channels.wechatpay.call_timeout = Duration::from_secs(2);
        config.payments.worker.first_look = Duration::from_millis(400);
        config.payments.worker.longest_pause = Duration::from_secs(1);
    };
    on_both_with(configure, async |run| {
        let mut opened = Vec::new();
        let faults = ORDER_FAULTS.map(|fault| ("order", fault));
        let faults = faults.into_iter().chain(REFUND_FAULTS.map(|fault| ("refund", fault)));
        let faults = faults.chain(CALLBACK_FAULTS.map(|fault| ("notify", fault)));
        for (number, (operation, fault)) in (600..).zip(faults) {
            let debtor = run.debtor(number, CHANGSHA).await?;
            let request_id = format!("{operation}-{fault}");
            let stage = (("wechatpay", operation, fault), 1, "3s");
            if operation == "order" {
                run.outside.stage_for(stage.0, stage.1, stage.2).await?;
            }
            let case_id = run.open(&debtor, &request_id).await?.case_id;
            run.until(&debtor, &case_id, CaseState::WaitingPayment).await?;
            if operation != "order" {
                run.outside.stage_for(stage.0, stage.1, stage.2).await?;
            }
            let end = match operation {
                // The department refuses what was paid: the money goes back.
                "refund" => {
                    run.outside.officer(debtor.region, &debtor.bill.bill_no, "dispute").await?;
                    CaseState::Refunded
                }
                _ => CaseState::Done,
            };
            run.pay(&debtor, &case_id).await?;
            // The next fault is for the next case: this one's is suffered first.
            run.suffered("wechatpay").await?;
            opened.push((debtor, request_id, case_id, end));
        }
        for (debtor, request_id, case_id, end) in &opened {
            run.ended(debtor, request_id, case_id, *end).await?;
        }
        Ok(())
    });
}
