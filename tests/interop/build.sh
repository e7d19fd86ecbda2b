#!/usr/bin/env bash
# Builds or fetches what the interoperability tests need of other people's work, from its published Go modules and one npm package, into a
# cache directory:
#
#   agents    the OpenTelemetry supervisor and a collector, for tests/supervisor.rs and tests/confmap.rs
#   confmap   the collector's own reader of configurations, for tests/confmap.rs
#   client    an agent on the OpAMP client library, for tests/opamp_go_client.rs
#   reference-server   a server on the OpAMP server library, for benches/reference-server
#   payloads  webhooks that GitHub really sent (@octokit/webhooks-examples, MIT), for tests/hook_payloads.rs
#
#   tests/interop/build.sh                build what is missing; what is there already is kept
#   tests/interop/build.sh NAME...        only these
#   tests/interop/build.sh --where NAME   only say where the programs of that name are, or will be
#
# Takes some minutes with cold caches, then none. Exit status: 0 they are there, 3 there is no Go to build them with (or, for the
# payloads, no npm to fetch them with), 1 a build failed.
set -euo pipefail
cd "$(dirname "$0")"

# The newest release whose supervisor and extension the public module proxy serves. collector.yaml and confmap/go.mod name it too.
version=v0.149.0
contrib=github.com/open-telemetry/opentelemetry-collector-contrib

cache=${GITAMP_INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gitamp-interop}
export GOWORK=off GOFLAGS="-buildvcs=false -trimpath" CGO_ENABLED=0

# The supervisor comes from a module of our own: `go install` refuses a module with replacements.
build_agents() {
  local aside=$1 manifest=$PWD/collector.yaml
  mkdir "$aside/supervisor"
  (
    cd "$aside/supervisor"
    go mod init gitamp.test/supervisor 2>/dev/null
    go get -tool "$contrib/cmd/opampsupervisor@$version" >"$aside/log" 2>&1 || { cat "$aside/log" >&2; exit 1; }
    go build -ldflags '-s -w' -o "$aside/out/opampsupervisor" "$contrib/cmd/opampsupervisor"
  )
  (
    cd "$aside"
    go run "go.opentelemetry.io/collector/cmd/builder@$version" --config "$manifest" --ldflags '-s -w' >log 2>&1 || { cat log >&2; exit 1; }
  )
  mv "$aside/collector/otelcol" "$aside/out/otelcol"
}

# Only read by a test. The archive's digest is that of the registry's record of this version.
payloads_package=@octokit/webhooks-examples@7.6.1
payloads_sha256=89e6cb1c6345d32e3dd775617fa54effbdc26c859e514898d7728e95e9738280
build_payloads() {
  local aside=$1
  (
    cd "$aside"
    timeout 120 npm pack --silent "$payloads_package" >archive || { echo "payloads: npm could not fetch $payloads_package" >&2; exit 3; }
    echo "$payloads_sha256  $(cat archive)" | sha256sum --check --quiet
    tar -xzf "$(cat archive)" -C out --strip-components 1
  )
}

# A module of ours.
build_module() { (cd "$2" && go build -mod=readonly -ldflags '-s -w' -o "$1/out/$(basename "$2")" .); }
directory() { case $1 in reference-server) echo ../../benches/reference-server ;; *) echo "$1" ;; esac; }

# Everything that decides what is built: a changed recipe is built anew.
recipe() {
  case $1 in
    agents) declare -f build_agents; echo "$version"; cat collector.yaml ;;
    payloads) declare -f build_payloads; echo "$payloads_package" ;;
    *) declare -f build_module; cat "$(directory "$1")"/{go.mod,go.sum,*.go} ;;
  esac | git hash-object --stdin | cut -c1-12
}
place() {
  case $1 in
    agents) echo "$cache/$version-$(recipe agents)" ;;
    *) echo "$cache/$1-$(recipe "$1")" ;;
  esac
}

build() {
  local name=$1 tool=go where
  [ "$name" != payloads ] || tool=npm
  where=$(place "$name")
  if [ -d "$where" ]; then
    echo "$name: there: $where"
    return 0
  fi
  if ! command -v "$tool" >/dev/null; then
    echo "$name: not built, there is no $tool here" >&2
    return 3
  fi
  echo "$name: building with $tool"
  mkdir -p "$cache"
  # Built aside and renamed: a build that was cut off leaves nothing that looks finished.
  aside=$(mktemp -d "$cache/building.XXXXXX")
  mkdir "$aside/out"
  case $name in
    agents) build_agents "$aside" ;;
    payloads) build_payloads "$aside" ;;
    *) build_module "$aside" "$(directory "$name")" ;;
  esac
  # Somebody else may have been faster; one of the two results is kept, both are good.
  mv -T "$aside/out" "$where" 2>/dev/null || [ -d "$where" ]
  rm -rf "$aside"
  echo "$name: built: $where"
}

names=(agents confmap client reference-server payloads)
aside=
trap '[ -z "$aside" ] || rm -rf "$aside"' EXIT
if [ "${1:-}" = --where ]; then
  place "${2:?whose?}"
  exit 0
fi
[ "$#" -gt 0 ] || set -- "${names[@]}"
for name; do
  # Not behind `||`: what fails in it has to end the script, with its status.
  build "$name"
done
