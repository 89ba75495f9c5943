//! TLS between roles.
//!
//! Both sides show a certificate of the internal CA; the DNS name in it is the role. A client checks that the server is the role it
//! wants, a server takes the client's role from its certificate: TLS 1.3 or 1.2, one crypto provider, nothing optional.

use std::fmt;
use std::io;
use std::sync::Arc;

use runtime::Io;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ResolvesServerCertUsingSni, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::extensions::GeneralName;

use crate::role::{Role, role_dns_name, role_of_dns_name};

const ALPN_H2: &[u8] = b"h2";
const ALPN_H1: &[u8] = b"http/1.1";

/// Why certificates or keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text has no usable certificate or key.
    #[error("{what} is not readable PEM")]
    Pem {
        /// Which of the three texts.
        what: &'static str,
        /// What the parser said.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate, its key and the CA do not belong together.
    #[error("certificate and key cannot be used")]
    Rustls(#[from] rustls::Error),
    /// The CA cannot verify anybody.
    #[error("the CA certificate cannot be used")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// The three PEM texts that a role holds: who it trusts, who it is, and its proof.
#[derive(Clone)]
pub struct RolePem {
    /// Certificate of the internal CA.
    pub ca: String,
    /// Certificate chain of the role, its own first.
    pub certificate: String,
    /// Private key of the role, PKCS#8.
    pub key: runtime::secret::Secret<String>,
}

/// What a role shows when it calls.
#[derive(Clone)]
pub struct ClientIdentity(Arc<ClientConfig>);

/// What a listener shows, and what it demands.
#[derive(Clone)]
pub struct ServerIdentity {
    config: Arc<ServerConfig>,
}

impl ClientIdentity {
    /// Reads the texts.
    ///
    /// Errors: when they are unreadable or do not belong together.
    pub fn new(pem: &RolePem) -> Result<Self, TlsError> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(&pem.ca)?)
            .with_client_auth_cert(chain(&pem.certificate)?, key(pem)?)?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with a peer that must be `role`. The caller holds the deadline.
    pub(crate) async fn connect(&self, role: Role, io: Io) -> io::Result<Io> {
        let name = ServerName::try_from(role_dns_name(role)).map_err(io::Error::other)?;
        let stream = TlsConnector::from(self.0.clone()).connect(name, io).await?;
        Ok(Box::new(stream))
    }
}

impl ServerIdentity {
    /// For a role's own listener: every client must show a certificate of the same CA.
    ///
    /// Errors: when the texts are unreadable or do not belong together.
    pub fn mutual(pem: &RolePem) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&pem.ca)?), provider.clone()).build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain(&pem.certificate)?, key(pem)?)?;
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// For the listener of a process with several roles: a client is shown the certificate of the role that it asks for by name, and must
    /// show one of the same CA, which is that of the first.
    ///
    /// Errors: when the texts are unreadable or do not belong together.
    pub fn mutual_for(roles: &[(Role, RolePem)]) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let ca = roles.first().map(|(_, pem)| pem.ca.as_str()).unwrap_or_default();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider.clone()).build()?;
        let mut certificates = ResolvesServerCertUsingSni::new();
        for (role, pem) in roles {
            let certified = CertifiedKey::from_der(chain(&pem.certificate)?, key(pem)?, &provider)?;
            certificates.add(&role_dns_name(*role), certified)?;
        }
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// For the public listener: the server shows its certificate and asks for none.
    ///
    /// Errors: when the texts are unreadable or do not belong together.
    pub fn public(certificate: &str, private_key: &runtime::secret::Secret<String>) -> Result<Self, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain(certificate)?, read_key(private_key.expose())?)?;
        config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_H1.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// Shakes hands, and reads the role in the client's certificate. The caller holds the deadline.
    pub(crate) async fn accept(&self, io: Io) -> io::Result<(Io, Option<Role>)> {
        let stream = TlsAcceptor::from(self.config.clone()).accept(io).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let role = certificate.and_then(|certificate| role_of_certificate(certificate));
        Ok((Box::new(stream), role))
    }
}

/// The role of a certificate: its one DNS name. More than one name, or none, is no role.
pub(crate) fn role_of_certificate(der: &[u8]) -> Option<Role> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    match names.value.general_names.as_slice() {
        [GeneralName::DNSName(name)] => role_of_dns_name(name),
        _ => None,
    }
}

fn roots(ca: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(ca, "the CA")? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn chain(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    read_chain(pem, "the certificate")
}

fn read_chain(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })
}

fn key(pem: &RolePem) -> Result<PrivateKeyDer<'static>, TlsError> {
    read_key(pem.key.expose())
}

fn read_key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|source| TlsError::Pem { what: "the private key", source })
}

impl fmt::Debug for RolePem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RolePem")
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity")
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerIdentity")
    }
}
