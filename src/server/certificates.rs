//! `[server.tls]`: the certificate that the data plane shows, and how another takes its place.
//!
//! Whatever is loaded has been looked through before anything of it is used: both files, whether
//! they belong together, and whether the certificate is good today. A reload that finds something
//! wrong leaves everything as it was; connections that are open keep what they were opened with.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::disk;
use crate::model::Timestamp;
use crate::model::units::Span;

/// `[server.tls]`: absent, the data plane speaks plain HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and those of its issuers, in this order, PEM.
    pub cert: PathBuf,
    /// The private key of the certificate, PEM.
    pub key: PathBuf,
    /// How long a handshake may take.
    #[serde(default = "handshake_timeout")]
    pub handshake_timeout: Span,
}

/// What HTTP/2 is called in a handshake (RFC 9113 §3.2).
pub(super) const HTTP2: &[u8] = b"h2";

fn handshake_timeout() -> Span {
    Span::secs(10)
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is not there, may not be read, or is not PEM.
    #[error("{key}: {path}: {reason}")]
    File {
        /// Who names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key of another certificate.
    #[error(
        "server.tls.key: {key} does not belong to the certificate in {cert}; \
         renew both together"
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Over, or not yet begun.
    #[error("server.tls.cert: the certificate in {cert} {when}; renew it, or set the clock")]
    Outdated {
        /// The certificate's file.
        cert: PathBuf,
        /// Since when.
        when: String,
    },
}

/// The certificate in use. Clones are the same one.
#[derive(Clone)]
pub struct Certificates {
    config: TlsConfig,
    http2: bool,
    clock: SharedClock,
    current: RustlsConfig,
}

/// A certificate that was looked through and is not in use yet.
pub struct Renewed(Arc<ServerConfig>);

impl Certificates {
    /// Loads what `config` names, to be offered with HTTP/2 or without. Reads two small files.
    ///
    /// # Errors
    /// Files that cannot be read or do not belong together, and a certificate out of its time.
    pub fn open(config: &TlsConfig, http2: bool, clock: SharedClock) -> Result<Self, TlsError> {
        let current = RustlsConfig::from_config(load(config, http2, clock.now())?);
        Ok(Self { config: config.clone(), http2, clock, current })
    }

    /// Until when the certificate is good that `config` names, if it can be used at `now`.
    ///
    /// # Errors
    /// As of [`Certificates::open`].
    pub fn good_until(config: &TlsConfig, now: Timestamp) -> Result<Timestamp, TlsError> {
        load(config, false, now)?;
        let wrong = |reason| file("server.tls.cert", &config.cert, reason);
        let text = disk::read_file(&config.cert).map_err(|error| wrong(unreadable(&error)))?;
        let first = CertificateDer::from_pem_slice(&text).map_err(|_| wrong(NO_PEM.into()))?;
        // Long after the end of all of them.
        let verdict = verdict(&first, Timestamp(i64::MAX), &aws_lc_rs::default_provider());
        match verdict.map_err(|error| wrong(error.to_string()))? {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after,
                ..
            })) => Ok(stamp(not_after)),
            _ => Ok(Timestamp(i64::MAX)),
        }
    }

    /// Loads the files again, and exchanges nothing yet.
    ///
    /// # Errors
    /// As of [`Certificates::open`].
    pub fn renewed(&self) -> Result<Renewed, TlsError> {
        load(&self.config, self.http2, self.clock.now()).map(Renewed)
    }

    /// From now on new connections are shown this one.
    pub fn replace(&self, renewed: Renewed) {
        self.current.reload_from_config(renewed.0);
    }

    /// What handshakes use.
    pub(super) fn current(&self) -> RustlsConfig {
        self.current.clone()
    }

    /// How long one may take.
    pub(super) fn handshake_timeout(&self) -> Duration {
        self.config.handshake_timeout.0
    }
}

fn load(config: &TlsConfig, http2: bool, now: Timestamp) -> Result<Arc<ServerConfig>, TlsError> {
    let TlsConfig { cert, key, .. } = config;
    let wrong_cert = |reason: String| file("server.tls.cert", cert, reason);
    let wrong_key = |reason: String| file("server.tls.key", key, reason);

    let text = disk::read_file(cert).map_err(|error| wrong_cert(unreadable(&error)))?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|_| wrong_cert(NO_PEM.into()))?;
    let first = chain.first().ok_or_else(|| wrong_cert("holds no certificate in PEM".into()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    in_its_time(first, cert, now, &provider)?;

    let text = disk::read_file(key).map_err(|error| wrong_key(unreadable(&error)))?;
    let secret = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => wrong_key("holds no private key in PEM".into()),
        _ => wrong_key(NO_PEM.into()),
    })?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong_cert(error.to_string()))?
        .with_no_client_auth();
    let mut config = builder.with_single_cert(chain, secret).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { cert: cert.clone(), key: key.clone() }
        }
        error => wrong_key(error.to_string()),
    })?;
    let protocols = [HTTP2, b"http/1.1"].into_iter().skip(usize::from(!http2));
    config.alpn_protocols = protocols.map(<[u8]>::to_vec).collect();
    Ok(Arc::new(config))
}

/// Whether a certificate is good at `now`; who issued it is for clients to judge.
fn in_its_time(
    certificate: &CertificateDer<'_>,
    path: &Path,
    now: Timestamp,
    provider: &CryptoProvider,
) -> Result<(), TlsError> {
    let outdated = |when| Err(TlsError::Outdated { cert: path.to_owned(), when });
    let verdict = verdict(certificate, now, provider)
        .map_err(|error| file("server.tls.cert", path, error.to_string()))?;
    match verdict {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            not_after,
            ..
        })) => outdated(format!("expired at {}", stamp(not_after))),
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before,
            ..
        })) => outdated(format!("is not valid before {}", stamp(not_before))),
        _ => Ok(()),
    }
}

/// What the library says of a certificate at `now`. Asked without any root, it speaks of the time
/// first, and then says that it does not know the issuer. An error where it is no certificate.
fn verdict(
    certificate: &CertificateDer<'_>,
    now: Timestamp,
    provider: &CryptoProvider,
) -> Result<Result<(), rustls::Error>, rustls::Error> {
    Ok(verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(certificate)?,
        &RootCertStore::empty(),
        &[],
        UnixTime::since_unix_epoch(now.since(Timestamp::EPOCH)),
        provider.signature_verification_algorithms.all,
    ))
}

fn stamp(at: UnixTime) -> Timestamp {
    Timestamp::EPOCH.plus(Duration::from_secs(at.as_secs()))
}

fn file(key: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError::File { key, path: path.to_owned(), reason }
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

/// What is wrong with a file, and never what is in it.
const NO_PEM: &str = "is not PEM";

#[cfg(test)]
mod tests;
