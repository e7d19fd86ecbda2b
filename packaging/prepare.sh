#!/usr/bin/env bash
# Builds what goes into packages: the program, and below target/package its manual pages, completions and unit.
#
#   packaging/prepare.sh && cargo deb --no-build
#   packaging/prepare.sh && cargo generate-rpm
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --release
package=target/package
rm -rf "$package"
mkdir -p "$package"
gitamp=target/release/gitamp
"$gitamp" man --directory "$package/man"
"$gitamp" completions bash >"$package/gitamp.bash"
"$gitamp" completions zsh >"$package/_gitamp"
"$gitamp" completions fish >"$package/gitamp.fish"
# What a package installs is not below /usr/local.
sed 's#/usr/local/bin/gitamp#/usr/bin/gitamp#' examples/gitamp.service >"$package/gitamp.service"
