//! Handshakes: what is shown, what is reloaded, and who is not let in.

use std::io::{Read, Write};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::*;
use crate::clock::SystemClock;
use crate::server::TlsConfig;

type Client = StreamOwned<ClientConnection, TcpStream>;

struct Files(TempDir);

impl Files {
    fn config(&self, handshake_timeout: Span) -> TlsConfig {
        let at = |name| self.0.path().join(name);
        TlsConfig { cert: at("cert.pem"), key: at("key.pem"), handshake_timeout }
    }

    /// Writes a new pair, and returns what clients are to trust.
    fn renew(&self) -> CertificateDer<'static> {
        let made = generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        let CertifiedKey { cert, signing_key } = made;
        let config = self.config(Span::secs(1));
        std::fs::write(config.cert, cert.pem()).expect("written");
        std::fs::write(config.key, signing_key.serialize_pem()).expect("written");
        cert.der().clone()
    }
}

fn connect(address: SocketAddr, trusted: &CertificateDer<'static>) -> io::Result<Client> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut client = StreamOwned::new(connection, TcpStream::connect(address)?);
    client.conn.complete_io(&mut client.sock)?;
    Ok(client)
}

fn ask(client: &mut Client) -> String {
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let mut answer = [0; 1024];
    let read = client.read(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test]
async fn a_reload_is_shown_to_new_connections_and_old_ones_go_on() {
    let files = Files(TempDir::new().expect("a directory"));
    let first = files.renew();
    let config = files.config(Span::secs(10));
    let certificates =
        Certificates::open(&config, true, Arc::new(SystemClock::new())).expect("good");
    let running = start_with(Config::default(), Some(certificates.clone()));
    let address = running.address;
    let mut old = blocking(move || {
        let mut client = connect(address, &first).expect("a handshake");
        assert!(ask(&mut client).starts_with("HTTP/1.1 200"));
        client
    })
    .await;
    let second = files.renew();
    certificates.replace(certificates.renewed().expect("it is good"));
    blocking(move || {
        let mut new = connect(address, &second).expect("a handshake");
        assert!(ask(&mut new).starts_with("HTTP/1.1 200"));
        assert!(ask(&mut old).starts_with("HTTP/1.1 200"));
    })
    .await;
}

#[tokio::test]
async fn who_does_not_shake_hands_is_closed_and_counted() {
    let files = Files(TempDir::new().expect("a directory"));
    files.renew();
    let config = files.config(Span::millis(50));
    let certificates =
        Certificates::open(&config, true, Arc::new(SystemClock::new())).expect("good");
    let running = start_with(Config::default(), Some(certificates));
    let answer = exchange(running.address, CLOSE).await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    // Whoever says nothing is closed when the time for it is over.
    assert_eq!(exchange(running.address, b"").await, "");
    assert_eq!(running.metrics.http.handshakes_failed.get(), 2);
}
