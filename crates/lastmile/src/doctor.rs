//! `lastmile doctor`: looks at everything that a start needs, says what it found, and what to do about it.
//!
//! It changes nothing: an embedded store that is in use is not opened, a server's is written to and the writing taken back, a port that is
//! taken is asked who has it.

pub mod certificates;
mod clock;
mod keys;
mod outside;
mod peers;
mod ports;
mod storage;

use std::fmt;

use runtime::Context;

use crate::{Config, Role};

/// How a finding is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works now, and will not for ever.
    Warning,
    /// Does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// What was looked at, such as `port listen.public`.
    pub subject: String,
    /// What was found.
    pub what: String,
    /// What to do, where something is to be done.
    pub remedy: Option<String>,
}

impl Finding {
    /// It is as it should be.
    pub fn good(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, subject: subject.into(), what: what.into(), remedy: None }
    }

    /// It will need attention.
    pub fn warning(subject: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, subject: subject.into(), what: what.into(), remedy: Some(remedy.into()) }
    }

    /// It does not work.
    pub fn bad(subject: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, subject: subject.into(), what: what.into(), remedy: Some(remedy.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "ok  ",
            Verdict::Warning => "warn",
            Verdict::Bad => "BAD ",
        };
        write!(f, "{mark}  {}: {}", self.subject, self.what)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "\n      -> {remedy}"))
    }
}

/// Looks at everything that `config` needs.
pub async fn examine(config: &Config, context: &Context) -> Vec<Finding> {
    let begun = clock::Moment::now(context);
    let now = context.clock.now();
    let mut findings = vec![drill(config)];
    findings.extend(ports::check(config, context).await);
    let (stores, readings) = storage::check(config, context).await;
    let has_lost_keys =
        stores.iter().any(|finding| finding.subject == storage::PEPPER && finding.verdict == Verdict::Bad);
    findings.extend(stores);
    findings.extend(certificates::check(&config.tls, now, &config.roles()));
    if config.roles().contains(&Role::Gateway) {
        findings.extend(certificates::public(&config.public, now));
    }
    findings.extend(keys::check(config, context, has_lost_keys).await);
    findings.extend(peers::check(config, context).await);
    findings.extend(outside::check(config, context).await);
    findings.extend(clock::check(config, &begun, &clock::Moment::now(context), &readings));
    findings
}

fn drill(config: &Config) -> Finding {
    match (config.drill.crash.as_str(), config.drill.stop.first()) {
        ("", None) => Finding::good("drill", "no crash point is armed"),
        ("", Some(plan)) => {
            Finding::warning("drill", format!("the process will stand still at {plan}"), "clear drill.stop")
        }
        (plan, _) => Finding::warning("drill", format!("the process will kill itself at {plan}"), "clear drill.crash"),
    }
}
