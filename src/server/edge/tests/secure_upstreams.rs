//! `https` upstreams: whom the gateway believes, and as whom it speaks.

use std::path::Path;

use axum_server::tls_rustls::RustlsConfig;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use super::*;
use crate::proxy::TlsConfig;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A certificate for `name` and its key, in PEM.
fn certificate(by: &Authority, name: &str, last_year: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, by).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// An upstream that shows such a certificate, and asks for one of `clients` if there is such an
/// authority.
async fn secure(
    tasks: &TaskTracker,
    (cert, key): (String, String),
    clients: Option<&Authority>,
) -> UpstreamConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let config = builder.with_single_cert(vec![cert], key).expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a socket");
    let router = Router::new().route("/up", any(async || "secret"));
    let config = RustlsConfig::from_config(Arc::new(config));
    tasks.spawn(async move {
        let server = axum_server::from_tcp_rustls(listener, config).expect("a listener");
        server.serve(router.into_make_service()).await
    });
    let targets = vec![format!("https://{address}")];
    UpstreamConfig { name: "up".into(), targets, ..UpstreamConfig::default() }
}

fn written(dir: &Path, name: &str, text: &str) -> Option<std::path::PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a file");
    Some(path)
}

async fn asked(upstream: UpstreamConfig, tls: TlsConfig) -> (u16, String) {
    let upstream = UpstreamConfig { tls: Some(tls), ..upstream };
    let gateway = Gateway::start(Config::default(), &[upstream], &[route("/up", "up")]);
    let answer = gateway.get("/up", &[("x-api-key", key(1).reveal())]).await;
    (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
}

fn is_refused(seen: &(u16, String)) -> bool {
    seen.0 == 502 && seen.1.contains("\"upstream_tls_failed\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_certificate_of_a_known_authority_is_believed() {
    let (tasks, dir) = (TaskTracker::new(), TempDir::new().expect("a directory"));
    let (known, stranger) = (authority(), authority());
    let tls =
        TlsConfig { ca_file: written(dir.path(), "ca.pem", &known.pem()), ..TlsConfig::default() };
    let good = secure(&tasks, certificate(&known, "127.0.0.1", 4000), None).await;
    assert_eq!(asked(good.clone(), tls.clone()).await, (200, "secret".into()));

    let public = asked(good, TlsConfig::default()).await;
    assert!(is_refused(&public), "not one of the public authorities: {public:?}");
    for (by, name, year) in [
        (&stranger, "127.0.0.1", 4000),
        (&known, "127.0.0.1", 2020),
        (&known, "elsewhere.example", 4000),
    ] {
        let bad = secure(&tasks, certificate(by, name, year), None).await;
        let seen = asked(bad, tls.clone()).await;
        assert!(is_refused(&seen), "{name} {year}: {seen:?}");
    }
    let plain = upstream(&tasks, Router::new()).await;
    let targets = plain.targets.iter().map(|target| target.replace("http:", "https:")).collect();
    let seen = asked(UpstreamConfig { targets, ..plain }, tls).await;
    assert!(is_refused(&seen), "no TLS at all: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_may_be_given_and_a_certificate_shown() {
    let (tasks, dir) = (TaskTracker::new(), TempDir::new().expect("a directory"));
    let known = authority();
    let pair = certificate(&known, "orders.internal", 4000);
    let strict = secure(&tasks, pair.clone(), Some(&known)).await;
    let named = TlsConfig {
        ca_file: written(dir.path(), "ca.pem", &known.pem()),
        server_name: Some("orders.internal".into()),
        ..TlsConfig::default()
    };
    let shown = TlsConfig {
        cert_file: written(dir.path(), "own.pem", &pair.0),
        key_file: written(dir.path(), "own.key", &pair.1),
        ..named.clone()
    };
    assert_eq!(asked(strict.clone(), shown).await, (200, "secret".into()));
    let nobody = asked(strict, named).await;
    assert_eq!(nobody.0, 502, "{nobody:?}");
}
