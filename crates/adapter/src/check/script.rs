//! A link that plays a golden case: it compares what is sent and hands back what the case says.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::connector::{Call, Effect, Frame, Link, LinkError, LinkErrorKind, Reply};
use crate::plan::Plan;
use crate::profile::GoldenExchange;

/// One exchange that must happen.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    call: String,
    sent: Vec<u8>,
    reply: Reply,
}

/// The exchanges of a case, and how far it is.
#[derive(Debug)]
pub(super) struct Script {
    expected: Vec<Expected>,
    next: usize,
    failure: Option<String>,
}

/// The link that plays a script.
pub(super) struct ScriptedLink(pub(super) Arc<Mutex<Script>>);

impl Expected {
    pub(super) fn read(plan: &Plan, written: &GoldenExchange, dir: &Path) -> Result<Self, String> {
        let place = |part: &str, error| format!("{} of `{}`: {error}", part, written.call);
        let sent = super::bytes(plan, &written.sent, dir).map_err(|error| place("sent", error))?;
        let reply = super::bytes(plan, &written.reply, dir).map_err(|error| place("reply", error))?;
        let status = plan.profile.connector.soap.is_some().then(|| written.status.unwrap_or(200));
        let content_type = status.map(|_| format!("text/xml; charset={}", plan.profile.charset().label()));
        Ok(Self { call: written.call.clone(), sent, reply: Reply { bytes: Bytes::from(reply), status, content_type } })
    }
}

impl Script {
    pub(super) fn new(expected: Vec<Expected>) -> Self {
        Self { expected, next: 0, failure: None }
    }

    /// Why the case failed on the wire, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        let left = || {
            let missing = self.expected.get(self.next)?;
            Some(format!("exchange {} (`{}`) was not made", self.next, missing.call))
        };
        self.failure.clone().or_else(left)
    }

    fn play(&mut self, exchange: &str, frame: &Frame) -> Option<Reply> {
        let position = self.next;
        let Some(expected) = self.expected.get(position) else {
            self.failure.get_or_insert(format!("exchange {position} (`{exchange}`) is not in the case"));
            return None;
        };
        self.next = position.saturating_add(1);
        if expected.call != exchange {
            self.failure
                .get_or_insert(format!("exchange {position} is `{exchange}`, the case has `{}`", expected.call));
            return None;
        }
        if let Some(difference) = first_difference(&expected.sent, &frame.bytes) {
            self.failure.get_or_insert(format!("exchange {position} (`{exchange}`): {difference}"));
            return None;
        }
        Some(expected.reply.clone())
    }
}

impl Link for ScriptedLink {
    fn exchange<'a>(&'a self, frame: Frame, call: Call<'a>) -> BoxFuture<'a, Result<Reply, LinkError>> {
        let played = self.0.lock().ok().and_then(|mut script| script.play(call.exchange, &frame));
        let off_script = LinkError { effect: Effect::None, kind: LinkErrorKind::Connect };
        std::future::ready(played.ok_or(off_script)).boxed()
    }
}

fn first_difference(wanted: &[u8], sent: &[u8]) -> Option<String> {
    if wanted == sent {
        return None;
    }
    let at = wanted.iter().zip(sent).position(|(one, other)| one != other).unwrap_or(wanted.len().min(sent.len()));
    let around = |bytes: &[u8]| {
        let start = at.saturating_sub(20);
        let piece = bytes.get(start..bytes.len().min(at.saturating_add(20))).unwrap_or_default();
        String::from_utf8_lossy(piece).into_owned()
    };
    Some(format!("sent bytes differ at {at}: expected …{:?}…, sent …{:?}…", around(wanted), around(sent)))
}
