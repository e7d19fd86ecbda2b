//! What agents say, as transcripts: one line a message, with the time since the start in seconds.

use super::*;
use crate::fleet::strategy::Amount;
use crate::simulate::offered::tests::offer;
use crate::simulate::{Bodies, Endpoint, Options, cast};

/// An agent, the bodies it shares, and the time.
struct Stage {
    agent: Agent,
    bodies: Bodies,
    now: Timestamp,
    start: Timestamp,
}

impl Stage {
    fn new(change: impl FnOnce(&mut Options)) -> Self {
        let server = Endpoint::resolve("ws://127.0.0.1:4320/v1/opamp", false).expect("loopback");
        let mut options = Options::new(server, 1);
        options.apply_delay = "5s".parse().expect("a delay");
        options.fail_matching = Some("unknown".to_owned());
        change(&mut options);
        let character = cast(&options)[0];
        let agent = Agent::new(Arc::new(Profile::new(&options)), 0, character);
        let start = Timestamp::from_millis(1_000_000);
        Self { agent, bodies: Bodies::new(options.fail_matching), now: start, start }
    }

    /// Lets the agent talk for so many seconds.
    fn run(&mut self, seconds: u64) -> Vec<String> {
        let end = self.now + Duration::from_secs(seconds);
        let mut said = Vec::new();
        loop {
            while let Some(message) = self.agent.poll_message(self.now) {
                said.push(format!("{} {}", self.clock(), show(&message)));
            }
            let due = self.agent.poll_timeout();
            assert!(due > self.now, "nothing more to say, so the next time lies ahead");
            if due > end {
                self.now = end;
                return said;
            }
            self.now = due;
        }
    }

    fn clock(&self) -> String {
        format!("{:.1}", self.now.since(self.start).as_secs_f64())
    }

    fn connect(&mut self) {
        self.agent.handle_connected(self.now);
    }

    fn offer(&mut self, hash: &str, body: &str) -> Heard {
        let offer = self.bodies.intern(offer(hash, body));
        self.agent.handle_message(&proto::ServerToAgent::default(), Some(offer), self.now)
    }

    fn hear(&mut self, message: &proto::ServerToAgent) -> Heard {
        self.agent.handle_message(message, None, self.now)
    }

    /// Connected, started, and quiet again.
    fn settled(mut self) -> Self {
        self.connect();
        self.run(10);
        self
    }
}

fn show(message: &proto::AgentToServer) -> String {
    let mut words = vec![format!("#{}", message.sequence_num)];
    if let Some(description) = &message.agent_description {
        let count = description.identifying_attributes.len() + description.non_identifying_attributes.len();
        words.push(format!("description({count})"));
    }
    if let Some(status) = &message.remote_config_status {
        let name = proto::RemoteConfigStatuses::try_from(status.status).expect("a known status").as_str_name();
        let name = name.rsplit('_').next().unwrap_or(name);
        words.push(format!("{name}({})", String::from_utf8_lossy(&status.last_remote_config_hash)));
        if !status.error_message.is_empty() {
            words.push(format!("{:?}", status.error_message));
        }
    }
    if let Some(health) = &message.health {
        words.push(format!("healthy={} {}{}", health.healthy, health.status, health.last_error).trim_end().to_owned());
    }
    if let Some(effective) = &message.effective_config {
        let map = &effective.config_map.as_ref().expect("a map").config_map;
        let bodies: Vec<_> = map
            .values()
            .map(|entry| String::from_utf8_lossy(&entry.body).chars().take(12).collect::<String>())
            .collect();
        words.push(format!("effective[{}]", bodies.join(", ")));
    }
    if message.agent_disconnect.is_some() {
        words.push("goodbye".to_owned());
    }
    words.join(" ")
}

#[test]
fn a_first_report_is_full_and_the_collector_comes_up_behind_it() {
    let mut stage = Stage::new(|_| {});
    stage.connect();
    assert_eq!(
        stage.run(40),
        [
            "0.0 #0 description(7) UNSET() healthy=false effective[receivers: {]",
            "0.6 #1 healthy=false StatusStarting",
            "1.9 #2 healthy=true StatusOK effective[receivers: {]",
            "31.9 #3", // a heartbeat
        ]
    );
}

#[test]
fn an_offer_is_applied_after_the_delay_with_a_dip_and_a_stray_word() {
    let mut stage = Stage::new(|_| {}).settled();
    assert!(matches!(stage.offer("h1", "a: 1"), Heard::Offer(_)));
    assert_eq!(
        stage.run(10),
        [
            "10.0 #3 APPLYING(h1) effective[receivers: {]",
            "10.3 #4 healthy=false",
            "10.6 #5 healthy=false StatusStarting",
            "11.2 #6 healthy=true",
            "11.6 #7 healthy=false StatusStarting",
            "11.9 #8 healthy=true StatusOK effective[a: 1]",
            "15.0 #9 APPLIED(h1)",
        ]
    );
}

#[test]
fn without_a_delay_everything_is_one_message() {
    let mut stage = Stage::new(|options| options.apply_delay = "0".parse().expect("a delay"));
    stage.connect();
    assert_eq!(stage.run(1), ["0.0 #0 description(7) UNSET() healthy=true StatusOK effective[receivers: {]"]);
    stage.offer("h1", "a: 1");
    assert_eq!(stage.run(1), ["1.0 #1 APPLIED(h1) healthy=true StatusOK effective[a: 1]"]);
}

#[test]
fn what_changes_nothing_is_applied_at_once_and_unverified() {
    let mut stage = Stage::new(|_| {}).settled();
    stage.offer("h1", "a: 1");
    stage.run(1);
    assert!(matches!(stage.offer("h1", "a: 1"), Heard::RepeatedOffer(_)));
    assert_eq!(stage.run(0), ["11.0 #6 APPLIED(h1)"], "while the first copy is still starting");
    stage.run(9);
    assert!(matches!(stage.offer("h2", "a: 1"), Heard::Offer(_)), "another hash is no repetition");
    assert_eq!(stage.run(1), ["20.0 #11 APPLIED(h2)"], "the same content restarts nothing");
}

#[test]
fn a_collector_that_exits_fails_the_offer_and_goes_on_crashing_until_another_comes() {
    let mut stage = Stage::new(|_| {}).settled();
    stage.offer("bad", "a: unknown");
    let said = stage.run(8);
    let exited =
        |pid: u32| format!("Agent process PID={pid} exited unexpectedly, exit code=1. Will restart in a bit...");
    assert_eq!(
        said[3..],
        [
            format!(
                "11.9 #6 FAILED(bad) \"Agent exited unexpectedly with exit code 1 while applying configuration\" healthy=false {}",
                exited(1_001)
            ),
            format!("16.9 #7 healthy=false {}", exited(1_002)),
        ]
    );
    assert!(!stage.agent.is_healthy());
    stage.offer("good", "a: 1");
    let said = stage.run(10);
    assert_eq!(said.last().map(String::as_str), Some("23.0 #14 APPLIED(good)"), "{said:?}");
    assert!(stage.agent.is_healthy());
}

#[test]
fn a_body_that_is_no_mapping_fails_at_once_and_changes_nothing() {
    let mut stage = Stage::new(|_| {}).settled();
    stage.offer("h1", "[1, 2]");
    assert_eq!(stage.run(10), ["10.0 #3 FAILED(h1) \"yaml: the configuration is not a mapping\""]);
    assert!(stage.agent.is_healthy(), "the old collector keeps running");
}

#[test]
fn each_fault_shows_as_it_does_in_the_field() {
    type Row = (&'static str, fn(&mut Options), &'static str);
    let rows: [Row; 5] = [
        ("a failing agent fails everything", |options| options.fail = Amount::ALL, "FAILED(h1)"),
        (
            "an unhealthy one runs into the deadline",
            |options| options.unhealthy = Amount::ALL,
            "FAILED(h1) \"Config apply timeout exceeded\"",
        ),
        (
            "a silent one says nothing of it",
            |options| options.silent = Amount::ALL,
            "healthy=true StatusOK effective[a: 1]",
        ),
        ("one without the capability takes nothing", |options| options.capabilities = Capabilities(0x2845), "none"),
        (
            "one that cannot report says nothing of it",
            |options| options.capabilities = Capabilities(0x2847),
            "healthy=true StatusOK effective[a: 1]",
        ),
    ];
    for (name, change, expected) in rows {
        let mut stage = Stage::new(change).settled();
        stage.offer("h1", "a: 1");
        let said = stage.run(6);
        let found = if said.is_empty() { expected == "none" } else { said.iter().any(|line| line.contains(expected)) };
        assert!(found, "{name}: {said:?}");
        let tells = said.iter().any(|line| line.contains("(h1)"));
        assert_eq!(tells, expected.contains("(h1)"), "{name}: {said:?}");
    }
}

#[test]
fn a_rollback_reports_the_failed_hash_and_then_the_old_one() {
    let mut stage = Stage::new(|options| options.rollback = Amount::ALL).settled();
    stage.offer("h1", "a: 1");
    assert!(stage.run(10).iter().any(|line| line.contains("APPLIED(h1)")), "the first one is fine");
    stage.offer("h2", "a: 2");
    let said = stage.run(20);
    let statuses: Vec<_> =
        said.iter().filter(|line| line.contains("(h")).map(|line| &line[..line.find(')').unwrap_or(0)]).collect();
    assert_eq!(statuses, ["20.0 #10 APPLYING(h2", "21.9 #13 FAILED(h2", "27.5 #19 APPLIED(h1"], "{said:?}");
    let (held, status) = stage.agent.holds();
    assert_eq!((held.map(|held| &held.hash()[..]), status), (Some(&b"h1"[..]), ConfigStatus::Applied));
    assert!(stage.agent.is_healthy());
}

#[test]
fn a_collector_that_crashes_later_stays_applied_and_flaps() {
    let mut stage = Stage::new(|options| options.crash = Amount::ALL).settled();
    stage.offer("h1", "a: 1");
    let said = stage.run(60);
    let after = said.iter().position(|line| line.contains("APPLIED(h1)")).expect("applied");
    let flaps: Vec<_> = said[after + 1..].iter().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert!(flaps.starts_with(&["healthy=false", "healthy=true", "healthy=false", "healthy=true"]), "{said:?}");
    assert!(!said[after + 1..].iter().any(|line| line.contains("(h1)")), "the status stays as it was: {said:?}");
}

#[test]
fn a_reconnect_is_bare_and_full_state_comes_on_request() {
    let mut stage = Stage::new(|_| {}).settled();
    stage.offer("h1", "a: 1");
    stage.run(10);
    stage.connect();
    assert_eq!(stage.run(0), ["20.0 #10"], "uid, number and capabilities only");
    let flags = proto::ServerToAgentFlags::ReportFullState as u64;
    stage.hear(&proto::ServerToAgent { flags, ..Default::default() });
    assert_eq!(stage.run(0), ["20.0 #11 description(7) APPLIED(h1) healthy=true StatusOK effective[a: 1]"]);
    let goodbye = stage.agent.goodbye(stage.now);
    assert_eq!(show(&goodbye), "#12 healthy=false Supervisor is shutdown goodbye");
}

#[test]
fn a_new_uid_is_taken_and_the_description_told_again() {
    let mut stage = Stage::new(|_| {}).settled();
    let new = proto::AgentIdentification { new_instance_uid: Bytes::from_static(&[7; 16]) };
    stage.hear(&proto::ServerToAgent { agent_identification: Some(new), ..Default::default() });
    assert_eq!(stage.agent.id().as_bytes(), &[7; 16]);
    assert_eq!(stage.run(0), ["10.0 #3 description(7)"], "the number goes on");
}

#[test]
fn a_restart_command_restarts_and_whatever_came_with_it_is_ignored() {
    let mut stage = Stage::new(|_| {}).settled();
    stage.offer("h1", "a: 1");
    stage.run(10);
    let command = Some(proto::ServerToAgentCommand::default());
    let flags = proto::ServerToAgentFlags::ReportFullState as u64;
    stage.hear(&proto::ServerToAgent { command, flags, ..Default::default() });
    let said = stage.run(10);
    assert_eq!(said[0], "20.3 #10 healthy=false", "no full report: {said:?}");
    assert!(said.iter().all(|line| !line.contains("(h1)")), "no verdict either: {said:?}");
    assert!(stage.agent.is_healthy());
}

#[test]
fn the_same_seed_gives_the_same_agents() {
    let uid = |seed, number| {
        let server = Endpoint::resolve("ws://127.0.0.1:4320/", false).expect("loopback");
        let options = Options { seed, ..Options::new(server, 1) };
        Agent::new(Arc::new(Profile::new(&options)), number, Character::default()).id()
    };
    assert_eq!(uid(1, 5), uid(1, 5));
    let all: std::collections::BTreeSet<_> = (0..5_000).map(|number| uid(1, number)).chain([uid(2, 5)]).collect();
    assert_eq!(all.len(), 5_001, "no two alike");
}
