//! Payments as it is mounted, with its callbacks served and the sandbox's WeChat Pay behind it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use contracts::common::v1::Money;
use contracts::payments::v1 as pb;
use contracts::payments::v1::payment_service_client::PaymentServiceClient;
use invariants::{Call, Deed, Journals, World, check_all, inquire};
use lastmile_tests::servers::Postgres;
use payments::channel::alipay::{self, Alipay};
use payments::channel::wechatpay::{self, WechatPay};
use payments::config::{Channels, Credentials, KeyFiles, Merchant, Payee, Worker};
use payments::payment_codes::Shape;
use payments::receipts::Series;
use rpc::jose::SigningKey;
use rpc::keyring::{Key, KeyRing, Keys, PublicKey};
use rpc::token::{self, NumericDate, StaffKind, StaffToken};
use rpc::{ClientOptions, Contract, Door, Effect, RemoteFault, Role, ServerOptions, Wire};
use runtime::Context;
use runtime::config::Duration as Span;
use sandbox::{Fault, Operation, SignedBy, Staged};
use store::{Db, Faults};
use tonic::Code;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;

pub(crate) const APP: &str = "wx5a4db0c5a4db0c51";
/// Collects for Changsha; its callbacks are signed with the public key.
/// The apps at Alipay, each with its seller: of the payee `traffic-430100` by the gateway, of all others by REST.
pub(crate) const APPS: [(&str, &str); 2] =
    [("2021000000000001", "2088000000000001"), ("2021000000000002", "2088000000000002")];
pub(crate) const CHANGSHA: &str = "1900430100";
/// Collects for everybody else; answers and callbacks are signed with the platform certificate.
pub(crate) const OTHERS: &str = "1900140100";
pub(crate) const AMOUNT: i64 = 20_000;
/// An entry point whose app the merchant of Changsha does not have at the channel.
pub(crate) const STRANGER: &str = "qq";

/// How long anything may take that must happen by itself.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// Plays the gateway before operators: who is named in the header `played`, else `operator-1`, comes with a token of identity's.
#[derive(Clone)]
pub(crate) struct Played {
    identity: Arc<SigningKey>,
    context: Context,
}

impl Interceptor for Played {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        let person = request.metadata_mut().remove("played");
        let person = person.as_ref().map_or("operator-1", |person| person.to_str().expect("an id"));
        let now = self.context.clock.now();
        let claims = StaffToken {
            iss: token::IDENTITY.to_owned(),
            aud: token::GATEWAY.to_owned(),
            sub: person.to_owned(),
            kind: StaffKind::Operator,
            departments: Vec::new(),
            regions: Vec::new(),
            exp: NumericDate::of(now.plus(Duration::from_secs(60))),
            iat: NumericDate::of(now),
            nbf: NumericDate::of(now),
            jti: self.context.ids.hex(32),
        };
        let token = self.identity.sign(token::typ::STAFF, &claims).expect("signs");
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        Ok(request)
    }
}

/// Operators before payments.
pub(crate) type Operators = PaymentServiceClient<InterceptedService<Wire, Played>>;

pub(crate) struct Rig {
    pub(crate) client: PaymentServiceClient<Wire>,
    /// The person is whom the header `played` names.
    pub(crate) operators: Operators,
    /// The gateway with nobody's token.
    pub(crate) gateway: PaymentServiceClient<Wire>,
    pub(crate) db: Db,
    /// What the service's store suffers.
    pub(crate) faults: Faults,
    pub(crate) sandbox: sandbox::Running,
    /// Where the callback listener is: `http://127.0.0.1:PORT`.
    pub(crate) callbacks: String,
    store: store::Config,
    config: payments::Config,
    /// What the client asked and was answered: every order and every refund.
    calls: Mutex<Vec<Call>>,
    /// The service's own world; the sandbox has another, so that one can stop alone.
    service: Context,
    outside: Context,
    dir: tempfile::TempDir,
}

/// The world of a second replica.
pub(crate) struct Replica(Context);

impl Drop for Replica {
    fn drop(&mut self) {
        self.0.tasks.abort();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.service.tasks.abort();
        self.outside.tasks.abort();
    }
}

impl Rig {
    pub(crate) async fn new(engine: Engine) -> Self {
        Self::with(engine, |_, _| {}).await
    }

    /// The same with settings of its own, which may lie in the rig's directory.
    pub(crate) async fn with(engine: Engine, set: impl FnOnce(&mut payments::Config, &Path)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (service, outside) = (Context::system(), Context::system());
        let sandbox = sandbox::start(sandbox_config(dir.path()), outside.clone()).await.expect("the sandbox starts");
        let store = store_config(engine, dir.path());
        let db = store::open(&store, service.clone()).await.expect("a store");
        let faults = Faults::new();
        let db = db.with_faults(&faults);
        let listener = service.net.bind("127.0.0.1:0").await.expect("a free port");
        let callbacks = format!("http://{}", listener.local_addr());
        let channels = [sandbox.addresses.wechatpay, sandbox.addresses.alipay].map(|at| format!("http://{at}"));
        let mut config = payments_config(dir.path(), channels, &callbacks);
        set(&mut config, dir.path());
        let mut problems = Vec::new();
        config.validate("payments", &mut problems);
        assert_eq!(problems, []);
        let (client, operators, gateway) = mount(&config, &db, &service, listener).await;
        Self {
            client,
            operators,
            gateway,
            db,
            faults,
            sandbox,
            callbacks,
            store,
            config,
            calls: Mutex::default(),
            service,
            outside,
            dir,
        }
    }

    /// Stops the service in its tracks and starts it again on the same store.
    pub(crate) async fn restart(&mut self) {
        self.service.tasks.abort();
        assert!(self.service.tasks.wait(PATIENCE).await, "everything stops");
        self.service = Context::system();
        self.db = self.db.with_context(self.service.clone());
        let address = self.callbacks.trim_start_matches("http://").to_owned();
        let service = self.service.clone();
        let listener = until("the port of the callbacks", async || service.net.bind(&address).await.ok()).await;
        (self.client, self.operators, self.gateway) = mount(&self.config, &self.db, &self.service, listener).await;
    }

    /// Where the books are, while they are kept.
    pub(crate) fn store(&self) -> &store::Config {
        &self.store
    }

    /// A second replica on the same store, for calls with the header `played`; it lives as long as the guard.
    pub(crate) async fn replica(&self) -> (Operators, Replica) {
        let context = Context::system();
        let listener = context.net.bind("127.0.0.1:0").await.expect("a free port");
        let db = self.db.with_context(context.clone());
        let (_, operators, _) = mount(&self.config, &db, &context, listener).await;
        (operators, Replica(context))
    }

    /// Stops the service in its tracks; returns where its books are. An embedded database belongs to this process: then it is a copy.
    pub(crate) async fn books(&self) -> store::Config {
        self.service.tasks.abort();
        assert!(self.service.tasks.wait(PATIENCE).await, "everything stops");
        let mut store = self.store.clone();
        if let Some(file) = store.url.strip_prefix("sqlite:").map(str::to_owned) {
            let copy = format!("{file}.copy");
            std::fs::copy(&file, &copy).expect("copies");
            std::fs::copy(format!("{file}-wal"), format!("{copy}-wal")).expect("copies what was written ahead");
            store.url = format!("sqlite:{copy}");
        }
        store
    }

    pub(crate) fn stage(&self, operation: Operation, fault: Fault, delay: Option<Span>) {
        let staged = Staged { system: "wechatpay".into(), operation, fault, times: 1, delay };
        self.sandbox.faults().stage(staged).expect("staged");
    }

    pub(crate) fn stage_times(&self, operation: Operation, fault: Fault, times: u32) {
        let staged = Staged { system: "wechatpay".into(), operation, fault, times, delay: None };
        self.sandbox.faults().stage(staged).expect("staged");
    }

    // === calls ===

    pub(crate) async fn create(&self, request: pb::CreateOrderRequest) -> Result<pb::Order, RemoteFault> {
        let request_id = request.request_id.clone();
        let answer = self.client.clone().create_order(request).await;
        let answer = answer.map(|answer| answer.into_inner().order.expect("an order")).map_err(RemoteFault::from);
        self.note(Deed::Order, request_id, answer.as_ref().map(|order| order.order_id.clone()));
        answer
    }

    /// Keeps what the client was answered, and what it was not.
    pub(super) fn note(&self, deed: Deed, request_id: String, answer: Result<String, &RemoteFault>) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let known = calls.iter().position(|call| (call.deed, &call.request_id) == (deed, &request_id));
        let index = known.unwrap_or_else(|| {
            calls.push(Call { deed, caller: "cases".to_owned(), request_id, ..Call::default() });
            calls.len() - 1
        });
        match answer {
            Ok(id) => calls[index].answers.push(id),
            Err(fault) => calls[index].lost += u32::from(fault.effect() == Effect::Possible),
        }
    }

    /// Asks by its request id what became of every call that ended without an answer.
    async fn resolved(&self) -> Vec<Call> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for call in calls.iter_mut().filter(|call| call.lost > 0) {
            let (client, request_id) = (&self.client, call.request_id.clone());
            call.found = match call.deed {
                Deed::Refund => {
                    let asked = pb::GetRefundRequest { refund_id: String::new(), request_id };
                    inquire(&self.service.clock, async || {
                        let got = client.clone().get_refund(asked.clone()).await.map_err(RemoteFault::from)?;
                        Ok(got.into_inner().refund.unwrap_or_default().refund_id)
                    })
                    .await
                }
                _ => {
                    let asked = pb::GetOrderRequest { order_id: String::new(), request_id };
                    inquire(&self.service.clock, async || {
                        let got = client.clone().get_order(asked.clone()).await.map_err(RemoteFault::from)?;
                        Ok(got.into_inner().order.unwrap_or_default().order_id)
                    })
                    .await
                }
            };
        }
        calls
    }

    /// Creates, asking again under the same key as cases does, until there is an answer.
    pub(crate) async fn create_at_last(&self, request: &pb::CreateOrderRequest) -> pb::Order {
        until("an order", async || match self.create(request.clone()).await {
            Ok(order) => Some(order),
            Err(fault) => {
                assert_eq!((fault.reason(), fault.effect()), ("CHANNEL_UNAVAILABLE", rpc::Effect::Possible));
                None
            }
        })
        .await
    }

    pub(crate) async fn order(&self, order_id: &str) -> pb::Order {
        let request = pb::GetOrderRequest { order_id: order_id.into(), request_id: String::new() };
        self.client.clone().get_order(request).await.expect("is there").into_inner().order.expect("an order")
    }

    pub(crate) async fn in_state(&self, order_id: &str, state: pb::OrderState) -> pb::Order {
        until(state.as_str_name(), async || Some(self.order(order_id).await).filter(|order| order.state() == state))
            .await
    }

    pub(crate) async fn close(&self, request_id: &str, order_id: &str) -> pb::Order {
        let request = pb::CloseOrderRequest { request_id: request_id.into(), order_id: order_id.into() };
        self.client.clone().close_order(request).await.expect("answers").into_inner().order.expect("an order")
    }

    pub(crate) async fn post(&self, request_id: &str, order_id: &str) -> Result<pb::Order, RemoteFault> {
        let request = pb::PostOrderRequest {
            request_id: request_id.into(),
            order_id: order_id.into(),
            proof_serial: "CSJJ-1".into(),
        };
        let answer = self.client.clone().post_order(request).await;
        answer.map(|answer| answer.into_inner().order.expect("an order")).map_err(|status| RemoteFault::from(&status))
    }

    pub(crate) async fn refund(&self, request: pb::RefundRequest) -> Result<pb::RefundRecord, RemoteFault> {
        let request_id = request.request_id.clone();
        let answer = self.client.clone().refund(request).await;
        let answer = answer.map(|answer| answer.into_inner().refund.expect("a refund")).map_err(RemoteFault::from);
        self.note(Deed::Refund, request_id, answer.as_ref().map(|refund| refund.refund_id.clone()));
        answer
    }

    pub(crate) async fn refund_in_state(&self, refund_id: &str, state: pb::RefundState) -> pb::RefundRecord {
        let request = pb::GetRefundRequest { refund_id: refund_id.into(), request_id: String::new() };
        until(state.as_str_name(), async || {
            let answer = self.client.clone().get_refund(request.clone()).await.expect("is there").into_inner();
            answer.refund.filter(|refund| refund.state() == state)
        })
        .await
    }

    pub(crate) async fn events(&self, after_sequence: i64, wait_ms: i64) -> Vec<pb::Event> {
        let request = pb::ListEventsRequest { after_sequence, page_size: 0, wait_ms };
        self.client.clone().list_events(request).await.expect("answers").into_inner().events
    }

    pub(crate) async fn balance(&self, account: &str) -> (i64, i64) {
        let request = pb::GetAccountRequest { account: account.into() };
        let account = self.operators.clone().get_account(request).await.expect("is there").into_inner();
        assert_eq!(account.currency, "CNY");
        (account.debit_minor, account.credit_minor)
    }

    // === the world ===

    /// The citizen pays what was created.
    pub(crate) async fn pay(&self, order: &pb::Order, merchant: &str) -> String {
        let pay = sandbox::Pay {
            out_trade_no: Some(order.channel_order_no.clone()),
            mchid: Some(merchant.into()),
            ..sandbox::Pay::default()
        };
        self.sandbox.pay(&pay).await.expect("pays")
    }

    pub(crate) async fn paid(&self, request: pb::CreateOrderRequest) -> pb::Order {
        let order = self.create(request).await.expect("creates");
        self.pay(&order, CHANGSHA).await;
        self.in_state(&order.order_id, pb::OrderState::Paid).await
    }

    /// Where the rig keeps its files.
    pub(crate) fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// How often the channel's own journal has an event, such as `order_created`.
    pub(crate) fn journalled(&self, event: &str) -> usize {
        let journal = std::fs::read_to_string(self.dir.path().join("sandbox/wechatpay.journal")).expect("a journal");
        journal.lines().filter(|line| line.contains(&format!("\"event\":\"{event}\""))).count()
    }

    /// Ends a refund at the channel, as somebody at its merchant platform would.
    pub(crate) async fn end_refund(&self, refund_id: &str, status: &str) {
        let number = refund_id.rsplit('_').next().expect("an id");
        let path = format!("wechatpay/refunds/{CHANGSHA}/{number}");
        assert_eq!(self.control(&path, &serde_json::json!({ "status": status })).await, 204);
    }

    /// Asks something of the sandbox's control port; hands back the answer's status.
    pub(crate) async fn control(&self, path: &str, body: &serde_json::Value) -> u16 {
        let request = http::Request::post(format!("http://{}/{path}", self.sandbox.addresses.control));
        let request = request.header("content-type", "application/json");
        let request = request.body(bytes::Bytes::from(body.to_string())).expect("a request");
        let (net, clock) = (runtime::Net::system(), runtime::Clock::system());
        let client = runtime::http::Client::new(net, clock, runtime::http::Options::default());
        client.send(request, Duration::from_secs(5), 64 * 1_024).await.expect("answers").status().as_u16()
    }

    /// The driver alone, with the service's settings.
    pub(crate) fn driver(&self) -> WechatPay {
        self.driver_with(self.settings())
    }

    /// The driver of Alipay alone.
    pub(crate) fn alipay(&self) -> Alipay {
        let (settings, merchants) = (self.config.channels.alipay.clone(), &self.config.merchants);
        Alipay::new(settings, self.config.key_files, merchants, self.service.clone()).expect("reads the keys")
    }

    /// The driver alone, with other settings.
    pub(crate) fn driver_with(&self, settings: wechatpay::Config) -> WechatPay {
        let (merchants, files) = (&self.config.merchants, self.config.key_files);
        WechatPay::new(settings, merchants, files, self.service.clone()).expect("reads the keys")
    }

    /// The service's settings of the channel.
    pub(crate) fn settings(&self) -> wechatpay::Config {
        self.config.channels.wechatpay.clone()
    }

    /// A path of a file that is not there yet.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The merchant's certificate, PEM.
    pub(crate) fn certificate(&self, merchant: &str) -> String {
        let path = self.dir.path().join(format!("sandbox/wechatpay/{merchant}/certificate.pem"));
        std::fs::read_to_string(path).expect("a certificate")
    }

    /// Holds the books against their entries; returns how many orders and refunds are open.
    pub(crate) async fn assert_sound(&self) -> u64 {
        let report = payments::audit::check(&self.db).await.expect("reads");
        assert!(report.is_sound(), "{:#?}", report.problems);
        report.open
    }

    /// The end of a fault test: the service is started again on what it kept, nothing is open, every call that ended without an answer is
    /// asked about, and every invariant holds that speaks of payments and the channel.
    pub(crate) async fn assert_held(mut self) {
        self.restart().await;
        assert_eq!(self.assert_sound().await, 0, "something is still open");
        let world = World {
            payments: Some(self.db.clone()),
            journals: Some(Journals::read(&self.dir.path().join("sandbox")).expect("journals")),
            calls: Some(self.resolved().await),
            ..World::at(self.service.clock.now())
        };
        let report = check_all(&world).await.expect("reads");
        // There are no cases here, and so nobody to apply events; where nobody paid there are no transfers.
        let mut required = vec!["I2", "I3"];
        required.extend((report.evidence.ledger.transfers > 0).then_some(["I1", "I5"]).into_iter().flatten());
        required.extend(world.calls.iter().flatten().any(|call| call.lost > 0).then_some("I4"));
        report.require(&required).expect("every book agrees");
    }
}

/// An order for Changsha, paid inside the app.
pub(crate) fn jsapi(request_id: &str) -> pb::CreateOrderRequest {
    pb::CreateOrderRequest {
        request_id: request_id.into(),
        // Each order is of a case of its own, the same for every try.
        case_id: format!("case_{}", hex::encode(&rpc::digest::sha256(request_id.as_bytes())[..16])),
        payee_id: "traffic-430100".into(),
        amount: money(AMOUNT),
        channel: "wechatpay".into(),
        trade_type: pb::TradeType::Jsapi.into(),
        entry_point: "wechat".into(),
        payer_reference: "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o".into(),
        description: "交通违法罚款".into(),
        expire_time: Some(in_seconds(900)),
        payment_code: String::new(),
        insurance: None,
    }
}

/// An order for Taiyuan, paid by a QR code.
pub(crate) fn native(request_id: &str) -> pb::CreateOrderRequest {
    pb::CreateOrderRequest {
        payee_id: "traffic-140100".into(),
        trade_type: pb::TradeType::Native.into(),
        payer_reference: String::new(),
        ..jsapi(request_id)
    }
}

pub(crate) fn refund(request_id: &str, order: &pb::Order, amount: i64) -> pb::RefundRequest {
    pb::RefundRequest {
        request_id: request_id.into(),
        order_id: order.order_id.clone(),
        amount: money(amount),
        reason: "处罚决定已撤销".into(),
        after_settlement: false,
        ..Default::default()
    }
}

pub(crate) fn money(amount_minor: i64) -> Option<Money> {
    Some(Money { amount_minor, currency: "CNY".into() })
}

/// A moment that many seconds from the start of this process, whole seconds, the same for every call.
pub(crate) fn in_seconds(seconds: i64) -> prost_types::Timestamp {
    static START: OnceLock<i64> = OnceLock::new();
    let start = *START.get_or_init(|| runtime::Clock::system().now().seconds_nanos().0);
    prost_types::Timestamp { seconds: start + seconds, nanos: 0 }
}

/// Looks until there is something, and fails with what was looked for when patience ends.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn mount(
    config: &payments::Config,
    db: &Db,
    context: &Context,
    listener: runtime::Listener,
) -> (PaymentServiceClient<Wire>, Operators, PaymentServiceClient<Wire>) {
    let identity = SigningKey::generate(&context.ids).expect("a key");
    let key = PublicKey::Verify(identity.verifying_key());
    let listed = Key { owner: token::IDENTITY.to_owned(), key, created: context.clock.now() };
    let keys = KeyRing::fixed(Keys::new(1, [listed]), context.clone());
    let deps = payments::Deps { context: context.clone(), db: db.clone(), keys };
    let mounted = payments::mount(config.clone(), deps).await.expect("mounts");
    let limits = runtime::http::Limits::default();
    let app = mounted.http.expect("callbacks");
    let serving = runtime::http::serve(listener, app, limits, context.tasks.clone(), context.clock.clone());
    context.tasks.spawn("callbacks", async move { serving.await.expect("serves") });
    let contract = Contract::lastmile().expect("the contract is sound");
    let server = rpc::stack::server(mounted.routes, Door::Mesh, contract, context, &ServerOptions::default());
    let wire = |role| Wire::local("payments", server.clone(), None, role, context, &ClientOptions::default());
    let played = Played { identity: Arc::new(identity), context: context.clone() };
    let operators = PaymentServiceClient::with_interceptor(wire(Role::Gateway), played);
    (PaymentServiceClient::new(wire(Role::Cases)), operators, PaymentServiceClient::new(wire(Role::Gateway)))
}

pub(super) fn sandbox_config(data_dir: &Path) -> sandbox::Config {
    let merchant = |mchid: &str, callbacks_signed_by| sandbox::Merchant {
        mchid: mchid.into(),
        appids: vec![APP.into()],
        callbacks_signed_by,
    };
    let mut config = sandbox::Config { data_dir: data_dir.to_owned(), ..sandbox::Config::default() };
    config.control.listen = "127.0.0.1:0".into();
    config.police_430100.listen = "127.0.0.1:0".into();
    config.police_140100.listen = "127.0.0.1:0".into();
    config.wechatpay.listen = "127.0.0.1:0".into();
    config.alipay.listen = "127.0.0.1:0".into();
    config.alipay.notify_second = Span::from_millis(20);
    let app = |(app_id, pid): (&str, &str), certificates| sandbox::App {
        app_id: app_id.into(),
        pid: pid.into(),
        certificates,
    };
    config.alipay.apps = vec![app(APPS[0], false), app(APPS[1], true)];
    config.wechatpay.refund_after = Span::from_millis(100);
    config.wechatpay.notify_second = Span::from_millis(20);
    config.wechatpay.merchants = vec![merchant(CHANGSHA, SignedBy::PublicKey), merchant(OTHERS, SignedBy::Certificate)];
    config
}

fn store_config(engine: Engine, dir: &Path) -> store::Config {
    match engine {
        Engine::Sqlite => store::Config::new(format!("sqlite:{}", dir.join("payments.db").display())),
        Engine::Postgres => {
            static SERVER: OnceLock<Postgres> = OnceLock::new();
            let server = SERVER.get_or_init(Postgres::start);
            // A test machine may be busy with a dozen servers at once.
            let acquire_timeout = Span::from_secs(10);
            store::Config { schema: Some(server.schema()), acquire_timeout, ..store::Config::new(server.url()) }
        }
    }
}

fn payments_config(dir: &Path, [wechatpay_url, alipay_url]: [String; 2], callbacks: &str) -> payments::Config {
    let keys = dir.join("sandbox/wechatpay");
    let read = |file: &str| std::fs::read_to_string(keys.join(file)).expect("the sandbox made it").trim().to_owned();
    let merchant = |mch_id: &str, payee_id: &str, verification| Merchant {
        entry_point: "wechat".into(),
        payee_id: payee_id.into(),
        app_id: APP.into(),
        mch_id: mch_id.into(),
        credentials: Credentials::Wechatpay(wechatpay::Credentials {
            serial: read(&format!("{mch_id}/serial_no.txt")),
            private_key_file: keys.join(mch_id).join("private_key.pem"),
            certificate_file: None,
            api_v3_key_file: keys.join(mch_id).join("apiv3_key.txt"),
            verification,
        }),
    };
    let public = wechatpay::Verification::PublicKey {
        id: read("platform/public_key_id.txt"),
        id_file: None,
        file: keys.join("platform/public_key.pem"),
    };
    let payee = |payee_id: &str| Payee { payee_id: payee_id.into(), name: "Traffic police".into() };
    let alipay_keys = dir.join("sandbox/alipay");
    let certificates = alipay::Certificates {
        app_file: alipay_keys.join(APPS[1].0).join("app_certificate.pem"),
        alipay_file: alipay_keys.join("alipay_certificate.pem"),
        root_file: alipay_keys.join("alipay_root.pem"),
    };
    let public_key = Some(alipay_keys.join("alipay_public_key.pem"));
    let app = |(app_id, pid): &(&str, &str), payee_id: &str, api, public: Option<PathBuf>| Merchant {
        entry_point: "alipay".into(),
        payee_id: payee_id.into(),
        app_id: (*app_id).into(),
        mch_id: (*pid).into(),
        credentials: Credentials::Alipay(alipay::Credentials {
            api,
            private_key_file: alipay_keys.join(app_id).join("app_private_key.pem"),
            certificates: public.is_none().then(|| certificates.clone()),
            alipay_public_key_file: public.unwrap_or_default(),
            return_url: "https://city.example/back".into(),
        }),
    };
    let stranger = Merchant {
        entry_point: STRANGER.into(),
        app_id: "wx00000000000000ff".into(),
        ..merchant(CHANGSHA, "traffic-430100", public.clone())
    };
    payments::Config {
        payees: vec![payee("traffic-430100"), payee("traffic-140100")],
        merchants: vec![
            Merchant {
                entry_point: STRANGER.into(),
                ..merchant(OTHERS, "*", wechatpay::Verification::PlatformCertificates)
            },
            stranger,
            merchant(CHANGSHA, "traffic-430100", public),
            merchant(OTHERS, "*", wechatpay::Verification::PlatformCertificates),
            app(&APPS[0], "traffic-430100", alipay::Api::V2, public_key),
            app(&APPS[1], "*", alipay::Api::V3, None),
        ],
        channels: Channels {
            wechatpay: wechatpay::Config {
                base_url: wechatpay_url,
                notify_base_url: callbacks.into(),
                call_timeout: Span::from_secs(2),
                ..wechatpay::Config::default()
            },
            alipay: alipay::Config {
                base_url: alipay_url,
                notify_base_url: callbacks.into(),
                call_timeout: Span::from_secs(2),
                ..alipay::Config::default()
            },
        },
        payer_key_file: dir.join("payer.key"),
        receipts: payments::receipts::Settings {
            key_file: dir.join("receipt.key"),
            verify_url: "https://city.example/receipts".into(),
            payees: [("traffic-430100", "430101"), ("traffic-140100", "140101")]
                .map(|(payee_id, prefix)| Series { payee_id: payee_id.into(), code_prefix: prefix.into() })
                .into(),
        },
        payment_codes: vec![Shape { payee_id: "traffic-430100".into(), length: 20, alphabet: "0123456789".into() }],
        key_files: KeyFiles::default(),
        worker: Worker {
            interval: Span::from_millis(50),
            lease: Span::from_secs(8),
            first_look: Span::from_millis(400),
            longest_pause: Span::from_secs(1),
            ..Worker::default()
        },
        // A day is reconciled when a test asks for it: what the sandbox is asked else, a staged fault would meet.
        reconcile: payments::reconcile::source::Settings { days_back: 0, ..Default::default() },
        settlement: payments::settlement::Settings {
            key_file: dir.join("settlement.pem"),
            ..payments::settlement::Settings::default()
        },
        answer_timeout: Span::from_secs(5),
    }
}

/// The gRPC code of a fault's kind, for tests that look at the wire's own words.
pub(crate) fn code(fault: &RemoteFault) -> Code {
    fault.kind().code()
}
