//! [`Tls`]: connections under TLS, with a certificate that may change.
//!
//! A stream under TLS stays with actix: what leaves its socket is made for that
//! one client, so there is nothing to send by reference.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::metrics::HttpMetrics;

/// How often the files are looked at. Whoever renews a certificate does so
/// days before the old one ends.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Where certificate and key are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// `server.tls_cert`: the certificate, and those between it and the root.
    pub(crate) cert: PathBuf,
    /// `server.tls_key`: its private key.
    pub(crate) key: PathBuf,
}

/// Accepts connections under TLS.
#[derive(Clone)]
pub(super) struct Tls {
    acceptor: TlsAcceptor,
}

/// What the files held when they were read last.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate that new connections get.
struct Certificate {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Tls {
    /// Reads the files, and goes on to look whether they have changed.
    ///
    /// # Errors
    /// They cannot be read, or do not go together.
    pub(super) fn start(files: TlsFiles, metrics: HttpMetrics) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let contents = files.read()?;
        let certificate = Arc::new(Certificate {
            current: RwLock::new(contents.certified(&files, &provider)?),
            files,
            provider: Arc::clone(&provider),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        actix_web::rt::spawn(certificate.watch(contents, metrics));
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Does the handshake.
    ///
    /// # Errors
    /// The client's are no such, or it is gone.
    pub(super) async fn accept(&self, socket: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(socket).await
    }
}

impl TlsFiles {
    fn read(&self) -> anyhow::Result<Contents> {
        let read = |path: &PathBuf| {
            fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Contents {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
        })
    }
}

impl Contents {
    fn certified(
        &self,
        files: &TlsFiles,
        provider: &CryptoProvider,
    ) -> anyhow::Result<Arc<CertifiedKey>> {
        let (cert, key) = (files.cert.display(), files.key.display());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<_, _>>()
            .with_context(|| format!("{cert} is no PEM"))?;
        anyhow::ensure!(!chain.is_empty(), "{cert} holds no certificate");
        let private = PrivateKeyDer::from_pem_slice(&self.key)
            .with_context(|| format!("{key} holds no private key as PEM"))?;
        let certified = CertifiedKey::from_der(chain, private, provider)
            .with_context(|| format!("{cert} and {key} do not go together"))?;
        Ok(Arc::new(certified))
    }
}

impl Certificate {
    /// Takes what the files hold whenever that has changed. What cannot be used
    /// (a new certificate whose key is not there yet) is looked at once more
    /// when it changes; until then the last good one stays.
    async fn watch(self: Arc<Self>, mut seen: Contents, metrics: HttpMetrics) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let Ok(contents) = self.files.read() else {
                // In between of being replaced; its end would show at clients.
                continue;
            };
            if contents == seen {
                continue;
            }
            match contents.certified(&self.files, &self.provider) {
                Ok(certified) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = certified;
                    metrics.tls_reloads.with_label_values(&["taken"]).inc();
                    tracing::info!(cert = %self.files.cert.display(), "new certificate taken");
                }
                Err(error) => {
                    metrics.tls_reloads.with_label_values(&["refused"]).inc();
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the new certificate cannot be used, the old one stays"
                    );
                }
            }
            seen = contents;
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Certificate")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}
