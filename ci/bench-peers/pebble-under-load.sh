#!/usr/bin/env bash
# Pebble, mended for load. Version 2.10.1 locks itself up as soon as one client orders while another reads an authorization:
# the reader holds the authorization and waits for the store, whose next writer waits for an order that waits for the
# authorization. Here the reader lets go while it looks its account up. Only benches of many orders at once use this one.
#
#   pebble-under-load.sh CACHE_DIR      leaves CACHE_DIR/load/pebble
set -euo pipefail
cache=$1 version=v2.10.1
[ -x "$cache/load/pebble" ] && exit
export PATH="$PATH:/usr/local/go/bin"
source=$(cd /tmp && go mod download -json "github.com/letsencrypt/pebble/v2@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cp -r "$source/." "$work"
chmod -R u+w "$work"
python3 - "$work/wfe/wfe.go" <<'P'
import sys
path = sys.argv[1]
text = open(path).read()
start = text.index("func (wfe *WebFrontEndImpl) Authz(")
before, after = text[:start], text[start:]
call = "account, prob := wfe.validPOSTAsGET(postData)\n"
assert call in after
after = after.replace(call, "authz.Unlock()\n\t\t" + call + "\t\tauthz.Lock()\n", 1)
open(path, "w").write(before + after)
P
mkdir -p "$cache/load"
cd "$work" && go build -o "$cache/load/pebble" ./cmd/pebble
