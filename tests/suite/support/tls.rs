//! TLS as a client speaks it: a certificate of the test's own, and connections that trust nothing
//! else.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::house::connect;

pub type Client = StreamOwned<ClientConnection, TcpStream>;

/// A certificate and its key in two files that a gateway is told of.
pub struct Pair {
    dir: TempDir,
}

impl Pair {
    /// One that is good today.
    pub fn new() -> (Self, CertificateDer<'static>) {
        let pair = Self { dir: tempfile::tempdir().expect("a directory") };
        let certificate = pair.renew(-1, 1);
        (pair, certificate)
    }

    pub fn cert(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// `[server.tls]`
    pub fn section(&self) -> String {
        format!("[server.tls]\ncert = {:?}\nkey = {:?}\n", self.cert(), self.key())
    }

    /// Another one takes its place, good from so many days on until so many. Returns what clients
    /// are to trust.
    pub fn renew(&self, from: i64, until: i64) -> CertificateDer<'static> {
        let now = OffsetDateTime::now_utc();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.not_before = now + Duration::days(from);
        params.not_after = now + Duration::days(until);
        let certificate = params.self_signed(&key).expect("signed");
        write(&self.cert(), &certificate.pem());
        write(&self.key(), &key.serialize_pem());
        certificate.der().clone()
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

/// Shakes hands, offering `protocols`; an error where the other side shows something else than
/// `trusted`, or nothing.
pub fn shake(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    protocols: &[&str],
) -> std::io::Result<Client> {
    let config = trusting(trusted, protocols);
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut client = StreamOwned::new(connection, connect(address));
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock)?;
    }
    Ok(client)
}

/// A client that believes `trusted` alone.
pub fn trusting(trusted: &CertificateDer<'static>, protocols: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}
