//! From settings to running systems.

use std::net::SocketAddr;
use std::sync::Arc;

use runtime::http::{self, Limits};
use runtime::{Context, Listener};

use crate::config::Config;
use crate::control::{self, Control};
use crate::faults::Faults;
use crate::journal::{OpenError, Place};
use crate::key_files::KeyError;
use crate::police::office::Office;
use crate::police::registry::{CHANGSHA, TAIYUAN};
use crate::wechatpay::{Desk, Keys, Pay, PayError};
use crate::{alipay, changsha, taiyuan, wechatpay};

/// Longer than the longest fault keeps a caller waiting.
const REQUEST_SECONDS: u64 = 150;
const CONNECTIONS_MAX: u32 = 1_024;
const BODY_KIB_MAX: u64 = 64;

/// Where the systems listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The control port, HTTP.
    pub control: SocketAddr,
    /// WeChat Pay, HTTP.
    pub wechatpay: SocketAddr,
    /// Alipay, HTTP.
    pub alipay: SocketAddr,
    /// Changsha's traffic police, SOAP over HTTP.
    pub police_430100: SocketAddr,
    /// Taiyuan's traffic police, TCP.
    pub police_140100: SocketAddr,
}

/// A running sandbox. It stops with the tasks of its context.
pub struct Running {
    /// Where the systems listen.
    pub addresses: Addresses,
    control: Arc<Control>,
}

/// The sandbox cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be bound.
    #[error("the sandbox cannot listen on {address}")]
    Bind {
        /// Which.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A journal cannot be opened.
    #[error("a journal of the sandbox cannot be opened")]
    Journal(#[from] OpenError),
    /// The keys of a payment channel cannot be used.
    #[error("the keys of a payment channel of the sandbox cannot be used")]
    Keys(#[from] KeyError),
}

/// Starts every system, with journals in files under the configuration's data directory.
pub async fn start(config: Config, context: Context) -> Result<Running, Error> {
    let place = Place::Directory(config.journal_dir());
    start_in(config, context, place).await
}

/// Starts every system with journals in `place`. A simulation keeps them in memory, over the crashes of its hosts.
///
/// Keys are files in every case: make them before the simulation starts, since no seed makes an RSA key.
pub async fn start_in(config: Config, context: Context, place: Place) -> Result<Running, Error> {
    let listeners = [
        bind(&context, &config.control.listen).await?,
        bind(&context, &config.wechatpay.listen).await?,
        bind(&context, &config.alipay.listen).await?,
        bind(&context, &config.police_430100.listen).await?,
        bind(&context, &config.police_140100.listen).await?,
    ];
    let [control_at, wechatpay_at, alipay_at, soap_at, tcp_at] = listeners;
    let addresses = Addresses {
        control: control_at.1,
        wechatpay: wechatpay_at.1,
        alipay: alipay_at.1,
        police_430100: soap_at.1,
        police_140100: tcp_at.1,
    };
    let mchids: Vec<String> = config.wechatpay.merchants.iter().map(|merchant| merchant.mchid.clone()).collect();
    let keys = Keys::load_or_create(&config.keys_dir(), &mchids, &context.ids, context.clock.now())?;
    let alipay_dir = config.alipay_keys_dir();
    let alipay_keys =
        alipay::Keys::load_or_create(&alipay_dir, &config.alipay.apps, &context.ids, context.clock.now())?;
    let faults = Faults::default();
    let office = |city, hours| Office::open(city, &place, context.clone(), faults.clone(), hours);
    let changsha = office(CHANGSHA, config.police_430100.hours)?;
    let taiyuan = office(TAIYUAN, config.police_140100.hours)?;
    let desk = Desk::open(config.wechatpay, keys, &place, context.clone(), faults.clone())?;
    let alipay = alipay::Desk::open(config.alipay, alipay_keys, &place, context.clone(), faults.clone())?;
    let offices = [changsha.clone(), taiyuan.clone()];
    let control = Arc::new(Control { faults, offices, desk: desk.clone(), alipay: alipay.clone() });

    let soap =
        changsha::Service { office: changsha, serial: config.police_430100.interface_serial, context: context.clone() };
    serve(&context, "sandbox control", control_at.0, control::router(control.clone()));
    serve(&context, "sandbox wechatpay", wechatpay_at.0, wechatpay::router(desk));
    serve(&context, "sandbox alipay", alipay_at.0, alipay::router(alipay));
    serve(&context, "sandbox police 430100", soap_at.0, changsha::router(Arc::new(soap)));
    let tcp = taiyuan::Service { office: taiyuan, institution: config.police_140100.institution };
    let running = taiyuan::serve(tcp_at.0, Arc::new(tcp), context.clone());
    context.tasks.spawn_critical("sandbox police 140100", running);
    Ok(Running { addresses, control })
}

impl Running {
    /// Pays an order at the sandbox's WeChat Pay as the citizen would; returns WeChat's number of the payment.
    pub async fn pay(&self, pay: &Pay) -> Result<String, PayError> {
        self.control.desk.pay(pay).await
    }

    /// Pays an order at the sandbox's Alipay as the citizen would; returns Alipay's number of the trade.
    pub async fn pay_alipay(&self, pay: &alipay::Pay) -> Result<String, alipay::PayError> {
        self.control.alipay.pay(pay).await
    }

    /// Returns the board of staged faults.
    pub fn faults(&self) -> &Faults {
        &self.control.faults
    }
}

async fn bind(context: &Context, address: &str) -> Result<(Listener, SocketAddr), Error> {
    let bound = context.net.bind(address).await;
    let listener = bound.map_err(|source| Error::Bind { address: address.to_owned(), source })?;
    let at = listener.local_addr();
    Ok((listener, at))
}

fn serve(context: &Context, name: &'static str, listener: Listener, router: axum::Router) {
    let limits = Limits {
        connections_max: CONNECTIONS_MAX,
        connections_per_ip_max: CONNECTIONS_MAX,
        request_timeout: runtime::config::Duration::from_secs(REQUEST_SECONDS),
        body_bytes_max: runtime::config::ByteSize::from_kib(BODY_KIB_MAX),
        ..Limits::default()
    };
    let serving = http::serve(listener, router, limits, context.tasks.clone(), context.clock.clone());
    context.tasks.spawn_critical(name, serving);
}
