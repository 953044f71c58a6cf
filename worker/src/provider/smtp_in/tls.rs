//! The server's certificate, for STARTTLS.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::support::Support;

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
pub(super) fn load(support: &Support, certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let failed = |what, path: &Path| {
        let path = path.display().to_string();
        move |why: &dyn std::fmt::Display| TlsError::File { what, path, why: why.to_string() }
    };
    let read = |what, path: &Path| support.file(path).map_err(|error| failed(what, path)(&error));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read("the certificate", certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error: rustls::pki_types::pem::Error| failed("the certificate", certificate)(&error))?;
    let private =
        PrivateKeyDer::from_pem_slice(&read("the key", key)?).map_err(|error| failed("the key", key)(&error))?;
    let unusable = |why| TlsError::Pair { path: certificate.display().to_string(), why };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
