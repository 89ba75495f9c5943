//! The citizen's receipt, verified as anybody would.

use contracts::payments::v1::{Receipt, VerifyReceiptRequest};

use super::play::Broken;
use super::super_app::SuperApp;

/// Asks without a token whether what is printed on a receipt is true; returns how it is told.
pub(crate) async fn verify(super_app: &SuperApp, receipt: &Receipt) -> Result<String, Broken> {
    let request = VerifyReceiptRequest {
        code: receipt.code.clone(),
        number: receipt.number.clone(),
        check_code: receipt.check_code.clone(),
        amount: receipt.amount.clone(),
        issue_day: receipt.issue_day.clone(),
    };
    let told = super_app.payments().verify_receipt(request).await?.into_inner();
    if told.state() != receipt.state() || told.settled != receipt.amount {
        return Err(Broken::Promise("the receipt does not stand for what was paid".to_owned()));
    }
    let Receipt { code, number, check_code, .. } = receipt;
    Ok(format!("{code} {number}, check code {check_code}: verified as anybody can"))
}
