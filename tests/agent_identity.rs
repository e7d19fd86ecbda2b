//! The agents' listener over real sockets: agents that come twice, and several that share one identity.

#[path = "support/counted.rs"]
mod counted;
#[path = "support/listener.rs"]
mod listener;

use std::time::Duration;

use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use counted::counted;
use gitamp::agent::{AgentEvent, AgentId};
use gitamp::opamp::proto::*;
use gitamp::serve::AgentServerOptions;
use listener::*;

#[tokio::test]
async fn the_newest_connection_has_the_agent() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut old = house.door.websocket().await;
    say(&mut old, &hello(1)).await;
    let (first, report) = house.arrival(1).await;
    drop(report);
    hear(&mut old).await;
    let mut new = house.door.websocket().await;
    say(&mut new, &hello(1)).await;
    let (second, report) = house.arrival(1).await;
    assert_ne!(first, second);
    drop(report);
    assert_eq!(closed(&mut old).await, CloseCode::Policy);
    hear(&mut new).await;
    house.links.offer(second, agent(1), config(5, 10), false);
    assert_eq!(offered(&hear(&mut new).await), Some(5));
    // From HTTP to a WebSocket and back: each time the newest has it.
    house.door.poll(&hello(1)).await;
    let (third, report) = house.arrival(1).await;
    drop(report);
    assert_eq!(closed(&mut new).await, CloseCode::Policy);
    let mut newest = house.door.websocket().await;
    say(&mut newest, &hello(1)).await;
    let (fourth, report) = house.arrival(1).await;
    drop(report);
    assert!(third > second && fourth > third);
    counted(0, || house.traffic.polling_agents.get()).await;
}

#[tokio::test]
async fn two_that_share_an_identity_end_up_with_two() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut older = Vec::new();
    let mut newer = house.door.websocket().await;
    // Each newcomer throws out the one before it, as clones do that reconnect at once; until one is told that it is somebody else.
    let identification = loop {
        say(&mut newer, &hello(1)).await;
        tokio::select! {
            answer = hear(&mut newer) => break answer.agent_identification,
            message = house.events.recv() => {
                assert!(matches!(message.expect("it runs").event, AgentEvent::Connected { .. }));
                drop(house.event("the report").await);
                hear(&mut newer).await;
            }
        }
        older.push(std::mem::replace(&mut newer, house.door.websocket().await));
    };
    let uid = identification.expect("another identity").new_instance_uid;
    assert!(AgentId::new(&uid).is_some_and(|new| new != agent(1)));
    counted(1, || house.traffic.renamed.get()).await;
    say(&mut newer, &AgentToServer { instance_uid: uid.clone(), ..described(9, 1, "gateway") }).await;
    let AgentEvent::Connected { id, .. } = house.event("connected").await.event else { panic!("somebody new") };
    assert_eq!(id.as_bytes()[..], uid[..]);
}

/// Two clones that poll in turn, each with numbers of its own: the first answer with another identity, and after how many polls.
#[tokio::test]
async fn two_that_poll_with_one_identity_end_up_with_two() {
    let mut house = open(AgentServerOptions { verdict_wait: Duration::ZERO, ..AgentServerOptions::default() }).await;
    let door = house.door;
    door.poll(&described(1, 5, "one")).await;
    drop(house.arrival(1).await);
    let mut renamed = None;
    for turn in 1..10 {
        for number in [500 + turn, 5 + turn] {
            let answer = door.poll(&heartbeat(1, number)).await;
            renamed = renamed.or(answer.agent_identification.map(|new| (number, new.new_instance_uid)));
        }
        if renamed.is_some() {
            break;
        }
    }
    let (number, uid) = renamed.expect("told apart within some polls");
    assert!(AgentId::new(&uid).is_some_and(|new| new != agent(1)));
    counted(1, || house.traffic.renamed.get()).await;
    let (stays, from) = if number > 500 { ("the older", 30) } else { ("the newer", 530) };
    for next in from..from + 8 {
        assert_eq!(door.poll(&heartbeat(1, next)).await.agent_identification, None, "{stays} one keeps it");
    }
}

#[tokio::test]
async fn clones_that_answer_on_lost_connections_are_told_apart_sooner() {
    let mut house = open(AgentServerOptions::default()).await;
    let mut older: Option<WebSocketStream<TcpStream>> = None;
    for connections in 1.. {
        let mut newer = house.door.websocket().await;
        say(&mut newer, &hello(1)).await;
        tokio::select! {
            answer = hear(&mut newer) => {
                assert!(answer.agent_identification.is_some(), "{answer:?}");
                assert!(connections < 20, "before so many takeovers alone would be suspicious: {connections}");
                break;
            }
            message = house.events.recv() => {
                assert!(matches!(message.expect("it runs").event, AgentEvent::Connected { .. }));
                drop(house.event("the report").await);
                assert_eq!(hear(&mut newer).await.agent_identification, None);
            }
        }
        if let Some(mut lost) = older.replace(newer) {
            assert_eq!(closed(&mut lost).await, CloseCode::Policy);
            // It is there, and says so by answering the close.
            while let Some(Ok(_)) = bounded("the end", lost.next()).await {}
        }
    }
    counted(1, || house.traffic.renamed.get()).await;
}
