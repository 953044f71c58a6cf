//! How TLS is set up: which certificates are believed, and under which name.
//!
//! A certificate that stands in `tls_ca_file` is also believed when a server shows exactly this one, whatever names, dates and marks
//! it has: the file says whose it is, as in DANE (RFC 7671 5.1). So a self-signed certificate can be pinned.
//!
//! The certificates of the machine are read when the first connection needs them: that takes longer than everything else at
//! start, and most providers never need it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use spooler_protocol::plain::plain;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use super::ReadFile;
use super::tls_trouble::SelfSigned;

/// Believed certificates.
#[derive(Clone)]
struct Own {
    /// As authorities.
    roots: RootCertStore,
    /// As those of the server itself.
    exact: Vec<CertificateDer<'static>>,
}

/// Makes TLS connectors.
pub(super) struct Trust {
    verify: bool,
    /// The believed certificates, if they come from a file of their own.
    own: Option<Own>,
    connector: OnceCell<TlsConnector>,
}

impl Trust {
    /// Reads the file of certificates, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate.
    pub(super) fn new(verify: bool, ca_file: Option<&Path>, read: ReadFile<'_>) -> Result<Self, String> {
        let own = match ca_file {
            Some(path) if verify => Some(read_own(read, path)?),
            _ => None,
        };
        Ok(Self { verify, own, connector: OnceCell::new() })
    }

    /// Whether a certificate has to be good.
    pub(super) fn verifies(&self) -> bool {
        self.verify
    }

    /// What makes a TLS connection out of another one.
    ///
    /// # Errors
    /// If certificates have to be verified and the machine has none to verify them with.
    pub(super) async fn connector(&self) -> Result<&TlsConnector, String> {
        self.connector.get_or_try_init(|| self.make()).await
    }

    async fn make(&self) -> Result<TlsConnector, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let config = if self.verify {
            let own = match &self.own {
                Some(own) => own.clone(),
                None => {
                    let roots =
                        tokio::task::spawn_blocking(native_roots).await.map_err(|error| error.to_string())??;
                    Own { roots, exact: Vec::new() }
                }
            };
            let verifier = Arc::new(Verified::new(own, provider)?);
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            let verifier = Arc::new(Unverified { provider });
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// The name that the certificate has to be for.
///
/// # Errors
/// If it is neither a host name nor an address.
pub(super) fn server_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:?} cannot be the name in a certificate"))
}

fn read_own(read: ReadFile<'_>, path: &Path) -> Result<Own, String> {
    let failed = |why: String| format!("Cannot read certificates from {}: {why}", path.display());
    let mut own = Own { roots: RootCertStore::empty(), exact: Vec::new() };
    let content = read(path).map_err(|error| failed(plain(error)))?;
    for certificate in CertificateDer::pem_slice_iter(&content) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        own.roots.add(certificate.clone()).map_err(|error| failed(error.to_string()))?;
        own.exact.push(certificate);
    }
    if own.exact.is_empty() {
        let remedy = "it holds none; `openssl x509 -inform DER -in FILE -out FILE.pem` makes PEM of a DER file";
        return Err(failed(remedy.to_owned()));
    }
    Ok(own)
}

fn native_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "read the machine's certificates");
    if roots.is_empty() {
        return Err(
            "The machine has no certificates to verify with; install ca-certificates or set tls_ca_file".to_owned()
        );
    }
    Ok(roots)
}

/// Takes a certificate of a believed authority for the right name, or exactly a believed one.
#[derive(Debug)]
struct Verified {
    by_authority: Arc<WebPkiServerVerifier>,
    exact: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verified {
    fn new(own: Own, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let by_authority = verifier(own.roots, &provider).ok_or("the certificates cannot be verified with")?;
        Ok(Self { by_authority, exact: own.exact, provider })
    }

    /// Whether a certificate was not issued by another one: its own key has signed it, or it is an authority's.
    fn is_self_signed(
        &self,
        why: &Error,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> bool {
        match why {
            Error::InvalidCertificate(CertificateError::Other(other)) => other.0.to_string() == "CaUsedAsEndEntity",
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                let mut itself = RootCertStore::empty();
                itself.add(certificate.clone().into_owned()).is_ok()
                    && verifier(itself, &self.provider).is_some_and(|verifier| {
                        let verified = verifier.verify_server_cert(certificate, &[], name, &[], now);
                        !matches!(verified, Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)))
                    })
            }
            _ => false,
        }
    }
}

fn verifier(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().ok()
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.exact.iter().any(|exact| exact == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.by_authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).map_err(
            |why| {
                if self.is_self_signed(&why, end_entity, server_name, now) {
                    CertificateError::Other(OtherError(Arc::new(SelfSigned))).into()
                } else {
                    why
                }
            },
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// Takes any certificate: protects against listening, not against a man in the middle. What opportunistic TLS is.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
