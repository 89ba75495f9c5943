//! The till alone, for `bench/ledger.sh`: orders and captures go the way that calls and callbacks go, to a channel that answers at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contracts::ids::OrderId;
use contracts::money::{Currency, Money};
use contracts::payments::v1 as pb;
use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use http::{HeaderMap, Response};
use prost::Message;
use runtime::Context;
use runtime::secret::Pii;
use store::Db;
use tokio::time::Instant;

use crate::channel::{
    CallbackError, Capabilities, Channel, ChannelError, Known, Notice, OrderStatus, PaySheet, RefundStatus, Refusal,
    wechatpay,
};
use crate::config::{Config, Credentials, Merchant, Payee};
use crate::convert::CreateAsk;
use crate::domain::ledger;
use crate::domain::order::{Capture, Terms, TradeType};
use crate::domain::refund::Refund;
use crate::repo::requests::{Key, Method};
use crate::till::Till;
use crate::vault::Vault;

/// The channel that is played.
const CHANNEL: &str = wechatpay::NAME;
const MERCHANT: &str = "1900000001";
const APP: &str = "wx0";
const PAYEE: &str = "traffic-430100";
const AMOUNT_MINOR: i64 = 20_000;
const LIFE: Duration = Duration::from_secs(3_600);

/// One kind of work, measured.
#[derive(Debug)]
pub struct Phase {
    /// From the first call to the last answer.
    pub span: Duration,
    /// How long each call took, the shortest first.
    pub calls: Vec<Duration>,
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// Orders, from the call to the pay sheet: two transactions each.
    pub orders: Phase,
    /// Captures, from the callback to its acknowledgement: order, transfer, balances, event.
    pub captures: Phase,
}

/// Makes `orders` orders from `clients` at once, and then takes their money.
///
/// Errors: the store's, or a call that was refused: nothing here should be.
pub async fn run(db: &Db, context: &Context, dir: &Path, clients: usize, orders: usize) -> anyhow::Result<Measured> {
    db.migrate(crate::MIGRATIONS).await?;
    let vault = Vault::open(&dir.join("payer.key"), context.ids.clone())?;
    let channels: Vec<Arc<dyn Channel>> = vec![Arc::new(AtOnce)];
    let till = Arc::new(Till::new(config(), context.clone(), db.clone(), channels, Some(vault))?);
    let each = orders.div_ceil(clients.max(1));
    let run = context.ids.hex(8);
    let (created, span) = at_once(clients, |client| {
        let (till, run) = (Arc::clone(&till), run.clone());
        async move {
            let mut made = Vec::with_capacity(each);
            for number in 0..each {
                let begun = Instant::now();
                let ask = ask(format!("{run}-{client}-{number}"), till.context.clock.now().plus(LIFE))?;
                let answer = pb::CreateOrderResponse::decode(till.create(ask).await?.as_slice())?;
                let order = answer.order.map(|order| order.order_id).unwrap_or_default();
                made.push((order.parse::<OrderId>()?, begun.elapsed()));
            }
            Ok(made)
        }
    })
    .await?;
    let orders = Phase { span, calls: sorted(created.iter().flatten().map(|(_, took)| *took)) };
    let created = Arc::new(created);
    let (captured, span) = at_once(clients, |client| {
        let (till, created) = (Arc::clone(&till), Arc::clone(&created));
        async move {
            let merchant = ledger::Merchant { channel: CHANNEL.into(), number: MERCHANT.into() };
            let mut calls = Vec::with_capacity(each);
            for (order, _) in created.get(client).into_iter().flatten() {
                let begun = Instant::now();
                till.heed(&merchant, paid(*order, &till)?).await?;
                calls.push(begun.elapsed());
            }
            Ok(calls)
        }
    })
    .await?;
    Ok(Measured { orders, captures: Phase { span, calls: sorted(captured.into_iter().flatten()) } })
}

async fn at_once<T, F>(clients: usize, work: impl Fn(usize) -> F) -> anyhow::Result<(Vec<T>, Duration)>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let begun = Instant::now();
    let done = try_join_all((0..clients).map(|client| work(client).boxed())).await?;
    Ok((done, begun.elapsed()))
}

fn sorted(calls: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut calls: Vec<_> = calls.collect();
    calls.sort_unstable();
    calls
}

fn config() -> Config {
    let merchant = Merchant {
        entry_point: "wechat".into(),
        payee_id: "*".into(),
        app_id: APP.into(),
        mch_id: MERCHANT.into(),
        credentials: Credentials::Wechatpay(wechatpay::Credentials {
            serial: "00".into(),
            private_key_file: Default::default(),
            certificate_file: None,
            api_v3_key_file: Default::default(),
            verification: wechatpay::Verification::PlatformCertificates,
        }),
    };
    let payee = Payee { payee_id: PAYEE.into(), name: "Changsha traffic police".into() };
    Config { payees: vec![payee], merchants: vec![merchant], ..Config::default() }
}

fn ask(request_id: String, expire_at: runtime::Timestamp) -> anyhow::Result<CreateAsk> {
    Ok(CreateAsk {
        key: Key { caller: "cases".into(), method: Method::CreateOrder, request_id, digest: [0; 32] },
        case_id: "case_0192000000007000800000000000002a".into(),
        payee_id: PAYEE.into(),
        amount: amount()?,
        channel: CHANNEL.into(),
        trade_type: TradeType::Jsapi,
        entry_point: "wechat".into(),
        payer: Some(Pii::new("oUpF8uMuAJO_M2pxb1Q9zNjWeS6o".into())),
        description: "traffic fine".into(),
        expire_at,
        payment_code: None,
        insurance: None,
    })
}

fn amount() -> anyhow::Result<Money> {
    Ok(Money::new(AMOUNT_MINOR, Currency::CNY)?)
}

fn paid(order: OrderId, till: &Till) -> anyhow::Result<Notice> {
    let number = crate::till::number_of(order.bits());
    let capture = Capture { amount: amount()?, transaction: format!("42{number}"), at: till.context.clock.now() };
    Ok(Notice::Paid { channel_order_no: number, app_id: APP.into(), capture })
}

/// A channel that has done everything before it is asked.
struct AtOnce;

impl Channel for AtOnce {
    fn capabilities(&self) -> &Capabilities {
        static CAPABILITIES: Capabilities = Capabilities {
            channel: CHANNEL,
            trade_types: &[TradeType::Jsapi],
            payer_for: &[TradeType::Jsapi],
            currencies: &[Currency::CNY],
            amount_minor_max: i64::MAX,
            description_bytes_max: 127,
            order_life_max: LIFE.saturating_mul(2),
            sheet_life: LIFE,
            known: Known::OnceCreated,
            bills: &[],
            combine_max: 0,
            insured_by: &[],
        };
        &CAPABILITIES
    }

    fn notify_url(&self, merchant: &str) -> String {
        format!("http://payments/callbacks/{CHANNEL}/{merchant}")
    }

    fn create<'a>(
        &'a self,
        terms: &'a Terms,
        _: Option<&'a Pii<String>>,
    ) -> BoxFuture<'a, Result<PaySheet, ChannelError>> {
        let package = format!("prepay_id=wx{}", terms.channel_order_no);
        let mut sheet = PaySheet::empty(TradeType::Jsapi, terms.expire_at);
        sheet.jsapi.insert("package".to_owned(), package);
        async move { Ok(sheet) }.boxed()
    }

    fn query<'a>(&'a self, _: &'a Terms) -> BoxFuture<'a, Result<OrderStatus, ChannelError>> {
        async { Ok(OrderStatus::Pending) }.boxed()
    }

    fn close<'a>(&'a self, _: &'a Terms) -> BoxFuture<'a, Result<(), ChannelError>> {
        async { Ok(()) }.boxed()
    }

    fn refund<'a>(&'a self, _: &'a Terms, _: &'a Refund) -> BoxFuture<'a, Result<RefundStatus, ChannelError>> {
        async { Err(ChannelError::NotKnown) }.boxed()
    }

    fn query_refund<'a>(&'a self, _: &'a Terms, _: &'a Refund) -> BoxFuture<'a, Result<RefundStatus, ChannelError>> {
        async { Err(ChannelError::NotKnown) }.boxed()
    }

    fn open_callback<'a>(
        &'a self,
        _: &'a str,
        _: &'a HeaderMap,
        _: &'a Bytes,
    ) -> BoxFuture<'a, Result<Notice, CallbackError>> {
        async { Ok(Notice::Other) }.boxed()
    }

    fn reply(&self, _: Option<&Refusal>) -> Response<Bytes> {
        Response::new(Bytes::new())
    }
}
