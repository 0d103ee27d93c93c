//! [`Authority`]: certificates that a test makes for itself.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// Signs certificates, and keeps them as PEM files: `ca.pem`, and for each
/// name `NAME.pem` and `NAME.key`.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Of one name with what it signs, that would count as signed by itself.
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().expect("a key");
        let authority = Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("it signs itself"),
            dir: TempDir::new().expect("a temporary directory"),
        };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    /// Signs a new certificate for `name`, in place of the one before.
    pub(crate) fn issue(&self, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.signed_by(&key, &self.issuer).expect("it signs");
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.pem"), &cert.pem());
    }

    /// Renames a new file over the old one, as those who renew certificates do.
    fn write(&self, name: &str, pem: &str) {
        let new = self.dir.path().join("new");
        std::fs::write(&new, pem).expect("the directory is ours");
        std::fs::rename(new, self.file(name)).expect("the directory is ours");
    }

    /// Arguments of a redis-server that speaks TLS at a port, to whoever trusts
    /// this authority; other servers have to show a certificate of it, too.
    pub(crate) fn redis_arguments(&self, port: u16) -> Vec<String> {
        const NAME: &str = "127.0.0.1";
        if !self.file(&format!("{NAME}.pem")).exists() {
            self.issue(NAME);
        }
        let pairs = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", self.path(&format!("{NAME}.pem"))),
            ("--tls-key-file", self.path(&format!("{NAME}.key"))),
            ("--tls-ca-cert-file", self.path("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
        ];
        let words = pairs.map(|(name, value)| [name.to_owned(), value]);
        words.into_iter().flatten().collect()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns a file's path as a setting or an argument has it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Makes what a client needs that trusts this authority.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from(self.issuer.der().to_vec());
        roots.add(der).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}
