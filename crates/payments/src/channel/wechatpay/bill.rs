//! Bills of WeChat Pay: asked for, downloaded packed, unpacked into a file as they come, and held against WeChat's hash.
//!
//! The answer that names the file is signed, the file itself is not: its hash is what makes it WeChat's. The file may be of any size; what
//! is held in memory is a few pieces of it.

use std::path::Path;

use http::{Method, StatusCode};
use jiff::civil::Date;
use runtime::http::Flow;

use super::driver::{WechatPay, unsent};
use super::wire;
use crate::channel::download::{self, broken};
use crate::channel::{BillKind, ChannelError};

/// An answer that is no file: WeChat's refusal.
const REFUSAL_BYTES_MAX: usize = 16 * 1024;
/// Where files are downloaded from, at WeChat's own host.
const FILES: &str = "/v3/billdownload/";
const SHA1_DIGITS: usize = 40;

impl WechatPay {
    pub(super) async fn fetch_bill(
        &self,
        merchant: &str,
        day: Date,
        kind: BillKind,
        file: &Path,
    ) -> Result<u64, ChannelError> {
        let account = self.account(merchant).ok_or_else(|| unsent("no keys for the merchant"))?;
        let target = match kind {
            BillKind::Trades => format!("/v3/bill/tradebill?bill_date={day}&bill_type=ALL&tar_type=GZIP"),
            BillKind::Funds => format!("/v3/bill/fundflowbill?bill_date={day}&account_type=BASIC&tar_type=GZIP"),
        };
        let told: wire::BillTold = self.ask("bill", account, Method::GET, &target, String::new()).await?;
        let is_digest = told.hash_value.len() == SHA1_DIGITS && told.hash_value.bytes().all(|b| b.is_ascii_hexdigit());
        if told.hash_type != "SHA1" || !is_digest {
            return Err(ChannelError::unusable("hash of the bill"));
        }
        // Only the path is WeChat's to say: where its host is reached is our setting, and nothing is fetched from elsewhere.
        let address: http::Uri =
            told.download_url.parse().map_err(|_| ChannelError::unusable("address of the bill"))?;
        let target = address.path_and_query().map(|target| target.as_str()).filter(|target| target.starts_with(FILES));
        let target = target.ok_or_else(|| ChannelError::unusable("address of the bill"))?;
        let request = self.signed(account, Method::GET, target, String::new())?;
        let size_max = self.config.bill_max.bytes();
        let reply = self.http.open(request, self.config.bill_timeout.get(), size_max).await;
        let (head, flow) = reply.map_err(|error| broken(error.into()))?.into_parts();
        if head.status != StatusCode::OK {
            return Err(refusal(head.status, flow).await);
        }
        let part = download::keep(flow, file, size_max, true).await?;
        if part.sha1.eq_ignore_ascii_case(&told.hash_value) {
            part.place(file).await
        } else {
            Err(ChannelError::unusable("hash of the bill"))
        }
    }
}

async fn refusal(status: StatusCode, mut flow: Flow) -> ChannelError {
    let mut body = Vec::new();
    while let Some(Ok(chunk)) = flow.next().await {
        body.extend_from_slice(&chunk);
        if body.len() > REFUSAL_BYTES_MAX {
            break;
        }
    }
    wire::refusal(status, &body)
}
