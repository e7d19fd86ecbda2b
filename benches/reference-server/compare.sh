#!/usr/bin/env bash
# Measures gitamp beside a server on the OpenTelemetry project's own OpAMP server library, in turn, with the same simulated fleet, and prints
# a table. Needs Go and Rust; both are built in release mode first.
#
#   benches/reference-server/compare.sh                  9,000 agents, three pushes
#   benches/reference-server/compare.sh --agents 2000 --repeat 5
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/interop/build.sh reference-server
exec cargo bench --bench reference -- --program "$(tests/interop/build.sh --where reference-server)/reference-server" "$@"
