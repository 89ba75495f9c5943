//! Bills of WeChat Pay: asked for, downloaded packed, unpacked into a file as they come, and held against WeChat's hash.
//!
//! The answer that names the file is signed, the file itself is not: its hash is what makes it WeChat's. The file may be of any size; what
//! is held in memory is a few pieces of it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use bytes::Bytes;
use flate2::write::GzDecoder;
use http::{Method, StatusCode};
use jiff::civil::Date;
use runtime::http::Flow;
use tokio::sync::mpsc;

use super::driver::{WechatPay, unsent};
use super::wire;
use crate::channel::{BillKind, ChannelError};

/// Pieces that wait for the disk.
const PIECES_MAX: usize = 8;
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
        let (size, hash) = keep(flow, file.to_owned(), size_max).await?;
        if !hash.eq_ignore_ascii_case(&told.hash_value) {
            let _ = tokio::fs::remove_file(part(file)).await;
            return Err(ChannelError::unusable("hash of the bill"));
        }
        tokio::fs::rename(part(file), file).await.map_err(|error| broken(error.into()))?;
        Ok(u64::try_from(size).unwrap_or(u64::MAX))
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

/// Unpacks what flows in beside `file`; returns how much it is, and what it hashes to in hexadecimal. Leaves nothing where it fails.
async fn keep(mut flow: Flow, file: PathBuf, size_max: usize) -> Result<(usize, String), ChannelError> {
    let (pieces, waiting) = mpsc::channel(PIECES_MAX);
    let path = part(&file);
    let writing = tokio::task::spawn_blocking({
        let path = path.clone();
        move || unpack(waiting, &path, size_max)
    });
    let mut failed = None;
    while let Some(chunk) = flow.next().await {
        let piece = chunk.map_err(|error| {
            failed = Some(broken(error.into()));
            Cut
        });
        let is_cut = piece.is_err();
        // Where the writer is gone, it says why.
        if pieces.send(piece).await.is_err() || is_cut {
            break;
        }
    }
    drop(pieces);
    let written = writing.await.map_err(io::Error::other).flatten();
    match (failed, written) {
        (None, Ok(written)) => Ok(written),
        (failed, written) => {
            let _ = tokio::fs::remove_file(&path).await;
            Err(failed.or(written.err().map(|error| broken(error.into()))).unwrap_or_else(|| broken("cut off".into())))
        }
    }
}

/// The file did not come to its end.
struct Cut;

fn unpack(mut pieces: mpsc::Receiver<Result<Bytes, Cut>>, path: &Path, size_max: usize) -> io::Result<(usize, String)> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let sink = Sink { file: BufWriter::new(file), hash: digest::Context::new(SHA1), size: 0, size_max };
    let mut unpacked = GzDecoder::new(sink);
    while let Some(piece) = pieces.blocking_recv() {
        let piece = piece.map_err(|Cut| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        unpacked.write_all(&piece)?;
    }
    let Sink { file, hash, size, .. } = unpacked.finish()?;
    file.into_inner()?.sync_all()?;
    Ok((size, hex::encode(hash.finish())))
}

const SHA1: &digest::Algorithm = &digest::SHA1_FOR_LEGACY_USE_ONLY;

/// Writes, hashes and counts; more than the most is refused, however little it was packed.
struct Sink {
    file: BufWriter<File>,
    hash: digest::Context,
    size: usize,
    size_max: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size = self
            .size
            .checked_add(bytes.len())
            .filter(|size| *size <= self.size_max)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Where a bill stands until it is whole.
fn part(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn broken(source: Box<dyn std::error::Error + Send + Sync>) -> ChannelError {
    // A bill moves nothing, so that to ask for it again is always safe.
    ChannelError::NoAnswer { effect: runtime::http::Effect::None, what: "bill", source: Some(source) }
}
