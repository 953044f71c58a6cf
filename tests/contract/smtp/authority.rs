//! A certificate authority of our own, made by the openssl program, and the server's side of TLS.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

/// An authority, and a certificate of it for `mx.test` and 127.0.0.1.
pub(super) struct Authority {
    folder: TempDir,
}

impl Authority {
    /// `None` and a word on standard error if there is no openssl program.
    pub(super) fn new(test: &str) -> Option<Self> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: {test} (no openssl program)");
            return None;
        }
        let authority = Self { folder: TempDir::new().unwrap() };
        std::fs::write(authority.path("ca.cnf"), "[req]\ndistinguished_name = dn\nx509_extensions = ca\n[dn]\n[ca]\nbasicConstraints = critical,CA:TRUE\nsubjectKeyIdentifier = hash\n").unwrap();
        std::fs::write(
            authority.path("server.cnf"),
            "basicConstraints = CA:FALSE\nsubjectAltName = DNS:mx.test,IP:127.0.0.1\n",
        )
        .unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        authority
            .openssl(&format!("req -x509 {key} -config ca.cnf -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
        authority.openssl(&format!("req {key} -config ca.cnf -keyout server.key -out server.csr -subj /CN=mx.test"));
        authority.openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile server.cnf");
        Some(authority)
    }

    /// A file in its folder: `ca.pem` is what a client has to believe.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server that shows the certificate.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.server_with("server")
    }

    /// A server that shows the certificate `NAME.pem`, with the key `NAME.key`.
    pub(super) fn server_with(&self, name: &str) -> Arc<ServerConfig> {
        let chain =
            CertificateDer::pem_file_iter(self.path(&format!("{name}.pem"))).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Arc::new(config)
    }

    /// Runs the openssl program in its folder.
    pub(super) fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let output = command.args(arguments.split(' ')).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
