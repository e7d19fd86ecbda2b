#!/usr/bin/env bash
# Builds the real agents that tests/supervisor.rs drives, the OpenTelemetry supervisor and a collector, from their published Go
# modules into a cache directory. What is there already is kept. Takes some minutes with cold caches, then none.
#
#   tests/interop/build.sh           build what is missing
#   tests/interop/build.sh --where   only say where the programs are, or will be
#
# Exit status: 0 they are there, 3 there is no Go to build them with, 1 the build failed.
set -euo pipefail
cd "$(dirname "$0")"

# The newest release whose supervisor and extension the public module proxy serves. collector.yaml names it too.
version=v0.149.0
contrib=github.com/open-telemetry/opentelemetry-collector-contrib

cache=${GITAMP_INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gitamp-interop}
# A changed recipe is built anew.
recipe=$(cat build.sh collector.yaml | git hash-object --stdin | cut -c1-12)
place=$cache/$version-$recipe

if [ "${1:-}" = --where ]; then
  echo "$place"
  exit 0
fi
if [ -x "$place/opampsupervisor" ] && [ -x "$place/otelcol" ]; then
  echo "real agents: $version is there: $place"
  exit 0
fi
if ! command -v go >/dev/null; then
  echo "real agents: not built, there is no Go here (https://go.dev/dl)" >&2
  exit 3
fi

# Built aside and renamed: a build that was cut off leaves nothing that looks finished.
mkdir -p "$cache"
aside=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$aside"' EXIT
export GOWORK=off GOFLAGS="-buildvcs=false -trimpath" CGO_ENABLED=0

echo "real agents: building opampsupervisor $version with $(go env GOVERSION)"
# From a module of our own: `go install` refuses a module with replacements.
mkdir "$aside/supervisor"
(
  cd "$aside/supervisor"
  go mod init gitamp.test/supervisor 2>/dev/null
  go get -tool "$contrib/cmd/opampsupervisor@$version" >"$aside/log" 2>&1 || { cat "$aside/log" >&2; exit 1; }
  go build -ldflags '-s -w' -o "$aside/out/opampsupervisor" "$contrib/cmd/opampsupervisor"
)

echo "real agents: building a collector $version"
manifest=$PWD/collector.yaml
(
  cd "$aside"
  go run "go.opentelemetry.io/collector/cmd/builder@$version" --config "$manifest" --ldflags '-s -w' >log 2>&1 || { cat log >&2; exit 1; }
)
mv "$aside/collector/otelcol" "$aside/out/otelcol"

"$aside/out/otelcol" --version
# Somebody else may have been faster; one of the two results is kept, both are good.
mv -T "$aside/out" "$place" 2>/dev/null || [ -x "$place/otelcol" ]
echo "real agents: built: $place"
