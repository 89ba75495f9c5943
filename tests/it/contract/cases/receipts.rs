//! What the citizen holds of a fine that was paid: the department's payment code on it, and anybody can verify it.

use anyhow::{Context as _, ensure};
use contracts::cases::v1::{self as cases, CaseState};
use contracts::common::v1::Money;
use contracts::payments::v1::{self as pb, ReceiptState};
use lastmile_tests::golden::refused;
use lastmile_tests::super_app::with_token;

use super::rig::{CHANGSHA, Run, TAIYUAN, on_both};

/// What stands behind the QR code of a receipt, asked at the public port by nobody in particular.
fn scanned(receipt: &pb::Receipt) -> anyhow::Result<pb::VerifyReceiptRequest> {
    let (_, query) = receipt.verify_url.split_once('?').context("a query")?;
    let field = |name: &str| {
        let pair = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        pair.map(|(_, value)| value.to_owned()).with_context(|| name.to_owned())
    };
    Ok(pb::VerifyReceiptRequest {
        code: field("code")?,
        number: field("number")?,
        check_code: field("check")?,
        amount: Some(Money { amount_minor: field("amount")?.parse()?, currency: field("currency")? }),
        issue_day: field("day")?,
    })
}

impl Run {
    async fn verify(
        &self,
        asked: &pb::VerifyReceiptRequest,
    ) -> Result<tonic::Response<pb::VerifyReceiptResponse>, tonic::Status> {
        self.app.payments().verify_receipt(asked.clone()).await
    }
}

/// Everything that is wrong with what is asked of a receipt.
fn wrongs(right: &pb::VerifyReceiptRequest) -> anyhow::Result<[pb::VerifyReceiptRequest; 4]> {
    let amount = right.amount.clone().context("an amount")?;
    let check_code = if right.check_code == "000000" { "000001" } else { "000000" };
    let issue_day = if right.issue_day == "2026-01-01" { "2026-01-02" } else { "2026-01-01" };
    Ok([
        pb::VerifyReceiptRequest { check_code: check_code.to_owned(), ..right.clone() },
        pb::VerifyReceiptRequest {
            amount: Some(Money { amount_minor: amount.amount_minor + 1, ..amount }),
            ..right.clone()
        },
        pb::VerifyReceiptRequest { issue_day: issue_day.to_owned(), ..right.clone() },
        pb::VerifyReceiptRequest { number: "9999999999".to_owned(), ..right.clone() },
    ])
}

#[test]
fn a_fine_that_was_paid_has_a_receipt_that_anybody_verifies() {
    on_both(async |run| {
        for (index, city) in [CHANGSHA, TAIYUAN].into_iter().enumerate() {
            let request_id = format!("receipt-{index}");
            let debtor = run.debtor(50 + u32::try_from(index)?, city).await?;
            let case = run.open(&debtor, &request_id).await?;
            let waiting = run.until(&debtor, &case.case_id, CaseState::WaitingPayment).await?;
            ensure!(waiting.receipt.is_none(), "no proof, no receipt: {waiting:?}");
            run.pay(&debtor, &case.case_id).await?;
            let done = run.until(&debtor, &case.case_id, CaseState::Done).await?;
            let receipt = done.receipt.context("a receipt")?;
            let proof = done.proof.context("a proof")?;
            ensure!(receipt.department_serial == proof.department_serial, "{receipt:?}");
            ensure!(receipt.amount == debtor.bill.amount && receipt.state() == ReceiptState::Valid, "{receipt:?}");
            // Changsha's bills carry a code, Taiyuan's none; it came from the bill and from nowhere else.
            ensure!(receipt.payment_code == debtor.bill.payment_code, "{receipt:?}");
            ensure!(receipt.payment_code.is_empty() == (city == TAIYUAN), "{receipt:?}");
            ensure!(receipt.code.starts_with(&city.0[..2]), "{receipt:?}");

            let right = scanned(&receipt)?;
            let told = run.verify(&right).await?.into_inner();
            ensure!(told.state() == ReceiptState::Valid && told.settled == receipt.amount, "{told:?}");
            ensure!(told.payee_id == receipt.payee_id, "{told:?}");
            for wrong in wrongs(&right)? {
                refused(run.verify(&wrong).await, "payments RECEIPT_NOT_FOUND", &[])?;
            }
            // A token changes nothing, and lists carry no receipts.
            run.app.payments().verify_receipt(with_token(right, &debtor.token)?).await?;
            let listed = with_token(cases::ListCasesRequest::default(), &debtor.token)?;
            let listed = run.app.cases().list_cases(listed).await?.into_inner();
            ensure!(listed.cases.iter().all(|case| case.receipt.is_none()), "{listed:?}");
            run.call(&request_id).ended_as = Some("DONE".to_owned());
        }
        Ok(())
    });
}

/// The gateway hands on what payments answers: the tries on a number are counted where receipts are.
#[test]
fn wrong_tries_end_at_the_public_port_too() {
    on_both(async |run| {
        let debtor = run.debtor(52, CHANGSHA).await?;
        let case = run.open(&debtor, "tries").await?;
        run.pay(&debtor, &case.case_id).await?;
        let done = run.until(&debtor, &case.case_id, CaseState::Done).await?;
        let right = scanned(&done.receipt.context("a receipt")?)?;
        let [wrong, .., unknown] = wrongs(&right)?;
        for _ in 0..10 {
            let both = [run.verify(&wrong).await, run.verify(&unknown).await];
            for answer in both {
                refused(answer, "payments RECEIPT_NOT_FOUND", &[])?;
            }
        }
        for asked in [&wrong, &unknown, &right] {
            refused(run.verify(asked).await, "payments RECEIPT_RESTS", &[])?;
        }
        run.call("tries").ended_as = Some("DONE".to_owned());
        Ok(())
    });
}
