//! gitamp: GitOps for OpenTelemetry Collector fleets.
//!
//! A Git repository says which configuration every group of agents runs. gitamp follows it, renders one collector YAML a group, is
//! itself the OpAMP server that offers it to the agents, and writes what became of every commit back as Git notes. What the
//! repository says, who gets it when, and how one agent is spoken to are three pure parts; one pure controller joins them;
//! everything that touches git, sockets or the clock is a shell that carries events in and actions out.
//!
//! # The way of the data
//!
//! ```text
//!  hook, timer, file watch, SIGHUP, `gitamp sync`
//!        │ a bell: no content, only "look now"
//!        v
//!  daemon::follow ── git::mirror ──> Snapshot ── fleet::load_after ──> RenderedFleet
//!                                                                    │
//!                                                                    v
//!  socket <─> opamp::Connection ──AgentEvent──> controller ── Plan ──> rollout::Machine (one a group)
//!    ^                                           │   ^   ^                  │ Desired, once its record is stored
//!    │ slot, latest wins                         │   │   └──── Tally ──── roster <┘
//!    └───────────────── Offer, Withdraw ─────────┘   │
//!                                              Store │ stored
//!                                                    v
//!                                   daemon::keep ── git::journal ──> refs/notes/gitamp/<instance>
//! ```
//!
//! # The rooms
//!
//! | room | pure | what it knows |
//! | --- | --- | --- |
//! | [`time`] | yes | points in time and lengths of it; no `now()` |
//! | [`labels`] | yes | labels, and Kubernetes' selectors with globs |
//! | [`config`] | yes | a rendered configuration: its hash, its shared bytes, the names it runs |
//! | [`yaml`] | yes | documents as nodes with places and exact scalars: parse, merge, substitute, emit, hash |
//! | [`fleet`] | yes | what the repository says: groups, inheritance, policy, rendering, assignment, diagnostics |
//! | [`agent`] | yes | an agent's words: id, capabilities, configuration state, health, events |
//! | [`rollout`] | yes | one group's rollout over counts of agents: stages, gates, the way back, orders; its budget; its record |
//! | [`roster`] | yes | single agents: where each stands, who is drawn and offered what, who failed; the fleet's budget |
//! | [`controller`] | yes | joins fleet, rollout and roster; commits and their reports; guards; orders; what is to be stored |
//! | [`view`] | yes | statuses, reports and reasons as people and scripts see them |
//! | [`incident`] | yes | what needs a person: incidents from their beginning to their end, and who is told of them when |
//! | [`opamp`] | yes | protobuf, framing, one agent's session, one connection's sessions |
//! | [`trust`] | yes | who signed a commit: SSH and OpenPGP signatures, and the keys that count |
//! | [`identity`] | yes | who somebody proved to be: client certificates, tokens, JWTs, and the labels that they give |
//! | [`http`] | no | one request to somebody else's server, and its answer |
//! | [`git`] | no | the mirror, transfers in a killable child process, the journal, the file watch |
//! | [`forge`] | no | forges: proofs of the secret and push events in; statuses, comments and reverts out, by a task nobody waits for |
//! | [`alert`] | no | tells people of incidents: webhooks, chats, Alertmanager, by tasks nobody waits for |
//! | [`serve`] | no | listeners: agents, hooks, admin, operators; metrics |
//! | [`clock`] | no | the one clock, for the daemon and its listeners |
//! | [`daemon`] | no | the one loop, start and end |
//! | [`settings`] | no | flags, environment and file; the only reader of the environment |
//! | [`cli`] | no | one file a subcommand |
//! | [`simulate`] | no | a fleet of agents, good and bad, over real sockets |
//!
//! # Invariants: what is deliberately absent
//!
//! - No checkout: files are read from the object database of one commit, and nothing in them is followed.
//! - No typed YAML between the repository and an agent: a scalar's text and quoting reach the collector as they were written.
//! - No single agent in a rollout: a [`rollout::Machine`] sees counts, the [`roster`] makes offers.
//! - No offer before its record: what a rollout newly allows reaches the roster only after the journal has stored it.
//! - No queue towards an agent: a slot, and the latest offer wins.
//! - No heartbeat in the controller: sessions report changes.
//! - No work for what a commit leaves as it is: directories whose tree objects are the same are shared with the snapshot before
//!   ([`fleet::snapshot::Directory`]), what was made of them with the fleet before ([`fleet::Memory`]), and settled groups are not planned.
//! - No database: mirror, journal and the agents' reports are all the state there is.
//! - No clock, randomness, lock or I/O in a pure room; `tests/tidy.rs` and clippy hold that.
//!
//! # Rules that go beyond the obvious
//!
//! - An agent that comes back with APPLYING and nobody left to conclude it (a supervisor that was killed in the middle) counts as
//!   confirmed after half a minute of health with an effective configuration that names everything offered
//!   ([`roster::standing::LATE_CONFIRMATION`]): a second offer would be answered unverified.
//! - A uid is taken for that of two agents only when both keep talking: their numbers go back and forth, the one that lost its
//!   connection still answers on it, or both transports speak in turn. A reconnect alone never costs an agent its identity.
//! - An offered heartbeat interval goes without an address: clients would take one for the whole set of their settings.
//! - A stage's agents are drawn in the roster and recorded in the rollout: ranks and thresholds cross that line, agents do not.
//! - What agents tell in one batch is all counted before anybody is offered anything: a failure comes before the room that another one leaves.
//! - An agent that vanished, or fell ill, is excused while those without the candidate are as sick: the rollout freezes instead. Where too
//!   few of its group are without it, those are asked whom no rollout gave anything since it began; where there are none either, those
//!   who had been well with it for long: when they fall sick together, it freezes, because to restart everybody is the worse mistake.
//! - A failure of what goes back counts only when that was offered since: what was failed long ago says nothing about now.
//! - Who an agent was before commits moved it is told by what it has and by the definitions that each of them replaced; these are
//!   kept for a week, so that neither an agent nor a daemon that was away makes a move look like a newcomer.
//! - Agents that belonged to no group when a commit takes them in are moved as others are; newcomers are those that came afterwards.
//! - A revert goes to those who had it before. Agents that a commit moved to its group take the stages, afterwards.
//! - A share of failures is judged by twenty agents at least; of fewer it allows one if it would of twenty, and never all.
//! - The way back may fail at one agent in twenty, whatever may fail of something new: the others hold what failed.
//! - Who comes back with an empty disk is back when the record knows it: two bytes an agent tell members from newcomers ([`roster::known`]).
//! - What holds back only what is new (a pin of a group, `expect`) keeps no gate from being watched, and no candidate from being taken back.
//! - A record that the journal refuses by itself holds back its group; only a journal that takes nothing holds back the fleet.
//! - After an undo the way forward has stages, also to what was stable before: somebody had a reason to go back.
//! - An agent is told to restart after the record that no longer has it is stored: never twice, and not at all if the daemon dies between.
//! - A head that is not signed by who may is refused before any of its files is read, and judged again only when the keys change; what was accepted
//!   once is not judged again, so that a key that goes takes nothing back.
//! - A commit that leaves no group at all is refused: it looks like an accident, and nothing would be left to go back to.
//! - With a key the journal's records count as a whole, under a seal, or not at all; a start with none that count waits for a person.
//! - A `resume` of what a commit itself holds is an approval like `promote`; whoever may approve is asked for it, and whose commit it is.
//! - Whose a change is, is told by all commits between what a group runs for good and what its rollout brings that touch its files; what
//!   is not known is nobody's to approve.
//! - Below `trust: proven` stages and `spreadBy` look at proven labels as selectors do: nobody claims a place among the first.
//! - Of an agent that polls its last proof is kept, the certificate too: what files take back ends its session at once, what ends by itself leaves it the
//!   time of one poll to show the next one.
//! - What certificates and JWTs say is a label letter by letter, because selectors judge by it; people are shown escapes.
//! - A token that lets agents in commands nothing, whatever the files of operators say.
//! - Of refused commands, and of syncs that operators ask for, ten a minute stand in the journal one by one and others as a number; of what
//!   strangers try, three an hour.
//! - A body in the journal counts only under the hash that it has; records of a newer release stop the start.
//! - With a forge to tell, an ended commit's report stays below `state/commits/` until it was told: whoever runs next does it.
//! - A revert whose rollback is done, with everybody there and well, begins no rollout: the commit is a no-op.
//! - What nobody can tell ends no incident: a daemon that has only just started keeps those that it knew until it sees otherwise.
//! - An address of a receiver may be a secret: messages, logs and statuses name receivers, and of addresses the host at most.
//! - Of agents that are away at most two generations of the fleet are remembered, so that made-up identities cost nothing.

pub mod agent;
pub mod alert;
pub mod cli;
pub mod clock;
pub mod config;
pub mod controller;
pub mod daemon;
pub mod fleet;
pub mod forge;
pub mod git;
pub mod http;
pub mod identity;
pub mod incident;
pub mod labels;
pub mod opamp;
pub mod rollout;
pub mod roster;
pub mod serve;
pub mod settings;
pub mod simulate;
pub mod time;
pub mod trust;
pub mod view;
pub mod yaml;
