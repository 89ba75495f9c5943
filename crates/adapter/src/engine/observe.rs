//! What each call of a department came to, in numbers. Values never; the department's return code is one of its profile's.

use std::borrow::Cow;
use std::time::Duration;

use runtime::telemetry::{Durations, Metrics};
use tracing::Span;

use crate::connector::{Answer, CallError, LinkError, LinkErrorKind};

/// The calls of one department.
pub(super) struct Exchanges {
    profile: Cow<'static, str>,
    durations: Durations,
}

impl Exchanges {
    pub(super) fn new(profile: &str, metrics: &Metrics) -> Self {
        let help = "Time of a department's exchange, by profile, exchange and how it ended";
        let durations = metrics.seconds("lastmile_adapter_exchange_seconds", help);
        Self { profile: profile.to_owned().into(), durations }
    }

    /// Counts a call that is over.
    pub(super) fn ended(&self, exchange: &str, took: Duration, called: &Result<Answer, CallError>, span: &Span) {
        let end = match called {
            Ok(answer) => {
                span.record("code", answer.code.as_str());
                "answered"
            }
            Err(CallError::Unwritable(_)) => "unwritable",
            Err(CallError::Unreadable(_) | CallError::Link(LinkError { kind: LinkErrorKind::Reply(_), .. })) => {
                "unreadable"
            }
            Err(CallError::Link(_)) => "no_answer",
        };
        span.record("end", end);
        let labels = vec![
            ("profile", self.profile.clone()),
            ("exchange", Cow::Owned(exchange.to_owned())),
            ("end", Cow::Borrowed(end)),
        ];
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
    }
}
