//! The calls: sign, send, verify, read.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use contracts::money::{AMOUNT_MINOR_MAX, Currency};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use jiff::civil::Date;
use runtime::http::{Client, Effect, Options};
use runtime::secret::Pii;
use runtime::telemetry::{Counter, Family, Labels};
use runtime::{Context, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use super::keys::Account;
use super::signing::{self, Signed, VerifyingKey};
use super::trust::{self, Keys, PlatformCertificate, Trust};
use super::{Config, NAME, wire};
use crate::channel::keys::{KeyError, public_roots};
use crate::channel::{
    BillKind, CallbackError, Capabilities, Channel, ChannelError, Known, Notice, OrderStatus, PaySheet, RefundStatus,
    Refusal, Whole,
};
use crate::config::{Credentials, KeyFiles, Merchant};
use crate::domain::order::{Terms, TradeType};
use crate::domain::refund::Refund;

const ANSWER_BYTES_MAX: usize = 256 * 1024;
const NONCE_DIGITS: usize = 32;
pub(super) const SHEET_LIFE: Duration = Duration::from_secs(2 * 3_600);
/// How long the address for a phone's browser works.
const PAGE_LIFE: Duration = Duration::from_secs(5 * 60);
const ORDER_LIFE_MAX: Duration = Duration::from_secs(7 * 86_400);
const DESCRIPTION_BYTES_MAX: usize = 127;

/// Parameters of a pay call, by its own names.
type Parameters = BTreeMap<String, String>;

/// The driver.
pub struct WechatPay {
    pub(super) config: Config,
    pub(super) context: Context,
    pub(super) http: Client,
    accounts: BTreeMap<String, Account>,
    capabilities: Capabilities,
    calls: Family<Labels, Counter>,
}

impl WechatPay {
    /// Makes the driver and reads the keys of every merchant account.
    ///
    /// Errors: the first file that cannot be used.
    pub fn new(config: Config, merchants: &[Merchant], files: KeyFiles, context: Context) -> Result<Self, KeyError> {
        let mut accounts = BTreeMap::new();
        for merchant in merchants {
            if let Credentials::Wechatpay(credentials) = &merchant.credentials
                && !accounts.contains_key(&merchant.mch_id)
            {
                accounts
                    .insert(merchant.mch_id.clone(), Account::read(&merchant.mch_id, credentials, files, &context)?);
            }
        }
        let options = Options {
            connect_timeout: config.connect_timeout.get(),
            pool_idle: config.pool_idle.get(),
            tls: if config.base_url.starts_with("https:") { Some(public_roots()?) } else { None },
        };
        let combine_max = config.combine_max;
        let calls = context.metrics.counter(
            "lastmile_payments_channel_calls",
            "Calls to payment channels, by channel, call and how they came out.",
        );
        Ok(Self {
            http: Client::new(context.net.clone(), context.clock.clone(), options),
            accounts,
            calls,
            config,
            context,
            capabilities: Capabilities {
                channel: NAME,
                trade_types: &[TradeType::Jsapi, TradeType::Native, TradeType::App, TradeType::H5],
                payer_for: &[TradeType::Jsapi, TradeType::H5],
                currencies: &[Currency::CNY],
                amount_minor_max: AMOUNT_MINOR_MAX,
                description_bytes_max: DESCRIPTION_BYTES_MAX,
                order_life_max: ORDER_LIFE_MAX,
                sheet_life: SHEET_LIFE,
                known: Known::OnceCreated,
                bills: &[BillKind::Trades, BillKind::Funds],
                combine_max,
                // Its wire has the payer's openid and a JSAPI session in it.
                insured_by: &[TradeType::Jsapi],
            },
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    pub(super) fn account(&self, merchant: &str) -> Option<&Account> {
        self.accounts.get(merchant)
    }

    fn account_of(&self, terms: &Terms) -> Result<&Account, ChannelError> {
        self.account(&terms.merchant.number).ok_or_else(|| unsent("no keys for the merchant"))
    }

    /// Finds the keys that WeChat may sign with under `serial`; two while one is being replaced.
    pub(super) async fn keys(&self, account: &Account, serial: &str) -> Result<Vec<VerifyingKey>, ChannelError> {
        let cache = match &account.trust {
            Trust::Keys(keys) => {
                let good = keys.good();
                return Ok(good.iter().filter(|public| public.id == serial).map(|public| public.key.clone()).collect());
            }
            Trust::Certificates(cache) => cache,
        };
        let mut cache = cache.lock().await;
        let (found, wanted) = cache.look(serial, self.now(), self.config.certificates_refresh.get());
        if !wanted {
            return Ok(found.into_iter().collect());
        }
        cache.trying(self.now());
        match self.download(account).await {
            Ok(keys) => {
                let key = trust::find(&keys, serial, self.now());
                cache.load(keys, self.now());
                Ok(key.into_iter().collect())
            }
            // The old ones serve until their own end.
            Err(error) => found.map(|key| vec![key]).ok_or(error),
        }
    }

    /// Asks for the platform certificates of every merchant account that verifies with them.
    pub(crate) async fn platform_certificates(&self) -> Vec<(String, Result<Vec<PlatformCertificate>, ChannelError>)> {
        let mut asked = Vec::new();
        for (merchant, account) in &self.accounts {
            if matches!(account.trust, Trust::Certificates(_)) {
                asked.push((merchant.clone(), self.download(account).await.map(trust::ends)));
            }
        }
        asked
    }

    /// Downloads the platform certificates. The answer is signed with one of them.
    async fn download(&self, account: &Account) -> Result<Keys, ChannelError> {
        let answer = self.exchange(account, Method::GET, "/v3/certificates", String::new()).await?;
        let keys = trust::read(answer.body(), |sealed| account.open(sealed)).map_err(ChannelError::unusable)?;
        let signed = Signed::read(answer.headers(), self.now()).map_err(|_| ChannelError::unusable("signature"))?;
        let key = trust::find(&keys, signed.serial, self.now());
        if !key.is_some_and(|key| signed.covers(answer.body(), &key)) {
            return Err(ChannelError::unusable("signature of the certificates"));
        }
        Ok(keys)
    }

    /// Sends a call and reads its verified answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        call: &'static str,
        account: &Account,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<T, ChannelError> {
        let bytes = self.call(call, account, method, target, body).await?;
        serde_json::from_slice(&bytes).map_err(|_| ChannelError::unusable("body"))
    }

    /// Sends a call, counts how it came out, and hands back the body of its verified answer.
    pub(super) async fn call(
        &self,
        call: &'static str,
        account: &Account,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<Bytes, ChannelError> {
        let span = tracing::info_span!("payments.channel", channel = NAME, call);
        let answer = self.verified(account, method, target, body).instrument(span).await;
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(ChannelError::NotKnown) => "not_known",
            Err(ChannelError::Refused { .. } | ChannelError::Otherwise { .. }) => "refused",
            Err(ChannelError::NotNow { .. }) => "not_now",
            Err(ChannelError::NoAnswer { effect: Effect::None, .. }) => "unreachable",
            Err(ChannelError::NoAnswer { .. }) => "no_answer",
        };
        let labels = vec![("channel", NAME.into()), ("call", call.into()), ("outcome", outcome.into())];
        self.calls.get_or_create(&labels).inc();
        answer
    }

    async fn verified(
        &self,
        account: &Account,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<Bytes, ChannelError> {
        let answer = self.exchange(account, method, target, body).await?;
        let signed = Signed::read(answer.headers(), self.now()).map_err(|_| ChannelError::unusable("signature"))?;
        let keys = match self.keys(account, signed.serial).await {
            Ok(keys) => keys,
            // The call itself went through: not to be able to verify its answer does not undo it.
            Err(error) => return Err(possible("key to verify with", error)),
        };
        if !keys.iter().any(|key| signed.covers(answer.body(), key)) {
            return Err(ChannelError::unusable("signature"));
        }
        Ok(answer.into_body())
    }

    /// Signs and sends a request; hands back an answer that says success and is not yet verified.
    async fn exchange(
        &self,
        account: &Account,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<Response<Bytes>, ChannelError> {
        let request = self.signed(account, method, target, body)?;
        let answer = self.http.send(request, self.config.call_timeout.get(), ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|error| ChannelError::NoAnswer {
            effect: error.effect,
            what: "transport",
            source: Some(Box::new(error)),
        })?;
        // 202 says that the payment is still going on.
        if answer.status().is_success() && answer.status() != http::StatusCode::ACCEPTED {
            Ok(answer)
        } else {
            Err(wire::refusal(answer.status(), answer.body()))
        }
    }

    pub(super) fn signed(
        &self,
        account: &Account,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<Request<Bytes>, ChannelError> {
        let address = format!("{}{target}", self.config.base_url.trim_end_matches('/'));
        let uri: http::Uri = address.parse().map_err(|_| unsent("address"))?;
        let covered = uri.path_and_query().map_or("/", |path| path.as_str());
        let (seconds, _) = self.now().seconds_nanos();
        let nonce = self.context.ids.hex(NONCE_DIGITS);
        let message = signing::request_message(&method, covered, seconds, &nonce, &body);
        let keys = account.keys.current();
        let signature = keys.key.sign(&message).ok_or_else(|| unsent("signing"))?;
        let authorization = signing::authorization(&account.number, &keys.serial, seconds, &nonce, &signature);
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::AUTHORIZATION, authorization)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "lastmile");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Trust::Keys(keys) = &account.trust {
            request = request.header(signing::H_SERIAL, &keys.current().id);
        }
        request.body(Bytes::from(body)).map_err(|_| unsent("request"))
    }

    /// Makes what the super app's pay call takes.
    fn jsapi(&self, account: &Account, terms: &Terms, prepay_id: &str) -> Result<Parameters, ChannelError> {
        let package = format!("prepay_id={prepay_id}");
        let (seconds, nonce, signature) = self.signed_sheet(account, terms, &package)?;
        Ok(parameters([
            ("appId", terms.app_id.clone()),
            ("timeStamp", seconds),
            ("nonceStr", nonce),
            ("package", package),
            ("signType", "RSA".to_owned()),
            ("paySign", signature),
        ]))
    }

    /// Makes what WeChat's SDK in a native app takes. What is signed of the session is the bare id.
    fn app(&self, account: &Account, terms: &Terms, prepay_id: &str) -> Result<Parameters, ChannelError> {
        let (seconds, nonce, signature) = self.signed_sheet(account, terms, prepay_id)?;
        Ok(parameters([
            ("appid", terms.app_id.clone()),
            ("partnerid", account.number.clone()),
            ("prepayid", prepay_id.to_owned()),
            ("package", "Sign=WXPay".to_owned()),
            ("noncestr", nonce),
            ("timestamp", seconds),
            ("sign", signature),
        ]))
    }

    /// Signs a pay sheet: its time, its nonce, and the signature over them, the app and `session`.
    fn signed_sheet(
        &self,
        account: &Account,
        terms: &Terms,
        session: &str,
    ) -> Result<(String, String, String), ChannelError> {
        let (seconds, _) = self.now().seconds_nanos();
        let nonce = self.context.ids.hex(NONCE_DIGITS);
        let message = signing::sheet_message(&terms.app_id, seconds, &nonce, session);
        let signature = account.keys.current().key.sign(&message).ok_or_else(|| ChannelError::unusable("signing"))?;
        Ok((seconds.to_string(), nonce, signature))
    }

    async fn create_order(&self, terms: &Terms, payer: Option<&Pii<String>>) -> Result<PaySheet, ChannelError> {
        let account = self.account_of(terms)?;
        let body = wire::CreateBody::new(terms, payer.map(|payer| payer.expose().as_str()));
        let body = json(&body.ok_or_else(|| unsent("time of the order's end"))?)?;
        let target = format!("/v3/pay/transactions/{}", terms.trade_type);
        let told: wire::CreatedBody = self.ask("create", account, Method::POST, &target, body).await?;
        self.sheet(account, terms, told)
    }

    /// Makes the pay sheet of a session.
    pub(super) fn sheet(
        &self,
        account: &Account,
        terms: &Terms,
        told: wire::CreatedBody,
    ) -> Result<PaySheet, ChannelError> {
        let life = if terms.trade_type == TradeType::H5 { PAGE_LIFE } else { SHEET_LIFE };
        let mut sheet = PaySheet::empty(terms.trade_type, terms.expire_at.min(self.now().plus(life)));
        match terms.trade_type {
            TradeType::Jsapi if wire::is_prepay_id(&told.prepay_id) => {
                sheet.jsapi = self.jsapi(account, terms, &told.prepay_id)?;
            }
            TradeType::App if wire::is_prepay_id(&told.prepay_id) => {
                sheet.jsapi = self.app(account, terms, &told.prepay_id)?;
            }
            TradeType::Native if wire::is_code_url(&told.code_url) => sheet.code_url = told.code_url,
            TradeType::H5 if wire::is_page_url(&told.h5_url) => sheet.page_url = told.h5_url,
            // What is not declared is refused before it comes here.
            _ => return Err(ChannelError::unusable("body")),
        }
        Ok(sheet)
    }

    pub(super) async fn query_order(&self, terms: &Terms) -> Result<OrderStatus, ChannelError> {
        let account = self.account_of(terms)?;
        let (order_no, merchant) = (&terms.channel_order_no, &terms.merchant.number);
        let target = format!("/v3/pay/transactions/out-trade-no/{order_no}?mchid={merchant}");
        let told: wire::Transaction = self.ask("query", account, Method::GET, &target, String::new()).await?;
        if !told.is_of(merchant) || told.appid != terms.app_id || told.out_trade_no != *order_no {
            return Err(ChannelError::unusable("answer about another order"));
        }
        told.status().map_err(ChannelError::unusable)
    }

    async fn close_order(&self, terms: &Terms) -> Result<(), ChannelError> {
        let account = self.account_of(terms)?;
        let target = format!("/v3/pay/transactions/out-trade-no/{}/close", terms.channel_order_no);
        let body = json(&wire::CloseBody { mchid: &terms.merchant.number })?;
        self.call("close", account, Method::POST, &target, body).await.map(|_| ())
    }

    pub(super) async fn send_refund(&self, terms: &Terms, refund: &Refund) -> Result<RefundStatus, ChannelError> {
        let account = self.account_of(terms)?;
        let body = json(&wire::RefundBody::new(terms, refund))?;
        let told: wire::RefundTold =
            self.ask("refund", account, Method::POST, "/v3/refund/domestic/refunds", body).await?;
        told.status(terms, refund).map_err(ChannelError::unusable)
    }

    pub(super) async fn ask_refund(&self, terms: &Terms, refund: &Refund) -> Result<RefundStatus, ChannelError> {
        let account = self.account_of(terms)?;
        let target = format!("/v3/refund/domestic/refunds/{}", refund.channel_refund_no());
        let told: wire::RefundTold = self.ask("query_refund", account, Method::GET, &target, String::new()).await?;
        told.status(terms, refund).map_err(ChannelError::unusable)
    }
}

impl Channel for WechatPay {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn notify_url(&self, merchant: &str) -> String {
        self.config.notify_url(merchant)
    }

    fn create<'a>(
        &'a self,
        terms: &'a Terms,
        payer: Option<&'a Pii<String>>,
    ) -> BoxFuture<'a, Result<PaySheet, ChannelError>> {
        match &terms.insured {
            None => self.create_order(terms, payer).boxed(),
            Some(insured) => self.create_insured(terms, insured, payer).boxed(),
        }
    }

    fn query<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<OrderStatus, ChannelError>> {
        match &terms.insured {
            None => self.query_order(terms).boxed(),
            Some(insured) => self.ask_insured(terms, insured).boxed(),
        }
    }

    fn close<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<(), ChannelError>> {
        match &terms.insured {
            // There is nothing at the channel that could be closed.
            Some(insured) if !insured.mix.has_cash() => std::future::ready(Ok(())).boxed(),
            // Without its cash leg the whole comes to nothing.
            None | Some(_) => self.close_order(terms).boxed(),
        }
    }

    fn refund<'a>(&'a self, terms: &'a Terms, refund: &'a Refund) -> BoxFuture<'a, Result<RefundStatus, ChannelError>> {
        match &terms.insured {
            None => self.send_refund(terms, refund).boxed(),
            Some(insured) => self.give_back(terms, insured, refund).boxed(),
        }
    }

    fn query_refund<'a>(
        &'a self,
        terms: &'a Terms,
        refund: &'a Refund,
    ) -> BoxFuture<'a, Result<RefundStatus, ChannelError>> {
        match &terms.insured {
            None => self.ask_refund(terms, refund).boxed(),
            Some(insured) => self.ask_back(terms, insured, refund).boxed(),
        }
    }

    fn create_combined<'a>(
        &'a self,
        whole: &'a Whole,
        parts: &'a [Terms],
        payer: Option<&'a Pii<String>>,
    ) -> BoxFuture<'a, Result<PaySheet, ChannelError>> {
        self.combine(whole, parts, payer).boxed()
    }

    fn query_combined<'a>(
        &'a self,
        whole: &'a Whole,
        parts: &'a [Terms],
    ) -> BoxFuture<'a, Result<Vec<OrderStatus>, ChannelError>> {
        self.ask_combined(whole, parts).boxed()
    }

    fn close_combined<'a>(&'a self, whole: &'a Whole, parts: &'a [Terms]) -> BoxFuture<'a, Result<(), ChannelError>> {
        self.end_combined(whole, parts).boxed()
    }

    fn bill<'a>(
        &'a self,
        merchant: &'a str,
        day: Date,
        kind: BillKind,
        file: &'a Path,
    ) -> BoxFuture<'a, Result<u64, ChannelError>> {
        self.fetch_bill(merchant, day, kind, file).boxed()
    }

    fn open_callback<'a>(
        &'a self,
        merchant: &'a str,
        headers: &'a HeaderMap,
        body: &'a Bytes,
    ) -> BoxFuture<'a, Result<Notice, CallbackError>> {
        self.open(merchant, headers, body).boxed()
    }

    fn reply(&self, refusal: Option<&Refusal>) -> Response<Bytes> {
        let Some(refusal) = refusal else {
            let mut acknowledged = Response::new(Bytes::new());
            *acknowledged.status_mut() = StatusCode::NO_CONTENT;
            return acknowledged;
        };
        let body = serde_json::json!({ "code": refusal.code, "message": refusal.message });
        let mut refused = Response::new(Bytes::from(body.to_string()));
        *refused.status_mut() = refusal.status;
        refused.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        refused
    }
}

fn parameters<const N: usize>(fields: [(&str, String); N]) -> Parameters {
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

pub(super) fn json(body: &impl Serialize) -> Result<String, ChannelError> {
    serde_json::to_string(body).map_err(|_| unsent("body"))
}

/// Something went wrong before a byte was sent.
pub(super) fn unsent(what: &'static str) -> ChannelError {
    ChannelError::NoAnswer { effect: Effect::None, what, source: None }
}

/// The call may have acted, whatever became of a later one.
pub(super) fn possible(what: &'static str, error: ChannelError) -> ChannelError {
    ChannelError::NoAnswer { effect: Effect::Possible, what, source: Some(Box::new(error)) }
}
