//! With a key: which side's records count when the journal here and the remote's are brought together. Records count as a whole, of
//! one side only, and only under a good seal; notes of both sides are kept as they are without a key.

use git2::{Oid, Repository};

use super::sealing::{Belief, Sealer, state_of, with_state};
use super::store::{ATTEMPTS, KEEPS_MOVING, Merged, Store, TOGETHER};
use super::tree::{self, Pen, found};
use super::{commit_of, oid_of};
use crate::fleet::snapshot::CommitId;

/// When two sides are brought together.
#[derive(Clone, Debug)]
pub(super) enum When {
    /// At start: the newest records that are believed count.
    Opening {
        /// If there are none: those of this commit, because the operator says so.
        adopt: Option<CommitId>,
    },
    /// Later: ours count, because this process acts by them.
    Running,
}

/// Records that nobody with the key has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unbelieved {
    /// The journal's commit that they stand in.
    pub(super) commit: CommitId,
    /// Why.
    pub(super) reason: &'static str,
    /// The newest commit of the journal whose records are believed.
    pub(super) newest: Option<CommitId>,
}

/// One of the two histories.
#[derive(Debug)]
struct Side {
    commit: Oid,
    /// The folder of its records.
    records: Option<Oid>,
    belief: Belief,
}

/// The records that count from now on.
struct Choice {
    records: Option<Oid>,
    /// The age that they are sealed with anew; `None` leaves their seal.
    seal: Option<u64>,
    disbelieved: Option<String>,
    message: &'static str,
}

impl Store {
    /// Brings the local ref to where it contains both sides' notes, and the records that count.
    pub(super) fn settle(
        &self,
        repository: &Repository,
        sealer: &Sealer,
        fetched: Option<Oid>,
        when: &When,
    ) -> Result<Merged, git2::Error> {
        let pen = Pen::new(repository)?;
        for _ in 0..ATTEMPTS {
            let tip = self.tip(repository)?;
            let side = |commit: Oid| Side::of(repository, sealer, commit);
            let (ours, theirs) = (tip.map(side).transpose()?, fetched.map(side).transpose()?);
            let choice = match when {
                When::Running => self.ours(repository, sealer, ours.as_ref(), theirs.as_ref())?,
                When::Opening { adopt } => match newest(repository, sealer, ours.as_ref(), theirs.as_ref(), *adopt)? {
                    Ok(choice) => choice,
                    Err(unbelieved) => return Ok(Merged::Unbelieved(unbelieved)),
                },
            };
            if self.take(&pen, sealer, tip, fetched, &choice)? {
                return Ok(Merged::Together { disbelieved: choice.disbelieved });
            }
        }
        Err(git2::Error::from_str(KEEPS_MOVING))
    }

    /// Our records, under a seal that is newer than theirs.
    fn ours(
        &self,
        repository: &Repository,
        sealer: &Sealer,
        ours: Option<&Side>,
        theirs: Option<&Side>,
    ) -> Result<Choice, git2::Error> {
        let records = ours.and_then(|ours| ours.records);
        let age = |side: Option<&Side>| side.map_or(0, |side| side.belief.sequence());
        let news = match (ours, theirs) {
            (Some(ours), Some(theirs)) => theirs.is_news_to(repository, ours)?,
            (None, _) | (_, None) => false,
        };
        let is_rival = news && age(theirs) >= age(ours);
        let disbelieved = match theirs.map(|theirs| &theirs.belief) {
            Some(Belief::Not(reason)) if news => Some(format!(
                "somebody wrote records into {} that are not believed: {reason}; ours are put in their place",
                self.reference
            )),
            Some(Belief::Genuine(_)) if is_rival => Some(format!(
                "another process with the same key writes records to {}; ours are put in their place: give each daemon its own --instance",
                self.reference
            )),
            Some(Belief::Nothing | Belief::Genuine(_) | Belief::Not(_)) | None => None,
        };
        // Also than what theirs hides: a start from an empty disk looks for the newest seal in the whole history.
        let hidden = match theirs.filter(|_| news) {
            Some(theirs) => sealer.newest_genuine(repository, theirs.commit)?.age(),
            None => 0,
        };
        let seal = (is_rival || hidden > age(ours)).then(|| hidden.max(age(theirs)).saturating_add(1));
        Ok(Choice { records, seal, disbelieved, message: TOGETHER })
    }

    /// Moves the local ref to both histories' notes with the chosen records; `Ok(false)` when it moved meanwhile.
    fn take(
        &self,
        pen: &Pen<'_>,
        sealer: &Sealer,
        tip: Option<Oid>,
        fetched: Option<Oid>,
        choice: &Choice,
    ) -> Result<bool, git2::Error> {
        let repository = pen.repository();
        let tree_of = |commit: Oid| repository.find_commit(commit)?.tree();
        let (notes, parents) = match (tip, fetched) {
            (None, None) => return Ok(true),
            (Some(one), None) | (None, Some(one)) => (tree_of(one)?, vec![one]),
            (Some(tip), Some(fetched)) if tip == fetched || repository.graph_descendant_of(tip, fetched)? => {
                (tree_of(tip)?, vec![tip])
            }
            (Some(tip), Some(fetched)) if repository.graph_descendant_of(fetched, tip)? => {
                (tree_of(fetched)?, vec![fetched])
            }
            (Some(tip), Some(fetched)) => {
                let base = found(repository.merge_base(tip, fetched))?.map(tree_of).transpose()?;
                // With the same records on all sides only the notes differ.
                let level = |tree: git2::Tree<'_>| repository.find_tree(with_state(pen, &tree, choice.records)?);
                let base = base.map(level).transpose()?;
                let merged = tree::three_way(pen, base.as_ref(), &level(tree_of(tip)?)?, &level(tree_of(fetched)?)?)?;
                let tree = match merged {
                    Some(tree) => tree,
                    None => pen.note(repository.treebuilder(None)?.write()?),
                };
                (repository.find_tree(tree)?, vec![fetched, tip])
            }
        };
        let mut tree = with_state(pen, &notes, choice.records)?;
        if let Some(age) = choice.seal {
            tree = sealer.seal(pen, tree, age)?;
        }
        match parents.as_slice() {
            [one] if tree_of(*one)?.id() == tree && tip == Some(*one) => Ok(true),
            [one] if tree_of(*one)?.id() == tree => self.swap(repository, tip, *one),
            parents => self.advance(pen, tip, Some(tree), parents, choice.message),
        }
    }
}

impl Side {
    fn of(repository: &Repository, sealer: &Sealer, commit: Oid) -> Result<Self, git2::Error> {
        let tree = repository.find_commit(commit)?.tree()?;
        let records = state_of(repository, &tree)?.map(|state| state.id());
        Ok(Self { commit, records, belief: sealer.judge(repository, &tree)? })
    }

    /// True when this side has other records than that one, and not just those that were that one's before.
    fn is_news_to(&self, repository: &Repository, other: &Self) -> Result<bool, git2::Error> {
        let is_known = self.commit == other.commit || repository.graph_descendant_of(other.commit, self.commit)?;
        Ok(!is_known && self.records != other.records)
    }
}

/// The newest records that are believed, or those that the operator adopts.
fn newest(
    repository: &Repository,
    sealer: &Sealer,
    ours: Option<&Side>,
    theirs: Option<&Side>,
    adopt: Option<CommitId>,
) -> Result<Result<Choice, Unbelieved>, git2::Error> {
    let age = |side: Option<&Side>| side.map_or(0, |side| side.belief.sequence());
    let best = if age(theirs) > age(ours) { theirs } else { ours };
    let sides: Vec<&Side> = ours.into_iter().chain(theirs).collect();
    let (mut known, mut is_hidden) = (None::<(u64, Oid)>, false);
    for side in &sides {
        let newest = sealer.newest_genuine(repository, side.commit)?;
        known = known.max(newest.found);
        // Of what only others wrote. What this disk held was believed when it was written.
        is_hidden |= newest.is_cut && ours.is_none();
    }
    // Newer ones in the history: somebody put older ones on top, or took them away.
    let is_stale = is_hidden || known.is_some_and(|(age, _)| best.is_none_or(|best| age > best.belief.sequence()));
    if let Some(Side { records: Some(records), belief: Belief::Genuine(sequence), .. }) = best
        && !is_stale
    {
        let is_outdated = sealer.is_outdated(repository, *records)?;
        let disbelieved = match (theirs, ours) {
            (Some(Side { belief: Belief::Not(reason), .. }), Some(ours)) => theirs
                .map(|theirs| theirs.is_news_to(repository, ours))
                .transpose()?
                .unwrap_or(false)
                .then(|| format!("the remote's records are not believed: {reason}; ours are put in their place")),
            (_, _) => None,
        };
        let seal = is_outdated.then(|| sequence.saturating_add(1));
        return Ok(Ok(Choice { records: Some(*records), seal, disbelieved, message: "Seal the records again" }));
    }
    if let Some(adopted) = adopt.map(oid_of).transpose()? {
        let reaches = |from: Oid, to: Oid| from == to || repository.graph_descendant_of(from, to).unwrap_or(false);
        // A word that was given once and acted upon is no word for today.
        let is_past = known.is_some_and(|(_, newest)| newest != adopted && reaches(newest, adopted));
        if !is_past && sides.iter().any(|side| reaches(side.commit, adopted)) {
            let records = Side::of(repository, sealer, adopted)?.records;
            let age = known.map_or(0, |(age, _)| age).saturating_add(1);
            let message = "Adopt records that carry no seal, as the operator says";
            return Ok(Ok(Choice { records, seal: Some(age), disbelieved: None, message }));
        }
    }
    let unbelieved = sides.iter().find_map(|side| match side.belief {
        Belief::Not(reason) => Some((commit_of(side.commit)?, reason)),
        Belief::Nothing | Belief::Genuine(_) => None,
    });
    let past = best.or(theirs).filter(|_| is_stale).and_then(|side| {
        let reason = match side.belief {
            Belief::Nothing | Belief::Genuine(_) | Belief::Not(_) if is_hidden => {
                "more in its history claim to be newer than can be judged"
            }
            Belief::Nothing => "there are none, but newer ones stand in its history",
            Belief::Genuine(_) | Belief::Not(_) => "newer ones stand in its history",
        };
        Some((commit_of(side.commit)?, reason))
    });
    let unbelieved = unbelieved.or(past);
    Ok(match unbelieved {
        Some((commit, reason)) => {
            Err(Unbelieved { commit, reason, newest: known.and_then(|(_, newest)| commit_of(newest)) })
        }
        None => Ok(Choice { records: None, seal: None, disbelieved: None, message: TOGETHER }),
    })
}
