//! The agents' listener over real sockets: what agents and server say to each other, over both transports.

#[path = "support/counted.rs"]
mod counted;
#[path = "support/listener.rs"]
mod listener;

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use prost::Message as _;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use counted::counted;
use gitamp::agent::{AgentEvent, ConfigState, ConnectionId};
use gitamp::config::RenderedConfig;
use gitamp::opamp::connection::Rules;
use gitamp::opamp::proto::*;
use gitamp::serve::{AgentMessage, AgentServerOptions};
use listener::*;

#[tokio::test]
async fn a_websocket_agent_reports_and_is_offered() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(1)).await;
    let (connection, report) = house.arrival(1).await;
    let AgentEvent::Report { report: said, .. } = &report.event else { panic!("{:?}", report.event) };
    assert_eq!(said.labels.as_ref().and_then(|labels| labels.get("service.name")), Some("gateway"));
    assert_eq!(said.config, Some(ConfigState::NOTHING));

    house.links.offer(connection, agent(1), config(7, 16_384), false);
    drop(report);
    let answer = hear(&mut socket).await;
    assert_eq!((offered(&answer), answer.capabilities), (Some(7), 7), "the offer comes with the answer");
    assert_eq!(answer.remote_config.and_then(|offer| offer.config).expect("a map").config_map[""].body.len(), 16_384);

    house.links.offer(connection, agent(1), config(7, 16_384), false);
    house.links.offer(connection, agent(1), config(8, 100_000), false);
    assert_eq!(offered(&hear(&mut socket).await), Some(8), "pushed, and the same one not twice");
    say(&mut socket, &heartbeat(1, 1)).await;
    assert_eq!(offered(&hear(&mut socket).await), None, "an answer to each message");
    counted(2, || house.traffic.offers_out.get()).await;
    counted(1, || house.traffic.websockets.get()).await;

    say(&mut socket, &AgentToServer { agent_disconnect: Some(AgentDisconnect {}), ..heartbeat(1, 2) }).await;
    assert_eq!(house.word().await, "goodbye 1");
    assert_eq!(hear(&mut socket).await.instance_uid, vec![1; 16]);
    socket.close(None).await.expect("closing");
    assert_eq!(closed(&mut socket).await, CloseCode::Normal, "the close frame is answered");
}

#[tokio::test]
async fn a_changed_description_voids_what_waits() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(1)).await;
    let (connection, report) = house.arrival(1).await;
    // The daemon is busy: an offer for the old labels, and one for the new ones once it has seen the report.
    house.links.offer(connection, agent(1), config(1, 10), false);
    house.links.offer(connection, agent(1), config(2, 10), false);
    drop(report);
    assert_eq!(offered(&hear(&mut socket).await), Some(2));

    say(&mut socket, &described(1, 1, "other")).await;
    let report = house.event("the new labels").await;
    house.links.offer(connection, agent(1), config(3, 10), false);
    house.links.withdraw(connection, agent(1));
    drop(report);
    assert_eq!(offered(&hear(&mut socket).await), None, "withdrawn before the verdict");
}

#[tokio::test]
async fn several_agents_share_a_connection() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut socket = house.door.websocket().await;
    let mut connections = Vec::new();
    for who in 1..=3 {
        say(&mut socket, &hello(who)).await;
        connections.push(house.arrival(who).await.0);
        assert_eq!(hear(&mut socket).await.instance_uid, vec![who; 16]);
    }
    assert!(connections.iter().all(|connection| *connection == connections[0]));
    for who in 1..=3 {
        house.links.offer(connections[0], agent(who), config(who, 100), false);
    }
    let mut got = BTreeMap::new();
    for _ in 0..3 {
        let message = hear(&mut socket).await;
        got.insert(message.instance_uid[0], offered(&message));
    }
    assert_eq!(got, BTreeMap::from([(1, Some(1)), (2, Some(2)), (3, Some(3))]));
    drop(socket);
    let mut words = Vec::new();
    for _ in 0..3 {
        words.push(house.word().await);
    }
    assert_eq!(words, ["lost 1", "lost 2", "lost 3"]);
}

/// Answers the first report of agent `who` with an offer, as the daemon would.
async fn offer_at_first_report(house: &mut House, who: u8, config: RenderedConfig) -> ConnectionId {
    let (connection, report) = house.arrival(who).await;
    house.links.offer(connection, agent(who), config, false);
    drop(report);
    connection
}

#[tokio::test]
async fn a_poll_gets_its_config_with_the_answer() {
    let mut house = open(AgentServerOptions { verdict_wait: BOUND, ..AgentServerOptions::default() }).await;
    let (door, first) = (house.door, hello(1));
    let (answer, connection) = tokio::join!(door.poll(&first), offer_at_first_report(&mut house, 1, config(9, 16_384)));
    assert_eq!(offered(&answer), Some(9));
    assert_eq!(door.poll(&first).await, answer, "a repeated request gets the same answer");
    assert_eq!(offered(&door.poll(&heartbeat(1, 1)).await), None);
    house.links.offer(connection, agent(1), config(8, 10), false);
    assert_eq!(offered(&door.poll(&heartbeat(1, 2)).await), Some(8), "what waits comes with the next poll");
    counted(1, || house.traffic.polling_agents.get()).await;

    let goodbye = AgentToServer { agent_disconnect: Some(AgentDisconnect {}), ..heartbeat(1, 3) };
    assert_eq!(door.poll(&goodbye).await.instance_uid, vec![1; 16]);
    assert_eq!(house.word().await, "goodbye 1");
    counted(0, || house.traffic.polling_agents.get()).await;
}

#[tokio::test]
async fn a_poll_does_not_wait_long_for_a_verdict() {
    let options = AgentServerOptions { verdict_wait: Duration::from_millis(20), ..AgentServerOptions::default() };
    let mut house = open(options).await;
    assert_eq!(offered(&house.door.poll(&hello(1)).await), None, "nobody gave a verdict");
    let (connection, report) = house.arrival(1).await;
    house.links.offer(connection, agent(1), config(9, 10), false);
    drop(report);
    assert_eq!(offered(&house.door.poll(&heartbeat(1, 1)).await), Some(9));
}

#[tokio::test]
async fn polls_that_stop_are_noticed() {
    let options = AgentServerOptions { poll_expiry: Duration::from_millis(200), ..AgentServerOptions::default() };
    let mut house = open(options).await;
    house.door.poll(&hello(1)).await;
    assert_eq!(house.word().await, "connected 1 Http");
    assert_eq!(house.word().await, "report 1");
    assert_eq!(house.word().await, "lost 1");
    counted(0, || house.traffic.polling_agents.get()).await;
    house.door.poll(&heartbeat(1, 1)).await;
    assert_eq!(house.word().await, "connected 1 Http", "and welcome again");
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::best());
    let mut out = Vec::new();
    encoder.read_to_end(&mut out).expect("memory to memory");
    out
}

#[tokio::test]
async fn http_is_answered_by_its_rules() {
    let mut house = open(AgentServerOptions { verdict_wait: BOUND, ..AgentServerOptions::default() }).await;
    let door = house.door;
    let post = |length: usize, extra: &str| {
        format!("POST /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: {length}{extra}")
    };
    let bomb = gzipped(&vec![0; 64 << 20]);
    let gzip = "\r\nContent-Encoding: gzip";
    for (what, head, body, status) in [
        ("another path", "GET /nothing HTTP/1.1".to_owned(), &b""[..], 404),
        ("a browser", "GET /v1/opamp HTTP/1.1".to_owned(), b"", 426),
        (
            "GET with the content type",
            "GET /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf".to_owned(),
            b"",
            405,
        ),
        ("too large", post((1 << 20) + 1, ""), b"", 413),
        ("no protobuf", post(3, ""), b"\x0a\xff\xff", 400),
        ("no gzip", post(3, gzip), b"abc", 400),
        ("a gzip bomb", post(bomb.len(), gzip), &bomb, 413),
        ("gzip in capitals that is none", post(3, "\r\nContent-Encoding: X-GZIP"), b"abc", 400),
        ("another encoding", post(3, "\r\nContent-Encoding: br"), b"abc", 415),
        ("a hook", "POST /hooks/github HTTP/1.1\r\nContent-Length: 4".to_owned(), b"push", 200),
    ] {
        let (found, head, body) = door.request(&head, body).await;
        assert_eq!(found, status, "{what}: {head}");
        if what == "a hook" {
            assert_eq!(body, b"rung by push");
        }
    }
    let chunked = "POST /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked";
    let endless = [&b"100001\r\n"[..], &vec![0; 0x10_0001]].concat();
    assert_eq!(door.request(chunked, &endless).await.0, 413, "chunks without end");
    assert!(house.events.try_recv().is_err(), "the daemon heard nothing of it");

    let body = gzipped(&hello(1).encode_to_vec());
    let both = "\r\nContent-Encoding: gzip\r\nAccept-Encoding: gzip";
    let (answer, _) = tokio::join!(door.post(both, &body), offer_at_first_report(&mut house, 1, config(9, 16_384)));
    let (status, head, compressed) = answer;
    assert!(status == 200 && head.contains("content-encoding: gzip"), "{head}");
    assert!(compressed.len() < 1000, "16 KiB of the same letter");
    let mut inflated = Vec::new();
    flate2::read::GzDecoder::new(&compressed[..]).read_to_end(&mut inflated).expect("gzip");
    assert_eq!(offered(&ServerToAgent::decode(&inflated[..]).expect("a message")), Some(9));

    let nobody = AgentToServer { instance_uid: Bytes::from_static(b"short"), ..Default::default() };
    let answer = door.poll(&nobody).await;
    assert_eq!(answer.error_response.map(|error| error.r#type()), Some(ServerErrorResponseType::BadRequest));
}

fn is_restart(message: &ServerToAgent) -> bool {
    let alone = ServerToAgent {
        instance_uid: message.instance_uid.clone(),
        capabilities: message.capabilities,
        command: message.command,
        ..Default::default()
    };
    message.command.is_some_and(|command| command.r#type() == CommandType::Restart) && *message == alone
}

#[tokio::test]
async fn a_restart_is_told_alone_and_only_to_those_who_can() {
    let mut house = open(AgentServerOptions::default()).await;
    let can = |message: AgentToServer| AgentToServer { capabilities: 0x1c02, ..message };
    let mut socket = house.door.websocket().await;
    say(&mut socket, &can(hello(1))).await;
    let (connection, report) = house.arrival(1).await;
    drop(report);
    hear(&mut socket).await;
    house.links.restart(connection, agent(1));
    assert!(is_restart(&hear(&mut socket).await), "at once");
    house.links.restart(connection, agent(1));
    house.links.offer(connection, agent(1), config(3, 10), false);
    let (one, other) = (hear(&mut socket).await, hear(&mut socket).await);
    assert!(is_restart(&one) != is_restart(&other), "a message of its own");
    assert_eq!(offered(&one).or(offered(&other)), Some(3), "and the offer is not lost");

    let mut cannot = house.door.websocket().await;
    say(&mut cannot, &hello(2)).await;
    let (connection, report) = house.arrival(2).await;
    drop(report);
    hear(&mut cannot).await;
    house.links.restart(connection, agent(2));
    house.links.offer(connection, agent(2), config(4, 10), false);
    assert_eq!(offered(&hear(&mut cannot).await), Some(4), "nothing came before it");

    house.door.poll(&can(hello(3))).await;
    let (connection, report) = house.arrival(3).await;
    drop(report);
    house.links.restart(connection, agent(3));
    let poll = can(heartbeat(3, 1));
    assert!(is_restart(&house.door.poll(&poll).await), "with the next poll");
    assert!(!is_restart(&house.door.poll(&poll).await), "and not again to the same one");
    assert!(!is_restart(&house.door.poll(&can(heartbeat(3, 2))).await));
}

/// A first message of an agent that can list its components: their hash, and the list if there is one.
fn of_build(who: u8, sequence_num: u64, components: &[&str]) -> AgentToServer {
    let component = |name: &&str| ((*name).to_owned(), ComponentDetails::default());
    let components = components.iter().map(component).collect();
    AgentToServer {
        capabilities: 0x5802,
        available_components: Some(AvailableComponents { components, hash: Bytes::from_static(b"build") }),
        ..described(who, sequence_num, "gateway")
    }
}

fn available(message: &AgentMessage) -> Option<Vec<String>> {
    let AgentEvent::Report { report, .. } = &message.event else { panic!("{:?}", message.event) };
    report.available.as_ref().map(|names| names.iter().map(str::to_owned).collect())
}

#[tokio::test]
async fn the_list_of_components_is_asked_for_once_a_build() {
    const LIST: u64 = ServerToAgentFlags::ReportAvailableComponents as u64;
    let mut house = open(AgentServerOptions::default()).await;
    let mut first = house.door.websocket().await;
    say(&mut first, &of_build(1, 0, &[])).await;
    let (_, report) = house.arrival(1).await;
    assert_eq!(available(&report), None);
    drop(report);
    assert_eq!(hear(&mut first).await.flags, LIST);

    let second = of_build(2, 0, &[]);
    let (answer, _) = tokio::join!(house.door.poll(&second), async {
        drop(house.events.recv().await);
        drop(house.events.recv().await);
    });
    assert_eq!(answer.flags, 0, "another agent of the same build, over the other transport");

    say(&mut first, &of_build(1, 1, &["otlp", "debug"])).await;
    let report = house.event("the list").await;
    assert_eq!(available(&report), Some(vec!["debug".to_owned(), "otlp".to_owned()]));
    drop(report);
    assert_eq!(hear(&mut first).await.flags, 0);

    let mut third = house.door.websocket().await;
    say(&mut third, &of_build(3, 0, &[])).await;
    let (_, report) = house.arrival(3).await;
    assert_eq!(available(&report).map(|names| names.len()), Some(2), "known already");
    drop(report);
    assert_eq!(hear(&mut third).await.flags, 0);
}

#[tokio::test]
async fn an_interval_is_offered_to_those_who_take_it() {
    let mut options = AgentServerOptions { verdict_wait: BOUND, ..AgentServerOptions::default() };
    options.rules = options.rules.offering_heartbeat(Duration::from_secs(200));
    assert_eq!(options.rules.silence, Duration::from_secs(630), "and waited for");
    assert_eq!(options.rules.heartbeat_silence, Duration::from_secs(630));
    let mut house = open(options).await;
    let mut socket = house.door.websocket().await;
    for (who, capabilities, expected) in
        [(1, 0xb902, Some(200)), (2, 0x3902, Some(200)), (3, 0x3802, None), (4, 0x1902, None)]
    {
        say(&mut socket, &AgentToServer { capabilities, ..hello(who) }).await;
        drop(house.arrival(who).await);
        let answer = hear(&mut socket).await;
        assert_eq!(answer.capabilities, 0x27, "announced to everybody");
        let interval = answer.connection_settings.and_then(|settings| settings.opamp);
        assert_eq!(interval.map(|opamp| opamp.heartbeat_interval_seconds), expected, "{capabilities:#x}");
    }
    assert!(Rules::default().settings.is_none(), "unless it is asked for, nothing is");
    let (door, poller) = (house.door, AgentToServer { capabilities: 0xb902, ..hello(5) });
    let (answer, _) = tokio::join!(door.poll(&poller), offer_at_first_report(&mut house, 5, config(9, 10)));
    let settings = answer.connection_settings.clone().expect("over HTTP it is the time between two polls");
    assert_eq!(offered(&answer), Some(9), "beside a configuration");
    let status = ConnectionSettingsStatus {
        last_connection_settings_hash: settings.hash,
        status: ConnectionSettingsStatuses::Failed.into(),
        error_message: "not for me".to_owned(),
    };
    let said = AgentToServer { connection_settings_status: Some(status), capabilities: 0xb902, ..heartbeat(5, 1) };
    assert_eq!(house.door.poll(&said).await.connection_settings, None, "acknowledged");
    counted(1, || house.traffic.settings_refused.get()).await;
}

#[tokio::test]
async fn who_promised_no_heartbeats_is_pinged() {
    let mut options = AgentServerOptions::default();
    // Half of it is how long a pong may take here.
    options.rules.silence = Duration::from_secs(4);
    let mut house = open(options).await;
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(1)).await;
    drop(house.arrival(1).await);
    hear(&mut socket).await;
    // Reading answers the pings; so many take longer than the patience with somebody who says nothing.
    let mut pings = 0;
    while pings < 3 {
        let message = bounded("a ping", socket.next()).await.expect("open").expect("in order");
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
        pings += 1;
    }
    say(&mut socket, &heartbeat(1, 1)).await;
    assert_eq!(hear(&mut socket).await.instance_uid, vec![1; 16], "it is still known");
    assert!(house.events.try_recv().is_err(), "and was never lost");
    // From now on nobody reads.
    assert_eq!(house.word().await, "lost 1");
    counted(1, || house.traffic.silent.get()).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_is_heard_all_the_same() {
    let mut house = open(AgentServerOptions { verdict_wait: BOUND, ..AgentServerOptions::default() }).await;
    let body = hello(1).encode_to_vec();
    let head = format!(
        "POST /v1/opamp HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(house.door.0).await.expect("accepted");
    stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("written");
    let AgentEvent::Connected { id, .. } = house.event("connected").await.event else { panic!("somebody") };
    drop(stream);
    assert_eq!(id, agent(1));
    assert_eq!(house.word().await, "report 1");
}

#[tokio::test]
async fn stopping_closes_everybody_and_says_nobody_is_lost() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(1)).await;
    drop(house.arrival(1).await);
    hear(&mut socket).await;
    house.stop.send(true).expect("it runs");
    assert_eq!(closed(&mut socket).await, CloseCode::Away);
    drop(socket);
    bounded("the end", house.task).await.expect("no panic");
    assert!(house.events.recv().await.is_none(), "no event, and nobody is left to send one");
}
