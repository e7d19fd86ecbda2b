//! One simulated agent: what a supervisor with its collector says, and when. Pure; time is an argument.
//!
//! The order of calls: [`Agent::handle_connected`] for each new connection, then [`Agent::handle_message`] for what is
//! received and [`Agent::poll_message`] whenever [`Agent::poll_timeout`] has come, until it returns `None`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::agent::{AgentId, Capabilities, ConfigStatus};
use crate::opamp::proto;
use crate::simulate::{Character, OfferedConfig, Profile};
use crate::time::Timestamp;

/// What a collector runs as long as it was never offered anything.
const NOTHING_OFFERED: &[u8] = b"receivers: {nop: {}}\nexporters: {nop: {}}\nservice:\n  pipelines:\n    traces: {receivers: [nop], exporters: [nop]}\n";

/// A supervisor starts a collector that exited again after so long, for ever.
const RESTART_AFTER: Duration = Duration::from_secs(5);

/// A collector that crashes again and again looks well for so long in between.
const WELL_BETWEEN_CRASHES: Duration = Duration::from_secs(2);

/// What the next message has to hold, as bits.
mod owed {
    /// The agent's description.
    pub(super) const DESCRIPTION: u8 = 1;
    /// Its health.
    pub(super) const HEALTH: u8 = 2;
    /// What its collector runs.
    pub(super) const EFFECTIVE: u8 = 4;
    /// What became of the latest offer.
    pub(super) const STATUS: u8 = 8;
    /// Everything.
    pub(super) const FULL: u8 = 16;
    /// Nothing, but a message has to be sent: the first one on a connection.
    pub(super) const GREETING: u8 = 32;
}

/// What the collector last said of itself, through the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// Not running (yet, or because the server said so).
    Down,
    /// `StatusStarting`.
    Starting,
    /// Healthy without a word of status: seen while one collector replaces another, and no proof of anything.
    Stray,
    /// `StatusOK`.
    Well,
    /// Running, but an exporter's target is down.
    Recoverable,
    /// Exited; the number stands for the process id in the message.
    Exited(u32),
    /// Stopped by an empty offer, which counts as well.
    Stopped,
}

/// What happens next to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The old collector is gone.
    Stop,
    /// The new one has been started.
    Start,
    /// A last word of the old one arrives late.
    StrayWord,
    /// The new one is heard again.
    StartAgain,
    /// The new one is up.
    Up,
    /// The new one exits, because it cannot run what it was given.
    Exit,
    /// It was started again, and exited again.
    ExitAgain,
    /// The supervisor gives up and starts the collector with the last configuration that worked.
    RollBack,
    /// The time to apply is over: the verdict.
    Verdict,
    /// A collector that had been fine crashes.
    Crash,
    /// It was started again and looks well.
    Recover,
}

/// What became of the configuration that [`Agent::holds`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing was offered yet.
    Unset,
    Applying,
    Applied,
    /// The body could not be parsed.
    Unreadable,
    /// The collector exited.
    Exited,
    /// The collector was not well when the time was over.
    TimedOut,
}

/// What a message from the server was to the agent.
#[derive(Clone, Debug)]
pub enum Heard {
    /// An acknowledgement, a request, or something that this agent does not do.
    Nothing,
    /// An offer that it takes.
    Offer(Arc<OfferedConfig>),
    /// An offer of the hash that it was offered last.
    RepeatedOffer(Arc<OfferedConfig>),
    /// An error response.
    Error,
}

/// One simulated agent.
#[derive(Debug)]
pub struct Agent {
    profile: Arc<Profile>,
    character: Character,
    number: u32,
    id: AgentId,
    /// Counts messages over all connections, as a supervisor's client does.
    sequence: u64,
    random: fastrand::Rng,
    /// What the next status is about: mostly the newest offer.
    offered: Option<Arc<OfferedConfig>>,
    outcome: Outcome,
    /// What the collector was last started with.
    running: Option<Arc<OfferedConfig>>,
    /// What the collector last reported that it runs.
    effective: Option<Arc<OfferedConfig>>,
    /// What was last applied; to roll back to.
    good: Option<Arc<OfferedConfig>>,
    health: Health,
    exits: u32,
    next: Option<(Step, Timestamp)>,
    /// When the collector was last started, and how long until the verdict.
    started: Timestamp,
    delay: Duration,
    /// True when a verdict is owed for this start; a first start or a restart has none.
    on_trial: bool,
    owed: u8,
    heartbeat_due: Timestamp,
}

impl Agent {
    /// The agent with this number. The same seed and number give the same instance uid.
    pub fn new(profile: Arc<Profile>, number: u32, character: Character) -> Self {
        let mut random = fastrand::Rng::with_seed(profile.seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let id = instance_uid(&mut random);
        Self {
            profile,
            character,
            number,
            id,
            sequence: 0,
            random,
            offered: None,
            outcome: Outcome::Unset,
            running: None,
            effective: None,
            good: None,
            health: Health::Down,
            exits: 0,
            next: None,
            started: Timestamp::default(),
            delay: Duration::ZERO,
            on_trial: false,
            owed: 0,
            heartbeat_due: Timestamp::default(),
        }
    }

    /// Its instance uid, which the server may change.
    pub fn id(&self) -> AgentId {
        self.id
    }

    /// Its number in the fleet, from 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How it misbehaves.
    pub fn character(&self) -> Character {
        self.character
    }

    /// The configuration that its status is about, and the status as it is (a silent agent does not tell it).
    pub fn holds(&self) -> (Option<&Arc<OfferedConfig>>, ConfigStatus) {
        let status = match self.outcome {
            Outcome::Unset => ConfigStatus::Unset,
            Outcome::Applying => ConfigStatus::Applying,
            Outcome::Applied => ConfigStatus::Applied,
            Outcome::Unreadable | Outcome::Exited | Outcome::TimedOut => ConfigStatus::Failed,
        };
        (self.offered.as_ref(), status)
    }

    /// True when it would report to be well.
    pub fn is_healthy(&self) -> bool {
        match self.health {
            Health::Stray | Health::Well | Health::Stopped => true,
            Health::Down | Health::Starting | Health::Recoverable | Health::Exited(_) => false,
        }
    }

    /// A connection to the server is up. On the first one the agent tells everything; later ones start with a bare message.
    pub fn handle_connected(&mut self, now: Timestamp) {
        if self.sequence == 0 {
            self.owed |= owed::FULL;
            self.start_collector(now, false);
        } else {
            self.owed |= owed::GREETING;
        }
    }

    /// Takes a message from the server; `offer` is its configuration, if it has one, in the fleet's shared copy.
    pub fn handle_message(
        &mut self,
        message: &proto::ServerToAgent,
        offer: Option<Arc<OfferedConfig>>,
        now: Timestamp,
    ) -> Heard {
        self.advance(now);
        if message.error_response.is_some() {
            return Heard::Error;
        }
        if message.command.is_some() && self.profile.capabilities.contains(Capabilities::ACCEPTS_RESTART_COMMAND) {
            self.start_collector(now, false);
            return Heard::Nothing; // whatever came with it is ignored, as the specification has it
        }
        if message.flags & proto::ServerToAgentFlags::ReportFullState as u64 != 0 {
            self.owed |= owed::FULL;
        }
        if let Some(id) = message.agent_identification.as_ref().and_then(|new| AgentId::new(&new.new_instance_uid)) {
            self.id = id;
            self.owed |= owed::DESCRIPTION;
        }
        match offer {
            Some(offer) if self.takes(&offer) => self.handle_offer(offer, now),
            Some(_) | None => Heard::Nothing,
        }
    }

    /// The next message to send, if there is one now. Call again until there is none.
    pub fn poll_message(&mut self, now: Timestamp) -> Option<proto::AgentToServer> {
        self.advance(now);
        if self.owed == 0 && now < self.heartbeat_due {
            return None;
        }
        let owes = |what| self.owed & (what | owed::FULL) != 0;
        let full = self.owed & owed::FULL != 0;
        let has = |capability| self.profile.capabilities.contains(capability);
        let message = proto::AgentToServer {
            instance_uid: Bytes::copy_from_slice(self.id.as_bytes()),
            sequence_num: self.sequence,
            capabilities: self.profile.capabilities.0,
            agent_description: owes(owed::DESCRIPTION).then(|| self.profile.description(self.number, self.id)),
            health: (owes(owed::HEALTH) && has(Capabilities::REPORTS_HEALTH)).then(|| self.health_report(now)),
            effective_config: (owes(owed::EFFECTIVE) && has(Capabilities::REPORTS_EFFECTIVE_CONFIG))
                .then(|| self.effective_config()),
            remote_config_status: (owes(owed::STATUS) && has(Capabilities::REPORTS_REMOTE_CONFIG))
                .then(|| self.status()),
            package_statuses: full.then(proto::PackageStatuses::default),
            custom_capabilities: full.then(proto::CustomCapabilities::default),
            ..proto::AgentToServer::default()
        };
        self.owed = 0;
        self.sequence += 1;
        self.heartbeat_due = now + self.profile.heartbeat;
        Some(message)
    }

    /// When [`Agent::poll_message`] has something to do.
    pub fn poll_timeout(&self) -> Timestamp {
        if self.owed != 0 {
            return Timestamp::default();
        }
        self.next.map_or(self.heartbeat_due, |(_, due)| due.min(self.heartbeat_due))
    }

    /// The last message: the supervisor ends.
    pub fn goodbye(&mut self, now: Timestamp) -> proto::AgentToServer {
        let mut health = self.health_report(now);
        health.healthy = false;
        health.status.clear();
        "Supervisor is shutdown".clone_into(&mut health.last_error);
        let message = proto::AgentToServer {
            instance_uid: Bytes::copy_from_slice(self.id.as_bytes()),
            sequence_num: self.sequence,
            capabilities: self.profile.capabilities.0,
            health: self.profile.capabilities.contains(Capabilities::REPORTS_HEALTH).then_some(health),
            agent_disconnect: Some(proto::AgentDisconnect {}),
            ..proto::AgentToServer::default()
        };
        self.sequence += 1;
        message
    }

    /// An offer needs the capability, and a hash: a client cannot report on one without.
    fn takes(&self, offer: &OfferedConfig) -> bool {
        self.profile.capabilities.contains(Capabilities::ACCEPTS_REMOTE_CONFIG) && !offer.hash().is_empty()
    }

    fn handle_offer(&mut self, offer: Arc<OfferedConfig>, now: Timestamp) -> Heard {
        let repeated = self.offered.as_ref().is_some_and(|last| last.hash() == offer.hash());
        self.offered = Some(Arc::clone(&offer));
        self.owe(owed::STATUS);
        if offer.parse_error().is_some() {
            self.outcome = Outcome::Unreadable; // the collector keeps what it has
        } else if offer.is_empty() {
            self.outcome = Outcome::Applied;
            self.running = None;
            self.effective = None;
            self.next = None;
            self.say(Health::Stopped);
        } else if self.running.as_ref().is_some_and(|running| running.same_content(&offer)) {
            // Nothing to restart, so this is answered at once and unverified, whatever the collector is doing. A verdict
            // that is still to come will be about the new hash.
            self.outcome = Outcome::Applied;
            self.running = Some(Arc::clone(&offer));
        } else {
            self.outcome = Outcome::Applying;
            self.owe(owed::EFFECTIVE); // still the old one
            self.running = Some(Arc::clone(&offer));
            self.start_collector(now, true);
        }
        if repeated { Heard::RepeatedOffer(offer) } else { Heard::Offer(offer) }
    }

    /// Starts the collector with `self.running`, instead of the one that runs.
    fn start_collector(&mut self, now: Timestamp, on_trial: bool) {
        self.started = now;
        self.delay = self.profile.apply_delay.draw(&mut self.random);
        self.on_trial = on_trial;
        self.next = Some((Step::Stop, self.moment(1)));
        self.advance(now);
    }

    /// The moment when so many sixteenths of the time to apply have passed.
    fn moment(&self, sixteenths: u32) -> Timestamp {
        self.started + self.delay * sixteenths / 16
    }

    /// Does everything that is due.
    fn advance(&mut self, now: Timestamp) {
        while let Some((step, due)) = self.next.filter(|(_, due)| *due <= now) {
            self.next = self.perform(step, due);
        }
    }

    /// Does one step and says what comes after it.
    fn perform(&mut self, step: Step, at: Timestamp) -> Option<(Step, Timestamp)> {
        match step {
            Step::Stop => {
                self.say(Health::Down);
                Some((Step::Start, self.moment(2)))
            }
            Step::Start => {
                self.say(Health::Starting);
                match (self.collector_exits(), self.on_trial) {
                    (true, _) => Some((Step::Exit, self.moment(6))),
                    (false, true) => Some((Step::StrayWord, self.moment(4))),
                    (false, false) => Some((Step::Up, self.moment(6))),
                }
            }
            Step::StrayWord => {
                self.say(Health::Stray);
                Some((Step::StartAgain, self.moment(5)))
            }
            Step::StartAgain => {
                self.say(Health::Starting);
                Some((Step::Up, self.moment(6)))
            }
            Step::Up => {
                self.say(if self.character.unhealthy { Health::Recoverable } else { Health::Well });
                self.effective.clone_from(&self.running);
                self.owe(owed::EFFECTIVE);
                self.on_trial.then(|| (Step::Verdict, self.moment(16)))
            }
            Step::Exit => {
                self.exit();
                if self.on_trial {
                    self.conclude(Outcome::Exited);
                    if self.character.rolls_back && self.good.is_some() {
                        return Some((Step::RollBack, self.moment(8)));
                    }
                }
                Some((Step::ExitAgain, at + RESTART_AFTER))
            }
            Step::ExitAgain => {
                self.exit();
                Some((Step::ExitAgain, at + RESTART_AFTER))
            }
            Step::RollBack => {
                self.running.clone_from(&self.good);
                self.started = at;
                self.on_trial = true;
                Some((Step::Stop, self.moment(1)))
            }
            Step::Verdict => self.judge(at),
            Step::Crash => {
                self.exit();
                Some((Step::Recover, at + RESTART_AFTER))
            }
            Step::Recover => {
                self.say(Health::Well);
                Some((Step::Crash, at + WELL_BETWEEN_CRASHES))
            }
        }
    }

    fn judge(&mut self, at: Timestamp) -> Option<(Step, Timestamp)> {
        if self.health != Health::Well {
            self.conclude(Outcome::TimedOut);
            return None;
        }
        self.good.clone_from(&self.running);
        self.offered.clone_from(&self.running); // after a rollback the status is about the old hash again
        self.conclude(Outcome::Applied);
        self.character.crashes.then(|| (Step::Crash, at + self.profile.crash_after))
    }

    fn conclude(&mut self, outcome: Outcome) {
        self.on_trial = false;
        self.outcome = outcome;
        self.owe(owed::STATUS);
    }

    /// True when a collector that is started now cannot run what it is given.
    fn collector_exits(&self) -> bool {
        let Some(running) = &self.running else { return false };
        let refuses_change =
            self.character.rolls_back && self.good.as_ref().is_some_and(|good| !good.same_content(running));
        running.breaks_collectors() || self.character.fails || refuses_change
    }

    fn exit(&mut self) {
        self.exits += 1;
        self.say(Health::Exited(self.exits));
    }

    fn say(&mut self, health: Health) {
        if self.health != health {
            self.health = health;
            self.owe(owed::HEALTH);
        }
    }

    /// What an agent without the capability, or a silent one, would say is not said.
    fn owe(&mut self, what: u8) {
        let capabilities = self.profile.capabilities;
        let told = match what {
            owed::HEALTH => capabilities.contains(Capabilities::REPORTS_HEALTH),
            owed::EFFECTIVE => capabilities.contains(Capabilities::REPORTS_EFFECTIVE_CONFIG),
            owed::STATUS => capabilities.contains(Capabilities::REPORTS_REMOTE_CONFIG) && !self.character.silent,
            _ => true,
        };
        if told {
            self.owed |= what;
        }
    }

    fn status(&self) -> proto::RemoteConfigStatus {
        use proto::RemoteConfigStatuses as Wire;
        let Some(offered) = self.offered.as_ref().filter(|_| !self.character.silent) else {
            return proto::RemoteConfigStatus::default();
        };
        let (status, error_message) = match self.outcome {
            Outcome::Unset => (Wire::Unset, String::new()),
            Outcome::Applying => (Wire::Applying, String::new()),
            Outcome::Applied => (Wire::Applied, String::new()),
            Outcome::Unreadable => (Wire::Failed, offered.parse_error().unwrap_or_default().to_owned()),
            Outcome::Exited => (Wire::Failed, self.profile.fail_message.clone()),
            Outcome::TimedOut => (Wire::Failed, "Config apply timeout exceeded".to_owned()),
        };
        proto::RemoteConfigStatus {
            last_remote_config_hash: offered.hash().clone(),
            status: status.into(),
            error_message,
        }
    }

    fn effective_config(&self) -> proto::EffectiveConfig {
        if let Some(effective) = &self.effective {
            return effective.effective();
        }
        let entry = proto::AgentConfigObject { body: Bytes::from_static(NOTHING_OFFERED), ..Default::default() };
        proto::EffectiveConfig {
            config_map: Some(proto::AgentConfigMap { config_map: [(String::new(), entry)].into_iter().collect() }),
        }
    }

    fn health_report(&self, now: Timestamp) -> proto::ComponentHealth {
        let (status, last_error) = match self.health {
            Health::Down | Health::Stray | Health::Stopped => ("", String::new()),
            Health::Starting => ("StatusStarting", String::new()),
            Health::Well => ("StatusOK", String::new()),
            Health::Recoverable => ("StatusRecoverableError", "exporter target is not reachable".to_owned()),
            Health::Exited(exits) => {
                let pid = 1_000 + self.number + exits;
                ("", format!("Agent process PID={pid} exited unexpectedly, exit code=1. Will restart in a bit..."))
            }
        };
        let nanos = now.as_millis().saturating_mul(1_000_000);
        proto::ComponentHealth {
            healthy: self.is_healthy(),
            start_time_unix_nano: nanos,
            last_error,
            status: status.to_owned(),
            status_time_unix_nano: nanos,
            ..proto::ComponentHealth::default()
        }
    }
}

/// A UUID of version 7 in form, with nothing but randomness in it.
fn instance_uid(random: &mut fastrand::Rng) -> AgentId {
    loop {
        let mut bytes = random.u128(..).to_be_bytes();
        bytes[6] = bytes[6] & 0x0f | 0x70;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        if let Some(id) = AgentId::new(&bytes) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests;
