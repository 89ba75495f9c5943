//! The golden table of errors, and an answer held against its row.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use rpc::{ReasonSpec, ReasonTable, RemoteFault, Retry};
use tonic::{Response, Status};

/// The reasons of every domain.
pub fn tables() -> Vec<ReasonTable> {
    vec![
        rpc::COMMON,
        adapter::REASONS,
        cases::REASONS,
        catalog::REASONS,
        gateway::REASONS,
        identity::REASONS,
        payments::REASONS,
    ]
}

/// Holds an answer to be a refusal that keeps to its row of the table: code, effect, retry, exactly its metadata keys; and that its
/// metadata has these values.
///
/// Shape: `reason` is "domain REASON", for example "gateway QUOTA_EXCEEDED".
pub fn refused<T>(
    answer: Result<Response<T>, Status>,
    reason: &str,
    metadata: &[(&str, &str)],
) -> anyhow::Result<RemoteFault> {
    match answer {
        Ok(_) => anyhow::bail!("{reason} was expected, and it was answered"),
        Err(status) => keeps_to_its_row(&status, reason, metadata),
    }
}

/// The same for a status.
pub fn keeps_to_its_row(status: &Status, reason: &str, metadata: &[(&str, &str)]) -> anyhow::Result<RemoteFault> {
    let fault = RemoteFault::from(status);
    let (domain, name) = reason.split_once(' ').context("a domain and a reason")?;
    ensure!(fault.is(&format!("{domain}.lastmile"), name), "{reason} was expected: {fault} {status:?}");
    let row = row(fault.domain(), name)?;
    ensure!(fault.code() == row.kind.code(), "{reason}: code {:?}", fault.code());
    ensure!(row.effect.is_none_or(|effect| effect == fault.effect()), "{reason}: effect {}", fault.effect());
    let retries = matches!(row.retry(), Retry::After(_));
    ensure!(matches!(fault.retry(), Retry::After(_)) == retries, "{reason}: retry {:?}", fault.retry());
    ensure!(!fault.request_id().is_empty(), "{reason}: no request id");
    let known = row.metadata.iter().map(|key| key.trim_end_matches('?'));
    let required = row.metadata.iter().filter(|key| !key.ends_with('?')).copied();
    let always = ["effect", "origin"];
    let known: BTreeSet<_> = known.chain(always).collect();
    let required: BTreeSet<_> = required.chain(always).collect();
    let given: BTreeSet<_> = fault.metadata_keys().collect();
    ensure!(given.is_subset(&known) && given.is_superset(&required), "{reason}: metadata {given:?}");
    for (key, value) in metadata {
        ensure!(fault.metadata(key) == Some(value), "{reason}: {key} is {:?}, not {value}", fault.metadata(key));
    }
    Ok(fault)
}

fn row(domain: &str, reason: &str) -> anyhow::Result<&'static ReasonSpec> {
    let table = tables().into_iter().find(|table| table.domain == domain);
    let row = table.and_then(|table| table.get(reason));
    row.with_context(|| format!("{domain} {reason} is not in the table"))
}
