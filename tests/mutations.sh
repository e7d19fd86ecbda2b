#!/usr/bin/env bash
# Switches off one guard after the other in a copy of the tree, and expects the simulation to notice. Not part of `cargo test`: it
# takes about a minute a guard.
#
#   tests/mutations.sh [NUMBER OF SEEDS]
set -euo pipefail
cd "$(dirname "$0")/.."
seeds="${1:-150}"
copy="$(mktemp -d)"
trap 'rm -rf "$copy"' EXIT
export CARGO_TARGET_DIR="$PWD/target"
missed=0

# mutate NAME FILE FROM TO: a line of FILE that holds FROM says TO instead.
mutate() {
    git ls-files -z | tar --null -T - -cf - | tar -C "$copy" -xf -
    if ! grep -qF -- "$3" "$copy/$2"; then
        echo "$1: the guard is not where it was ($2)"; missed=1; return
    fi
    FROM="$3" TO="$4" perl -0pi -e 's/\Q$ENV{FROM}\E/$ENV{TO}/' "$copy/$2"
    if output="$(cd "$copy" && GITAMP_SEEDS="$seeds" timeout 900 cargo test -q --test simulation 2>&1)"; then
        echo "$1: NOT NOTICED"; missed=1
    elif grep -q '^seed' <<<"$output"; then
        echo "$1: $(grep -m1 '^seed' <<<"$output" | cut -c1-120)"
    else
        echo "$1: it could not be tried: $(grep -m1 '^error' <<<"$output")"; missed=1
    fi
}

mutate "the group's budget" src/rollout/budget.rs '.saturating_sub(unavailable)' '.saturating_sub(unavailable.min(0))'
mutate "the fleet's budget" src/roster/load.rs 'self.max_unavailable.is_none_or(is_below)' 'self.max_unavailable.is_none_or(is_below) || true'
mutate "what an earlier process left behind" src/roster/group.rs 'assumed.room.min(assumed.reach.saturating_sub(self.tally.back))' '0 * assumed.room'
mutate "a gate that trips" src/rollout/advance.rs 'if failed > allowed || self.tally.failed > MOST_REMEMBERED' 'if failed > allowed + 1000 || self.tally.failed > MOST_REMEMBERED'
mutate "the failed are not offered it again" src/roster/standing.rs 'if desired.or(group.desired.wanted).is_some_and(|hash| group.has_failed(id, hash))' 'if false && desired.or(group.desired.wanted).is_some_and(|hash| group.has_failed(id, hash))'
mutate "what a new candidate replaces is closed" src/controller/mod.rs 'desired.candidate.is_some() && desired.candidate != current.candidate' 'desired.candidate.is_none() && desired.candidate != current.candidate'
mutate "a freeze" src/rollout/machine.rs 'self.fleet_frozen.as_ref().or(self.record.frozen.as_ref())' 'self.fleet_frozen.as_ref().or(self.record.frozen.as_ref()).filter(|_| false)'
mutate "a freeze of those that come later" src/controller/revision.rs 'machine.set_fleet_frozen(self.frozen.clone())' 'machine.set_fleet_frozen(None)'
mutate "a pinned agent" src/roster/standing.rs '!goes_back && member.pinned_until.is_some_and(|until| until > now)' 'false && !goes_back && member.pinned_until.is_some_and(|until| until > now)'
mutate "a pinned group" src/rollout/machine.rs 'self.record.pinned.as_ref().filter(|pin| pin.until > now)' 'self.record.pinned.as_ref().filter(|pin| pin.until > now && pin.until < now)'
mutate "the cohort" src/roster/group.rs '|| self.desired.cohort.includes(member.labels.as_ref(), self.rank(id))' '|| true'
mutate "canaries that are still on their way back" src/rollout/advance.rs 'self.absent(now) > 0 && now <' 'self.absent(now) > 100_000 && now <'
mutate "the stage has it before it ends" src/rollout/advance.rs 'is_deserted && !self.is_returning(now) || self.is_complete() && self.is_proven()' 'true || is_deserted'
mutate "the record before the offer" src/controller/mod.rs 'if self.storage.holds(name) {' 'if true || self.storage.holds(name) {'
exit "$missed"
