#!/usr/bin/env bash
# Installs what `ci/bench scan` compares with: tlsx and zgrab2 from the Go module proxy, sslyze from PyPI, blackbox_exporter
# from Debian. The proxy does not list their versions, so each is named, in a module of ours.
#
#   ci/bench-peers/scan-peers.sh CACHE_DIR
set -euo pipefail
cache=$1
export PATH="$PATH:/usr/local/go/bin" GOFLAGS=-mod=mod
for peer in "tlsx github.com/projectdiscovery/tlsx v1.1.9" "zgrab2 github.com/zmap/zgrab2 v0.2.0"; do
    read -r name module version <<<"$peer"
    [ -x "$cache/bin/$name" ] && continue
    folder=$(mktemp -d)
    printf 'module peers\n\ngo 1.24\n\nrequire %s %s\n' "$module" "$version" >"$folder/go.mod"
    (cd "$folder" && go build -o "$cache/bin/$name" "$module/cmd/$name")
    rm -rf "$folder"
done
[ -x "$cache/sslyze/bin/sslyze" ] || { python3 -m venv "$cache/sslyze" && "$cache/sslyze/bin/pip" install -q sslyze; }
command -v prometheus-blackbox-exporter >/dev/null || apt-get install -y -q --no-install-recommends prometheus-blackbox-exporter >&2
