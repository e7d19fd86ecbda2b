//! The stages of a rollout as they stand: through, running, watched, to come.

use crate::fleet::strategy::{Stage, Strategy};
use crate::labels::Selector;
use crate::rollout::record::{Progress, RolloutRecord};
use crate::rollout::{Tally, Waiting};
use crate::time::Timestamp;
use crate::view::{StageState, StageStatus};

/// What is known of a group's rollout.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    /// How the group rolls out.
    pub strategy: &'a Strategy,
    /// How far it is.
    pub rollout: &'a RolloutRecord,
    /// Its agents.
    pub tally: &'a Tally,
    /// What it waits for.
    pub waiting: &'a [Waiting],
}

/// The stages in their order; none where everybody is one stage. `matching` counts the group's agents that a stage's selector means.
pub fn stages(course: Course<'_>, matching: impl Fn(&Selector) -> usize) -> Vec<StageStatus> {
    let Course { strategy, rollout, tally, waiting } = course;
    if rollout.takes_everybody() || strategy.stages.len() < 2 {
        return Vec::new();
    }
    let last = strategy.stages.len().saturating_sub(1);
    let mut before = 0;
    let numbered = strategy.stages.iter().enumerate().map(|(index, stage)| {
        let is_current = index == rollout.stage;
        let size = if is_current && rollout.progress != Progress::Opening {
            // Once it has stopped, counts are about everybody.
            let now = if tally.candidate == Some(rollout.candidate) { tally.cohort } else { 0 };
            if index == last { tally.eligible } else { rollout.size.max(now) }
        } else {
            planned(stage, index == last, tally.eligible, &matching)
        };
        before = size.max(before);
        let is_to_come = index > rollout.stage || is_current && rollout.progress == Progress::Opening;
        StageStatus {
            name: stage.name.clone(),
            state: match index {
                index if index < rollout.stage => StageState::Done,
                _ if is_current => state(&rollout.progress),
                _ => StageState::Waiting,
            },
            until: if is_current { until(&rollout.progress, waiting) } else { None },
            needs_approval: is_to_come && stage.needs_approval && rollout.approved <= index,
            ..counted(before, is_current, course)
        }
    });
    numbered.collect()
}

/// Who of the candidate's agents is in a stage of this size: stages are cumulative, so those that have it are in the first ones.
fn counted(size: usize, is_current: bool, course: Course<'_>) -> StageStatus {
    let Course { rollout, tally, .. } = course;
    let is_about_it = tally.candidate == Some(rollout.candidate);
    StageStatus {
        size,
        // While nothing may be offered, the counts are about what is stable.
        confirmed: if is_about_it { tally.confirmed.min(size) } else { tally.holding.min(size) },
        failed: if is_current && is_about_it { tally.failed } else { 0 },
        ..StageStatus::default()
    }
}

/// How many a stage will hold, as the group is now.
fn planned(stage: &Stage, is_last: bool, eligible: usize, matching: impl Fn(&Selector) -> usize) -> usize {
    let share = stage.agents.map(|amount| amount.round_up(eligible).min(eligible));
    let named = stage.selector.as_ref().map(matching);
    if is_last { eligible } else { share.or(named).unwrap_or(eligible) }
}

fn state(progress: &Progress) -> StageState {
    match progress {
        Progress::Opening => StageState::Waiting,
        Progress::Rolling => StageState::Running,
        Progress::Soaking { .. } => StageState::Soaking,
        Progress::Baking { .. } => StageState::Baking,
        Progress::RollingBack { .. } | Progress::Failed { .. } => StageState::Failed,
    }
}

/// When the timer of the running stage ends: of several that wait for something, the last.
fn until(progress: &Progress, waiting: &[Waiting]) -> Option<Timestamp> {
    match progress {
        Progress::Opening | Progress::Soaking { .. } | Progress::Baking { .. } => {
            waiting.iter().filter_map(Waiting::until).max()
        }
        Progress::Rolling | Progress::RollingBack { .. } | Progress::Failed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::ConfigHash;
    use crate::fleet::strategy::Amount;
    use crate::labels::{Operator, Requirement};
    use crate::rollout::record::{Cause, Kind, WayBack};

    const UNTIL: Timestamp = Timestamp::from_millis(300_000);

    fn hash(byte: u8) -> ConfigHash {
        ConfigHash::new([byte; 32])
    }

    fn strategy() -> Strategy {
        let ring = Requirement::new("ring", Operator::In, vec!["early".to_owned()]).expect("a requirement");
        let stage = |name: &str, agents: Option<Amount>, needs_approval: bool| Stage {
            name: name.to_owned(),
            agents,
            selector: if agents.is_none() { Some(Selector::new(vec![ring.clone()])) } else { None },
            soak: Duration::from_secs(300),
            needs_approval,
            max_failures: None,
        };
        Strategy {
            stages: vec![
                stage("canary", Some(Amount::Count(1)), false),
                stage("early", None, false),
                stage("half", Some(Amount::Share(5_000)), true),
                stage("all", Some(Amount::ALL), false),
            ],
            ..Strategy::default()
        }
    }

    fn rollout(stage: usize, progress: Progress) -> RolloutRecord {
        RolloutRecord {
            candidate: hash(7),
            seed: hash(7),
            kind: Kind::Forward,
            started: Timestamp::from_millis(0),
            revision: "main@sha1:0123".to_owned(),
            stage,
            progress,
            drawn: crate::rollout::record::Drawn::default(),
            size: 6,
            draws: 1,
            adds: true,
            introduced: true,
            replaced: 0,
            replaced_in: None,
            retry: false,
            approved: 0,
            hurried: false,
            alone: false,
            fast: false,
            held: None,
            paused: None,
            fell_together: false,
        }
    }

    fn tally() -> Tally {
        Tally { candidate: Some(hash(7)), eligible: 40, cohort: 6, confirmed: 5, failed: 1, ..Tally::default() }
    }

    /// Name, confirmed, failed, size, state, timer, approval of each stage.
    type Row = (String, usize, usize, usize, StageState, bool, bool);

    fn rows(rollout: &RolloutRecord, waiting: &[Waiting]) -> Vec<Row> {
        let (strategy, tally) = (strategy(), tally());
        let course = Course { strategy: &strategy, rollout, tally: &tally, waiting };
        let row = |one: StageStatus| {
            (one.name, one.confirmed, one.failed, one.size, one.state, one.until == Some(UNTIL), one.needs_approval)
        };
        stages(course, |_| 6).into_iter().map(row).collect()
    }

    fn row(name: &str, counts: (usize, usize, usize), state: StageState, timer: bool, approval: bool) -> Row {
        (name.to_owned(), counts.0, counts.1, counts.2, state, timer, approval)
    }

    #[test]
    fn stages_are_cumulative_and_the_running_one_has_the_timer() {
        use StageState::{Done, Soaking, Waiting as ToCome};
        let soaking = rollout(1, Progress::Soaking { watched: Duration::ZERO });
        assert_eq!(
            rows(&soaking, &[Waiting::Soak { until: UNTIL }]),
            [
                row("canary", (1, 0, 1), Done, false, false),
                row("early", (5, 1, 6), Soaking, true, false),
                row("half", (5, 0, 20), ToCome, false, true),
                row("all", (5, 0, 40), ToCome, false, false),
            ]
        );
    }

    #[test]
    fn a_stage_that_has_not_begun_says_whether_it_needs_a_word() {
        let opening = rollout(2, Progress::Opening);
        let waiting = [Waiting::Approval { stage: "half".to_owned() }];
        assert_eq!(rows(&opening, &waiting)[2], row("half", (5, 1, 20), StageState::Waiting, false, true));
        let approved = RolloutRecord { approved: 3, ..opening };
        assert_eq!(rows(&approved, &waiting)[2], row("half", (5, 1, 20), StageState::Waiting, false, false));
    }

    #[test]
    fn what_stopped_stopped_in_its_stage() {
        let cause = Cause::TooManyFailures { failed: 1, allowed: 0 };
        let failed = rollout(1, Progress::Failed { cause, way_back: WayBack::Done { failed: 0 } });
        let states: Vec<StageState> = rows(&failed, &[]).into_iter().map(|row| row.4).collect();
        assert_eq!(states, [StageState::Done, StageState::Failed, StageState::Waiting, StageState::Waiting]);
    }

    #[test]
    fn a_revert_has_no_stages() {
        let revert = RolloutRecord { kind: Kind::Revert, ..rollout(0, Progress::Rolling) };
        assert_eq!(rows(&revert, &[]), []);
    }
}
