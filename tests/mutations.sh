#!/usr/bin/env bash
# Switches off one guard after the other in a copy of the tree, and expects the simulation to notice. Not part of `cargo test`: it builds
# a copy once in release mode, and then lives many stories for each guard. Prints one line a guard: the seed that noticed, and what the
# simulation said of it. docs/proof.md shows the table.
#
#   tests/mutations.sh [MOST SEEDS A GUARD]
#
# GITAMP_PROFILE=test uses what `cargo test` has built: sooner begun, and about eight times as slow. GITAMP_MUTATIONS=only-write stops when the
# copy is written, and leaves it there: that tells whether every guard is where it was.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds="${1:-2000}"
profile="${GITAMP_PROFILE:-release}"
export CARGO_TARGET_DIR="$PWD/target"
copy="$CARGO_TARGET_DIR/mutations"
missed=0
names=()

# guard NAME FILE FROM TO: FROM, somewhere in FILE, says TO instead, in which OFF is true while this guard is switched off.
guard() {
    if ! grep -qF -- "$3" "$copy/$2"; then
        echo "$1: the guard is not where it was ($2)"
        exit 1
    fi
    FROM="$3" TO="${4//OFF/crate::is_off(${#names[@]})}" perl -0pi -e 's/\Q$ENV{FROM}\E/$ENV{TO}/' "$copy/$2"
    names+=("$1")
}

rm -rf "$copy"
mkdir -p "$copy"
# What is built from the copy lies where the tree's own builds lie. Without the files that it was built from it is made anew.
[ "${GITAMP_MUTATIONS:-}" = "only-write" ] || trap 'rm -rf "$copy"' EXIT
# With the time of now: a build of an earlier copy is never newer.
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then printf '%s\0' "$file"; fi
done | tar --null -T - -cf - | tar -C "$copy" -xmf -
cat >> "$copy/src/lib.rs" <<'END'

/// True while this guard is switched off.
#[allow(clippy::disallowed_methods)]
pub fn is_off(guard: usize) -> bool {
    static OFF: std::sync::OnceLock<Option<usize>> = std::sync::OnceLock::new();
    *OFF.get_or_init(|| std::env::var("GITAMP_OFF").ok()?.parse().ok()) == Some(guard)
}
END

# Budgets are never exceeded, also across restarts.
guard "the group's budget" src/rollout/budget.rs \
    '.saturating_sub(unavailable)' '.saturating_sub(if OFF { 0 } else { unavailable })'
guard "the fleet's budget" src/roster/load.rs \
    'self.max_unavailable.is_none_or(is_below)' 'OFF || self.max_unavailable.is_none_or(is_below)'
guard "what an earlier process left behind" src/roster/group.rs \
    'assumed.room.min(assumed.reach.saturating_sub(self.tally.back))' \
    'if OFF { 0 } else { assumed.room.min(assumed.reach.saturating_sub(self.tally.back)) }'
guard "ordered restarts take room" src/roster/restarts.rs \
    'if takes_room && !group.has_room(now) {' 'if !OFF && takes_room && !group.has_room(now) {'
# After a gate trips nobody else is offered that hash.
guard "the gate" src/rollout/advance.rs \
    'if failed > allowed || self.tally.failed > MOST_REMEMBERED {' \
    'if !OFF && (failed > allowed || self.tally.failed > MOST_REMEMBERED) {'
guard "what a new candidate replaces is closed" src/controller/mod.rs \
    'desired.candidate.is_some() && desired.candidate != current.candidate' \
    '!OFF && desired.candidate.is_some() && desired.candidate != current.candidate'
# Stable is never poisoned.
guard "the stage has it before it ends" src/rollout/advance.rs \
    'is_deserted && !self.is_returning(now) || self.is_complete() && self.is_proven()' \
    'OFF || is_deserted && !self.is_returning(now) || self.is_complete() && self.is_proven()'
guard "those held back are waited for" src/rollout/advance.rs \
    '!tally.held_back && tally.cohort > 0' '(OFF || !tally.held_back) && tally.cohort > 0'
# What an agent failed it is never offered again while it is wanted, unless a person asked.
guard "the memory of failures" src/roster/standing.rs \
    'if desired.or(group.desired.wanted).is_some_and(|hash| group.has_failed(id, hash))' \
    'if !OFF && desired.or(group.desired.wanted).is_some_and(|hash| group.has_failed(id, hash))'
# A frozen group gets nothing, and what else a person orders holds.
guard "a freeze" src/rollout/machine.rs \
    'self.fleet_frozen.as_ref().or(self.record.frozen.as_ref())' \
    'self.fleet_frozen.as_ref().or(self.record.frozen.as_ref()).filter(|_| !OFF)'
guard "a freeze of groups that come later" src/controller/revision.rs \
    'machine.set_fleet_frozen(self.held_by_freeze())' \
    'machine.set_fleet_frozen(self.held_by_freeze().filter(|_| !OFF))'
guard "a pinned agent" src/roster/standing.rs \
    '!goes_back && member.pinned_until.is_some_and(|until| until > now)' \
    '!OFF && !goes_back && member.pinned_until.is_some_and(|until| until > now)'
guard "a pinned group" src/rollout/machine.rs \
    'self.record.pinned.as_ref().filter(|pin| pin.until > now)' \
    'self.record.pinned.as_ref().filter(|pin| !OFF && pin.until > now)'
guard "a suspended group" src/rollout/machine.rs 'if self.rules.suspend {' 'if !OFF && self.rules.suspend {'
# Whose turn it is.
guard "the cohort" src/roster/group.rs \
    '|| self.desired.cohort.includes(member.labels.as_ref(), self.rank(id))' \
    '|| OFF || self.desired.cohort.includes(member.labels.as_ref(), self.rank(id))'
guard "canaries that may still come back" src/rollout/advance.rs \
    'self.absent(now) > 0 && now <' '!OFF && self.absent(now) > 0 && now <'
guard "windows" src/rollout/waiting.rs \
    'self.rules.strategy.outside_windows(now).map(Waiting::Window)' \
    'self.rules.strategy.outside_windows(now).filter(|_| !OFF).map(Waiting::Window)'
# Persist, then speak.
guard "the record before the offer" src/controller/mod.rs \
    'if self.storage.holds(name) {' 'if OFF || self.storage.holds(name) {'
# Every rollout ends, or names whom it waits for; every commit gets an ending.
guard "the end of a soak" src/rollout/advance.rs \
    'let is_over = watched >= self.stage().soak || rollout.hurried;' \
    'let is_over = !OFF && (watched >= self.stage().soak || rollout.hurried);'
guard "the ending of a commit" src/controller/mod.rs \
    'self.commits.finish(name, candidate, ending, &part, now);' \
    'if !OFF { self.commits.finish(name, candidate, ending, &part, now); }'
guard "the ending of what a guard held" src/controller/commits.rs \
    'for open in self.open.iter_mut().filter(|open| open.id != newer) {' \
    'for open in self.open.iter_mut().filter(|open| !OFF && open.id != newer) {'

[ "${GITAMP_MUTATIONS:-}" = "only-write" ] && exit 0
(cd "$copy" && cargo test -q --profile "$profile" --test simulation --no-run)
# live GUARD SEEDS: with this guard switched off; none of them: with all of them on.
live() {
    (cd "$copy" && GITAMP_OFF="$1" GITAMP_UNTIL_FAILURE=1 GITAMP_SEEDS="$2" \
        cargo test -q --profile "$profile" --test simulation 2>&1)
}
if ! output="$(live none 30)"; then
    echo "with every guard on: $output"
    exit 1
fi
for number in "${!names[@]}"; do
    if output="$(live "$number" "$seeds")"; then
        echo "${names[$number]}: NOT NOTICED in $seeds seeds"
        missed=1
    elif ! noticed="$(grep -m1 '^seed' <<<"$output")"; then
        echo "${names[$number]}: no story was lived: $output"
        missed=1
    else
        echo "${names[$number]}: ${noticed:0:160}"
    fi
done
exit "$missed"
