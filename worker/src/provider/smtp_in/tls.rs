//! The server's certificate, for STARTTLS.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// The file cannot be read, or is not what it should be.
    #[error("Cannot read {what} from {path}: {why}; it must be a PEM file that this worker may read")]
    File {
        /// `the certificate` or `the key`.
        what: &'static str,
        /// Where.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key do not go together, or are not usable.
    #[error("The certificate in {path} cannot be used with its key: {why}")]
    Pair {
        /// Of the certificate.
        path: String,
        /// What is wrong.
        why: rustls::Error,
    },
}

/// Reads a certificate chain and its key.
pub(super) fn load(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let failed = |what, path: &Path| {
        let path = path.display().to_string();
        move |why: rustls::pki_types::pem::Error| TlsError::File { what, path, why: why.to_string() }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(failed("the certificate", certificate))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(failed("the key", key))?;
    let unusable = |why| TlsError::Pair { path: certificate.display().to_string(), why };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
