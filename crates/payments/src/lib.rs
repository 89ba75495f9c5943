//! Orders, refunds and the double-entry ledger; the drivers of the channels that move the citizens' money.
//!
//! Payments owns what is owed to whom. It keeps, before it calls a channel, what it is about to do, and after it, what came of it; every
//! answer that it gave under a request id it gives again, for ever. It never calls a department and never calls cases: cases pulls its
//! events and tells it what to do next. No code here knows whether a peer is in the process.
//!
//! The rules are in [`domain`], pure. [`channel`] is the seam to the channels. Everything meets in the till (private): one place where
//! orders change, with their transfers, answers and events in one transaction. [`audit`] recomputes the books from their entries.

#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]
#![cfg_attr(
    test,
    allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests may count as they like")
)]

pub mod audit;
#[cfg(feature = "bench")]
pub mod bench;
pub mod channel;
pub mod config;
pub mod domain;
pub mod error;
pub mod payment_codes;
pub mod receipts;
pub mod reconcile;
pub mod settlement;

mod beijing;
mod callbacks;
mod convert;
mod repo;
mod service;
mod staff;
mod till;
mod vault;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::payments::v1::payment_service_server::PaymentServiceServer;
use rpc::keyring::KeyRing;
use rpc::{Mounted, Readiness};
use runtime::Context;
use store::Db;

pub use config::Config;
pub use error::{Error, REASONS};
pub use repo::MIGRATIONS;
pub use service::Service;

use channel::alipay::Alipay;
use channel::wechatpay::{PlatformCertificate, WechatPay};
use channel::{BillKind, Channel, ChannelError, KeyError};
use reconcile::source::{BillSource, Folder, OfChannel};
use staff::Staff;
use till::Till;
use vault::{Vault, VaultError};

/// Every moment at which a drill may kill this service, in the order of an order's life.
pub const CRASH_POINTS: &[&str] = &[
    "payments.create.before_claim",
    "payments.create.after_claim",
    "payments.create.before_commit",
    "payments.create.after_commit",
    "payments.create.before_call",
    "payments.create.after_call",
    "payments.create.before_answer",
    "payments.query.after_call",
    "payments.close.after_commit",
    "payments.close.before_call",
    "payments.close.after_call",
    "payments.callback.before_commit",
    "payments.callback.after_commit",
    "payments.book.after_order",
    "payments.book.after_transfers",
    "payments.book.after_balances",
    "payments.book.after_receipts",
    "payments.book.after_event",
    "payments.book.before_commit",
    "payments.book.after_commit",
    "payments.post.after_commit",
    "payments.refund.before_commit",
    "payments.refund.after_commit",
    "payments.refund.before_call",
    "payments.refund.after_call",
    "payments.refund.after_decision",
    "payments.work.after_claim",
    "payments.work.before_release",
];

/// The same of what operators see to: settlements, the days that are reconciled, what breaks come to, and what payees give back.
pub const OPERATORS_CRASH_POINTS: &[&[&str]] = &[
    till::settle::CRASH_POINTS,
    till::days::CRASH_POINTS,
    till::days::RESOLVE_CRASH_POINTS,
    till::proposal::CRASH_POINTS,
];

/// What payments needs of the world outside.
#[derive(Clone)]
pub struct Deps {
    /// Time, ids, sockets, tasks.
    pub context: Context,
    /// Its own database.
    pub db: Db,
    /// Public keys of all roles: identity's verify the tokens of operators. Payments calls nobody else.
    pub keys: KeyRing,
}

/// Payments cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The store.
    #[error("the store of payments cannot be used")]
    Store(#[from] store::Error),
    /// A merchant's keys.
    #[error("the keys of a merchant account cannot be used")]
    Keys(#[from] KeyError),
    /// Its own keys: for payer references, for receipts.
    #[error("a key of payments cannot be used")]
    Payer(#[from] VaultError),
}

/// Builds payments and starts its worker.
///
/// Errors: a store that cannot be migrated, a key file that cannot be used.
pub async fn mount(config: Config, deps: Deps) -> Result<Mounted, BuildError> {
    let (service, till) = build(config, deps).await?;
    till.context.tasks.spawn_critical("payments worker", {
        let till = Arc::clone(&till);
        async move {
            worker::run(till).await;
            Ok::<_, std::convert::Infallible>(())
        }
    });
    let http = Some(service.callbacks());
    let routes = tonic::service::Routes::new(PaymentServiceServer::new(service));
    Ok(Mounted { routes, http, readiness: Readiness::always() })
}

/// Reads the merchants' keys as a start would. For a look from outside: it makes nothing and asks no channel.
///
/// Errors: the first file that cannot be used.
pub fn check_keys(config: &Config, context: &Context) -> Result<(), BuildError> {
    channels(config, context)?;
    Ok(())
}

/// Asks the channel for the platform certificates of every merchant account that verifies with them. For a look from outside: it keeps
/// nothing.
///
/// Errors: the first key file that cannot be used; for each merchant account, what the channel answered instead.
pub async fn platform_certificates(
    config: &Config,
    context: &Context,
) -> Result<Vec<(String, Result<Vec<PlatformCertificate>, ChannelError>)>, BuildError> {
    if !config.channels.wechatpay.is_offered() {
        return Ok(Vec::new());
    }
    let driver = wechatpay(config, context)?;
    Ok(driver.platform_certificates().await)
}

/// The drivers of the channels that are offered: the one place that names them all.
fn channels(config: &Config, context: &Context) -> Result<Vec<Arc<dyn Channel>>, KeyError> {
    let (offered, merchants) = (&config.channels, &config.merchants);
    let mut channels: Vec<Arc<dyn Channel>> = Vec::new();
    if offered.wechatpay.is_offered() {
        channels.push(Arc::new(wechatpay(config, context)?));
    }
    if offered.alipay.is_offered() {
        let driver = Alipay::new(offered.alipay.clone(), config.key_files, merchants, context.clone())?;
        channels.push(Arc::new(driver));
    }
    Ok(channels)
}

fn wechatpay(config: &Config, context: &Context) -> Result<WechatPay, KeyError> {
    WechatPay::new(config.channels.wechatpay.clone(), &config.merchants, config.key_files, context.clone())
}

/// Where each channel's bills come from: the channel itself, unless somebody puts them into a directory.
fn bills(config: &Config, channels: &[Arc<dyn Channel>]) -> BTreeMap<String, Arc<dyn BillSource>> {
    let folder = &config.reconcile.bills_dir;
    let mut bills: BTreeMap<String, Arc<dyn BillSource>> = BTreeMap::new();
    for channel in channels.iter().filter(|channel| channel.capabilities().bills.contains(&BillKind::Trades)) {
        bills.insert(channel.capabilities().channel.to_owned(), Arc::new(OfChannel(Arc::clone(channel))));
    }
    for merchant in config.merchants.iter().filter(|_| !folder.as_os_str().is_empty()) {
        bills.insert(merchant.channel().to_owned(), Arc::new(Folder(folder.join(merchant.channel()))));
    }
    bills
}

async fn build(config: Config, deps: Deps) -> Result<(Service, Arc<Till>), BuildError> {
    let Deps { context, db, keys } = deps;
    let staff = Staff::new(keys, &context.clock);
    db.migrate(MIGRATIONS).await?;
    let channels = channels(&config, &context)?;
    let vault = match &config.merchants[..] {
        [] => None,
        _ => {
            let vault = Vault::open(&config.payer_key_file, context.ids.clone())?;
            Some(vault.with_receipts(&config.receipts.key_file)?)
        }
    };
    let bills = bills(&config, &channels);
    let till = Arc::new(Till::new(config, context, db, channels, vault)?.with_bills(bills));
    Ok((Service::new(Arc::clone(&till), staff), till))
}
