//! Who is among the first: selectors, and a threshold of rank for each kind of agent. A cohort only grows.

use std::collections::BTreeMap;

use crate::fleet::strategy::Amount;
use crate::labels::{Labels, Selector};
use crate::rollout::record::Drawn;

/// Kinds of agents that get a share of their own; the smaller ones form one together (DESIGN.md, "Evidence").
pub const MOST_STRATA: usize = 10;

/// What stands between the values of several `spreadBy` labels in a kind's name. No label holds it: they are printable text.
const SEPARATOR: &str = "\u{1f}";

impl Drawn {
    /// True when nobody was drawn.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The kind of an agent: the values of the labels that are spread by.
    fn kind(&self, labels: Option<&Labels>) -> String {
        let value = |key: &String| {
            let find = if self.spread_proven { Labels::get_proven } else { Labels::get };
            labels.and_then(|labels| find(labels, key)).unwrap_or_default()
        };
        self.spread_by.iter().map(value).collect::<Vec<_>>().join(SEPARATOR)
    }

    fn threshold(&self, labels: Option<&Labels>) -> Option<u64> {
        if self.strata.is_empty() {
            return self.rest;
        }
        let kind = self.kind(labels);
        self.strata.get(&kind).copied().unwrap_or(self.rest)
    }

    /// True when an agent with these labels and this rank was drawn.
    pub fn includes(&self, labels: Option<&Labels>, rank: u64) -> bool {
        self.threshold(labels).is_some_and(|threshold| rank <= threshold)
    }
}

/// Who has, or is to be offered, the candidate of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cohort {
    /// Everybody.
    pub everybody: bool,
    /// Whom the opened stages name.
    pub selectors: Vec<Selector>,
    /// Whom the draws named.
    pub drawn: Drawn,
}

impl Cohort {
    /// All of the group.
    pub fn everybody() -> Self {
        Self { everybody: true, ..Self::default() }
    }

    /// True when an agent with these labels and this rank belongs to it.
    pub fn includes(&self, labels: Option<&Labels>, rank: u64) -> bool {
        let is_named = |selector: &Selector| labels.is_some_and(|labels| selector.matches(labels));
        self.everybody || self.selectors.iter().any(is_named) || self.drawn.includes(labels, rank)
    }
}

/// What a stage that is about to open asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// How many of the group are to be in at the end; `None`: only whom the selectors name.
    pub agents: Option<Amount>,
    /// Who is in already, with the new stage's selector.
    pub cohort: Cohort,
    /// Labels of which every value shall be among the first.
    pub spread_by: Vec<String>,
    /// True when only the values count that credentials gave.
    pub spread_proven: bool,
    /// True: at least one agent is to be in who is connected now, beside those that vanished.
    pub replace: bool,
}

/// An agent that can be drawn.
#[derive(Clone, Copy, Debug)]
pub struct Drawable<'a> {
    /// Its labels.
    pub labels: Option<&'a Labels>,
    /// Its place in the order.
    pub rank: u64,
    /// True when it holds the candidate already.
    pub holds: bool,
}

/// What a draw led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// The new thresholds.
    pub drawn: Drawn,
    /// Agents in the cohort now.
    pub size: usize,
    /// Of these: who do not have the candidate yet.
    pub added: usize,
    /// Agents that could be drawn.
    pub available: usize,
    /// Agents that could be, were they not pinned.
    pub pinned: usize,
}

/// Draws a stage's agents from those that are connected and eligible. Thresholds never fall, so that nobody leaves a cohort again.
pub fn draw(request: &Draw, agents: &[Drawable<'_>]) -> Opening {
    let mut drawn = request.cohort.drawn.clone();
    drawn.spread_by.clone_from(&request.spread_by);
    drawn.spread_proven = request.spread_proven;
    let before = &request.cohort.drawn;
    let is_same = (&drawn.spread_by, drawn.spread_proven) == (&before.spread_by, before.spread_proven);
    if !is_same || drawn.strata.is_empty() {
        // Another set of kinds: whoever was in stays in by what it holds.
        drawn.strata = kinds(&drawn, agents).into_iter().map(|kind| (kind, None)).collect();
    }
    if let Some(amount) = request.agents {
        let wanted = amount.round_up(agents.len()).max(usize::from(request.replace));
        raise(&mut drawn, request, agents, wanted);
    }
    let cohort = Cohort { drawn, ..request.cohort.clone() };
    let members = agents.iter().filter(|agent| agent.holds || cohort.includes(agent.labels, agent.rank));
    let (size, added) = members.fold((0, 0), |(size, added), agent| (size + 1, added + usize::from(!agent.holds)));
    Opening { drawn: cohort.drawn, size, added, available: agents.len(), pinned: 0 }
}

/// The largest kinds, by number of agents; none when the labels are not spread by.
fn kinds(drawn: &Drawn, agents: &[Drawable<'_>]) -> Vec<String> {
    if drawn.spread_by.is_empty() {
        return Vec::new();
    }
    let mut sizes = BTreeMap::<String, usize>::new();
    for agent in agents {
        *sizes.entry(drawn.kind(agent.labels)).or_default() += 1;
    }
    let mut sizes: Vec<(String, usize)> = sizes.into_iter().collect();
    sizes.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    sizes.into_iter().take(MOST_STRATA).map(|(kind, _)| kind).collect()
}

/// Raises the thresholds until `wanted` agents are in: every kind gets its share, rounded down but at least one, and the rest go by
/// rank whatever their kind.
fn raise(drawn: &mut Drawn, request: &Draw, agents: &[Drawable<'_>], wanted: usize) {
    let mut strata = BTreeMap::<Option<String>, Vec<&Drawable<'_>>>::new();
    for agent in agents {
        let kind = Some(drawn.kind(agent.labels)).filter(|kind| drawn.strata.contains_key(kind));
        strata.entry(kind).or_default().push(agent);
    }
    let before = Cohort { drawn: drawn.clone(), ..request.cohort.clone() };
    let is_in = |agent: &Drawable<'_>| agent.holds || before.includes(agent.labels, agent.rank);
    let mut inside = 0;
    let mut outside: Vec<(u64, Option<String>)> = Vec::new();
    for (kind, mut members) in strata {
        members.sort_by_key(|agent| agent.rank);
        let share = (wanted * members.len() / agents.len().max(1)).max(usize::from(wanted > 0));
        let mut count = members.iter().filter(|agent| is_in(agent)).count();
        for agent in members.iter().filter(|agent| !is_in(agent)) {
            if count < share {
                count += 1;
                lift(drawn, kind.as_ref(), agent.rank);
            } else {
                outside.push((agent.rank, kind.clone()));
            }
        }
        inside += count;
    }
    outside.sort();
    for (rank, kind) in outside.into_iter().take(wanted.saturating_sub(inside)) {
        lift(drawn, kind.as_ref(), rank);
    }
}

fn lift(drawn: &mut Drawn, kind: Option<&String>, rank: u64) {
    let threshold = match kind.and_then(|kind| drawn.strata.get_mut(kind)) {
        Some(threshold) => threshold,
        None => &mut drawn.rest,
    };
    *threshold = Some(threshold.map_or(rank, |before| before.max(rank)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_claims_a_place_among_the_first_where_proofs_are_asked_for() {
        // Ten of one kind, by their credentials, of whom one says that it is of another.
        let honest = Labels::proven([("os.type", "linux"), ("token.name", "t")]);
        let liar = Labels::new([("os.type", "plan9")]).with_proofs(&Labels::proven([("token.name", "t")]));
        let agents: Vec<Drawable<'_>> = (0..10)
            .map(|rank| Drawable { labels: Some(if rank == 9 { &liar } else { &honest }), rank, holds: false })
            .collect();
        let request = |proven: bool| Draw {
            agents: Some(Amount::Count(1)),
            cohort: Cohort::default(),
            spread_by: vec!["os.type".to_owned()],
            spread_proven: proven,
            replace: false,
        };
        let drawn = |opening: &Opening, labels: &Labels, rank: u64| opening.drawn.includes(Some(labels), rank);
        let claimed = draw(&request(false), &agents);
        assert!(drawn(&claimed, &liar, 9) && drawn(&claimed, &honest, 0), "each kind that somebody claims has one");
        let proven = draw(&request(true), &agents);
        let other = Labels::new([("os.type", "beos")]).with_proofs(&Labels::proven([("token.name", "t")]));
        assert!(proven.drawn.strata.keys().all(|kind| kind.is_empty() || kind == "linux"), "{:?}", proven.drawn);
        assert!(drawn(&proven, &honest, 0) && !drawn(&proven, &honest, 1));
        assert_eq!(drawn(&proven, &liar, 9), drawn(&proven, &other, 9), "what they claim makes no difference");
        // Where it is asked for from now on, the kinds are others.
        let later = Draw { cohort: Cohort { drawn: claimed.drawn, ..Cohort::default() }, ..request(true) };
        assert!(draw(&later, &agents).drawn.strata.keys().all(|kind| !kind.contains("plan9")));
        let early = Selector::new(vec![
            crate::labels::Requirement::new("ring", crate::labels::Operator::In, vec!["early".to_owned()])
                .expect("fit"),
        ]);
        let claims = Labels::new([("ring", "early")]).with_proofs(&Labels::proven([("token.name", "t")]));
        let named = |selector: Selector| Cohort { selectors: vec![selector], ..Cohort::default() };
        assert!(named(early.clone()).includes(Some(&claims), 0));
        assert!(!named(early.demanding_proof()).includes(Some(&claims), 0));
    }
}
