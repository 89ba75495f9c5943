//! Callbacks: sealed, signed, sent, and sent again on WeChat's schedule until the merchant takes them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use runtime::http::{Client, Options};
use runtime::{Context, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

use super::book::{About, Notice};
use super::desk::{Desk, SYSTEM};
use super::event::{Event, RefundStatus};
use super::{api, messages, mixed};
use crate::beijing;
use crate::config::SignedBy;
use crate::faults::{Fault, Operation};
use crate::rsa::Signer;

/// Seconds from one attempt to the next; after the last one WeChat gives up.
const SCHEDULE: [u32; 15] =
    [15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600, 10_800, 10_800, 10_800, 21_600, 21_600];
/// What the worker does even when nobody wakes it.
const TICK: Duration = Duration::from_secs(1);
const SENDING_MAX: usize = 64;
const LOG_MAX: usize = 1_000;
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

/// What has to be sent when, and what was.
pub(super) struct Outbox {
    deliveries: Mutex<BTreeMap<String, Delivery>>,
    sent: Mutex<VecDeque<Sent>>,
    wake: Notify,
    seats: Arc<Semaphore>,
    client: Client,
}

#[derive(Clone, Copy, Debug)]
struct Delivery {
    next: Timestamp,
    attempts: u32,
    busy: bool,
    /// Its staged fault, if any, was taken.
    faulted: bool,
    /// It waits until another one was taken, so that it comes after it.
    held: bool,
}

/// A callback that was sent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sent {
    /// Its id; the same for every attempt.
    pub notice: String,
    /// `genuine`, `double`, `forged`, `wrong_serial` or `probe`.
    pub kind: &'static str,
    /// The merchant's HTTP status; none when there was no answer.
    pub status: Option<u16>,
}

/// A callback ready to be sealed.
#[derive(Clone)]
struct Message {
    mchid: String,
    url: String,
    event_type: &'static str,
    /// A mixed order's callback says none.
    original_type: Option<&'static str>,
    summary: &'static str,
    resource: Value,
}

impl Delivery {
    fn fresh(next: Timestamp) -> Self {
        Self { next, attempts: 0, busy: false, faulted: false, held: false }
    }
}

impl Outbox {
    /// Takes over what an earlier run did not finish.
    pub(super) fn new<'a>(context: &Context, open: impl Iterator<Item = &'a Notice>) -> Self {
        let now = context.clock.now();
        Self {
            deliveries: Mutex::new(open.map(|notice| (notice.id.clone(), Delivery::fresh(now))).collect()),
            sent: Mutex::default(),
            wake: Notify::new(),
            seats: Arc::new(Semaphore::new(SENDING_MAX)),
            client: Client::new(context.net.clone(), context.clock.clone(), Options::default()),
        }
    }

    /// Tells the worker that there is something to do.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Returns what was sent lately, oldest first.
    pub(super) fn sent(&self) -> Vec<Sent> {
        locked(&self.sent).iter().cloned().collect()
    }

    /// Takes what is due now, and the time of what is due next.
    fn due(&self, notices: Vec<String>, now: Timestamp) -> (Vec<(String, Delivery)>, Option<Timestamp>) {
        let mut deliveries = locked(&self.deliveries);
        for id in notices {
            deliveries.entry(id).or_insert(Delivery::fresh(now));
        }
        let mut due = Vec::new();
        for (id, delivery) in deliveries.iter_mut().filter(|(_, delivery)| !delivery.busy && delivery.next <= now) {
            delivery.busy = true;
            due.push((id.clone(), *delivery));
        }
        let next = deliveries.values().filter(|delivery| !delivery.busy).map(|delivery| delivery.next).min();
        (due, next)
    }

    fn put_back(&self, id: &str, delivery: Delivery) {
        locked(&self.deliveries).insert(id.to_owned(), Delivery { busy: false, ..delivery });
        self.wake();
    }

    /// Lets go what waited for another one to be taken.
    fn release(&self, now: Timestamp) {
        for delivery in locked(&self.deliveries).values_mut().filter(|delivery| delivery.held) {
            (delivery.held, delivery.next) = (false, now);
        }
        self.wake();
    }

    fn forget(&self, id: &str) {
        locked(&self.deliveries).remove(id);
    }

    fn note(&self, notice: &str, kind: &'static str, status: Option<StatusCode>) {
        let mut sent = locked(&self.sent);
        if sent.len() >= LOG_MAX {
            sent.pop_front();
        }
        sent.push_back(Sent { notice: notice.to_owned(), kind, status: status.map(|status| status.as_u16()) });
    }
}

impl Desk {
    /// Ends refunds that are due and sends callbacks, until the process stops.
    pub(super) async fn work(self: Arc<Self>) {
        let stop = self.context.tasks.token();
        while !stop.is_cancelled() {
            if self.book.sweep().await.is_err() {
                tracing::debug!("nothing swept: the journal is not ready");
            }
            let now = self.book.now();
            let (notices, refund_due) = self.book.peek(|book| {
                (book.notices().map(|notice| notice.id.clone()).collect::<Vec<_>>(), book.next_refund_end())
            });
            let (due, next) = self.outbox.due(notices, now);
            for (id, delivery) in due {
                let desk = self.clone();
                self.context.tasks.spawn("sandbox wechatpay callback", async move { desk.deliver(id, delivery).await });
            }
            let wait = [next, refund_due].into_iter().flatten().map(|at| at.since(now)).min().unwrap_or(TICK).min(TICK);
            tokio::select! {
                biased;
                () = self.context.clock.sleep(wait.max(Duration::from_millis(1))) => {}
                () = self.outbox.wake.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Makes one attempt at a callback.
    async fn deliver(self: Arc<Self>, id: String, mut delivery: Delivery) {
        let Ok(_seat) = self.outbox.seats.clone().acquire_owned().await else { return };
        let Some(message) = self.message(&id) else { return self.outbox.forget(&id) };
        let fault = if delivery.faulted { None } else { self.faults.take(SYSTEM, Operation::Notify) };
        delivery.faulted = true;
        match fault.map(|suffer| (suffer.fault, suffer.delay)) {
            Some((Fault::Lost, _)) => return self.end(&id, false, 0).await,
            Some((fault @ (Fault::Late | Fault::Reordered), delay)) => {
                let next = self.book.now().plus(delay);
                return self.outbox.put_back(&id, Delivery { next, held: fault == Fault::Reordered, ..delivery });
            }
            Some((Fault::Forged, _)) => {
                self.send(&id, &message.forged(), "forged").await;
            }
            Some((Fault::WrongSerial, _)) => {
                self.send(&id, &message.forged(), "wrong_serial").await;
            }
            Some((Fault::Probe, _)) => {
                self.send(&id, &message, "probe").await;
            }
            _ => {}
        }
        let mut taken = self.send(&id, &message, "genuine").await;
        if fault.is_some_and(|suffer| suffer.fault == Fault::Doubled) {
            taken |= self.send(&id, &message, "double").await;
        }
        if taken {
            self.outbox.release(self.book.now());
        }
        delivery.attempts += 1;
        let pause = SCHEDULE.get(usize::try_from(delivery.attempts).unwrap_or(usize::MAX).saturating_sub(1));
        match pause {
            _ if taken => self.end(&id, true, delivery.attempts).await,
            None => self.end(&id, false, delivery.attempts).await,
            Some(seconds) => {
                let next = self.book.now().plus(self.config.notify_second.get().saturating_mul(*seconds));
                self.outbox.put_back(&id, Delivery { next, ..delivery });
            }
        }
    }

    async fn end(&self, id: &str, delivered: bool, attempts: u32) {
        let event = Event::NoticeEnded { notice: id.to_owned(), delivered, attempts };
        let ended = self.book.change(|_, _| Ok::<_, ()>(vec![event]), |_, _| Ok(())).await;
        if ended.is_err() {
            tracing::debug!("the end of a callback was not kept; it will be sent again after a restart");
        }
        self.outbox.forget(id);
    }

    fn message(&self, id: &str) -> Option<Message> {
        let now = self.book.now();
        self.book.peek(|book| match &book.notice(id)?.about {
            About::Paid(mchid, number) => {
                let order = book.order(mchid, number).ok()?;
                Some(Message {
                    mchid: mchid.clone(),
                    url: order.terms.notify_url.clone(),
                    event_type: "TRANSACTION.SUCCESS",
                    original_type: Some("transaction"),
                    summary: "支付成功",
                    resource: messages::transaction_paid(order, now),
                })
            }
            About::Combined(whole) => {
                let combine = book.combine(whole).ok()?;
                Some(Message {
                    mchid: whole.mchid.clone(),
                    url: combine.terms.notify_url.clone(),
                    event_type: "TRANSACTION.SUCCESS",
                    original_type: Some("transaction"),
                    summary: "支付成功",
                    resource: messages::combined_paid(&combine, now),
                })
            }
            About::Mixed(mchid, number) => {
                let mixed = book.mixed(mchid, number).ok()?;
                Some(Message {
                    mchid: mchid.clone(),
                    url: mixed.terms.callback_url.clone(),
                    event_type: "MEDICAL_INSURANCE.SUCCESS",
                    original_type: None,
                    summary: "医保混合收款成功",
                    resource: mixed::told_paid(&mixed.terms, mixed.paid_at),
                })
            }
            About::Refunded(mchid, number) => {
                let refund = book.refund(mchid, number).ok()?;
                let (event_type, summary) = match refund.status {
                    RefundStatus::Abnormal => ("REFUND.ABNORMAL", "退款异常"),
                    RefundStatus::Closed => ("REFUND.CLOSED", "退款关闭"),
                    RefundStatus::Success | RefundStatus::Processing => ("REFUND.SUCCESS", "退款成功"),
                };
                Some(Message {
                    mchid: mchid.clone(),
                    url: refund.terms.notify_url.clone()?,
                    event_type,
                    original_type: Some("refund"),
                    summary,
                    resource: messages::refund_notice(refund),
                })
            }
        })
    }

    /// Sends once; tells whether the merchant took it.
    async fn send(&self, id: &str, message: &Message, kind: &'static str) -> bool {
        let Some(request) = self.sealed(id, message, kind) else { return false };
        let timeout = self.config.notify_timeout.get();
        let answer = self.outbox.client.send(request, timeout, ANSWER_BYTES_MAX).await;
        let status = answer.ok().map(|answer| answer.status());
        self.outbox.note(id, kind, status);
        matches!(status, Some(StatusCode::OK | StatusCode::NO_CONTENT))
    }

    fn sealed(&self, id: &str, message: &Message, kind: &str) -> Option<Request<Bytes>> {
        let nonce = self.context.ids.hex(12);
        let api_key = &self.keys.merchant(&message.mchid)?.api_key;
        let associated = message.original_type.unwrap_or("medical_insurance");
        let ciphertext = api_key.seal(&nonce, associated, &message.resource.to_string())?;
        let mut body = json!({
            "id": id,
            "create_time": beijing::rfc3339(self.book.now()),
            "resource_type": "encrypt-resource",
            "event_type": message.event_type,
            "summary": message.summary,
            "resource": {
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": ciphertext,
                "associated_data": associated,
                "nonce": nonce,
            },
        });
        if let Some(original_type) = message.original_type {
            body["resource"]["original_type"] = json!(original_type);
        }
        let body = body.to_string();
        let signer = self.signer_for(&message.mchid);
        let mut request = Request::post(&message.url).header(http::header::CONTENT_TYPE, "application/json");
        for (name, value) in api::signature_headers(&self.context, signer, &body) {
            let value = match (name, kind) {
                ("Wechatpay-Signature", "probe") => format!("WECHATPAY/SIGNTEST/{value}"),
                // Signed by somebody else, under the platform's serial number or under one that nobody has.
                ("Wechatpay-Signature", "forged" | "wrong_serial") => self.other_signer(signer).sign(&body),
                ("Wechatpay-Serial", "wrong_serial") => value.replace(|digit: char| digit.is_ascii_digit(), "7"),
                _ => value,
            };
            request = request.header(name, value);
        }
        request.body(Bytes::from(body)).ok()
    }

    fn signer_for(&self, mchid: &str) -> &Signer {
        let merchant = self.config.merchants.iter().find(|merchant| merchant.mchid == mchid);
        match merchant.map(|merchant| merchant.callbacks_signed_by).unwrap_or_default() {
            SignedBy::PublicKey => &self.keys.public,
            SignedBy::Certificate => &self.keys.certificate,
        }
    }

    fn other_signer(&self, signer: &Signer) -> &Signer {
        if signer.serial() == self.keys.public.serial() { &self.keys.certificate } else { &self.keys.public }
    }
}

impl Message {
    /// The same payment or refund, of another amount.
    fn forged(&self) -> Self {
        let mut forged = self.clone();
        for path in ["/amount/total", "/amount/refund", "/sub_orders/0/amount/total_amount", "/total_fee"] {
            if let Some(amount) = forged.resource.pointer_mut(path) {
                *amount = json!(1);
            }
        }
        forged
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
