//! When statuses are posted.

use std::time::Duration;

use super::*;
use crate::forge::outbound::board::{Board, Next, PAUSE};
use crate::forge::outbound::statuses::{State, Status};

fn status(number: u8, context: &str, state: State, description: &str) -> Status {
    Status {
        commit: commit(number),
        reference: "main".to_owned(),
        context: context.to_owned(),
        state,
        description: description.to_owned(),
        target_url: None,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn only_changes_are_posted_the_latest_wins_and_endings_come_first() {
    let mut board = Board::new(true);
    let waiting = status(1, "all", State::Waiting, "a");
    board.want(commit(1), vec![waiting.clone()], true, NOW);
    assert_eq!(board.next(NOW), Next::Post(waiting.clone()));
    board.posted(&waiting, NOW);
    assert_eq!(board.next(NOW), Next::Idle);
    board.want(commit(1), vec![waiting.clone()], true, NOW);
    assert_eq!(board.next(NOW + seconds(3600)), Next::Idle, "the same is not said twice");

    let running = status(1, "all", State::Running, "b");
    let success = status(1, "all", State::Success, "c");
    board.want(commit(1), vec![running], true, NOW + seconds(1));
    assert_eq!(board.next(NOW + seconds(1)), Next::At(NOW + PAUSE), "at most one in so long");
    board.want(commit(1), vec![success.clone()], false, NOW + seconds(2));
    let other = status(2, "all", State::Waiting, "a");
    board.want(commit(2), vec![other.clone()], true, NOW + seconds(2));
    assert_eq!(board.next(NOW + seconds(2)), Next::Post(other.clone()));
    assert!(!board.is_told(commit(1)));
    assert_eq!(
        board.next(NOW + PAUSE),
        Next::Post(success.clone()),
        "what came between is never said, and an ending goes first"
    );
    board.posted(&success, NOW + PAUSE);
    assert!(board.is_told(commit(1)));
    assert_eq!(board.next(NOW + PAUSE), Next::Post(other.clone()));
    board.posted(&other, NOW + PAUSE);
    assert!(!board.is_told(commit(2)), "it is open");
    board.want(commit(1), vec![status(1, "all", State::Waiting, "tried once more")], true, NOW + PAUSE);
    assert!(!board.is_told(commit(1)), "a commit may be opened again");
}

#[test]
fn other_words_alone_are_said_seldom() {
    let mut board = Board::new(true);
    let (mut posts, mut in_first_hour) = (0, 0);
    // A day of a rollout whose numbers change every second, in twenty groups.
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let mut of_one = 0;
    let day = 24 * 3600;
    let mut at = 0;
    while at < day {
        let now = NOW + seconds(at);
        let words = at.to_string();
        let wanted = names.iter().map(|name| status(1, name, State::Running, &words)).collect();
        board.want(commit(1), wanted, true, now);
        if let Next::Post(status) = board.next(now) {
            board.posted(&status, now);
            posts += 1;
            in_first_hour += u32::from(at < 3600);
            of_one += u32::from(status.context == "7");
        }
        at += 1;
    }
    assert!(in_first_hour <= 20 + 30 + 360 + 1, "{in_first_hour} in the first hour: GitHub takes 500");
    assert!((100..1_000).contains(&of_one), "{of_one} for one context: GitHub takes 1,000");
    assert!(posts < 24 * 400, "{posts}");

    let mut deaf = Board::new(false);
    let first = status(1, "all", State::Running, "a");
    deaf.want(commit(1), vec![first.clone()], true, NOW);
    deaf.posted(&first, NOW);
    deaf.want(commit(1), vec![status(1, "all", State::Running, "b")], true, NOW + PAUSE);
    assert_eq!(deaf.next(NOW + seconds(60)), Next::Idle, "GitLab refuses a second `running`");
    let end = status(1, "all", State::Success, "c");
    deaf.want(commit(1), vec![end.clone()], false, NOW + seconds(60));
    assert_eq!(deaf.next(NOW + seconds(60)), Next::Post(end));
}

#[test]
fn what_is_refused_is_tried_a_few_times_and_does_not_hold_the_rest() {
    let mut board = Board::new(true);
    let (bad, good) = (status(1, "bad", State::Success, "x"), status(1, "good", State::Success, "x"));
    board.want(commit(1), vec![bad.clone(), good.clone()], false, NOW);
    let mut now = NOW;
    let (mut refusals, mut is_left_out) = (0, false);
    while !board.is_told(commit(1)) {
        match board.next(now) {
            Next::Post(status) if status == bad => {
                refusals += 1;
                is_left_out = board.refused(&status, now);
            }
            Next::Post(status) => board.posted(&status, now),
            Next::At(at) => now = at,
            Next::Idle => panic!("not told, and nothing to do"),
        }
    }
    assert_eq!((refusals, is_left_out), (5, true));
    assert_eq!(now, NOW + PAUSE * 4, "the other one did not wait for it, and it waited between tries");
    assert_eq!(board.waiting(), 0);
}

#[test]
fn memory_is_bounded() {
    let mut board = Board::new(true);
    for number in 0..=200_u8 {
        board.want(commit(number), vec![status(number, "all", State::Success, "x")], false, NOW);
    }
    assert_eq!(board.waiting(), 128);
    assert!(board.is_told(commit(0)), "the oldest are forgotten");
    assert!(!board.is_told(commit(200)));
}
