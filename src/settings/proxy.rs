//! The proxies that the environment names for requests to forges and receivers of alerts, and what goes past them.
//!
//! As most programs read them: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, or the same in small letters. This machine is never
//! reached through one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};

use super::Secret;

/// A proxy; it is spoken to without encryption, what goes through it is encrypted from end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<Secret>,
}

/// Which requests go through which proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    /// What goes past them: `*`, or names with all that is below them, perhaps with a port.
    past: Vec<String>,
}

impl Proxies {
    /// What the variables say, and a warning for each that cannot be used.
    pub(super) fn read<'a>(variable: impl Fn(&str) -> Option<&'a str>) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let mut one = |names: &[&str]| {
            let (name, text) = names.iter().find_map(|name| Some((*name, variable(name)?)))?;
            let proxy = parse(text);
            if proxy.is_none() {
                warnings.push(format!("{name} is not used: it must be an address like http://proxy.example.com:3128"));
            }
            proxy
        };
        let https = one(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]);
        let http = one(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]);
        let past = variable("NO_PROXY").or_else(|| variable("no_proxy")).unwrap_or_default();
        let past = past.split([',', ' ']).map(|entry| entry.trim().to_ascii_lowercase());
        (Self { https, http, past: past.filter(|entry| !entry.is_empty()).collect() }, warnings)
    }

    /// One proxy for everything but this machine.
    #[cfg(test)]
    pub(crate) fn through(host: &str, port: u16, authorization: &str) -> Self {
        let proxy = Proxy { host: host.to_owned(), port, authorization: Some(Secret::new(authorization)) };
        Self { https: Some(proxy.clone()), http: Some(proxy), past: Vec::new() }
    }

    /// The proxy that leads there; `None`: none does.
    pub fn to(&self, target: &Url) -> Option<&Proxy> {
        let is_here = match target.host()? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(ip) => ip.is_loopback(),
            Host::Ipv6(ip) => ip.is_loopback(),
        };
        let proxy = if target.scheme() == "https" { self.https.as_ref() } else { self.http.as_ref() };
        proxy.filter(|_| !is_here && !self.past.iter().any(|entry| is_below(entry, target)))
    }
}

/// True when an entry of `NO_PROXY` means this address.
fn is_below(entry: &str, target: &Url) -> bool {
    let host = target.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let (name, port) = match entry.rsplit_once(':') {
        // An IPv6 address has colons of its own.
        Some((name, port)) if !name.contains(':') => (name, port.parse::<u16>().ok()),
        Some(_) | None => (entry, None),
    };
    let name = name.trim_start_matches("*.").trim_start_matches('.').trim_matches(['[', ']']);
    let is_port = port.is_none_or(|port| target.port_or_known_default() == Some(port));
    let is_host = name == "*" || host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    is_port && is_host && !name.is_empty()
}

/// Reads `http://user:password@host:port`; the scheme may be missing.
fn parse(text: &str) -> Option<Proxy> {
    let text = text.trim();
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&whole).ok().filter(|url| url.scheme() == "http")?;
    let host = url.host_str().filter(|host| !host.is_empty())?.trim_matches(['[', ']']).to_owned();
    let plain = |text: &str| {
        let pair = format!("x={}", text.replace('+', "%2B"));
        url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let pair = || format!("{}:{}", plain(url.username()), plain(url.password().unwrap_or_default()));
    let authorization = (!url.username().is_empty()).then(|| Secret::new(format!("Basic {}", STANDARD.encode(pair()))));
    Some(Proxy { host, port: url.port_or_known_default().unwrap_or(80), authorization })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &'static str)]) -> (Proxies, Vec<String>) {
        Proxies::read(|name| variables.iter().find(|(one, _)| *one == name).map(|(_, value)| *value))
    }

    #[test]
    fn requests_go_through_the_proxy_of_their_scheme_and_past_it_where_that_is_said() {
        let (all, warnings) = proxies(&[
            ("HTTPS_PROXY", "http://ann:p%40ss+@proxy.example.com:3128"),
            ("http_proxy", "[fd00::1]:8080"),
            ("NO_PROXY", "internal.example.com, .corp:8443 10.0.0.7,fd00::7"),
        ]);
        assert!(warnings.is_empty(), "{warnings:?}");
        for (target, proxy) in [
            ("https://hooks.slack.com/x", Some(("proxy.example.com", 3128))),
            ("http://hooks.slack.com/x", Some(("fd00::1", 8080))),
            ("https://internal.example.com/", None),
            ("https://git.internal.example.com/", None),
            ("https://notinternal.example.com/", Some(("proxy.example.com", 3128))),
            ("https://git.corp:8443/", None),
            ("https://git.corp/", Some(("proxy.example.com", 3128))),
            ("https://10.0.0.7/", None),
            ("https://[fd00::7]/", None),
            ("https://localhost/", None),
            ("http://127.0.0.1:9093/", None),
            ("https://[::1]/", None),
        ] {
            let found = all.to(&Url::parse(target).expect("an address"));
            assert_eq!(found.map(|proxy| (proxy.host.as_str(), proxy.port)), proxy, "{target}");
        }
        let authorization = all.https.as_ref().and_then(|proxy| proxy.authorization.as_ref()).expect("a user");
        assert_eq!(authorization.expose(), format!("Basic {}", STANDARD.encode("ann:p@ss+")));
        assert!(!format!("{all:?}").contains("p@ss") && !format!("{all:?}").contains("Basic"));
    }

    #[test]
    fn what_is_no_proxy_is_warned_about_without_being_shown() {
        for text in ["socks5://proxy:1080", "https://ann:hunter2@proxy", "http://"] {
            let (all, warnings) = proxies(&[("ALL_PROXY", text), ("NO_PROXY", "*")]);
            assert_eq!((all.https, all.http, warnings.len()), (None, None, 2), "{text}");
            assert!(warnings.iter().all(|warning| warning.contains("ALL_PROXY") && !warning.contains("hunter2")));
        }
        let (all, _) = proxies(&[("ALL_PROXY", "proxy:3128"), ("no_proxy", "*")]);
        assert!(all.https.is_some() && all.to(&Url::parse("https://x.example").expect("an address")).is_none());
        assert_eq!(proxies(&[]), (Proxies::default(), Vec::new()));
    }
}
