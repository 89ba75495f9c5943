//! Notices: signed, sent, and sent again on Alipay's schedule until the merchant answers `success`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use runtime::http::{Client, Options};
use runtime::{Context, Timestamp};
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};

use super::desk::{Desk, SYSTEM};
use super::event::Event;
use super::messages::{self, Parameters};
use crate::faults::{Fault, Operation};
use crate::rsa::Signer;

/// Seconds from one attempt to the next; after the last one Alipay gives up.
const SCHEDULE: [u32; 7] = [240, 600, 600, 3_600, 7_200, 21_600, 54_000];
/// What a merchant answers when it has taken a notice: these letters and nothing else.
const TAKEN: &[u8] = b"success";
/// How soon what could not be kept is tried again.
const AGAIN: Duration = Duration::from_secs(1);
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
}

/// A notice that was sent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sent {
    /// Its id; the same for every attempt.
    pub notice: String,
    /// `genuine`, `double` or `forged`.
    pub kind: &'static str,
    /// The merchant's HTTP status; none when there was no answer.
    pub status: Option<u16>,
    /// Whether the merchant took it.
    pub taken: bool,
}

impl Outbox {
    pub(super) fn new(context: &Context) -> Self {
        Self {
            deliveries: Mutex::default(),
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
        let fresh = Delivery { next: now, attempts: 0, busy: false, faulted: false };
        for id in notices {
            deliveries.entry(id).or_insert(fresh);
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

    fn forget(&self, id: &str) {
        locked(&self.deliveries).remove(id);
    }

    fn note(&self, sent: Sent) {
        let mut log = locked(&self.sent);
        if log.len() >= LOG_MAX {
            log.pop_front();
        }
        log.push_back(sent);
    }
}

impl Desk {
    /// Does what falls due by itself and sends notices, until the process stops. It sleeps where there is nothing to wait for.
    pub(super) async fn work(self: Arc<Self>) {
        let stop = self.context.tasks.token();
        while !stop.is_cancelled() {
            let swept = self.book.sweep().await;
            let now = self.book.now();
            let (notices, falls_due) =
                self.book.peek(|book| (book.notices().map(|(id, _)| id.clone()).collect(), book.next_due()));
            let (due, next) = self.outbox.due(notices, now);
            for (id, delivery) in due {
                let desk = self.clone();
                self.context.tasks.spawn("sandbox alipay notice", async move { desk.deliver(id, delivery).await });
            }
            let again = swept.is_err().then(|| now.plus(AGAIN));
            let wait = [next, falls_due.filter(|_| again.is_none()), again].into_iter().flatten().min();
            let sleep = async {
                match wait {
                    Some(at) => self.context.clock.sleep(at.since(now).max(Duration::from_millis(1))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = sleep => {}
                () = self.outbox.wake.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Makes one attempt at a notice.
    async fn deliver(self: Arc<Self>, id: String, mut delivery: Delivery) {
        let Ok(_seat) = self.outbox.seats.clone().acquire_owned().await else { return };
        let Some((url, told)) = self.notice(&id) else { return self.outbox.forget(&id) };
        let fault = if delivery.faulted { None } else { self.faults.take(SYSTEM, Operation::Notify) };
        delivery.faulted = true;
        match fault.map(|suffer| (suffer.fault, suffer.delay)) {
            Some((Fault::Lost, _)) => return self.end(&id, false, 0).await,
            Some((Fault::Late, delay)) => {
                let next = self.book.now().plus(delay);
                return self.outbox.put_back(&id, Delivery { next, ..delivery });
            }
            Some((Fault::Forged, _)) => {
                self.send_forged(&id, &url, &told).await;
            }
            _ => {}
        }
        let form = self.signed_form(told.clone());
        let mut taken = self.send(&id, &url, form.clone(), "genuine").await;
        if fault.is_some_and(|suffer| suffer.fault == Fault::Doubled) {
            taken |= self.send(&id, &url, form, "double").await;
        }
        let pause = usize::try_from(delivery.attempts).ok().and_then(|attempt| SCHEDULE.get(attempt));
        delivery.attempts += 1;
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
            tracing::debug!("the end of a notice was not kept; it will be sent again after a restart");
        }
        self.outbox.forget(id);
    }

    /// Where a notice goes, and what it tells.
    fn notice(&self, id: &str) -> Option<(String, Parameters)> {
        let now = self.book.now();
        self.book.peek(|book| {
            let notice = book.notice(id)?;
            let order = book.order(&notice.key)?;
            Some((order.terms.notify_url.clone()?, messages::notice(id, notice, order, now)?))
        })
    }

    /// Somebody else says that the least amount was paid.
    async fn send_forged(&self, id: &str, url: &str, told: &Parameters) {
        let Some((_, app_id)) = told.iter().find(|(name, _)| *name == "app_id") else { return };
        let Some(stranger) = self.keys.app(app_id) else { return };
        let amounts = ["total_amount", "receipt_amount", "buyer_pay_amount"];
        let lie = |(name, value): &(&'static str, String)| {
            (*name, if amounts.contains(name) { "0.01".to_owned() } else { value.clone() })
        };
        self.send(id, url, signed_form(stranger, told.iter().map(lie).collect()), "forged").await;
    }

    /// Sends once; tells whether the merchant took it.
    async fn send(&self, id: &str, url: &str, form: String, kind: &'static str) -> bool {
        let form_type = "application/x-www-form-urlencoded; charset=utf-8";
        let request = Request::post(url).header(CONTENT_TYPE, form_type).body(Bytes::from(form));
        let Ok(request) = request else { return false };
        let timeout = self.config.notify_timeout.get();
        let answer = self.outbox.client.send(request, timeout, ANSWER_BYTES_MAX).await.ok();
        let taken = answer.as_ref().is_some_and(|answer| answer.status() == StatusCode::OK && answer.body() == TAKEN);
        let status = answer.map(|answer| answer.status().as_u16());
        self.outbox.note(Sent { notice: id.to_owned(), kind, status, taken });
        taken
    }

    /// Parameters as a form, signed.
    pub(super) fn signed_form(&self, told: Parameters) -> String {
        signed_form(&self.keys.alipay, told)
    }
}

/// The signature is over all parameters but itself and its own kind.
fn signed_form(signer: &Signer, told: Parameters) -> String {
    let signature = signer.sign(&messages::signed_text(told.iter().map(|(name, value)| (*name, value.as_str()))));
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in told.iter().filter(|(_, value)| !value.is_empty()) {
        form.append_pair(name, value);
    }
    form.append_pair("sign_type", "RSA2").append_pair("sign", &signature).finish()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
