//! What simulated agents know a server by, and what they show it: the client's side of TLS.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// A file that is no use for TLS.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct TrustError {
    path: PathBuf,
    reason: String,
}

/// Knows servers by the authorities in a file, or by the system's, and shows them a certificate if there is one.
///
/// # Errors
/// When a file cannot be used.
pub fn client_config(authorities: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(path) => {
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| wrong(path, error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(Path::new("TLS"), error))?
        .with_root_certificates(roots);
    let mut config = match own {
        Some((chain, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error))?;
            builder.with_client_auth_cert(certificates(chain)?, secret).map_err(|error| wrong(key, error))?
        }
        None => builder.with_no_client_auth(),
    };
    // Thousands of agents in one process would share one cache, which agents on machines of their own do not.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| wrong(path, error))?;
    if certificates.is_empty() { Err(wrong(path, "it holds no certificate in PEM form")) } else { Ok(certificates) }
}

fn wrong(path: &Path, reason: impl fmt::Display) -> TrustError {
    TrustError { path: path.to_owned(), reason: reason.to_string() }
}
