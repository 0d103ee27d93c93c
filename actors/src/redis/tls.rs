//! TLS to Redis: whom we trust, and who we are.

use std::io;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::settings::RedisSettings;

/// Does the handshake with the server called `host`.
///
/// The files of the settings are read each time, so that a renewed certificate
/// is taken with the next connection.
///
/// # Errors
/// A file cannot be used, or the server is not trusted, or does not trust us.
pub(super) async fn connect(
    socket: TcpStream,
    host: &str,
    settings: &RedisSettings,
) -> io::Result<TlsStream<TcpStream>> {
    let config = config(settings).map_err(|error| invalid(format!("{error:#}")))?;
    let name = ServerName::try_from(host.to_owned()).map_err(invalid)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

fn config(settings: &RedisSettings) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(&settings.tls_ca)?);
    if settings.tls_cert.is_empty() {
        return Ok(config.with_no_client_auth());
    }
    let key = PrivateKeyDer::from_pem_file(&settings.tls_key)
        .with_context(|| format!("redis.tls_key: {}", settings.tls_key))?;
    config
        .with_client_auth_cert(certificates("redis.tls_cert", &settings.tls_cert)?, key)
        .context("redis.tls_cert and redis.tls_key do not go together")
}

/// Those of a file, or else the system's.
fn roots(file: &str) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificates = match file.is_empty() {
        false => certificates("redis.tls_ca", file)?,
        true => rustls_native_certs::load_native_certs().certs,
    };
    // Of the system's there may be some that are too old to be used.
    let (added, _) = roots.add_parsable_certificates(certificates);
    anyhow::ensure!(added > 0, "no certificate to trust; set redis.tls_ca");
    Ok(roots)
}

fn certificates(key: &str, file: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    read().with_context(|| format!("{key}: {file}"))
}
