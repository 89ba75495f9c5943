//! What a channel charged: booked with the day's bill, once, and corrected by the difference.

use contracts::payments::v1::{self as pb, RunState};
use jiff::civil::Date;

use super::days::{bill, day_before, today};
use super::on_each_engine;
use super::rig::{CHANGSHA, Engine, OTHERS, Rig, until};

on_each_engine!(what_a_channel_charged_is_booked_once_and_corrected, two_replicas_book_a_day_once);

const FEES: &str = "fees/wechatpay/1900430100";
const CHANNEL: &str = "channel/wechatpay/1900430100";

/// A day's bill of two payments with what the channel charged for them.
pub(super) fn charged(day: Date, fees: [&str; 2], total: &str) -> String {
    let noon = day.at(12, 0, 0, 0);
    let text = bill(&[("a1", 10_000, noon), ("a2", 10_000, noon)]);
    let text = fees.iter().fold(text, |text, fee| text.replacen("`0.00,`0.60%", &format!("`{fee},`0.6%"), 1));
    let (rows, totals) = text.rsplit_once("\r\n`").expect("totals");
    let mut cells: Vec<_> = totals.split(",`").collect();
    cells[4] = total;
    format!("{rows}\r\n`{}", cells.join(",`"))
}

impl Rig {
    /// The transfers of an account: what each says of its run, its debited account and its amount.
    async fn transfers(&self, account: &str) -> Vec<(String, String, i64)> {
        let request = pb::ListTransfersRequest { account: account.into(), ..Default::default() };
        let answer = self.operators.clone().list_transfers(request).await.expect("answers").into_inner();
        let told = |it: pb::Transfer| (it.run_id, it.debit_account, it.amount.expect("an amount").amount_minor);
        answer.transfers.into_iter().map(told).collect()
    }
}

fn fee(run: &pb::Run) -> Option<i64> {
    run.fee.as_ref().map(|fee| fee.amount_minor)
}

async fn what_a_channel_charged_is_booked_once_and_corrected(engine: Engine) {
    let rig = Rig::with(engine, super::days::settings).await;
    let day = day_before(today());
    rig.put_bill(OTHERS, day, &bill(&[]));
    // One of them is a refund's: it gives a part back.
    rig.put_bill(CHANGSHA, day, &charged(day, ["0.60000", "-0.06"], "0.54000"));
    let told = rig.reconcile("r1", day).await;
    let fees: Vec<_> = told.runs.iter().map(|run| (run.merchant.as_str(), fee(run))).collect();
    assert_eq!(fees, [(OTHERS, Some(0)), (CHANGSHA, Some(54))], "{told:#?}");
    let run = told.runs.iter().find(|run| run.merchant == CHANGSHA).expect("a run").run_id.clone();
    let first = (run.clone(), FEES.to_owned(), 54);
    assert_eq!(rig.transfers(FEES).await, std::slice::from_ref(&first));
    assert_eq!((rig.balance(FEES).await, rig.balance(CHANNEL).await), ((54, 0), (0, 54)));
    assert_eq!(fee(&rig.reconcile("r2", day).await.runs[1]), Some(54), "matched again");
    assert_eq!(rig.transfers(FEES).await, std::slice::from_ref(&first), "and booked once");

    // The channel mends its bill: the difference is booked, and nothing is edited.
    rig.put_bill(CHANGSHA, day, &charged(day, ["0.30000", "0.00600"], "0.30600"));
    let told = rig.reconcile("r3", day).await;
    let (state, problem) = (told.runs[1].state(), told.runs[1].problem.as_str());
    assert_eq!((state, problem), (RunState::Failed, "the bill: its fees are no whole number of fen"));
    rig.put_bill(CHANGSHA, day, &charged(day, ["0.30000", "0.10000"], "0.41000"));
    let told = rig.reconcile("r4", day).await;
    let problem = "the bill: line 5, 手续费总金额: is not the sum of the rows: the file was changed or cut";
    assert_eq!((fee(&told.runs[1]), told.runs[1].problem.as_str()), (Some(54), problem), "what is booked stays");
    assert_eq!(rig.transfers(FEES).await, std::slice::from_ref(&first));
    rig.put_bill(CHANGSHA, day, &charged(day, ["0.30000", "0.10000"], "0.40000"));
    assert_eq!(fee(&rig.reconcile("r5", day).await.runs[1]), Some(40));
    assert_eq!(rig.transfers(FEES).await, [first, (run.clone(), CHANNEL.to_owned(), 14)]);

    // Another day is another fee.
    let before = day_before(day);
    rig.put_bill(OTHERS, before, &bill(&[]));
    rig.put_bill(CHANGSHA, before, &charged(before, ["0.30000", "0.10000"], "0.40000"));
    assert_ne!(rig.reconcile("r6", before).await.runs[1].run_id, run);
    assert_eq!(rig.balance(FEES).await, (94, 14));
    rig.assert_sound().await;
}

async fn two_replicas_book_a_day_once(engine: Engine) {
    let rig = Rig::with(engine, super::days::settings).await;
    let (other, _world) = rig.replica().await;
    let day = day_before(today());
    rig.put_bill(OTHERS, day, &bill(&[]));
    for (round, sum) in [("0.60", 60), ("0.20", 20), ("0.20", 20), ("0.90", 90)].into_iter().enumerate() {
        rig.put_bill(CHANGSHA, day, &charged(day, [sum.0, "0.00"], sum.0));
        let asks = (0..4).map(|number| {
            let operators = if number % 2 == 0 { &rig.operators } else { &other };
            let request = pb::ReconcileRequest {
                request_id: format!("r{round}-{number}"),
                day: day.to_string(),
                channel: "wechatpay".into(),
                ..Default::default()
            };
            until("the runs", async move || {
                let answer = operators.clone().reconcile(request.clone()).await.ok()?.into_inner();
                answer.runs.iter().all(|run| run.state() == RunState::Done).then_some(answer)
            })
        });
        futures::future::join_all(asks).await;
        // Whoever was last has seen this round's bill.
        let told = rig.reconcile(&format!("last-{round}"), day).await;
        assert_eq!(fee(&told.runs[1]), Some(sum.1));
        let (debit, credit) = rig.balance(FEES).await;
        assert_eq!(debit - credit, sum.1, "round {round}");
    }
    let booked: Vec<_> = rig.transfers(FEES).await.into_iter().map(|(_, _, minor)| minor).collect();
    assert_eq!(booked, [60, 40, 70], "one for each sum that was new");
    rig.assert_sound().await;
}
