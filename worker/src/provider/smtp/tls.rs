//! How TLS is set up: which certificates are believed, and under which name.
//!
//! The certificates of the machine are read when the first connection needs them: that takes longer than everything else at
//! start, and most providers never need it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use super::ReadFile;

/// Makes TLS connectors.
pub(super) struct Trust {
    verify: bool,
    /// The believed certificates, if they come from a file of their own.
    own_roots: Option<RootCertStore>,
    connector: OnceCell<TlsConnector>,
}

impl Trust {
    /// Reads the file of certificates, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate.
    pub(super) fn new(verify: bool, ca_file: Option<&Path>, read: ReadFile<'_>) -> Result<Self, String> {
        let own_roots = match ca_file {
            Some(path) if verify => Some(read_roots(read, path)?),
            _ => None,
        };
        Ok(Self { verify, own_roots, connector: OnceCell::new() })
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
            let roots = match &self.own_roots {
                Some(roots) => roots.clone(),
                None => tokio::task::spawn_blocking(native_roots).await.map_err(|error| error.to_string())??,
            };
            builder.with_root_certificates(roots).with_no_client_auth()
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

fn read_roots(read: ReadFile<'_>, path: &Path) -> Result<RootCertStore, String> {
    let failed = |why: String| format!("Cannot read certificates from {}: {why}", path.display());
    let mut roots = RootCertStore::empty();
    let content = read(path).map_err(|error| failed(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&content) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("there is none in it".to_owned())) } else { Ok(roots) }
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
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
