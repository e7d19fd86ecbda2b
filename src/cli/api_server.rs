//! A daemon on another machine as commands reach it: its address, the certificates it is known by, and the operator's token.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::http::HeaderValue;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::settings::SecretFile;
use crate::settings::secret::SecretError;
use crate::simulate::{TrustError, client_config};

/// Why a daemon on another machine cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerError {
    /// No address.
    #[error("--server must be an address like https://gitamp.example.com:4323, not {0}")]
    Form(String),
    /// The token could be read on the way.
    #[error("--server {0}: a token is never sent without TLS to another machine: the address must begin with https://")]
    Unprotected(String),
    /// No token.
    #[error("--server asks for a token: name its file with --token-file or GITAMP_TOKEN_FILE")]
    NoToken,
    /// The token's file cannot be used.
    #[error("--token-file: {0}")]
    Token(#[from] SecretError),
    /// It is no token.
    #[error("--token-file: {0} holds something else than one token on one line")]
    NoTokenInIt(String),
    /// The certificates cannot be used.
    #[error("--ca-file: {0}")]
    Trust(#[from] TrustError),
}

/// A connection.
pub(super) enum Stream {
    /// Within this machine.
    Plain(TcpStream),
    /// Through TLS.
    Secure(Box<TlsStream<TcpStream>>),
}

/// The daemon.
#[derive(Clone)]
pub(super) struct Server {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    bearer: HeaderValue,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.tls.is_some() { "https" } else { "http" }, self.host, self.port)
    }
}

impl Server {
    /// Reads what is needed to reach it.
    pub(super) fn new(text: &str, token: &SecretFile, authorities: Option<&Path>) -> Result<Self, ServerError> {
        // An address may have been given with a password, by mistake: it is not repeated.
        let shown = || text.rsplit_once('@').map_or(text, |(_, rest)| rest).chars().take(200).collect::<String>();
        let url = url::Url::parse(text).map_err(|_| ServerError::Form(shown()))?;
        let is_bare = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let (Some(host), true) = (url.host_str(), is_bare) else { return Err(ServerError::Form(shown())) };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let tls = match url.scheme() {
            "https" => {
                let name = ServerName::try_from(bare.to_owned()).map_err(|_| ServerError::Form(shown()))?;
                let mut config = ClientConfig::clone(&*client_config(authorities, None)?);
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Some((Arc::new(config), name))
            }
            "http" if is_here => None,
            "http" => return Err(ServerError::Unprotected(shown())),
            _ => return Err(ServerError::Form(shown())),
        };
        let port = url.port_or_known_default().ok_or_else(|| ServerError::Form(shown()))?;
        let no_token = || ServerError::NoTokenInIt(token.path().display().to_string());
        let secret = token.read()?;
        if !secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(no_token());
        }
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", secret.expose())).map_err(|_| no_token())?;
        bearer.set_sensitive(true);
        Ok(Self { host: host.to_owned(), port, tls, bearer })
    }

    /// What names it in a request.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// What proves who asks.
    pub(super) fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }

    /// Connects, and makes sure that it is the one that is meant.
    pub(super) async fn connect(&self) -> io::Result<Stream> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, self.port)).await?;
        Ok(match &self.tls {
            None => Stream::Plain(stream),
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Stream::Secure(Box::new(connector.connect(name.clone(), stream).await.map_err(advised)?))
            }
        })
    }
}

/// Says what to do about a certificate that does not count.
fn advised(error: io::Error) -> io::Error {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(reason)) = reason else { return error };
    let is_unnamed =
        matches!(reason, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. });
    let advice = if is_unnamed {
        "name the server as its certificate does"
    } else if *reason == CertificateError::UnknownIssuer {
        "name the certificate of its authority with --ca-file, because this machine does not know that"
    } else {
        return error;
    };
    io::Error::new(error.kind(), format!("{error}: {advice}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn tokens_go_through_tls_or_stay_on_this_machine() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let put = |text: &str, mode| {
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        };
        let server = |text: &str| Server::new(text, &SecretFile::new(&path), None);
        put("hunter2\n", 0o600);
        for (text, shown) in [
            ("https://gitamp.example.com", "https://gitamp.example.com:443"),
            ("https://[2001:db8::1]:4323/", "https://[2001:db8::1]:4323"),
            ("http://127.0.0.1:4323", "http://127.0.0.1:4323"),
            ("http://localhost:1", "http://localhost:1"),
            ("http://[::1]:1", "http://[::1]:1"),
        ] {
            let server = server(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(server.to_string(), shown);
            assert!(!format!("{server:?}{:?}", server.bearer()).contains("hunter2"), "a token is never shown");
            assert_eq!(server.bearer().to_str().expect("text"), "Bearer hunter2");
        }
        for (text, words) in [
            ("http://gitamp.example.com", "never sent without TLS"),
            ("http://10.0.0.1:4323", "never sent without TLS"),
            ("https://ann:hunter2@gitamp.example.com", "must be an address"),
            ("https://gitamp.example.com/api", "must be an address"),
            ("gitamp.example.com:4323", "must be an address"),
            ("unix:/x", "must be an address"),
        ] {
            let error = server(text).expect_err(words).to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{text}: {error}");
        }
        let refused = |words: &str| {
            let error = server("https://x").expect_err(words).to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        };
        put("hunter2", 0o644);
        refused("chmod 600");
        put("hunter2\nhunter2", 0o600);
        refused("one token on one line");
        put(" \n", 0o600);
        refused("is empty");
        std::fs::remove_file(&path).expect("removed");
        refused("cannot read");
    }
}
