//! Transcripts: what goes into a connection and what comes out, as text files.
//!
//! A line that is not indented goes in, the indented lines below it are what came out. `> 1 seq=0 ...` is a message of agent 1 (uid
//! 0101...01) with these fields, `> hex ...` are bytes; `offer`, `retry`, `withdraw` and `restart` act on a slot; `pong` is a sign of life; `at` sets the clock.
//! Outgoing bytes are decoded with the generated types, so that what is shown is what an agent would read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use prost::Message;

use super::*;
use crate::agent::{AgentReport, ConfigState, ReportedHash};
use crate::config::{ComponentNames, ConfigHash, RenderedConfig};
use crate::opamp::components::Lookup;
use crate::opamp::effective::NameCache;
use crate::opamp::proto::*;

struct Alone(RefCell<NameCache>);

impl SharedNames for Alone {
    fn find(&self, digest: Digest) -> Option<Arc<ComponentNames>> {
        self.0.borrow().find(digest)
    }

    fn share(&self, digest: Digest, names: ComponentNames) -> Arc<ComponentNames> {
        self.0.borrow_mut().share(digest, names)
    }

    fn look_up(&self, build: Digest, told: Option<ComponentNames>, ask: Option<Timestamp>) -> Lookup {
        self.0.borrow_mut().look_up(build, told, ask)
    }
}

/// The configuration `A`: every byte of its hash is the letter.
fn config(letter: &str) -> RenderedConfig {
    let body = format!("name: {letter}\n");
    RenderedConfig::new(ConfigHash::new([letter.as_bytes()[0]; 32]), body.into(), ComponentNames::default())
}

fn hash(name: &str) -> Bytes {
    match name {
        "none" => Bytes::new(),
        "foreign" => Bytes::from_static(b"of another server"),
        letter => Bytes::from(vec![letter.as_bytes()[0]; 32]),
    }
}

fn uid(name: &str) -> Bytes {
    match name.split_once('x') {
        Some((byte, length)) => vec![byte.parse().expect("a byte"); length.parse().expect("a length")].into(),
        None => vec![name.parse().expect("a byte"); 16].into(),
    }
}

fn id(name: &str) -> AgentId {
    AgentId::new(&uid(name)).expect("a uid")
}

fn key_values(list: &str) -> Vec<KeyValue> {
    let value = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) };
    let pair = |pair: &str| pair.split_once(':').map(|(key, text)| (key.to_owned(), value(text))).expect("key:value");
    list.split(',').map(pair).map(|(key, value)| KeyValue { key, value: Some(value) }).collect()
}

/// `HASH` or `HASH/NAME,NAME`.
fn components(value: &str) -> AvailableComponents {
    let (hash, names) = value.split_once('/').unwrap_or((value, ""));
    let component = |name: &str| (name.to_owned(), ComponentDetails::default());
    let components = names.split(',').filter(|name| !name.is_empty()).map(component).collect();
    AvailableComponents { components, hash: Bytes::copy_from_slice(hash.as_bytes()) }
}

/// `ours/applied`, `others/failed`.
fn settings(value: &str) -> ConnectionSettingsStatus {
    let (name, outcome) = value.split_once('/').expect("ours|others/status");
    let ours = ConnectionSettings::heartbeat(Duration::from_secs(10)).expect("an interval").offer().hash;
    let status = match outcome {
        "applied" => ConnectionSettingsStatuses::Applied,
        "applying" => ConnectionSettingsStatuses::Applying,
        "failed" => ConnectionSettingsStatuses::Failed,
        other => panic!("{other} is no status"),
    };
    ConnectionSettingsStatus {
        last_connection_settings_hash: if name == "ours" { ours } else { Bytes::from_static(b"others") },
        status: status.into(),
        error_message: "no such interval".to_owned(),
    }
}

/// A message from its line: `1 seq=0 caps=0x1802 desc=service.name:gw status=A/applied health=up effective=YAML bye ask-uid`.
fn message(line: &str) -> Vec<u8> {
    let mut words = line.split(' ');
    let mut made = AgentToServer { instance_uid: uid(words.next().expect("who")), ..Default::default() };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "seq" => made.sequence_num = value.parse().expect("a number"),
            "caps" => made.capabilities = u64::from_str_radix(&value[2..], 16).expect("0x..."),
            "desc" => {
                let identifying_attributes = key_values(value);
                made.agent_description = Some(AgentDescription { identifying_attributes, ..Default::default() });
            }
            "attributes" => {
                let count: usize = value.parse().expect("a number");
                let non_identifying_attributes = key_values(&vec!["k:v"; count].join(","));
                made.agent_description = Some(AgentDescription { non_identifying_attributes, ..Default::default() });
            }
            "status" => {
                let (name, outcome) = value.split_once('/').expect("hash/status");
                let (outcome, words) = outcome.split_once(':').unwrap_or((outcome, ""));
                let status = match outcome {
                    "applied" => RemoteConfigStatuses::Applied,
                    "applying" => RemoteConfigStatuses::Applying,
                    "failed" => RemoteConfigStatuses::Failed,
                    "unset" => RemoteConfigStatuses::Unset,
                    other => panic!("{other} is no status"),
                };
                made.remote_config_status = Some(RemoteConfigStatus {
                    last_remote_config_hash: hash(name),
                    status: status.into(),
                    error_message: words.replace('_', " "),
                });
            }
            "health" => {
                let (healthy, words) = value.strip_prefix("down:").map_or((true, ""), |words| (false, words));
                let last_error = words.replace('_', " ");
                made.health = Some(ComponentHealth { healthy, last_error, ..Default::default() });
            }
            "effective" => {
                let body = format!(
                    "receivers: {{{value}: {{token: s3cret}}}}\nexporters: {{debug: {{}}}}\n\
                     service: {{pipelines: {{logs: {{receivers: [{value}], exporters: [debug]}}}}}}\n"
                );
                let object = AgentConfigObject { body: body.into(), ..Default::default() };
                let config_map = Some(AgentConfigMap { config_map: BTreeMap::from([(String::new(), object)]) });
                made.effective_config = Some(EffectiveConfig { config_map });
            }
            "components" => made.available_components = Some(components(value)),
            "settings" => made.connection_settings_status = Some(settings(value)),
            "packages" => made.package_statuses = Some(PackageStatuses::default()),
            "custom" => {
                let capability = "com.example.gitamp/test".to_owned();
                made.custom_capabilities = Some(CustomCapabilities { capabilities: vec![capability.clone()] });
                made.custom_message = Some(CustomMessage { capability, ..Default::default() });
            }
            "csr" => {
                let opamp = Some(OpAmpConnectionSettingsRequest::default());
                made.connection_settings_request = Some(ConnectionSettingsRequest { opamp });
            }
            "bye" => made.agent_disconnect = Some(AgentDisconnect {}),
            "ask-uid" => made.flags = AgentToServerFlags::RequestInstanceUid as u64,
            other => panic!("{other} is no field"),
        }
    }
    made.encode_to_vec()
}

fn show_agent(bytes: &[u8]) -> String {
    match bytes {
        [first, rest @ ..] if bytes.len() == 16 && rest.iter().all(|byte| byte == first) => first.to_string(),
        other => hex::encode(other),
    }
}

fn show_state(state: &ConfigState) -> String {
    let about = match &state.hash {
        ReportedHash::None => "none".to_owned(),
        ReportedHash::Foreign => "foreign".to_owned(),
        ReportedHash::Known(hash) => match hash.as_bytes() {
            [first, rest @ ..] if rest.iter().all(|byte| byte == first) => char::from(*first).to_string(),
            recorded => hex::encode(&recorded[..6]),
        },
    };
    let words = state.message.as_deref().map(|words| format!(" ({words})")).unwrap_or_default();
    format!("{about}/{:?}{words}", state.status).to_lowercase()
}

fn show_event(event: &AgentEvent) -> String {
    match event {
        AgentEvent::Connected { id, .. } => format!("connected {}", show_agent(id.as_bytes())),
        AgentEvent::Gone { id, goodbye, .. } => {
            format!("{} {}", if *goodbye { "goodbye" } else { "lost" }, show_agent(id.as_bytes()))
        }
        AgentEvent::Report { id, report, .. } => {
            let AgentReport { capabilities, labels, config, health, effective, available } = &**report;
            let mut line = format!("report {}", show_agent(id.as_bytes()));
            let mut add = |what: &str, text: Option<String>| {
                if let Some(text) = text {
                    write!(line, " {what}={text}").expect("a String takes everything");
                }
            };
            add("capabilities", capabilities.map(|bits| format!("{:#x}", bits.0)));
            add("labels", labels.as_ref().map(|labels| format!("[{labels}]")));
            add("config", config.as_ref().map(show_state));
            let words = |health: &crate::agent::Health| match (&health.message, health.healthy) {
                (None, true) => "up".to_owned(),
                (words, _) => format!("down ({})", words.as_deref().unwrap_or_default()),
            };
            add("health", health.as_ref().map(words));
            let list = |names: &Arc<ComponentNames>| format!("[{}]", names.iter().collect::<Vec<_>>().join(" "));
            add("runs", effective.as_ref().map(list));
            add("could-run", available.as_ref().map(list));
            line
        }
    }
}

fn show_sent(out: &OutMessage, transport: Transport) -> String {
    let bytes = match transport {
        Transport::WebSocket => wire::unframe(out.to_vec().into()).expect("framed"),
        Transport::Http => out.to_vec().into(),
    };
    let read = ServerToAgent::decode(bytes).expect("a ServerToAgent");
    let mut line = format!("< {}", show_agent(&read.instance_uid));
    if let Some(error) = &read.error_response {
        let is_put_off = error.r#type() == ServerErrorResponseType::Unavailable;
        assert_eq!(error.details.is_some(), is_put_off, "when to come back is said with Unavailable only");
        write!(line, " {:?}: {}", error.r#type(), error.error_message).expect("a String");
        let rest = ServerToAgent { instance_uid: Bytes::new(), error_response: None, ..read.clone() };
        assert_eq!(rest, ServerToAgent::default(), "an error goes alone");
    } else {
        assert!([0x07, 0x27].contains(&read.capabilities), "always stated: {:#x}", read.capabilities);
    }
    let (all, list) =
        (ServerToAgentFlags::ReportFullState as u64, ServerToAgentFlags::ReportAvailableComponents as u64);
    line.push_str(if read.flags & all == 0 { "" } else { " report-all" });
    line.push_str(if read.flags & list == 0 { "" } else { " list-components" });
    if let Some(settings) = &read.connection_settings {
        assert_eq!((read.capabilities, settings.hash.len()), (0x27, 32), "announced, with a hash");
        let opamp = settings.opamp.as_ref().expect("OpAMP settings");
        let heartbeat = OpAmpConnectionSettings { heartbeat_interval_seconds: 10, ..Default::default() };
        assert_eq!(*opamp, heartbeat, "an interval and nothing else");
        line.push_str(" heartbeat 10s");
    }
    if let Some(offer) = &read.remote_config {
        let letter = char::from(offer.config_hash[0]).to_string();
        let map = &offer.config.as_ref().expect("a map").config_map;
        assert_eq!(map[""].body, config(&letter).body(), "the body of its hash");
        write!(line, " offer {letter}").expect("a String");
    }
    if let Some(identification) = &read.agent_identification {
        write!(line, " you are {}", show_agent(&identification.new_instance_uid)).expect("a String");
    }
    if let Some(command) = &read.command {
        write!(line, " {:?}", command.r#type()).expect("a String");
        let rest = ServerToAgent { instance_uid: Bytes::new(), capabilities: 0, command: None, ..read.clone() };
        assert_eq!(rest, ServerToAgent::default(), "a command goes alone");
    }
    let shown = ServerToAgent {
        instance_uid: read.instance_uid.clone(),
        error_response: read.error_response.clone(),
        capabilities: read.capabilities,
        flags: read.flags & (all | list),
        connection_settings: read.connection_settings.clone(),
        remote_config: read.remote_config.clone(),
        agent_identification: read.agent_identification.clone(),
        command: read.command,
        ..Default::default()
    };
    assert_eq!(read, shown, "nothing is said that is not shown");
    line
}

/// Plays the lines that go in and returns the whole transcript.
fn play(script: &str) -> String {
    let names = Alone(NameCache::new(16).into());
    let mut rules = Rules::default();
    let mut connection = Connection::new(ConnectionId(1), Transport::WebSocket);
    let mut now = Timestamp::from_millis(1_800_000_000_000);
    let start = now;
    let mut transcript = String::new();
    for line in script.lines().filter(|line| !line.starts_with(' ')) {
        writeln!(transcript, "{line}").expect("a String");
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let offer = |letter: &str, retry| Offer { config: config(letter), retry };
        match verb {
            "" | "#" => continue,
            "transport" => connection = Connection::new(ConnectionId(1), Transport::Http),
            "heartbeat" => {
                rules = rules.clone().offering_heartbeat(crate::time::parse_duration(rest).expect("a duration"));
            }
            "most-messages" => rules.most_messages = rest.parse().expect("a number"),
            "most-agents" => rules.most_agents = rest.parse().expect("a number"),
            "at" => {
                now = start + crate::time::parse_duration(rest).expect("a duration");
                connection.handle_timeout(now, &rules);
            }
            "offer" | "retry" => {
                let (agent, letter) = rest.split_once(' ').expect("offer AGENT CONFIG");
                connection.handle_offer(id(agent), offer(letter, verb == "retry"));
            }
            "pong" => connection.handle_sign_of_life(now),
            "restart" => connection.handle_restart(id(rest)),
            "withdraw" => connection.handle_withdraw(id(rest)),
            "close" => connection.handle_close(),
            ">" => {
                let (rest, offered) =
                    rest.split_once(" | offer ").map_or((rest, None), |(rest, letter)| (rest, Some(letter)));
                let framed = connection.transport == Transport::WebSocket;
                let bytes = match rest.strip_prefix("hex") {
                    Some(digits) => hex::decode(digits.replace(' ', "")).expect("hexadecimal"),
                    None => [if framed { vec![0] } else { Vec::new() }, message(rest)].concat(),
                };
                let context = Context { now, rules: &rules, names: &names, fresh: [0x42; 10] };
                let heard = connection.handle_message(bytes.into(), &context);
                if let (Some(letter), Heard::From(id)) = (offered, heard) {
                    connection.handle_offer(id, offer(letter, false));
                }
            }
            other => panic!("{other} is no verb"),
        }
        while let Some(event) = connection.poll_event() {
            writeln!(transcript, "  {}", show_event(&event)).expect("a String");
        }
        if let Some((agent, words)) = connection.poll_refused_settings() {
            writeln!(transcript, "  refused settings {}: {words}", show_agent(agent.as_bytes())).expect("a String");
        }
        while let Some(out) = connection.poll_transmit(now) {
            writeln!(transcript, "  {}", show_sent(&out, connection.transport)).expect("a String");
        }
        if connection.is_hopeless() {
            writeln!(transcript, "  hopeless").expect("a String");
        }
    }
    transcript
}

macro_rules! transcripts {
    ($($name:ident),+) => {$(
        #[test]
        fn $name() {
            let script = include_str!(concat!("transcripts/", stringify!($name), ".txt"));
            let played = play(script);
            assert!(played == script, "{} differs; played:\n{played}", stringify!($name));
        }
    )+};
}

transcripts!(
    a_supervisor_from_start_to_end,
    gaps_ask_once,
    offers_over_websocket,
    polls_over_http,
    identities,
    hostile_messages,
    several_agents_on_one_connection,
    capabilities_change,
    what_is_not_ours_is_ignored,
    available_components,
    heartbeat_offers,
    restarts,
    two_agents_with_one_uid,
    silence,
    floods
);

/// The offer in a recorded message of ours, when it has one.
fn recorded_offer(line: &str) -> Option<Offer> {
    let bytes = hex::decode(line.strip_prefix("< ")?).expect("hexadecimal");
    let read = ServerToAgent::decode(wire::unframe(bytes.into()).expect("framed")).expect("a ServerToAgent");
    let offer = read.remote_config?;
    let hash = ConfigHash::new(offer.config_hash.as_ref().try_into().expect("32 bytes"));
    let body = offer.config?.config_map[""].body.clone();
    Some(Offer { config: RenderedConfig::new(hash, body, ComponentNames::default()), retry: false })
}

/// What a real supervisor said (`>`) and was told (`<`), as `tests/supervisor.rs` recorded it with `GITAMP_INTEROP_RECORD=FILE`; and the
/// events that this makes.
#[test]
fn a_recorded_supervisor_is_told_the_same_again() {
    let recording = include_str!("transcripts/recorded/supervisor_v0_149_0.hex");
    let (names, rules) = (Alone(NameCache::new(16).into()), Rules::default());
    let mut connection = Connection::new(ConnectionId(1), Transport::WebSocket);
    let now = Timestamp::from_millis(1_800_000_000_000);
    let context = Context { now, rules: &rules, names: &names, fresh: [0x42; 10] };
    let (mut told, mut sent) = (String::new(), VecDeque::new());
    let mut agent = None;
    let mut lines = recording.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let at = format!("line {}", number + 1);
        if let Some(bytes) = line.strip_prefix("> ") {
            let bytes = hex::decode(bytes).expect("hexadecimal");
            let heard = connection.handle_message(bytes.into(), &context);
            let Heard::From(id) = heard else { panic!("{at}: {heard:?}") };
            agent = Some(id);
            while let Some(event) = connection.poll_event() {
                writeln!(told, "{}", show_event(&event)).expect("a String takes everything");
            }
            // An offer that went along with the answer was there by then.
            if let Some(offer) = lines.peek().and_then(|(_, next)| recorded_offer(next)) {
                connection.handle_offer(id, offer);
            }
        } else if let Some(offer) = recorded_offer(line).filter(|_| sent.is_empty()) {
            connection.handle_offer(agent.expect("heard"), offer);
        }
        while let Some(out) = connection.poll_transmit(now) {
            sent.push_back(format!("< {}", hex::encode(out.to_vec())));
        }
        if line.starts_with('<') {
            assert_eq!(sent.pop_front().as_deref(), Some(line), "{at}");
        }
    }
    assert!(sent.is_empty(), "and not a word more: {sent:?}");
    let expected = include_str!("transcripts/recorded/supervisor_v0_149_0.events");
    assert!(told == expected, "the events differ; now:\n{told}");
}

#[test]
fn a_duplicate_is_answered_with_another_identity_and_never_known() {
    let (names, rules) = (Alone(NameCache::new(16).into()), Rules::default());
    let mut connection = Connection::new(ConnectionId(1), Transport::WebSocket);
    let context = Context { now: Timestamp::from_millis(1), rules: &rules, names: &names, fresh: [1; 10] };
    let hello = [vec![0], message("1 seq=0 caps=0x1802 desc=a:b status=none/unset")].concat();
    connection.handle_message(hello.into(), &context);
    assert!(matches!(connection.poll_event(), Some(AgentEvent::Connected { .. })));
    connection.handle_duplicate(id("1"), &context);
    assert!(connection.poll_event().is_none(), "its report is dropped");
    let answer = connection.poll_transmit(context.now).expect("an answer");
    assert!(show_sent(&answer, Transport::WebSocket).starts_with("< 1 you are "));
    assert!(connection.poll_transmit(context.now).is_none());
    assert_eq!(connection.agents(), 0);
}

#[test]
fn a_restart_has_a_message_of_its_own_and_keeps_nothing_waiting() {
    let (names, rules) = (Alone(NameCache::new(16).into()), Rules::default());
    let mut connection = Connection::new(ConnectionId(1), Transport::WebSocket);
    let context = Context { now: Timestamp::from_millis(1), rules: &rules, names: &names, fresh: [1; 10] };
    let told = |connection: &mut Connection| {
        let sent = std::iter::from_fn(|| connection.poll_transmit(context.now));
        sent.map(|out| show_sent(&out, Transport::WebSocket)).collect::<Vec<_>>()
    };
    let hello = [vec![0], message("1 seq=0 caps=0x1c02 desc=a:b status=none/unset")].concat();
    connection.handle_message(hello.into(), &context);
    connection.handle_restart(id("1"));
    connection.handle_offer(id("1"), Offer { config: config("A"), retry: false });
    assert_eq!(told(&mut connection), ["< 1 offer A", "< 1 Restart"], "the answer first, and its offer with it");
    connection.handle_restart(id("1"));
    connection.handle_offer(id("1"), Offer { config: config("B"), retry: false });
    assert_eq!(told(&mut connection), ["< 1 Restart", "< 1 offer B"], "what waits comes behind the command");
    connection.handle_restart(id("1"));
    connection.handle_restart(id("1"));
    assert_eq!(told(&mut connection), ["< 1 Restart"], "asked for twice before it left is once");
}

#[test]
fn an_idle_connection_is_small() {
    let session = size_of::<Session>();
    let connection = size_of::<Connection>();
    assert!(session <= 416, "a session has {session} bytes; 20,000 of them are kept");
    assert!(connection <= 136, "a connection has {connection} bytes");
}

proptest::proptest! {
    /// Any messages in any order: no panic, and each gets exactly one answer.
    #[test]
    fn every_message_is_answered_once(
        lines in proptest::collection::vec((1_u8..4, 0_u64..4, 0_usize..8), 1..40),
        http in proptest::bool::ANY,
    ) {
        let names = Alone(NameCache::new(16).into());
        let rules = Rules::default();
        let transport = if http { Transport::Http } else { Transport::WebSocket };
        let mut connection = Connection::new(ConnectionId(1), transport);
        let context = Context { now: Timestamp::from_millis(1), rules: &rules, names: &names, fresh: [1; 10] };
        let parts = ["", " caps=0x1802", " desc=a:b", " desc=a:c status=A/applied", " health=up", " bye", " ask-uid", " effective=x"];
        for (agent, sequence, part) in lines {
            let bytes = message(&format!("{agent} seq={sequence}{}", parts[part]));
            let framed = [if http { vec![] } else { vec![0] }, bytes].concat();
            connection.handle_message(framed.into(), &context);
            while connection.poll_event().is_some() {}
            proptest::prop_assert!(connection.poll_transmit(context.now).is_some());
            proptest::prop_assert!(connection.poll_transmit(context.now).is_none());
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let names = Alone(NameCache::new(16).into());
        let rules = Rules::default();
        let mut connection = Connection::new(ConnectionId(1), Transport::WebSocket);
        let context = Context { now: Timestamp::from_millis(1), rules: &rules, names: &names, fresh: [1; 10] };
        connection.handle_message(bytes.into(), &context);
        proptest::prop_assert!(connection.poll_transmit(context.now).is_some());
    }
}
