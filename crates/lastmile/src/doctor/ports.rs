//! Can this process have its ports, or who has them?

use std::io::ErrorKind;

use runtime::Context;

use super::Finding;
use crate::{Config, health, ops};

pub(super) async fn check(config: &Config, context: &Context) -> Vec<Finding> {
    let is_running = health::ask(context, &config.listen.operations, ops::LIVE_PATH)
        .await
        .is_ok_and(|answer| answer.is_success && answer.text == "alive");
    let mut findings = Vec::new();
    for (path, address) in config.listen.all() {
        findings.push(port(context, path, address, is_running).await);
    }
    findings
}

async fn port(context: &Context, path: &str, address: &str, is_running: bool) -> Finding {
    let subject = format!("port {path}");
    let error = match context.net.bind(address).await {
        Ok(_) => return Finding::good(subject, format!("{address} is free")),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::AddrInUse if is_running => {
            Finding::good(subject, format!("{address} is held by a running lastmile"))
        }
        ErrorKind::AddrInUse => Finding::bad(
            subject,
            format!("{address} is held by another program"),
            format!("find it with `ss -ltnp`, stop it, or set {path}"),
        ),
        ErrorKind::PermissionDenied => Finding::bad(
            subject,
            format!("{address} may not be used: {error}"),
            format!("set {path} to a port of 1024 or more"),
        ),
        _ => Finding::bad(subject, format!("{address}: {error}"), format!("set {path} to an address of this machine")),
    }
}
