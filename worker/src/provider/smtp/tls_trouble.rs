//! Why a TLS handshake failed, and what to do about it, for a person. Pure.

use std::io;
use std::net::SocketAddr;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error, OtherError};
use spooler_protocol::plain::plain;

/// A certificate that no authority vouches for.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is self-signed")]
pub(super) struct SelfSigned;

/// How the handshake was made: what advice depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handshake {
    /// The server.
    pub(super) address: SocketAddr,
    /// TLS began with the first byte.
    pub(super) implicit: bool,
}

/// The reason in a clause that continues `No TLS with mx.example.net[192.0.2.1]:25: `.
pub(super) fn reason(error: &io::Error, handshake: Handshake) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(why)) => certificate(why, handshake),
        Some(Error::InvalidMessage(_)) if handshake.implicit => {
            "the server does not begin with TLS there; for STARTTLS set tls = \"required\"".to_owned()
        }
        Some(Error::AlertReceived(alert)) => format!("the server ended the handshake with the alert {alert:?}"),
        Some(Error::PeerIncompatible(_)) => {
            format!("the server speaks no TLS version or cipher that is still safe ({})", plain(error))
        }
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closed the connection in the handshake".to_owned()
        }
        None => plain(error),
    }
}

fn certificate(why: &CertificateError, handshake: Handshake) -> String {
    match why {
        // The signature is bad where another authority has the name of a trusted one.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate was issued by an authority that is not trusted here; set \
             tls_ca_file to the authority's certificate, or add that to the machine's"
                .to_owned()
        }
        CertificateError::Other(OtherError(inner)) if inner.is::<SelfSigned>() => self_signed(handshake),
        CertificateError::Expired => "its certificate has expired; renew it".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            format!("its certificate expired on {}; renew it (here it is {})", date(*not_after), date(*time))
        }
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "its certificate is valid from {} only and here it is {}; set the clock of this machine",
            date(*not_before),
            date(*time)
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            match names.as_slice() {
                [] => format!(
                    "its certificate names no host (no subjectAltName), so that it cannot be for {expected}; {}",
                    pin(handshake)
                ),
                names => format!(
                    "its certificate is for {}, not for {expected}; set host or tls_server_name to a name of the certificate",
                    names.join(", ")
                ),
            }
        }
        other => format!("its certificate is not valid: {other}"),
    }
}

fn self_signed(handshake: Handshake) -> String {
    format!("its certificate is self-signed; {}", pin(handshake))
}

/// How to trust exactly the certificate that the server shows.
fn pin(handshake: Handshake) -> String {
    let starttls = if handshake.implicit { "" } else { " -starttls smtp" };
    format!(
        "to trust exactly this one, save it with `openssl s_client -connect {}{starttls} </dev/null | openssl x509 -out FILE`, \
         compare FILE with the server's, and set tls_ca_file = \"FILE\"",
        handshake.address
    )
}

/// A name out of rustls' `DnsName("mx.test")` or `IpAddress(192.0.2.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::pki_types::ServerName;

    use super::*;

    fn said(error: Error, implicit: bool) -> String {
        let handshake = Handshake { address: ([192, 0, 2, 1], 465).into(), implicit };
        reason(&io::Error::new(io::ErrorKind::InvalidData, error), handshake)
    }

    fn about(why: CertificateError) -> String {
        said(Error::InvalidCertificate(why), true)
    }

    #[test]
    fn every_reason_says_what_helps() {
        let day = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(days * 86_400));
        let expired = about(CertificateError::ExpiredContext { time: day(20_000), not_after: day(19_999) });
        assert_eq!(
            expired,
            "its certificate expired on 2024-10-03 00:00 UTC; renew it (here it is 2024-10-04 00:00 UTC)"
        );
        let early = about(CertificateError::NotValidYetContext { time: day(1), not_before: day(2) });
        assert!(early.contains("from 1970-01-03 00:00 UTC") && early.contains("set the clock"), "{early}");
        let expected = ServerName::try_from("mx.test").unwrap();
        let presented = vec!["DnsName(\"a.test\")".to_owned(), "IpAddress(192.0.2.1)".to_owned()];
        let named = about(CertificateError::NotValidForNameContext { expected: expected.clone(), presented });
        assert!(named.starts_with("its certificate is for a.test, 192.0.2.1, not for mx.test; set host"), "{named}");
        let nameless = about(CertificateError::NotValidForNameContext { expected, presented: Vec::new() });
        assert!(nameless.contains("names no host") && nameless.contains("tls_ca_file = \"FILE\""), "{nameless}");
        assert!(about(CertificateError::UnknownIssuer).contains("set tls_ca_file"));
        assert!(
            said(Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), true)
                .contains("tls = \"required\"")
        );
    }

    #[test]
    fn advice_for_self_signed_names_the_protocol() {
        let own = || Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(SelfSigned))));
        assert!(said(own(), true).contains("-connect 192.0.2.1:465 </dev/null |"), "{}", said(own(), true));
        assert!(said(own(), false).contains("-connect 192.0.2.1:465 -starttls smtp </dev/null |"));
    }
}
