//! Do the other roles answer, and are they who the configuration says they are?

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use runtime::{Context, secret};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::Finding;
use crate::config::Tls;
use crate::{Config, Role};

const DEADLINE: Duration = Duration::from_secs(3);

pub(super) async fn check(config: &Config, context: &Context) -> Vec<Finding> {
    if config.mesh.is_empty() {
        return vec![Finding::good("peers", "none are configured: every role runs here")];
    }
    let client = match client(&config.tls) {
        Ok(client) => TlsConnector::from(Arc::new(client)),
        Err(error) => {
            return vec![Finding::bad("peers", format!("{error:#}"), "mend the certificates first; no peer was asked")];
        }
    };
    let mut findings = Vec::new();
    for (key, peer) in &config.mesh {
        let subject = format!("peer {key}");
        findings.push(match meet(context, &client, key, &peer.endpoint).await {
            Ok(role) => Finding::good(subject, format!("{} answers as {role}", peer.endpoint)),
            Err(error) => Finding::bad(
                subject,
                format!("{}: {error:#}", peer.endpoint),
                format!("start that role, or set mesh.{key}.endpoint; its certificate must come from the same CA"),
            ),
        });
    }
    findings
}

/// Connects and shakes hands, each side proving its role.
async fn meet(context: &Context, client: &TlsConnector, key: &str, endpoint: &str) -> anyhow::Result<Role> {
    let role: Role = key.split('/').next().unwrap_or_default().parse()?;
    let address = endpoint.strip_prefix("https://").context("not an https address")?;
    let io = context.net.connect(address, DEADLINE).await.context("no connection")?;
    let name = ServerName::try_from(role.dns_name())?;
    let shaken = context.clock.timeout(DEADLINE, client.connect(name, io)).await;
    shaken.context("the TLS handshake takes too long")?.context("the TLS handshake failed")?;
    Ok(role)
}

fn client(tls: &Tls) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&tls.ca_file)? {
        roots.add(certificate).context("the CA's certificate cannot be used")?;
    }
    let key = secret::read_private(&tls.key_file)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose()).context("the private key is not PEM")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&tls.cert_file)?, key)
        .context("the certificate and key do not fit")
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let named = || format!("{} is not a PEM certificate", path.display());
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().with_context(named)
}
