//! A model of one agent and of the session that speaks with it.
//!
//! The agent follows the real supervisor: it reports APPLYING, is unwell while its collector is replaced, and says APPLIED or
//! FAILED some seconds later; it remembers its last status on disk; a configuration that it runs already is APPLIED at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gitamp::agent::{
    AgentId, AgentReport, Capabilities, ConfigState, ConfigStatus, ConnectionId, Health, ReportedHash, Transport,
};
use gitamp::config::{ComponentNames, ConfigHash, RenderedConfig};
use gitamp::labels::Labels;
use gitamp::time::Timestamp;

/// How long after an offer over HTTP a poll gets it again when no status names it.
const OFFER_AGAIN: Duration = Duration::from_secs(60);

/// Offers in all of one configuration over HTTP.
const MOST_OFFERS: u8 = 3;

/// What an agent makes of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied after so long.
    Works(Duration),
    /// Refused after so long.
    Fails(Duration, String),
    /// Applied after the first, ill after the second.
    FallsIll(Duration, Duration),
    /// Applied after the first, dead after the second; it comes back when somebody connects it.
    Crashes(Duration, Duration),
    /// Its collector was slow to stop: FAILED by the supervisor's own timer after the first, well after the second.
    IsLate(Duration, Duration),
    /// The supervisor dies in the middle; its collector comes up all the same.
    DiesApplying(Duration),
    /// APPLYING for ever.
    Hangs,
    /// Not a word.
    Silent,
    /// It says that it applied it, and runs something else.
    RunsElse(Duration),
}

/// How an agent decides what it makes of a configuration.
#[derive(Clone, Debug)]
pub enum Nature {
    /// A script says what it does.
    Scripted,
    /// Always the same.
    Always(Outcome),
    /// One thing for these, and otherwise the second.
    Only(BTreeMap<ConfigHash, Outcome>, Outcome),
    /// By chance, but always the same for one agent and one configuration.
    Drawn {
        /// Makes one seed's world differ from another's.
        salt: u64,
    },
}

/// What happens to an agent at a later time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The new collector runs.
    Well(Arc<ComponentNames>),
    /// It reports a status for a configuration.
    Says(ConfigHash, ConfigStatus, Option<String>),
    /// It falls ill.
    FallsIll(String),
    /// Its process ends without a word.
    Dies,
}

#[derive(Clone, Debug, Default)]
struct Told {
    capabilities: Option<Capabilities>,
    labels: Option<Labels>,
    config: Option<ConfigState>,
    health: Option<Health>,
    effective: Option<Arc<ComponentNames>>,
}

/// An offer that was given to the agent and has not come to an end, in truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// What.
    pub hash: ConfigHash,
    /// When the controller gave it.
    pub at: Timestamp,
    /// True once it reached the agent.
    pub received: bool,
}

/// One agent.
#[derive(Debug)]
pub struct ModelAgent {
    /// Its uid.
    pub id: AgentId,
    /// How it is connected.
    pub transport: Transport,
    /// What it says it can do.
    pub capabilities: Capabilities,
    /// Its labels.
    pub labels: Labels,
    /// What it makes of configurations.
    pub nature: Nature,
    /// Its connection.
    pub connection: Option<ConnectionId>,
    /// True when its last connection ended with a goodbye.
    pub said_goodbye: bool,
    /// True once it was heard on its connection.
    pub is_greeted: bool,
    /// Its last status, kept on its disk.
    pub status: ConfigState,
    /// What its collector was given last.
    pub runs: Option<ConfigHash>,
    /// Whether its collector is well.
    pub is_well: bool,
    /// Why not.
    pub complaint: Option<String>,
    /// What its collector really runs.
    pub effective: Option<Arc<ComponentNames>>,
    /// Counts what makes earlier plans void: a new offer, a death.
    pub life: u64,
    /// Everything it ever received.
    pub received: Vec<ConfigHash>,
    /// What it was given and is still in the middle of.
    pub given: Option<Given>,
    /// What this process counts it as in the middle of, and since when, whether the offer reached it or not.
    pub counted: Option<(ConfigHash, Timestamp)>,
    /// True when its last offer was taken back.
    withdrawn: bool,
    /// When it was last told to restart.
    pub restarted: Option<Timestamp>,
    told: Told,
    slot: Option<(RenderedConfig, bool)>,
    sent: Option<ConfigHash>,
    again: Option<(RenderedConfig, Timestamp, u8)>,
}

impl ModelAgent {
    /// A well agent that never received anything.
    pub fn new(number: u16, labels: Labels, transport: Transport) -> Self {
        let mut bytes = [0x5e; 16];
        bytes[14..].copy_from_slice(&number.to_be_bytes());
        Self {
            id: AgentId::new(&bytes).expect("a valid id"),
            transport,
            capabilities: Capabilities(0x7C47),
            labels,
            nature: Nature::Scripted,
            connection: None,
            said_goodbye: true,
            is_greeted: false,
            status: ConfigState::NOTHING,
            runs: None,
            is_well: true,
            complaint: None,
            effective: None,
            life: 0,
            received: Vec::new(),
            given: None,
            counted: None,
            withdrawn: false,
            restarted: None,
            told: Told::default(),
            slot: None,
            sent: None,
            again: None,
        }
    }

    /// True when it may be offered configurations.
    pub fn is_eligible(&self) -> bool {
        self.connection.is_some()
            && self.told.capabilities.is_some_and(|told| {
                told.contains(Capabilities::ACCEPTS_REMOTE_CONFIG) && told.contains(Capabilities::REPORTS_REMOTE_CONFIG)
            })
    }

    /// The labels that this process was told.
    pub fn told_labels(&self) -> Option<&Labels> {
        self.told.labels.as_ref()
    }

    /// The status that this process was told.
    pub fn told_status(&self) -> Option<&ConfigState> {
        self.told.config.as_ref()
    }

    /// True when it told that it is ill.
    pub fn told_ill(&self) -> bool {
        self.told.health.as_ref().is_some_and(|health| !health.healthy)
    }

    /// A connection opens.
    pub fn open(&mut self, connection: ConnectionId) {
        self.connection = Some(connection);
        self.is_greeted = false;
        self.said_goodbye = false;
        (self.slot, self.sent, self.again) = (None, None, None);
    }

    /// The connection ends.
    pub fn close(&mut self, goodbye: bool) -> Option<ConnectionId> {
        let connection = self.connection.take()?;
        if self.slot.take().is_some() {
            // It never left.
            self.given = None;
        }
        // What was on its way is lost.
        self.given = self.given.filter(|given| given.received);
        (self.said_goodbye, self.is_greeted) = (goodbye, false);
        self.counted = self.counted.filter(|_| !goodbye);
        Some(connection)
    }

    /// An offer is put into its session's slot.
    pub fn put(&mut self, config: RenderedConfig, retry: bool, now: Timestamp) {
        // The same once more is the same.
        if self.given.is_none_or(|given| given.hash != config.hash()) {
            self.given = Some(Given { hash: config.hash(), at: now, received: false });
        }
        if std::mem::take(&mut self.withdrawn) || self.counted.is_none_or(|(hash, _)| hash != config.hash()) {
            self.counted = Some((config.hash(), now));
        }
        self.slot = Some((config, retry));
    }

    /// What waits in the slot is taken back.
    pub fn withdraw(&mut self) {
        if self.slot.take().is_some() {
            self.given = None;
        }
        self.again = None;
        self.withdrawn = true;
    }

    /// What the session sends now, by the rules of a session.
    pub fn take_offer(&mut self, now: Timestamp) -> Option<RenderedConfig> {
        let is_http = self.transport == Transport::Http;
        if let Some((config, retry)) = self.slot.take() {
            let reported = self.told.config.as_ref().is_some_and(|state| state.is_about(config.hash()));
            let repeated = self.sent == Some(config.hash());
            if retry || !(reported || repeated) {
                self.sent = Some(config.hash());
                self.again = is_http.then(|| (config.clone(), now, 1));
                return Some(config);
            }
        }
        if self.told.config.as_ref().is_some_and(|state| self.sent.is_some_and(|sent| state.is_about(sent))) {
            self.again = None;
        }
        let (config, at, times) = self.again.as_mut()?;
        if *times >= MOST_OFFERS || now.since(*at) < OFFER_AGAIN {
            return None;
        }
        (*at, *times) = (now, *times + 1);
        Some(config.clone())
    }

    /// The process stood still for so long: what it waits for it waits for so much longer.
    pub fn wait_longer(&mut self, length: Duration) {
        if let Some((_, since)) = &mut self.counted {
            *since = *since + length;
        }
    }

    /// The process that was told is gone.
    pub fn forget_told(&mut self) {
        self.counted = None;
        self.told = Told::default();
    }

    /// What differs from what it told on this connection.
    pub fn tell(&mut self) -> AgentReport {
        if !std::mem::replace(&mut self.is_greeted, true) {
            self.told = Told::default();
        }
        let health = Health { healthy: self.is_well, message: self.complaint.as_deref().map(Into::into) };
        let now = Told {
            capabilities: Some(self.capabilities),
            labels: Some(self.labels.clone()),
            config: Some(self.status.clone()),
            health: Some(health),
            effective: self.effective.clone(),
        };
        // It may have come to an end with this before it was given it once more.
        let is_over = matches!(self.status.status, ConfigStatus::Applied | ConfigStatus::Failed);
        if is_over {
            self.given = self.given.filter(|given| !self.status.is_about(given.hash));
            self.counted = self.counted.filter(|(hash, _)| !self.status.is_about(*hash));
        }
        let before = std::mem::replace(&mut self.told, now);
        let told = &self.told;
        let report = AgentReport {
            capabilities: told.capabilities.filter(|_| told.capabilities != before.capabilities),
            labels: told.labels.clone().filter(|_| told.labels != before.labels),
            config: told.config.clone().filter(|_| told.config != before.config),
            health: told.health.clone().filter(|_| told.health != before.health),
            effective: told.effective.clone().filter(|_| told.effective != before.effective),
            available: None,
        };
        if report.labels.is_some() && self.slot.take().is_some() {
            // A session drops what has not left when the agent describes itself anew.
            self.given = None;
        }
        report
    }

    /// The agent gets a configuration.
    pub fn receive(&mut self, config: &RenderedConfig, rng: &mut fastrand::Rng) -> Vec<(Duration, Step)> {
        let hash = config.hash();
        self.received.push(hash);
        if let Some(given) = self.given.as_mut().filter(|given| given.hash == hash) {
            given.received = true;
        }
        let is_same = self.runs.replace(hash) == Some(hash);
        let outcome = match &self.nature {
            Nature::Scripted => {
                self.life += 1;
                return Vec::new();
            }
            Nature::Always(outcome) => outcome.clone(),
            Nature::Only(special, outcome) => special.get(&hash).unwrap_or(outcome).clone(),
            Nature::Drawn { salt } => drawn(*salt, self.id, hash, rng),
        };
        if is_same && outcome != Outcome::Silent {
            // Nothing to restart: whatever the collector is in the middle of goes on.
            return vec![(Duration::ZERO, Step::Says(hash, ConfigStatus::Applied, None))];
        }
        self.life += 1;
        let runs = Arc::new(config.components().clone());
        let says = |status, message| Step::Says(hash, status, message);
        let applies = |after: Duration| {
            vec![
                (Duration::ZERO, says(ConfigStatus::Applying, None)),
                (after / 10, Step::FallsIll("starting".to_owned())),
                (after / 2, Step::Well(runs.clone())),
                (after, says(ConfigStatus::Applied, None)),
            ]
        };
        match outcome {
            Outcome::Works(after) => applies(after),
            Outcome::FallsIll(after, later) => {
                let mut steps = applies(after);
                steps.push((after + later, Step::FallsIll("exporter refuses".to_owned())));
                steps
            }
            Outcome::Crashes(after, later) => {
                let mut steps = applies(after);
                steps.push((after + later, Step::Dies));
                steps
            }
            Outcome::Fails(after, message) => vec![
                (Duration::ZERO, says(ConfigStatus::Applying, None)),
                (after, says(ConfigStatus::Failed, Some(message))),
            ],
            Outcome::IsLate(after, later) => vec![
                (Duration::ZERO, says(ConfigStatus::Applying, None)),
                (after, says(ConfigStatus::Failed, Some("Config apply timeout exceeded".to_owned()))),
                (after + later, Step::Well(runs)),
            ],
            Outcome::DiesApplying(after) => {
                // The collector outlives its supervisor; what it runs is told when that is back.
                self.effective = Some(runs);
                vec![(Duration::ZERO, says(ConfigStatus::Applying, None)), (after, Step::Dies)]
            }
            Outcome::Hangs => vec![(Duration::ZERO, says(ConfigStatus::Applying, None))],
            Outcome::RunsElse(after) => {
                let other = Arc::new(["receivers/hostmetrics".to_owned()].into_iter().collect());
                let mut steps = applies(after);
                steps.push((after, Step::Well(other)));
                steps
            }
            Outcome::Silent => {
                // It ignores what it got, so it is in the middle of nothing.
                self.given = None;
                Vec::new()
            }
        }
    }

    /// A step of the plan that [`ModelAgent::receive`] made. A death is for the world to perform.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Well(runs) => {
                (self.is_well, self.complaint, self.effective) = (true, None, Some(runs));
                if self.status.status == ConfigStatus::Failed {
                    self.given = None;
                }
            }
            Step::Says(hash, status, message) => self.say(hash, status, message.as_deref()),
            Step::FallsIll(complaint) => (self.is_well, self.complaint) = (false, Some(complaint)),
            Step::Dies => {}
        }
    }

    /// Sets the status.
    pub fn say(&mut self, hash: ConfigHash, status: ConfigStatus, message: Option<&str>) {
        self.status = ConfigState { hash: ReportedHash::Known(hash), status, message: message.map(Into::into) };
        match status {
            ConfigStatus::Applied => {
                self.runs = Some(hash);
                self.given = None;
            }
            ConfigStatus::Failed => self.given = None,
            ConfigStatus::Applying | ConfigStatus::Unset => {}
        }
    }

    /// Starts anew with an empty disk.
    pub fn wipe(&mut self) {
        self.life += 1;
        self.status = ConfigState::NOTHING;
        self.runs = None;
        self.given = None;
        (self.is_well, self.complaint) = (true, None);
    }
}

/// Mixes numbers into one that looks like chance.
pub fn mix(salt: u64, parts: &[u8]) -> u64 {
    let hash = parts
        .iter()
        .fold(salt ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// One configuration in five is bad: seven agents of ten cannot use it. Otherwise three of a hundred have some trouble.
fn drawn(salt: u64, id: AgentId, hash: ConfigHash, rng: &mut fastrand::Rng) -> Outcome {
    let is_bad = mix(salt, hash.as_bytes()).is_multiple_of(5);
    let mut bytes = hash.as_bytes().to_vec();
    bytes.extend(id.as_bytes());
    let luck = mix(salt, &bytes) % 1000;
    let trouble = if is_bad { 700 } else { 30 };
    let after = Duration::from_millis(rng.u64(200..20_000));
    if luck >= trouble {
        return Outcome::Works(after);
    }
    match luck % 10 {
        0..=4 => Outcome::Fails(after, format!("exited with code 1, pid {luck}")),
        5 | 6 => Outcome::FallsIll(after, Duration::from_millis(rng.u64(100..60_000))),
        7 if luck.is_multiple_of(3) => Outcome::IsLate(after, Duration::from_millis(rng.u64(100..60_000))),
        7 if luck % 3 == 1 => Outcome::DiesApplying(after),
        7 => Outcome::Crashes(after, Duration::from_millis(rng.u64(100..60_000))),
        8 => Outcome::Hangs,
        _ => Outcome::Silent,
    }
}
