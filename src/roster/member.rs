//! One agent as the roster keeps it: the last it said, where it is, and what it was offered.

use std::sync::Arc;

use crate::agent::{
    AgentReport, Capabilities, ConfigState, ConfigStatus, ConnectionId, Health, ReportedHash, Transport,
};
use crate::config::{ComponentNames, ConfigHash};
use crate::fleet::GroupName;
use crate::labels::Labels;
use crate::roster::restarts::RESTART_TAKES;
use crate::roster::standing::Verdict;
use crate::time::Timestamp;

/// Which group an agent belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It has not described itself yet.
    Unknown,
    /// No group selects it; it keeps what it has.
    Unmanaged,
    /// The group it was in is no longer in the repository, and no other selects it; it keeps what it has.
    Orphaned(GroupName),
    /// Several groups select it at equal priority; it keeps what it has.
    Conflict(Arc<[GroupName]>),
    /// It belongs here.
    Group(GroupName),
}

impl Placement {
    /// The group, when it is in one.
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Self::Group(name) => Some(name),
            Self::Unknown | Self::Unmanaged | Self::Orphaned(_) | Self::Conflict(_) => None,
        }
    }
}

/// A connection that an agent is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which one.
    pub connection: ConnectionId,
    /// How it works.
    pub transport: Transport,
    /// True once the agent's configuration state was heard on it.
    pub heard: bool,
    /// What was last put into the agent's slot on it: never the same twice in a row (DESIGN rules for offers, 2).
    pub offered: Option<ConfigHash>,
    /// When it said APPLYING as the first word on this connection, or as the first word after it was started anew, and nothing
    /// else since: whoever was to conclude that may be gone.
    pub found_applying: Option<Timestamp>,
}

/// How an agent left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// When; later by as much as this process stood still since.
    pub at: Timestamp,
    /// When it really was.
    pub left: Timestamp,
    /// True when it said so.
    pub goodbye: bool,
}

/// What an agent was offered last, or was found to have received from an earlier process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What.
    pub hash: ConfigHash,
    /// The group that made it, or in which it was found out; `None`: its agent has not left the group that it was found out in.
    pub group: Option<GroupName>,
    /// When it was first offered this; reconnecting does not start the deadline anew, and it is later by as much as this process
    /// stood still since.
    pub at: Timestamp,
    /// When that really was: before or after a rollout began.
    pub made: Timestamp,
    /// When it was last put out: what is told later may be about it.
    pub sent: Timestamp,
    /// Where; `None` when an earlier process made it.
    pub connection: Option<ConnectionId>,
    /// True once a report named the hash.
    pub answered: bool,
    /// True once the agent was confirmed with it.
    pub confirmed: bool,
    /// True once the agent reported good health with it.
    pub well: bool,
    /// Since when it has been well with it, but for what befell it since; later by as much as this process stood still.
    pub well_since: Option<Timestamp>,
    /// True once the rollout that it belonged to is over: what happens now is no evidence any more.
    pub settled: bool,
    /// True once the slot was told to drop it.
    pub withdrawn: bool,
    /// True when the agent left in order without having answered: only until it is heard again may it still be in the middle of it.
    pub void: bool,
}

impl Offer {
    /// A fresh offer.
    pub fn new(hash: ConfigHash, at: Timestamp, connection: Option<ConnectionId>) -> Self {
        Self {
            hash,
            group: None,
            at,
            made: at,
            sent: at,
            connection,
            answered: false,
            confirmed: false,
            well: false,
            well_since: None,
            settled: false,
            withdrawn: false,
            void: false,
        }
    }
}

/// One agent.
#[derive(Debug)]
pub struct Member {
    /// Where it is connected.
    pub link: Option<Link>,
    /// How it left, when it is not connected.
    pub gone: Option<Gone>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Its labels, once described.
    pub labels: Option<Labels>,
    /// What it last said of its configuration, and when that changed.
    pub config: Option<(ConfigState, Timestamp)>,
    /// What it last said of its health.
    pub health: Option<Health>,
    /// Since when it has been ill; later by as much as this process stood still since.
    pub ill_since: Option<Timestamp>,
    /// When it really fell ill.
    pub fell_ill: Option<Timestamp>,
    /// When it was last sick as everybody was; later by as much as this process stood still since.
    pub excused_at: Option<Timestamp>,
    /// The names in its effective configuration.
    pub effective: Option<Arc<ComponentNames>>,
    /// The names of what its build could run.
    pub available: Option<Arc<ComponentNames>>,
    /// When it told them.
    pub effective_at: Option<Timestamp>,
    /// Where it belongs.
    pub placement: Placement,
    /// What it was offered last.
    pub offer: Option<Offer>,
    /// What it was offered before that by a group that it has left since: it may still tell of it.
    pub left: Option<Box<Offer>>,
    /// True once it was offered a candidate since the last change of stable: an illness that shows now was not there before.
    pub tried: bool,
    /// True while it still has what it had in the group that a commit moved it out of.
    pub moved: bool,
    /// True once it was looked whether a commit moved it while it was not known here.
    pub recognised: bool,
    /// A person asked for another try of this, which it had failed.
    pub retried: Option<ConfigHash>,
    /// When it was last told to restart.
    pub restarted_at: Option<Timestamp>,
    /// Until then it keeps what it has.
    pub pinned_until: Option<Timestamp>,
    /// True once it was heard by this process.
    pub heard_once: bool,
    /// What it is to its group; counted in the group's tally exactly as it stands here.
    pub verdict: Verdict,
    /// The timer that is set for it.
    pub timer: Option<Timestamp>,
}

impl Default for Member {
    /// An agent that nothing is known of.
    fn default() -> Self {
        Self {
            link: None,
            gone: None,
            capabilities: Capabilities::default(),
            labels: None,
            config: None,
            health: None,
            ill_since: None,
            fell_ill: None,
            excused_at: None,
            effective: None,
            available: None,
            effective_at: None,
            placement: Placement::Unknown,
            offer: None,
            left: None,
            tried: false,
            moved: false,
            recognised: false,
            retried: None,
            restarted_at: None,
            pinned_until: None,
            heard_once: false,
            verdict: Verdict::NOBODY,
            timer: None,
        }
    }
}

impl Member {
    /// True when it is connected.
    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// True when its configuration's state was heard on the connection it is on now.
    pub fn is_heard(&self) -> bool {
        self.link.is_some_and(|link| link.heard)
    }

    /// May be offered a configuration, and tells what becomes of it (DESIGN rules for offers, 1).
    pub fn is_eligible(&self) -> bool {
        self.capabilities.contains(Capabilities::ACCEPTS_REMOTE_CONFIG)
            && self.capabilities.contains(Capabilities::REPORTS_REMOTE_CONFIG)
    }

    /// True when its last health report was bad. An agent that reports none is taken as well.
    pub fn is_ill(&self) -> bool {
        self.health.as_ref().is_some_and(|health| !health.healthy)
    }

    /// When it really fell ill, or vanished; `None`: it is well as far as it says, or left in order.
    pub fn fell_sick(&self) -> Option<Timestamp> {
        match self.gone {
            Some(gone) => (!gone.goodbye).then_some(gone.left),
            None => self.fell_ill.filter(|_| self.is_connected() && self.is_ill()),
        }
    }

    /// Until when it is in the middle of the last restart that it was told.
    pub fn restarting_until(&self) -> Option<Timestamp> {
        self.restarted_at.map(|at| at + RESTART_TAKES)
    }

    /// The configuration state, when any is known.
    pub fn state(&self) -> Option<&ConfigState> {
        self.config.as_ref().map(|(state, _)| state)
    }

    /// True when it says that it failed this.
    pub fn says_it_failed(&self, hash: ConfigHash) -> bool {
        self.state().is_some_and(|state| state.is_about(hash) && state.status == ConfigStatus::Failed)
    }

    /// A person asks for another try of what it failed: it may be offered the same once more.
    pub fn forgive(&mut self, hash: ConfigHash) {
        self.offer.take_if(|offer| offer.hash == hash);
        // Who never answered got it on this connection, too: its session has to be told that it may send the same again.
        let was_put_out =
            self.link.as_mut().and_then(|link| link.offered.take_if(|offered| *offered == hash)).is_some();
        self.retried = (was_put_out || self.says_it_failed(hash)).then_some(hash);
    }

    /// The process stood still for so long: what was awaited meanwhile is awaited so much longer. What was before a rollout began stays
    /// before it, and a pin ends when its person said.
    pub fn shift(&mut self, gap: std::time::Duration) {
        if let Some(offer) = &mut self.offer {
            offer.at = offer.at + gap;
            offer.well_since = offer.well_since.map(|at| at + gap);
        }
        self.excused_at = self.excused_at.map(|at| at + gap);
        if let Some(link) = &mut self.link {
            link.found_applying = link.found_applying.map(|at| at + gap);
        }
        if let Some(at) = &mut self.ill_since {
            *at = *at + gap;
        }
        if let Some((_, since)) = &mut self.config {
            *since = *since + gap;
        }
        if let Some(gone) = &mut self.gone {
            gone.at = gone.at + gap;
        }
    }

    /// It described itself anew, and its session dropped what had not left yet (DESIGN rules for offers, 1): whom it belongs to now is
    /// decided without that. Returns what it was.
    pub fn void_offer(&mut self) -> Option<ConfigHash> {
        let connection = self.link.map(|link| link.connection);
        let is_out = |offer: &&mut Offer| !offer.answered && !offer.withdrawn && offer.connection == connection;
        let offer = self.offer.as_mut().filter(|_| connection.is_some()).filter(is_out)?;
        offer.withdrawn = true;
        Some(offer.hash)
    }

    /// It leaves this group, if any: what it confirmed there is no evidence anywhere else, and what it was given there is that group's.
    pub fn leave(&mut self, group: Option<&GroupName>) {
        (self.tried, self.moved, self.retried) = (false, false, None);
        if let Some(offer) = &mut self.offer {
            offer.settled |= offer.confirmed;
            offer.group = offer.group.take().or_else(|| group.cloned());
        }
    }

    /// The offer of this by another group than the one it is in, if that was the last to give it this: what becomes of it is evidence there,
    /// and not here.
    pub fn offered_elsewhere(&self, hash: ConfigHash) -> Option<&Offer> {
        let last = [self.offer.as_ref(), self.left.as_deref()].into_iter().flatten().find(|offer| offer.hash == hash);
        last.filter(|offer| offer.group.is_some() && offer.group.as_ref() != self.placement.group())
    }

    /// Takes a report; true when the labels changed.
    pub fn take(&mut self, report: AgentReport, now: Timestamp) -> bool {
        if let Some(capabilities) = report.capabilities {
            self.capabilities = capabilities;
            // Who cannot tell of its configuration is heard with all that it ever says.
            self.heard_once |= !capabilities.contains(Capabilities::REPORTS_REMOTE_CONFIG);
        }
        if let Some(health) = report.health {
            let since = |before: Option<Timestamp>| if health.healthy { None } else { before.or(Some(now)) };
            (self.ill_since, self.fell_ill) = (since(self.ill_since), since(self.fell_ill));
            self.health = Some(health);
        }
        if let Some(effective) = report.effective {
            (self.effective, self.effective_at) = (Some(effective), Some(now));
        }
        if let Some(available) = report.available {
            self.available = Some(available);
        }
        if let Some(state) = report.config {
            if let Some(link) = &mut self.link {
                // A session tells the same state twice only when the agent itself began anew.
                let is_first = !link.heard || self.config.as_ref().is_some_and(|(before, _)| *before == state);
                link.found_applying = (is_first && state.status == ConfigStatus::Applying).then_some(now);
                link.heard = true;
            }
            self.heard_once = true;
            self.take_state(state, now);
        }
        match report.labels {
            Some(labels) if self.labels.as_ref() != Some(&labels) => {
                self.labels = Some(labels);
                true
            }
            Some(_) | None => false,
        }
    }

    fn take_state(&mut self, state: ConfigState, now: Timestamp) {
        match (state.hash, &mut self.offer) {
            (ReportedHash::Known(hash), Some(offer)) if offer.hash == hash => {
                // What was answered had left, whatever was taken back since.
                (offer.answered, offer.withdrawn) = (true, false);
                if state.status == ConfigStatus::Applied {
                    offer.confirmed |= self.health.as_ref().is_none_or(|health| health.healthy);
                }
            }
            // Another offer is on its way; this is about an older one.
            (ReportedHash::Known(_), Some(offer)) if !offer.answered && !offer.settled && !offer.void => {}
            // What was not offered by this process counts as offered now: deadline and budget apply.
            (ReportedHash::Known(hash), Some(_) | None) => {
                self.offer = Some(Offer { answered: true, ..Offer::new(hash, now, None) });
            }
            // An agent that polls and knows of nothing any more was started anew, with an empty disk. Over a WebSocket that is a
            // new connection.
            (ReportedHash::None, Some(offer)) if offer.answered => self.forget_polled_offer(),
            (ReportedHash::None | ReportedHash::Foreign, Some(offer)) if offer.void && !offer.answered => {
                self.offer = None;
            }
            (ReportedHash::None | ReportedHash::Foreign, Some(_) | None) => {}
        }
        if self.state() != Some(&state) {
            self.config = Some((state, now));
        }
    }

    fn forget_polled_offer(&mut self) {
        if let Some(link) = self.link.as_mut().filter(|link| link.transport == Transport::Http) {
            link.offered = None;
            self.offer = None;
        }
    }
}
