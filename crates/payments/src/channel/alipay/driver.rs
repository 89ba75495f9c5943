//! The calls: sign, send, verify, read.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use contracts::money::AMOUNT_MINOR_MAX;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use jiff::civil::Date;
use runtime::http::{Client, Effect, Options};
use runtime::secret::Pii;
use runtime::telemetry::{Counter, Family, Labels};
use runtime::{Clock, Context, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use super::certificates::{Certified, Numbers};
use super::params::{self, Params};
use super::rest::{self, Signed};
use super::{Api, Config, NAME, answer, wire};
use crate::channel::download::{self, broken};
use crate::channel::keyfiles::KeyFiles;
use crate::channel::keys::{KeyError, SigningKey, VerifyingKey, public_roots};
use crate::channel::{
    BillKind, CallbackError, Capabilities, Channel, ChannelError, Known, Notice, OrderStatus, PaySheet, RefundStatus,
    Refusal, not_offered,
};
use crate::config::{self, Credentials, Merchant};
use crate::domain::order::{Terms, TradeType};
use crate::domain::refund::Refund;

const ANSWER_BYTES_MAX: usize = 256 * 1_024;
const NONCE_DIGITS: usize = 32;
const SHEET_LIFE: Duration = Duration::from_secs(2 * 3_600);
const ORDER_LIFE_MAX: Duration = Duration::from_secs(7 * 86_400);
const DESCRIPTION_BYTES_MAX: usize = 256;
const GATEWAY: &str = "/gateway.do";

/// The driver.
pub struct Alipay {
    config: Config,
    context: Context,
    http: Client,
    /// By the seller's id and the app's.
    accounts: BTreeMap<(String, String), Account>,
    capabilities: Capabilities,
    calls: Family<Labels, Counter>,
}

/// An app of a merchant, with its keys.
pub(super) struct Account {
    pub(super) app_id: String,
    api: Api,
    return_url: String,
    own: KeyFiles<Own>,
    alipay: KeyFiles<Theirs>,
    clock: Clock,
}

/// What an app signs with, and what its requests name in certificate mode.
struct Own {
    key: SigningKey,
    numbers: Option<Numbers>,
}

/// What Alipay signs with.
enum Theirs {
    Bare(VerifyingKey),
    Certified(Certified),
}

/// A call: how we count it, and how Alipay names it.
#[derive(Clone, Copy)]
struct Call(&'static str, &'static str);

impl Account {
    fn read(
        app_id: &str,
        credentials: &super::Credentials,
        rules: config::KeyFiles,
        context: &Context,
    ) -> Result<Self, KeyError> {
        let (private, certificates) = (credentials.private_key_file.clone(), credentials.certificates.clone());
        let (own_files, alipay_files) = match &certificates {
            None => (vec![private.clone()], vec![credentials.alipay_public_key_file.clone()]),
            Some(files) => (
                vec![private.clone(), files.app_file.clone(), files.root_file.clone()],
                vec![files.alipay_file.clone(), files.root_file.clone()],
            ),
        };
        let own = {
            let certificates = certificates.clone();
            move || {
                let key = SigningKey::read(&private)?;
                let numbers = certificates.as_ref().map(|files| Numbers::read(files, &key)).transpose()?;
                Ok(Own { key, numbers })
            }
        };
        let public = credentials.alipay_public_key_file.clone();
        let theirs = move || match &certificates {
            None => VerifyingKey::read(&public).map(Theirs::Bare),
            Some(files) => Certified::read(files).map(Theirs::Certified),
        };
        Ok(Self {
            app_id: app_id.to_owned(),
            api: credentials.api,
            return_url: credentials.return_url.clone(),
            own: KeyFiles::open(NAME, own_files, rules, context, own)?,
            alipay: KeyFiles::open(NAME, alipay_files, rules, context, theirs)?,
            clock: context.clock.clone(),
        })
    }

    /// Whether Alipay signed this for the app, with its key or with the one before it. `certificate`: which one it says that it is of.
    pub(super) fn verifies(&self, message: &[u8], signature: &str, certificate: Option<&str>) -> bool {
        let (good, now) = (self.alipay.good(), self.clock.now());
        let is_of = |theirs: &Theirs| match (theirs, certificate) {
            (Theirs::Certified(held), Some(named)) => held.number == named,
            _ => true,
        };
        if !good.iter().any(|theirs| is_of(theirs)) {
            tracing::error!(
                app_id = self.app_id,
                certificate,
                "Alipay signs with a certificate that is not here: put it at certificates.alipay_file"
            );
        }
        good.iter().any(|theirs| match &**theirs {
            Theirs::Bare(key) => key.verifies(message, signature),
            Theirs::Certified(held) => {
                let is_good = held.begins <= now && now <= held.ends;
                if !is_good {
                    tracing::error!(
                        app_id = self.app_id,
                        certificate = held.number,
                        "Alipay's certificate is not good now: nothing of it is believed"
                    );
                }
                is_good && is_of(theirs) && held.key.verifies(message, signature)
            }
        })
    }
}

impl Alipay {
    /// Makes the driver and reads the keys of every merchant account.
    ///
    /// Errors: the first file that cannot be used.
    pub fn new(
        config: Config,
        key_files: config::KeyFiles,
        merchants: &[Merchant],
        context: Context,
    ) -> Result<Self, KeyError> {
        let mut accounts = BTreeMap::new();
        for merchant in merchants {
            let Credentials::Alipay(credentials) = &merchant.credentials else { continue };
            if let Entry::Vacant(free) = accounts.entry((merchant.mch_id.clone(), merchant.app_id.clone())) {
                free.insert(Account::read(&merchant.app_id, credentials, key_files, &context)?);
            }
        }
        let options = Options {
            connect_timeout: config.connect_timeout.get(),
            pool_idle: config.pool_idle.get(),
            tls: if config.base_url.starts_with("https:") { Some(public_roots()?) } else { None },
        };
        Ok(Self {
            http: Client::new(context.net.clone(), context.clock.clone(), options),
            accounts,
            calls: context.metrics.counter(
                "lastmile_payments_channel_calls",
                "Calls to payment channels, by channel, call and how they came out.",
            ),
            config,
            context,
            capabilities: Capabilities {
                channel: NAME,
                trade_types: &[TradeType::Native, TradeType::App, TradeType::H5, TradeType::Web],
                currencies: &[wire::CURRENCY],
                amount_minor_max: AMOUNT_MINOR_MAX,
                description_bytes_max: DESCRIPTION_BYTES_MAX,
                order_life_max: ORDER_LIFE_MAX,
                bills: &[BillKind::Trades],
                combine_max: 0,
                insured_by: &[],
                payer_for: &[],
                sheet_life: SHEET_LIFE,
                known: Known::OnceOpened,
            },
        })
    }

    /// The apps of a seller.
    pub(super) fn accounts_of<'a>(&'a self, seller: &'a str) -> impl Iterator<Item = &'a Account> {
        self.accounts.iter().filter(move |((of, _), _)| of == seller).map(|(_, account)| account)
    }

    fn account_of(&self, terms: &Terms) -> Result<&Account, ChannelError> {
        let name = (terms.merchant.number.clone(), terms.app_id.clone());
        self.accounts.get(&name).ok_or_else(|| unsent("no keys for the merchant"))
    }

    fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// Sends a call, counts how it came out, and reads its verified answer.
    async fn ask<T: DeserializeOwned>(
        &self,
        Call(call, method): Call,
        account: &Account,
        body: String,
        notify_url: Option<&str>,
    ) -> Result<T, ChannelError> {
        let span = tracing::info_span!("payments.channel", channel = NAME, call);
        let told = async {
            match account.api {
                Api::V2 => self.by_gateway(account, method, body, notify_url).await,
                Api::V3 => self.by_rest(account, Method::POST, &rest::target(method), body).await,
            }
        };
        let told = told.instrument(span).await;
        self.counted(call, told)
    }

    /// Counts how a call came out, and reads its verified answer.
    fn counted<T: DeserializeOwned>(
        &self,
        call: &'static str,
        told: Result<String, ChannelError>,
    ) -> Result<T, ChannelError> {
        let outcome = match &told {
            Ok(_) => "ok",
            Err(ChannelError::NotKnown) => "not_known",
            Err(ChannelError::Refused { .. } | ChannelError::Otherwise { .. }) => "refused",
            Err(ChannelError::NotNow { .. }) => "not_now",
            Err(ChannelError::NoAnswer { effect: Effect::None, .. }) => "unreachable",
            Err(ChannelError::NoAnswer { .. }) => "no_answer",
        };
        let labels = vec![("channel", NAME.into()), ("call", call.into()), ("outcome", outcome.into())];
        self.calls.get_or_create(&labels).inc();
        serde_json::from_str(&told?).map_err(|_| ChannelError::unusable("body"))
    }

    /// Hands back the verified node of a success.
    async fn by_gateway(
        &self,
        account: &Account,
        method: &str,
        content: String,
        notify_url: Option<&str>,
    ) -> Result<String, ChannelError> {
        let mut params = self.signed(account, method, content, notify_url, None)?;
        let content = Params::from_iter(params.remove_entry("biz_content"));
        let address = format!("{}{GATEWAY}?{}", self.base(), params::encoded(&params));
        let request = Request::post(address)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded;charset=utf-8")
            .header(header::USER_AGENT, "lastmile")
            .body(Bytes::from(params::encoded(&content)))
            .map_err(|_| unsent("request"))?;
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(ChannelError::unusable("status"));
        }
        let answer::Envelope { node, sign, certificate } =
            answer::open(answer.body(), method).map_err(ChannelError::unusable)?;
        let is_signed = sign.is_some();
        if sign.is_some_and(|sign| !account.verifies(node.raw.as_bytes(), &sign, certificate.as_deref())) {
            return Err(ChannelError::unusable("signature"));
        }
        let outcome: wire::Outcome = serde_json::from_str(node.raw).map_err(|_| ChannelError::unusable("body"))?;
        outcome.result(is_signed).map(|()| node.raw.to_owned())
    }

    /// Hands back the verified body of a success.
    async fn by_rest(
        &self,
        account: &Account,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<String, ChannelError> {
        let answer = self.send(self.rest_request(account, method, target, body)?).await?;
        let body = answer.body();
        let signed = Signed::read(answer.headers());
        let holds = signed.map(|signed| account.verifies(&signed.message(body), signed.signature, None));
        match (answer.status().is_success(), holds) {
            (_, Some(false)) | (true, None) => Err(ChannelError::unusable("signature")),
            (true, Some(true)) => String::from_utf8(body.to_vec()).map_err(|_| ChannelError::unusable("encoding")),
            // The door may refuse somebody whom it does not know, and then has no key to sign for.
            (false, _) => Err(wire::rest_refusal(answer.status(), body)),
        }
    }

    fn rest_request(
        &self,
        account: &Account,
        method: Method,
        target: &str,
        body: String,
    ) -> Result<Request<Bytes>, ChannelError> {
        let address = format!("{}{target}", self.base());
        let uri: http::Uri = address.parse().map_err(|_| unsent("address"))?;
        let covered = uri.path_and_query().map_or("/", |path| path.as_str());
        let nonce = self.context.ids.hex(NONCE_DIGITS);
        let own = account.own.current();
        let certificate = own.numbers.as_ref().map(|numbers| numbers.app.as_str());
        let asker = rest::asker(&account.app_id, certificate, &nonce, self.now().micros().div_euclid(1_000));
        let message = rest::request_message(&asker, &method, covered, &body);
        let signature = own.key.sign(&message).ok_or_else(|| unsent("signing"))?;
        let mut request = Request::builder();
        if let Some(numbers) = &own.numbers {
            request = request.header(rest::H_ROOT, &numbers.root);
        }
        request
            .method(method)
            .uri(uri)
            .header(header::AUTHORIZATION, rest::authorization(&asker, &signature))
            .header("alipay-request-id", nonce)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "lastmile")
            .body(Bytes::from(body))
            .map_err(|_| unsent("request"))
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ChannelError> {
        let answer = self.http.send(request, self.config.call_timeout.get(), ANSWER_BYTES_MAX).await;
        answer.map_err(|error| ChannelError::NoAnswer {
            effect: error.effect,
            what: "transport",
            source: Some(Box::new(error)),
        })
    }

    /// All parameters of a call as the gateway wants it, signed.
    fn signed(
        &self,
        account: &Account,
        method: &str,
        content: String,
        notify_url: Option<&str>,
        return_url: Option<&str>,
    ) -> Result<Params, ChannelError> {
        let timestamp = wire::beijing(self.now()).ok_or_else(|| unsent("time"))?;
        let own = account.own.current();
        let (app_certificate, root_certificate) =
            own.numbers.as_ref().map_or(("", ""), |numbers| (&numbers.app, &numbers.root));
        let params = [
            ("alipay_root_cert_sn", root_certificate),
            ("app_cert_sn", app_certificate),
            ("app_id", account.app_id.as_str()),
            ("biz_content", &content),
            ("charset", "utf-8"),
            ("format", "JSON"),
            ("method", method),
            ("notify_url", notify_url.unwrap_or_default()),
            ("return_url", return_url.unwrap_or_default()),
            ("sign_type", "RSA2"),
            ("timestamp", &timestamp),
            ("version", "1.0"),
        ];
        let given = params.into_iter().filter(|(_, value)| !value.is_empty());
        let mut params: Params = given.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let signature = own.key.sign(&params::of_request(&params)).ok_or_else(|| unsent("signing"))?;
        params.insert("sign".to_owned(), signature);
        Ok(params)
    }

    fn base(&self) -> &str {
        self.config.base_url.trim_end_matches('/')
    }

    async fn create_order(&self, terms: &Terms) -> Result<PaySheet, ChannelError> {
        let account = self.account_of(terms)?;
        let mut body =
            wire::OrderBody::new(terms, &account.return_url).ok_or_else(|| unsent("time of the order's end"))?;
        let mut sheet = PaySheet::empty(terms.trade_type, terms.expire_at.min(self.now().plus(SHEET_LIFE)));
        match terms.trade_type {
            TradeType::Native => {
                let notify_url = Some(terms.notify_url.as_str());
                // The address is a parameter of the gateway, and a field of the REST form.
                body.notify_url = notify_url.filter(|_| account.api == Api::V3);
                let call = Call("create", "alipay.trade.precreate");
                let told: wire::PrecreatedBody = self.ask(call, account, json(&body)?, notify_url).await?;
                if told.out_trade_no != terms.channel_order_no || !wire::is_code_url(&told.qr_code) {
                    return Err(ChannelError::unusable("body"));
                }
                sheet.code_url = told.qr_code;
            }
            TradeType::App => sheet.order_string = self.opened_with(account, "alipay.trade.app.pay", terms, &body)?,
            TradeType::H5 => sheet.page_url = self.page(account, "alipay.trade.wap.pay", terms, &body)?,
            TradeType::Web => sheet.page_url = self.page(account, "alipay.trade.page.pay", terms, &body)?,
            // What is not declared is refused before it comes here.
            TradeType::Jsapi => return Err(unsent("trade type")),
        }
        Ok(sheet)
    }

    fn page(
        &self,
        account: &Account,
        method: &str,
        terms: &Terms,
        body: &wire::OrderBody<'_>,
    ) -> Result<String, ChannelError> {
        let address = format!("{}{GATEWAY}?{}", self.base(), self.opened_with(account, method, terms, body)?);
        // The address before the parameters counts, too.
        Some(address).filter(|text| text.len() <= params::TEXT_BYTES_MAX).ok_or_else(|| unsent("address too long"))
    }

    /// What the citizen's own client opens the order with: signed here, told to Alipay by nobody but that client.
    fn opened_with(
        &self,
        account: &Account,
        method: &str,
        terms: &Terms,
        body: &wire::OrderBody<'_>,
    ) -> Result<String, ChannelError> {
        let params =
            self.signed(account, method, json(body)?, Some(terms.notify_url.as_str()), Some(&account.return_url))?;
        let text = params::encoded(&params);
        Some(text).filter(|text| text.len() <= params::TEXT_BYTES_MAX).ok_or_else(|| unsent("order too long"))
    }

    async fn query_order(&self, terms: &Terms) -> Result<OrderStatus, ChannelError> {
        let account = self.account_of(terms)?;
        let body = json(&wire::NamedBody { out_trade_no: &terms.channel_order_no })?;
        let told: wire::Trade = self.ask(Call("query", "alipay.trade.query"), account, body, None).await?;
        if told.out_trade_no != terms.channel_order_no {
            return Err(ChannelError::unusable("answer about another order"));
        }
        told.status().map_err(ChannelError::unusable)
    }

    async fn close_order(&self, terms: &Terms) -> Result<(), ChannelError> {
        let account = self.account_of(terms)?;
        let body = json(&wire::NamedBody { out_trade_no: &terms.channel_order_no })?;
        let told: Result<serde::de::IgnoredAny, _> =
            self.ask(Call("close", "alipay.trade.close"), account, body, None).await;
        told.map(|_| ())
    }

    async fn send_refund(&self, terms: &Terms, refund: &Refund) -> Result<RefundStatus, ChannelError> {
        let account = self.account_of(terms)?;
        let body = json(&wire::RefundBody::new(terms, refund))?;
        let told: wire::RefundTold = self.ask(Call("refund", "alipay.trade.refund"), account, body, None).await?;
        if let Some(at) = told.moved(terms, self.now()).map_err(ChannelError::unusable)? {
            let decision =
                crate::domain::refund::Decision::Succeeded { channel_refund: refund.channel_refund_no(), at };
            return Ok(RefundStatus::Decided(decision));
        }
        // The call was taken and moved nothing: whatever the question brings, it may be under way.
        match self.ask_refund(terms, refund).await {
            Ok(RefundStatus::Decided(decision)) => Ok(RefundStatus::Decided(decision)),
            Ok(RefundStatus::Processing { .. }) | Err(_) => {
                Ok(RefundStatus::Processing { channel_refund: refund.channel_refund_no() })
            }
        }
    }

    async fn ask_refund(&self, terms: &Terms, refund: &Refund) -> Result<RefundStatus, ChannelError> {
        let account = self.account_of(terms)?;
        let body = json(&wire::RefundQueryBody::new(terms, refund))?;
        let call = Call("query_refund", "alipay.trade.fastpay.refund.query");
        let told: wire::RefundFound = self.ask(call, account, body, None).await?;
        told.status(terms, refund, self.now()).map_err(ChannelError::unusable)?
    }

    /// Asks where the bill of a day, in Beijing time, can be fetched: a zip file, under an address that works for half a minute. The bill
    /// is the seller's, whichever of its apps asks for it.
    ///
    /// Errors: NotKnown while there is no bill of that day.
    pub async fn bill_address(&self, seller: &str, day: Date) -> Result<http::Uri, ChannelError> {
        let account = self.accounts_of(seller).next().ok_or_else(|| unsent("no keys for the merchant"))?;
        let (bill_type, date) = ("trade", day.to_string());
        let Call(name, method) = Call("bill", "alipay.data.dataservice.bill.downloadurl.query");
        let told: wire::BillTold = match account.api {
            Api::V2 => {
                let body = json(&wire::BillBody { bill_type, bill_date: &date })?;
                self.ask(Call(name, method), account, body, None).await?
            }
            // The one call of the REST form that is a GET.
            Api::V3 => {
                let target = format!("{}?bill_type={bill_type}&bill_date={date}", rest::target(method));
                self.counted(name, self.by_rest(account, Method::GET, &target, String::new()).await)?
            }
        };
        let address: Option<http::Uri> = told.bill_download_url.parse().ok();
        address.filter(|address| address.host().is_some()).ok_or_else(|| ChannelError::unusable("address of the bill"))
    }

    /// Fetches a bill. Its file is signed by nobody: it is Alipay's because it comes from where our settings say that Alipay's bills are,
    /// and whole because the archive's sums and the bill's own totals are right, which its reader checks.
    async fn fetch_bill(&self, seller: &str, day: Date, file: &Path) -> Result<u64, ChannelError> {
        let address = self.bill_address(seller, day).await?;
        let target = address.path_and_query().map_or("/", |target| target.as_str());
        let base = if self.config.bill_base_url.is_empty() { self.base() } else { &self.config.bill_base_url };
        let base: http::Uri = base.parse().map_err(|_| unsent("address of bills"))?;
        let (scheme, host) = base.scheme_str().zip(base.authority()).ok_or_else(|| unsent("address of bills"))?;
        let request = Request::get(format!("{scheme}://{host}{target}")).header(header::USER_AGENT, "lastmile");
        let request = request.body(Bytes::new()).map_err(|_| unsent("request"))?;
        let size_max = self.config.bill_max.bytes();
        let reply = self.http.open(request, self.config.bill_timeout.get(), size_max).await;
        let (head, flow) = reply.map_err(|error| broken(error.into()))?.into_parts();
        if head.status != StatusCode::OK {
            return Err(ChannelError::NotNow { code: format!("BILL_HTTP_{}", head.status.as_u16()) });
        }
        download::keep(flow, file, size_max, false).await?.place(file).await
    }
}

impl Channel for Alipay {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn notify_url(&self, merchant: &str) -> String {
        self.config.notify_url(merchant)
    }

    fn create<'a>(
        &'a self,
        terms: &'a Terms,
        _: Option<&'a Pii<String>>,
    ) -> BoxFuture<'a, Result<PaySheet, ChannelError>> {
        self.create_order(terms).boxed()
    }

    fn query<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<OrderStatus, ChannelError>> {
        self.query_order(terms).boxed()
    }

    fn close<'a>(&'a self, terms: &'a Terms) -> BoxFuture<'a, Result<(), ChannelError>> {
        self.close_order(terms).boxed()
    }

    fn refund<'a>(&'a self, terms: &'a Terms, refund: &'a Refund) -> BoxFuture<'a, Result<RefundStatus, ChannelError>> {
        self.send_refund(terms, refund).boxed()
    }

    fn query_refund<'a>(
        &'a self,
        terms: &'a Terms,
        refund: &'a Refund,
    ) -> BoxFuture<'a, Result<RefundStatus, ChannelError>> {
        self.ask_refund(terms, refund).boxed()
    }

    fn bill<'a>(
        &'a self,
        merchant: &'a str,
        day: Date,
        kind: BillKind,
        file: &'a Path,
    ) -> BoxFuture<'a, Result<u64, ChannelError>> {
        match kind {
            BillKind::Trades => self.fetch_bill(merchant, day, file).boxed(),
            BillKind::Funds => not_offered("BILL_NOT_OFFERED"),
        }
    }

    fn open_callback<'a>(
        &'a self,
        merchant: &'a str,
        _: &'a HeaderMap,
        body: &'a Bytes,
    ) -> BoxFuture<'a, Result<Notice, CallbackError>> {
        std::future::ready(self.open(merchant, body)).boxed()
    }

    /// The body is what counts: `success`, these letters and nothing else, or the notice comes again.
    fn reply(&self, refusal: Option<&Refusal>) -> Response<Bytes> {
        let mut reply = Response::new(Bytes::from_static(if refusal.is_none() { b"success" } else { b"failure" }));
        *reply.status_mut() = refusal.map_or(StatusCode::OK, |refusal| refusal.status);
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        reply
    }
}

fn json(body: &impl Serialize) -> Result<String, ChannelError> {
    serde_json::to_string(body).map_err(|_| unsent("body"))
}

/// Something went wrong before a byte was sent.
fn unsent(what: &'static str) -> ChannelError {
    ChannelError::NoAnswer { effect: Effect::None, what, source: None }
}
