//! What a simulated fleet looks like: where it connects to, who its agents say they are, and how many of them misbehave.

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::agent::{Capabilities, Transport};
use crate::fleet::strategy::Amount;
use crate::settings::Secret;
use crate::time::{NotADuration, parse_duration, show_duration};

/// More agents than this in one process are a typing error: they would need more sockets than a machine has ports.
const MOST_AGENTS: u32 = 1_000_000;

/// What a simulated fleet looks like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the agents connect to.
    pub server: Endpoint,
    /// How many there are, from 1 to a million.
    pub agents: u32,
    /// What they say of themselves, beside what every collector says.
    pub attributes: Vec<Attribute>,
    /// What they declare in every message.
    pub capabilities: Capabilities,
    /// From an offer to the verdict on it. A supervisor takes 5 s; with zero, everything it would say on the way is one message.
    pub apply_delay: DelayRange,
    /// Silence after which an agent speaks up.
    pub heartbeat: Duration,
    /// Time between the polls of an agent that speaks plain HTTP; it replaces the heartbeat.
    pub poll_interval: Duration,
    /// Agents whose collector cannot run any configuration it is offered.
    pub fail: Amount,
    /// Configurations that hold this text make every collector exit.
    pub fail_matching: Option<String>,
    /// What an agent says when its collector could not run a configuration.
    pub fail_message: String,
    /// Agents whose collector runs a configuration, and starts to crash a while later.
    pub crash: Amount,
    /// How long that while is, from the verdict on.
    pub crash_after: Duration,
    /// Agents that read nothing after the first exchange, and go on sending.
    pub deaf: Amount,
    /// Agents that never say what became of an offer.
    pub silent: Amount,
    /// Agents that cannot run a second configuration, say so, and go back to the first by themselves.
    pub rollback: Amount,
    /// Agents that are never well, as with an exporter whose target is down.
    pub unhealthy: Amount,
    /// How often a connection drops without a word, at random around this mean.
    pub reconnect: Option<Duration>,
    /// How many agents share a connection.
    pub per_connection: u32,
    /// What they know the server by, and show it, where the address asks for TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The bearer tokens that connections take turns in; none: none is sent.
    pub tokens: Vec<Secret>,
    /// The seed of everything random: the same seed gives the same agents, ids included.
    pub seed: u64,
}

impl Options {
    /// A well-behaved fleet of `agents` agents at `server`.
    pub fn new(server: Endpoint, agents: u32) -> Self {
        Self {
            server,
            agents,
            attributes: Vec::new(),
            capabilities: Self::SUPERVISOR,
            apply_delay: DelayRange { from: Duration::from_millis(500), to: Duration::from_secs(2) },
            heartbeat: Duration::from_secs(30),
            poll_interval: Duration::from_secs(30),
            fail: Amount::Count(0),
            fail_matching: None,
            fail_message: "Agent exited unexpectedly with exit code 1 while applying configuration".to_owned(),
            crash: Amount::Count(0),
            crash_after: Duration::from_secs(20),
            deaf: Amount::Count(0),
            silent: Amount::Count(0),
            rollback: Amount::Count(0),
            unhealthy: Amount::Count(0),
            reconnect: None,
            per_connection: 1,
            tls: None,
            tokens: Vec::new(),
            seed: 1,
        }
    }

    /// The bits that a supervisor declares which takes remote configuration and restart commands: 0x3c47.
    pub const SUPERVISOR: Capabilities = Capabilities(0x3c47);

    /// Refuses what cannot be played.
    pub fn check(&self) -> Result<(), OptionError> {
        if self.agents == 0 || self.agents > MOST_AGENTS {
            return Err(OptionError::Agents(self.agents));
        }
        if self.per_connection == 0 || self.per_connection > 10_000 {
            return Err(OptionError::PerConnection(self.per_connection));
        }
        let shortest = Duration::from_millis(10);
        for (option, length) in [
            ("--heartbeat", Some(self.heartbeat)),
            ("--poll-interval", Some(self.poll_interval)),
            ("--reconnect", self.reconnect),
        ] {
            if length.is_some_and(|length| length < shortest) {
                return Err(OptionError::TooShort(option));
            }
        }
        Ok(())
    }
}

/// An option that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// None, or too many.
    #[error("--agents {0}: a simulated fleet has from 1 to {MOST_AGENTS} agents")]
    Agents(u32),
    /// None, or too many.
    #[error("--per-connection {0}: from 1 to 10000 agents share a connection")]
    PerConnection(u32),
    /// An interval that would only measure how fast this process spins.
    #[error("{0} is at least 10ms")]
    TooShort(&'static str),
    /// Neither a number nor a percentage.
    #[error("`{0}` is neither a number of agents like 3 nor a share of them like 2.5%")]
    Amount(String),
    /// Not `key=value`.
    #[error("`{0}` is not an attribute: write key=value, key=one,two,three or key=host-{{n}}")]
    Attribute(String),
    /// A placeholder that is not known.
    #[error(
        "`{{{0}}}` is not a placeholder: {{n}} is the agent's number, {{n%3}} its remainder, {{n/100}} its quotient"
    )]
    Placeholder(String),
    /// A delay that is no duration.
    #[error(transparent)]
    Delay(#[from] NotADuration),
    /// A range that runs backwards.
    #[error("`{0}` runs backwards: write the shorter delay first, like 100ms..500ms")]
    Backwards(String),
}

/// Reads a number of agents or a share of them: `3`, `10%`, `0.25%`.
pub fn parse_amount(text: &str) -> Result<Amount, OptionError> {
    let error = || OptionError::Amount(text.chars().take(64).collect());
    let Some(number) = text.trim().strip_suffix('%') else {
        return text.trim().parse().map(Amount::Count).map_err(|_| error());
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 2 {
        return Err(error());
    }
    let whole: u16 = whole.parse().map_err(|_| error())?;
    let hundredths: u16 = format!("{fraction:0<2}").parse().map_err(|_| error())?;
    match whole.checked_mul(100).and_then(|share| share.checked_add(hundredths)) {
        Some(share) if share <= 10_000 => Ok(Amount::Share(share)),
        Some(_) | None => Err(error()),
    }
}

/// A delay that is drawn anew each time: `250ms`, or `100ms..500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayRange {
    /// The shortest.
    pub from: Duration,
    /// The longest.
    pub to: Duration,
}

impl DelayRange {
    /// One of the delays, in whole milliseconds.
    pub fn draw(self, random: &mut fastrand::Rng) -> Duration {
        let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let (from, to) = (millis(self.from), millis(self.to));
        Duration::from_millis(if from < to { random.u64(from..=to) } else { from })
    }
}

impl std::fmt::Display for DelayRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", show_duration(self.from))?;
        if self.from == self.to { Ok(()) } else { write!(f, "..{}", show_duration(self.to)) }
    }
}

impl FromStr for DelayRange {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let Some((from, to)) = text.split_once("..") else {
            let delay = parse_duration(text)?;
            return Ok(Self { from: delay, to: delay });
        };
        let range = Self { from: parse_duration(from)?, to: parse_duration(to)? };
        if range.from > range.to { Err(OptionError::Backwards(text.chars().take(64).collect())) } else { Ok(range) }
    }
}

/// One attribute that every agent reports, with a value that may differ from agent to agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    key: String,
    values: Vec<Vec<Piece>>,
    /// Agents that follow each other with the same value; see [`Attribute::parse_all`].
    stride: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Number { divisor: u32, modulus: Option<u32> },
}

impl Attribute {
    /// Reads `key=value` texts. A value with commas is a list that agents take turns in (`region=eu,eu,us`: two thirds are in
    /// `eu`); `{n}`, `{n%3}`, `{n/100}` and `{n/100%3}` stand for the agent's number, from 0. Several lists are combined
    /// like digits, so that every combination occurs: `region=eu,us ring=a,b` gives eu/a, us/a, eu/b, us/b.
    pub fn parse_all<T: AsRef<str>>(texts: &[T]) -> Result<Vec<Self>, OptionError> {
        let mut stride: u32 = 1;
        let mut attributes = Vec::with_capacity(texts.len());
        for text in texts {
            let attribute = Self::parse(text.as_ref(), stride)?;
            let length = u32::try_from(attribute.values.len()).unwrap_or(u32::MAX);
            stride = stride.saturating_mul(length);
            attributes.push(attribute);
        }
        Ok(attributes)
    }

    fn parse(text: &str, stride: u32) -> Result<Self, OptionError> {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| OptionError::Attribute(text.chars().take(64).collect()))?;
        let values = value.split(',').map(Self::pieces).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { key: key.trim().to_owned(), values, stride })
    }

    fn pieces(mut text: &str) -> Result<Vec<Piece>, OptionError> {
        let mut pieces = Vec::new();
        while let Some((before, rest)) = text.split_once('{') {
            let unknown = || OptionError::Placeholder(rest.chars().take(32).take_while(|c| *c != '}').collect());
            let (inside, after) = rest.split_once('}').ok_or_else(unknown)?;
            let arithmetic = inside.strip_prefix('n').ok_or_else(unknown)?;
            let (quotient, remainder) = match arithmetic.split_once('%') {
                Some((quotient, remainder)) => (quotient, Some(remainder)),
                None => (arithmetic, None),
            };
            let positive = |digits: &str| digits.parse().ok().filter(|number: &u32| *number > 0).ok_or_else(unknown);
            let divisor = match quotient.strip_prefix('/') {
                Some(digits) => positive(digits)?,
                None if quotient.is_empty() => 1,
                None => return Err(unknown()),
            };
            let modulus = remainder.map(positive).transpose()?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Number { divisor, modulus });
            text = after;
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        Ok(pieces)
    }

    /// The attribute's name.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its value for the agent with this number.
    pub fn value(&self, number: u32) -> String {
        let turn = (number / self.stride) as usize % self.values.len().max(1);
        let mut value = String::new();
        for piece in self.values.get(turn).into_iter().flatten() {
            match piece {
                Piece::Text(text) => value.push_str(text),
                Piece::Number { divisor, modulus } => {
                    let quotient = number / divisor;
                    value.push_str(&modulus.map_or(quotient, |modulus| quotient % modulus).to_string());
                }
            }
        }
        value
    }
}

/// Where agents connect to: a checked `ws://`, `wss://`, `http://` or `https://` URL and the addresses it stands for.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// How they speak there.
    pub transport: Transport,
    /// The name that the server's certificate has to have; `None`: it speaks no TLS.
    pub tls: Option<ServerName<'static>>,
    /// `host:port`, as in the `Host` header.
    pub authority: String,
    /// The path, with its leading slash.
    pub path: String,
    /// At least one.
    pub addresses: Vec<SocketAddr>,
}

/// A URL that no simulated agent connects to.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Not a URL of a form that is spoken here.
    #[error(
        "`{0}` is not a server: write ws://HOST:PORT/PATH or wss://, or http://HOST:PORT/PATH or https:// for agents that poll"
    )]
    Form(String),
    /// The name is not known.
    #[error("cannot resolve {authority}: {source}")]
    Resolve {
        /// What was asked for.
        authority: String,
        /// Why.
        source: std::io::Error,
    },
    /// A fleet of invented agents would be let loose on somebody's real server.
    #[error(
        "{authority} is not this machine ({address}): simulated agents would mix with real ones there. Give --allow-remote if that is meant"
    )]
    Remote {
        /// What was asked for.
        authority: String,
        /// What it resolved to.
        address: SocketAddr,
    },
}

impl Endpoint {
    /// Checks a URL and resolves its host (this may ask the name service and block). Only loopback addresses are taken,
    /// unless `allow_remote` says otherwise.
    pub fn resolve(text: &str, allow_remote: bool) -> Result<Self, EndpointError> {
        let form = || EndpointError::Form(text.chars().take(200).collect());
        let url = url::Url::parse(text).map_err(|_| form())?;
        let (transport, is_secure) = match url.scheme() {
            "ws" => (Transport::WebSocket, false),
            "wss" => (Transport::WebSocket, true),
            "http" => (Transport::Http, false),
            "https" => (Transport::Http, true),
            _ => return Err(form()),
        };
        let host = url.host_str().ok_or_else(form)?.to_owned();
        let port = url.port_or_known_default().ok_or_else(form)?;
        let authority = format!("{host}:{port}");
        let bare_host = host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = (bare_host, port)
            .to_socket_addrs()
            .map_err(|source| EndpointError::Resolve { authority: authority.clone(), source })?
            .take(8)
            .collect();
        if addresses.is_empty() {
            return Err(form());
        }
        if let Some(address) = addresses.iter().find(|address| !address.ip().is_loopback())
            && !allow_remote
        {
            return Err(EndpointError::Remote { authority, address: *address });
        }
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let name = || ServerName::try_from(bare_host.to_owned()).map_err(|_| form());
        let tls = if is_secure { Some(name()?) } else { None };
        Ok(Self { transport, tls, authority, path, addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_numbers_or_shares() {
        for (text, amount) in [
            ("0", Amount::Count(0)),
            ("12", Amount::Count(12)),
            ("1%", Amount::Share(100)),
            ("2.5%", Amount::Share(250)),
            ("0.25%", Amount::Share(25)),
            ("100%", Amount::ALL),
        ] {
            assert_eq!(parse_amount(text).unwrap_or_else(|error| panic!("{text}: {error}")), amount, "{text}");
        }
        for text in ["", "%", "-1", "101%", "1.234%", "+5%", "ten", ".5%", "999999%"] {
            assert!(parse_amount(text).is_err(), "{text} must be refused");
        }
    }

    #[test]
    fn delays_are_one_length_or_a_range() {
        let millis = Duration::from_millis;
        for (text, from, to, shown) in [
            ("5s", 5_000, 5_000, "5s"),
            ("100ms..500ms", 100, 500, "100ms..500ms"),
            ("0s", 0, 0, "0s"),
            ("0..1s", 0, 1_000, "0s..1s"),
        ] {
            let range: DelayRange = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(range, DelayRange { from: millis(from), to: millis(to) }, "{text}");
            assert_eq!(range.to_string(), shown);
            let mut random = fastrand::Rng::with_seed(7);
            for _ in 0..100 {
                let drawn = range.draw(&mut random);
                assert!(range.from <= drawn && drawn <= range.to, "{text} drew {drawn:?}");
            }
        }
        for text in ["", "5", "2s..1s", "1s..", "..1s"] {
            assert!(text.parse::<DelayRange>().is_err(), "{text} must be refused");
        }
    }

    #[test]
    fn attributes_differ_from_agent_to_agent() {
        let attributes = Attribute::parse_all(&[
            "host.name=gw-{n}",
            "region=eu,us",
            "ring=a,b,b",
            "rack=r{n/10}-{n%3}",
            "row={n/2%2}",
            "empty=",
        ])
        .expect("attributes");
        let row = |number| attributes.iter().map(|attribute| attribute.value(number)).collect::<Vec<_>>();
        assert_eq!(row(0), ["gw-0", "eu", "a", "r0-0", "0", ""]);
        assert_eq!(row(1), ["gw-1", "us", "a", "r0-1", "0", ""]);
        assert_eq!(row(2), ["gw-2", "eu", "b", "r0-2", "1", ""]);
        assert_eq!(row(25), ["gw-25", "us", "a", "r2-1", "0", ""]);
        let combinations: std::collections::BTreeSet<_> =
            (0..6).map(|number| (attributes[1].value(number), attributes[2].value(number))).collect();
        assert_eq!(combinations.len(), 4, "every combination of two lists occurs");
        for text in ["region", "=eu", "host={m}", "host={n", "host={n%0}", "host={n*2}", "host={n/}"] {
            assert!(Attribute::parse_all(&[text]).is_err(), "{text} must be refused");
        }
    }

    #[test]
    fn only_this_machine_unless_asked() {
        let endpoint = Endpoint::resolve("ws://127.0.0.1:4320/v1/opamp", false).expect("loopback");
        assert_eq!((endpoint.transport, endpoint.path.as_str()), (Transport::WebSocket, "/v1/opamp"));
        let endpoint = Endpoint::resolve("http://[::1]:4320/v1/opamp?a=b", false).expect("loopback, version 6");
        assert_eq!((endpoint.transport, endpoint.path.as_str()), (Transport::Http, "/v1/opamp?a=b"));
        assert!(matches!(Endpoint::resolve("ws://192.0.2.1:4320/v1/opamp", false), Err(EndpointError::Remote { .. })));
        assert!(Endpoint::resolve("ws://192.0.2.1:4320/v1/opamp", true).is_ok(), "a person said so");
        let endpoint = Endpoint::resolve("wss://127.0.0.1/v1/opamp", false).expect("with TLS");
        assert_eq!((endpoint.authority.as_str(), endpoint.tls.is_some()), ("127.0.0.1:443", true));
        for text in ["", "127.0.0.1:4320", "ftp://127.0.0.1/"] {
            assert!(matches!(Endpoint::resolve(text, true), Err(EndpointError::Form(_))), "{text} must be refused");
        }
    }
}
