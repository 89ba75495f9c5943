//! Do the other roles answer, and are they who the configuration says they are?

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use runtime::{Context, secret};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Finding;
use super::certificates::{self, Span};
use crate::config::RoleFiles;
use crate::{Config, Role};

const DEADLINE: Duration = Duration::from_secs(3);
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length 0, type SETTINGS, no flags, stream 0.
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

pub(super) async fn check(config: &Config, context: &Context) -> Vec<Finding> {
    if config.mesh.is_empty() {
        return vec![Finding::good("peers", "none are configured: every role runs here")];
    }
    let mut findings = Vec::new();
    for role in config.roles() {
        findings.extend(of_role(config, context, role).await);
    }
    findings
}

/// Asks every peer in the name of one of the roles that run here.
async fn of_role(config: &Config, context: &Context, role: Role) -> Vec<Finding> {
    let client = match client(&config.tls.files(role)) {
        Ok(client) => TlsConnector::from(Arc::new(client)),
        Err(error) => {
            let remedy = "mend the certificates first; no peer was asked";
            return vec![Finding::bad(format!("peers of {role}"), format!("{error:#}"), remedy)];
        }
    };
    let mut findings = Vec::new();
    for (key, peer) in &config.mesh {
        let subject = format!("peer {key} of {role}");
        findings.push(match meet(context, &client, key, &peer.endpoint).await {
            Ok((role, span)) => {
                let name = format!("{} answers as {role}, and its certificate", peer.endpoint);
                let remedy = format!("issue it anew with `lastmile ca issue --role {role}` and restart that process");
                certificates::ends(subject, &name, &span, context.clock.now(), &remedy)
            }
            Err(error) => Finding::bad(subject, format!("{}: {error:#}", peer.endpoint), remedy(&error, key)),
        });
    }
    findings
}

/// What to do about a peer that was not met.
fn remedy(error: &anyhow::Error, key: &str) -> String {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let refused = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref());
    for cause in refused {
        if let rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) = cause
        {
            return format!(
                "if the clocks of both machines are right, issue the certificate of {key} anew and restart it"
            );
        }
    }
    format!("start that role, or set mesh.{key}.endpoint; its certificate must come from the same CA")
}

/// Connects and shakes hands, each side proving its role; brings the span of the peer's certificate.
async fn meet(context: &Context, client: &TlsConnector, key: &str, endpoint: &str) -> anyhow::Result<(Role, Span)> {
    let role: Role = key.split('/').next().unwrap_or_default().parse()?;
    let address = endpoint.strip_prefix("https://").context("not an https address")?;
    let io = context.net.connect(address, DEADLINE).await.context("no connection")?;
    let name = ServerName::try_from(role.dns_name())?;
    let shaken = context.clock.timeout(DEADLINE, client.connect(name, io)).await;
    let mut session = shaken.context("the TLS handshake takes too long")?.context("the TLS handshake failed")?;
    let greeted = context.clock.timeout(DEADLINE, greet(&mut session)).await;
    greeted
        .context("it does not answer")?
        .context("it refuses this process's certificate, or does not speak HTTP/2")?;
    let (_, handshake) = session.get_ref();
    let shown = handshake.peer_certificates().and_then(|chain| chain.first()).context("it shows no certificate")?;
    let (_, certificate) = X509Certificate::from_der(shown).context("its certificate cannot be read")?;
    Ok((role, Span::of(&certificate)))
}

/// Begins to speak HTTP/2 and waits for the first byte: only then has the other side accepted our certificate.
async fn greet(session: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
    session.write_all(HTTP2_PREFACE).await?;
    session.write_all(&EMPTY_SETTINGS).await?;
    session.read_u8().await.map(drop)
}

fn client(files: &RoleFiles) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).context("the CA's certificate cannot be used")?;
    }
    let key = secret::read_private(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose()).context("the private key is not PEM")?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.cert)?, key)
        .context("the certificate and key do not fit")?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(client)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let named = || format!("{} is not a PEM certificate", path.display());
    let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().with_context(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca;
    use crate::config::Peer;
    use crate::doctor::Verdict;
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use tokio_rustls::TlsAcceptor;

    fn issued(place: &Path, role: Role) -> RoleFiles {
        let context = Context::system();
        let directory = place.join("ca");
        if !directory.exists() {
            ca::init(&context, &directory).expect("makes a CA");
        }
        ca::issue(&context, &directory, role, ca::days(9), &place.join(role.name())).expect("issues")
    }

    #[tokio::test]
    async fn a_peer_whose_certificate_is_over_points_at_the_clocks() {
        let place = tempfile::tempdir().expect("a directory");
        let context = Context::system();
        issued(place.path(), Role::Cases);
        let (clock, _) = runtime::Clock::manual(context.clock.now().minus(ca::days(30)));
        let before = Context { clock, ..Context::system() };
        let (ca, out) = (place.path().join("ca"), place.path().join("late"));
        let over = ca::issue(&before, &ca, Role::Payments, ca::days(9), &out).expect("issues");
        let endpoint = play(&context, &over).await;
        let (refused, told) = verdict(&context, place.path(), "payments", &endpoint).await;
        assert!(refused == Verdict::Bad && told.contains("seconds ago"), "{told}");
        assert!(told.contains("-> if the clocks of both machines are right"), "{told}");
    }

    /// Plays a role that wants a certificate of its CA from every caller; returns its endpoint.
    async fn play(context: &Context, files: &RoleFiles) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&files.ca).expect("reads").remove(0)).expect("a root");
        let key = secret::read_private(&files.key).expect("reads");
        let key = PrivateKeyDer::from_pem_slice(key.expose()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier.expect("a verifier"))
            .with_single_cert(certificates(&files.cert).expect("reads"), key)
            .expect("fits");
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let listener = context.net.bind("127.0.0.1:0").await.expect("binds");
        let endpoint = format!("https://{}", listener.local_addr());
        context.tasks.spawn("played role", async move {
            while let Ok((io, _)) = listener.accept().await {
                if let Ok(mut session) = acceptor.accept(io).await {
                    let _ = session.write_all(&EMPTY_SETTINGS).await;
                }
            }
        });
        endpoint
    }

    async fn verdict(context: &Context, directory: &Path, key: &str, endpoint: &str) -> (Verdict, String) {
        let peer = Peer { endpoint: endpoint.to_owned() };
        let mut config = Config { mesh: [(key.to_owned(), peer)].into(), ..Config::default() };
        config.tls.directory = directory.to_owned();
        config.serve.roles = vec![Role::Cases];
        let findings = check(&config, context).await;
        (findings[0].verdict, findings[0].to_string())
    }

    #[tokio::test]
    async fn a_peer_must_prove_its_role_and_accept_ours() {
        let (place, elsewhere) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let context = Context::system();
        let ours = issued(place.path(), Role::Cases);
        let endpoint = play(&context, &issued(place.path(), Role::Payments)).await;
        let (soon, told) = verdict(&context, place.path(), "payments", &endpoint).await;
        assert!(soon == Verdict::Warning && told.contains("answers as payments"), "{told}");
        assert!(told.contains("its certificate ends in 8 days"), "{told}");
        let (other_role, told) = verdict(&context, place.path(), "identity", &endpoint).await;
        assert_eq!(other_role, Verdict::Bad, "{told}");
        assert!(told.contains("the TLS handshake failed"), "{told}");

        let stranger = issued(elsewhere.path(), Role::Cases);
        std::fs::copy(&ours.ca, &stranger.ca).expect("trusts our CA");
        let (refused, told) = verdict(&context, elsewhere.path(), "payments", &endpoint).await;
        assert_eq!(refused, Verdict::Bad, "{told}");
        assert!(told.contains("it refuses this process's certificate"), "{told}");
    }
}
