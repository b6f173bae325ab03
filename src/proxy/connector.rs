//! Connections to upstreams: TCP, TLS where the target is `https`, one deadline over both.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::http::Uri;
use hyper_rustls::{
    ConfigBuilderExt, DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector,
    ResolveServerName,
};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tower::Service;

use super::config::{TlsConfig, UpstreamConfig};
use crate::disk;

/// What an upstream's connections are made with.
pub(super) type Connector = Bounded<HttpsConnector<HttpConnector>>;

/// Reads the files that the configuration names. The message says which one is wrong.
pub(super) fn connector(config: &UpstreamConfig) -> Result<Connector, String> {
    let mut http = HttpConnector::new();
    // Divided among the addresses of a name, so that one that is dead does not take all of it.
    http.set_connect_timeout(Some(config.connect_timeout.0));
    http.set_nodelay(true);
    http.enforce_http(false);
    let tls = config.tls.clone().unwrap_or_default();
    let secure = HttpsConnector::new(http, client_config(&tls)?, false, names(&tls)?);
    Ok(Bounded { inner: secure, within: config.connect_timeout.0 })
}

fn client_config(tls: &TlsConfig) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = match &tls.ca_file {
        None => builder.with_webpki_roots(),
        Some(file) => builder.with_root_certificates(roots(file)?),
    };
    match (&tls.cert_file, &tls.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let shown = certificates(cert)?;
            let text = disk::read_file(key).map_err(|error| wrong(key, &error))?;
            let secret =
                PrivateKeyDer::from_pem_slice(&text).map_err(|error| wrong(key, &error))?;
            let both = builder.with_client_auth_cert(shown, secret);
            both.map_err(|error| format!("`{}` and its key: {error}", cert.display()))
        }
        _ => Err("`cert_file` and `key_file` go together; set both or none".into()),
    }
}

fn wrong(file: &Path, error: &dyn std::error::Error) -> String {
    format!("`{}`: {error}", file.display())
}

fn roots(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| wrong(file, &error))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = disk::read_file(file).map_err(|error| wrong(file, &error))?;
    let read = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = read.map_err(|error| wrong(file, &error))?;
    if found.is_empty() {
        return Err(format!("`{}` holds no certificate in PEM", file.display()));
    }
    Ok(found)
}

fn names(tls: &TlsConfig) -> Result<Arc<dyn ResolveServerName + Send + Sync>, String> {
    let Some(name) = &tls.server_name else {
        return Ok(Arc::new(DefaultServerNameResolver::default()));
    };
    let name = ServerName::try_from(name.clone())
        .map_err(|_| format!("`{name}` is not a name that a certificate can be for"))?;
    Ok(Arc::new(FixedServerNameResolver::new(name)))
}

/// A connector with one deadline over all that it does.
#[derive(Clone, Debug)]
pub(super) struct Bounded<C> {
    inner: C,
    within: Duration,
}

impl<C> Service<Uri> for Bounded<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connected = tokio::time::timeout(self.within, self.inner.call(target));
        Box::pin(async move {
            connected.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}
