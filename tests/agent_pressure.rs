//! The agents' listener over real sockets: agents that are slow, deaf, too many or too loud, and those beside them.

#[path = "support/counted.rs"]
mod counted;
#[path = "support/listener.rs"]
mod listener;

use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use counted::counted;
use gitamp::opamp::proto::*;
use gitamp::serve::{AgentServerOptions, Pace};
use listener::*;

#[tokio::test]
async fn an_agent_that_never_reads_blocks_nobody() {
    let options = AgentServerOptions { write_timeout: Duration::from_millis(300), ..AgentServerOptions::default() };
    let mut house = open(options).await;
    let (mut deaf, mut well) = (house.door.websocket().await, house.door.websocket().await);
    say(&mut deaf, &hello(1)).await;
    let (deaf_connection, report) = house.arrival(1).await;
    drop(report);
    say(&mut well, &hello(2)).await;
    let (connection, report) = house.arrival(2).await;
    drop(report);
    assert_eq!(offered(&hear(&mut well).await), None);
    // More than the buffers of the sockets hold.
    let large = Bytes::from(vec![b'y'; 32 << 20]);
    for byte in 1..=50 {
        house.links.offer(deaf_connection, agent(1), config_of(byte, large.clone()), false);
        house.links.offer(connection, agent(2), config(byte, 10), false);
        assert_eq!(offered(&hear(&mut well).await), Some(byte), "the other one is served");
    }
    assert_eq!(house.word().await, "lost 1");
    counted(1, || house.traffic.deaf.get()).await;
    assert!(house.traffic.offers_out.get() < 60, "the latest won: offers did not pile up");
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_closed() {
    let mut house = open(AgentServerOptions::default()).await;
    for (what, message, code) in [
        ("text", Message::text("{}"), CloseCode::Unsupported),
        ("too large", Message::binary(vec![0; (1 << 20) + 1]), CloseCode::Size),
    ] {
        let mut socket = house.door.websocket().await;
        // The server may close while this is still being written.
        let _sent = bounded(what, socket.send(message)).await;
        assert_eq!(closed(&mut socket).await, code, "{what}");
    }
    let mut socket = house.door.websocket().await;
    for at in 0..8 {
        socket.send(Message::binary(vec![0xff; 100])).await.expect("sent");
        let answer = hear(&mut socket).await;
        let error = answer.error_response.expect("an error");
        assert_eq!(error.r#type(), ServerErrorResponseType::BadRequest, "{at}");
    }
    assert_eq!(closed(&mut socket).await, CloseCode::Protocol, "hopeless");
    counted((8, 1), || (house.traffic.messages_refused.get(), house.traffic.broken.get())).await;
    assert!(house.events.try_recv().is_err(), "the daemon heard nothing of it");
}

#[tokio::test]
async fn slow_and_silent_ones_are_closed() {
    let mut options = AgentServerOptions {
        header_timeout: Duration::from_millis(100),
        message_timeout: Duration::from_millis(100),
        first_message_timeout: Duration::from_millis(100),
        ..AgentServerOptions::default()
    };
    options.rules.silence = Duration::from_millis(300);
    let mut house = open(options).await;

    let mut stream = TcpStream::connect(house.door.0).await.expect("accepted");
    stream.write_all(b"GET /v1/opamp HTTP/1.1\r\nHost: te").await.expect("written");
    let read = bounded("slow headers", stream.read(&mut [0; 10])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "closed without an answer: {read:?}");

    let mut quiet = house.door.websocket().await;
    assert_eq!(closed(&mut quiet).await, CloseCode::Policy, "no first message");

    let mut half = house.door.websocket().await;
    half.get_mut().write_all(&[0x82, 0xfe, 0x40, 0x00]).await.expect("written");
    assert_eq!(closed(&mut half).await, CloseCode::Policy, "half a frame");

    let mut silent = house.door.websocket().await;
    say(&mut silent, &hello(1)).await;
    drop(house.arrival(1).await);
    assert_eq!(house.word().await, "lost 1");
    assert_eq!(closed(&mut silent).await, CloseCode::Policy, "nothing after the first message");
    counted(2, || house.traffic.silent.get()).await;
}

/// The first 9,000 bytes of a message of 60,000, behind which nothing follows.
const BEGUN: [u8; 9_008] = begun([0x82, 0xfe, 0xea, 0x60]);

/// The head of a frame, and 9,000 bytes of it.
const fn begun(head: [u8; 4]) -> [u8; 9_008] {
    let mut bytes = [0; 9_008];
    (bytes[0], bytes[1], bytes[2], bytes[3]) = (head[0], head[1], head[2], head[3]);
    bytes
}

/// Begins a message of 60,000 bytes.
async fn announce(socket: &mut WebSocketStream<TcpStream>) {
    socket.get_mut().write_all(&BEGUN).await.expect("written");
}

/// Options with room for one message of 60,000 bytes, and so long for one, whatever its pace.
fn narrow(message_timeout: Duration) -> AgentServerOptions {
    let pace = Pace { grace: message_timeout, ..Pace::default() };
    let mut options =
        AgentServerOptions { bytes_in_flight: 64 << 10, message_timeout, pace, ..AgentServerOptions::default() };
    options.rules.limits.message_bytes = 64 << 10;
    options
}

#[tokio::test]
async fn who_waits_for_room_is_offered_what_there_is() {
    let mut house = open(narrow(Duration::from_secs(3_600))).await;
    let mut present = house.door.websocket().await;
    say(&mut present, &hello(2)).await;
    let (connection, report) = house.arrival(2).await;
    drop(report);
    hear(&mut present).await;
    let mut first = house.door.websocket().await;
    announce(&mut first).await;
    let mut second = house.door.websocket().await;
    announce(&mut second).await;
    counted(1, || house.traffic.waited_for_room.get()).await;
    // One of the two has the room and the other waits: so does whoever comes now.
    announce(&mut present).await;
    counted(2, || house.traffic.waited_for_room.get()).await;
    house.links.offer(connection, agent(2), config(5, 10), false);
    assert_eq!(offered(&hear(&mut present).await), Some(5));
}

#[tokio::test]
async fn who_waits_for_room_does_so_no_longer_than_a_message_may_take() {
    let options = AgentServerOptions { verdict_wait: Duration::from_secs(3_600), ..narrow(Duration::from_secs(2)) };
    let mut house = open(options).await;
    // It has the room for as long as nobody gives the verdict.
    let file = AgentConfigObject { body: vec![b'#'; 50_000].into(), ..Default::default() };
    let config_map = Some(AgentConfigMap { config_map: [(String::new(), file)].into() });
    let large = AgentToServer { effective_config: Some(EffectiveConfig { config_map }), ..hello(1) };
    let door = house.door;
    let polling = tokio::spawn(async move { door.poll(&large).await });
    let (_, report) = house.arrival(1).await;
    let mut waiting = house.door.websocket().await;
    announce(&mut waiting).await;
    assert_eq!(closed(&mut waiting).await, CloseCode::Policy, "nobody waits for ever");
    assert_eq!((house.traffic.waited_for_room.get(), house.traffic.broken.get()), (1, 1));
    drop(report);
    bounded("an answer", polling).await.expect("answered");
}

/// Answers of a whole message, over plain HTTP.
async fn is_served(house: &mut House, who: u8) {
    let file = AgentConfigObject { body: vec![b'#'; 50_000].into(), ..Default::default() };
    let config_map = Some(AgentConfigMap { config_map: [(String::new(), file)].into() });
    let large = AgentToServer { effective_config: Some(EffectiveConfig { config_map }), ..hello(who) };
    let door = house.door;
    let polling = tokio::spawn(async move { door.poll(&large).await });
    drop(house.arrival(who).await);
    bounded("an answer", polling).await.expect("answered");
}

#[tokio::test]
async fn who_holds_room_and_does_not_keep_pace_makes_way() {
    // What has come is enough for two seconds.
    let pace = Pace { grace: Duration::from_secs(1), least: 9_000 };
    let options = AgentServerOptions { pace, ..narrow(Duration::from_secs(3_600)) };
    let mut house = open(options).await;
    let mut slow = house.door.websocket().await;
    announce(&mut slow).await;
    assert_eq!(closed(&mut slow).await, CloseCode::Policy, "over a WebSocket");
    counted((1, 0), || (house.traffic.slow.get(), house.traffic.broken.get())).await;
    is_served(&mut house, 1).await;
    let head = "POST /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: 60000";
    let (status, _, _) = house.door.request(head, &[0; 9_000]).await;
    assert_eq!((status, house.traffic.slow.get()), (408, 2), "over plain HTTP");
    is_served(&mut house, 2).await;
    let head = "POST /v1/opamp HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked";
    let (status, _, _) = house.door.request(head, &[b"ffff\r\n".as_slice(), &[0; 9_000]].concat()).await;
    assert_eq!((status, house.traffic.slow.get()), (408, 3), "and where no length is told");
    is_served(&mut house, 3).await;
}

#[tokio::test]
async fn who_does_not_read_keeps_room_no_longer_than_a_message_may_take() {
    let options = AgentServerOptions { write_timeout: Duration::from_secs(3_600), ..narrow(Duration::from_secs(3)) };
    let mut house = open(options).await;
    let mut deaf = Vec::new();
    for who in 1..=2 {
        let mut socket = house.door.websocket().await;
        say(&mut socket, &hello(who)).await;
        let (connection, report) = house.arrival(who).await;
        drop(report);
        hear(&mut socket).await;
        deaf.push((who, connection, socket));
    }
    for (_, _, socket) in &mut deaf {
        announce(socket).await;
    }
    counted(1, || house.traffic.waited_for_room.get()).await;
    // One of them has the room, the other waits for it, and none reads this.
    for (who, connection, _) in &deaf {
        house.links.offer(*connection, agent(*who), config(*who, 64 << 20), false);
    }
    let traffic = std::sync::Arc::clone(&house.traffic);
    counted(2, || traffic.deaf.get() + traffic.slow.get() + traffic.broken.get()).await;
    let gone = [house.word().await, house.word().await];
    assert!(gone.iter().all(|word| word.starts_with("lost ")), "{gone:?}");
    is_served(&mut house, 3).await;
}

#[tokio::test]
async fn nobody_holds_room_before_something_came_that_needs_some() {
    let mut house = open(narrow(Duration::from_secs(3_600))).await;
    let mut idle = Vec::new();
    for head in [[0x82, 0xfe, 0xea, 0x60], [0x02, 0xfe, 0xea, 0x60]] {
        let mut socket = house.door.websocket().await;
        socket.get_mut().write_all(&begun(head)[..8_000]).await.expect("written");
        idle.push(socket);
    }
    let mut stream = TcpStream::connect(house.door.0).await.expect("accepted");
    let head = "POST /v1/opamp HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: gzip\r\nContent-Length: 60000\r\n\r\n";
    stream.write_all(&[head.as_bytes(), &[0; 8_000]].concat()).await.expect("written");
    for who in 1..=3 {
        is_served(&mut house, who).await;
    }
    assert_eq!(house.traffic.waited_for_room.get(), 0, "a message as large as all the room had it at once");
}

#[tokio::test]
async fn the_first_of_several_frames_takes_room_for_all_that_may_follow() {
    // A quarter is one message: two that tell their length would fit.
    let options = AgentServerOptions { bytes_in_flight: 256 << 10, ..narrow(Duration::from_secs(3_600)) };
    let house = open(options).await;
    let mut first = house.door.websocket().await;
    first.get_mut().write_all(&begun([0x02, 0xfe, 0x27, 0x10])).await.expect("10,000 bytes, and more to come");
    let mut second = house.door.websocket().await;
    second.get_mut().write_all(&begun([0x82, 0xfe, 0x27, 0x10])).await.expect("10,000 bytes, and that is all");
    counted(1, || house.traffic.waited_for_room.get()).await;
}

#[tokio::test]
async fn who_resets_a_connection_counts_for_its_address_all_the_same() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    for who in 1..=4 {
        let polls: Vec<u8> = [hello(who), hello(100 + who)].iter().flat_map(|message| {
            let body = message.encode_to_vec();
            let head = format!(
                "POST /v1/opamp HTTP/1.1\r\nHost: test\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            [head.into_bytes(), body].concat()
        }).collect();
        let mut stream = TcpStream::connect(at).await.expect("accepted");
        stream.write_all(&polls).await.expect("written");
        stream.set_zero_linger().expect("a socket");
    }
    // Accepted only now: what they sent is there, and the sockets do not say any more where they come from.
    let options = AgentServerOptions { max_new_agents: Some(1), ..AgentServerOptions::default() };
    let house = open_on(listener, options);
    counted(true, || house.traffic.new_agents_refused.get() >= 1).await;
}

#[tokio::test]
async fn the_one_too_many_is_turned_away_and_the_present_are_served() {
    let mut house = open(AgentServerOptions { max_connections: 1, ..AgentServerOptions::default() }).await;
    let mut socket = house.door.websocket().await;
    let (status, head, _) = house.door.request("GET /v1/opamp HTTP/1.1", b"").await;
    assert!(status == 503 && head.contains("retry-after: "), "{head}");
    say(&mut socket, &hello(1)).await;
    drop(house.arrival(1).await);
    assert_eq!(hear(&mut socket).await.instance_uid, vec![1; 16]);
    counted(1, || house.traffic.turned_away.get()).await;
    drop(socket);
    assert_eq!(house.word().await, "lost 1");
}

#[tokio::test]
async fn a_storm_of_connections_is_spread_by_answers_that_clients_obey() {
    let house = open(AgentServerOptions { max_rate: Some(1), ..AgentServerOptions::default() }).await;
    let url = format!("ws://{}/v1/opamp", house.door.0);
    let (mut sockets, mut refusal) = (Vec::new(), None);
    for _ in 0..40 {
        let stream = TcpStream::connect(house.door.0).await.expect("accepted");
        match bounded("an answer", tokio_tungstenite::client_async(&url, stream)).await {
            Ok((socket, _)) => sockets.push(socket),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                refusal = Some(response);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let refusal = refusal.expect("one a second, not forty at once");
    assert_eq!(refusal.status(), 503);
    let retry_after = refusal.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    assert!(retry_after.is_some_and(|seconds| (30..=60).contains(&seconds)), "{retry_after:?}");
    assert!(!sockets.is_empty(), "the first one may always come");
    let mut statuses = Vec::new();
    for who in 1..=40 {
        let (status, head, _) = house.door.post("", &hello(who).encode_to_vec()).await;
        statuses.push(status);
        if status == 503 {
            assert!(head.contains("retry-after: "), "{head}");
            break;
        }
    }
    assert_eq!(statuses.last(), Some(&503), "{statuses:?}");
    assert!(house.traffic.throttled.get() >= 2);
    // Who is here is served.
    say(&mut sockets[0], &hello(99)).await;
    assert_eq!(house.traffic.turned_away.get(), 0);
    drop(house.events);
}

#[tokio::test]
async fn who_says_too_much_is_put_off() {
    let mut options = AgentServerOptions { verdict_wait: Duration::ZERO, ..AgentServerOptions::default() };
    options.rules.most_messages = 2;
    let mut house = open(options).await;
    house.door.poll(&hello(1)).await;
    drop(house.arrival(1).await);
    let mut statuses = Vec::new();
    for number in 1..20 {
        let (status, head, _) = house.door.post("", &heartbeat(1, number).encode_to_vec()).await;
        statuses.push(status);
        if status == 503 {
            assert!(head.contains("retry-after: "), "{head}");
            break;
        }
    }
    assert_eq!(statuses.last(), Some(&503), "{statuses:?}");
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(2)).await;
    drop(house.arrival(2).await);
    let mut answer = hear(&mut socket).await;
    for number in 1..20 {
        say(&mut socket, &heartbeat(2, number)).await;
        answer = hear(&mut socket).await;
        if answer.error_response.is_some() {
            break;
        }
    }
    let error = answer.error_response.expect("put off");
    assert_eq!(error.r#type(), ServerErrorResponseType::Unavailable);
    assert!(matches!(error.details, Some(server_error_response::Details::RetryInfo(_))), "{error:?}");
    let counted = house.traffic.flooded.get();
    let mut neighbour = house.door.websocket().await;
    say(&mut neighbour, &hello(3)).await;
    drop(house.arrival(3).await);
    assert!(hear(&mut neighbour).await.error_response.is_none(), "another connection is served");
    // What is malformed counts as well: between two that are not, nobody has the server read without end.
    say(&mut neighbour, &heartbeat(3, 1)).await;
    assert!(hear(&mut neighbour).await.error_response.is_none());
    let malformed = bounded("sent", neighbour.send(Message::Binary(Bytes::from_static(b"\0\x0a\xff\xff")))).await;
    malformed.expect("the connection is there");
    let error = hear(&mut neighbour).await.error_response.expect("an error");
    assert_eq!(error.r#type(), ServerErrorResponseType::Unavailable, "the third in ten seconds: {error:?}");
    assert_eq!(house.traffic.flooded.get(), counted + 1);
}

#[tokio::test]
async fn a_connection_carries_so_many_agents_and_serves_those() {
    let mut options = AgentServerOptions::default();
    options.rules.most_agents = 1;
    let mut house = open(options).await;
    let mut socket = house.door.websocket().await;
    say(&mut socket, &hello(1)).await;
    drop(house.arrival(1).await);
    assert!(hear(&mut socket).await.error_response.is_none());
    say(&mut socket, &hello(2)).await;
    let error = hear(&mut socket).await.error_response.expect("put off");
    assert_eq!(error.r#type(), ServerErrorResponseType::Unavailable, "{error:?}");
    assert_eq!(house.traffic.crowded_connection.get(), 1);
    say(&mut socket, &heartbeat(1, 1)).await;
    assert!(hear(&mut socket).await.error_response.is_none(), "who is there is served");
}

#[tokio::test]
async fn stopping_does_not_wait_for_the_deaf() {
    let options = AgentServerOptions { drain: Duration::from_millis(100), ..AgentServerOptions::default() };
    let mut house = open(options).await;
    let mut deaf = house.door.websocket().await;
    say(&mut deaf, &hello(1)).await;
    let (connection, report) = house.arrival(1).await;
    house.links.offer(connection, agent(1), config(1, 64 << 20), false);
    drop(report);
    house.stop.send(true).expect("it runs");
    bounded("the end", house.task).await.expect("no panic");
    assert!(bounded("the channel's end", house.events.recv()).await.is_none(), "the task was ended, too");
}
