#!/usr/bin/env bash
# Builds Pebble with its locks mended. As it comes, version 2.10.1 locks itself up for good when one client polls an order that
# another is polling too, and sooner under load; every later request then waits. What it answers is left as it is.
#
#   ci/pebble.sh VERSION FILE      leaves the program as FILE
set -euo pipefail
version=$1 file=$(realpath -m "$2")
source=$(cd /tmp && go mod download -json "github.com/letsencrypt/pebble/v2@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cp -r "$source/." "$work"
chmod -R u+w "$work"
cd "$work"
python3 - <<'P'
import re
from pathlib import Path


def mend(path, function, *changes):
    """Each change is (pattern, replacement); it must be met once in the body of `function`."""
    text = Path(path).read_text()
    start = text.index(f") {function}(")
    end = text.index("\n}\n", start)
    body = text[start:end]
    for pattern, replacement in changes:
        body, times = re.subn(pattern, replacement, body)
        assert times == 1, f"{path}: {function}: {pattern}: found {times} times"
    Path(path).write_text(text[:start] + body + text[end:])


# An order is looked up with the store's lock and read without it.
mend("db/memorystore.go", "GetOrderByID",
     (r"defer m\.RUnlock\(\)\s+if order, ok := (m\.\w+\[id\]); ok", r"order, ok := \1\n\tm.RUnlock()\n\tif ok"))
mend("db/memorystore.go", "GetOrdersByAccountID",
     (r"defer m\.RUnlock\(\)\s+if orders, ok := (m\.\w+\[accountID\]); ok",
      r"orders, ok := \1\n\torders = append([]*core.Order(nil), orders...)\n\tm.RUnlock()\n\tif ok"),
     (r"defer order\.Unlock\(\)\s+(order\.Status = \w+)", r"\1\n\t\t\torder.Unlock()"))
# An order is not locked for reading a second time by who reads it already: a writer may be waiting in between.
mend("wfe/wfe.go", "Order", (r"defer order\.RUnlock\(\)", "order.RUnlock()"))
# Orders before authorizations, and neither while the store is asked for the account.
mend("wfe/wfe.go", "Authz",
     (r"authz\.Lock\(\)\s+defer authz\.Unlock\(\)\s+(authz\.Order\.RLock\(\)\s+\S+ := \S+\s+authz\.Order\.RUnlock\(\))",
      r"\1\n\tauthz.Lock()\n\tdefer authz.Unlock()"),
     (r"(account, prob := wfe\.validPOSTAsGET\(postData\))", r"authz.Unlock()\n\t\t\1\n\t\tauthz.Lock()"))
mend("wfe/wfe.go", "updateChallenge",
     (r"authz\.RLock\(\)\s+(authz\.Order\.RLock\(\)\s+\S+ := \S+\s+authz\.Order\.RUnlock\(\))\s+authz\.RUnlock\(\)", r"\1"))
mend("va/va.go", "setOrderError",
     (r"defer order\.Unlock\(\)\s+(order\.Error = prob)", r"\1\n\treplaces := order.Replaces\n\torder.Unlock()"),
     (r"if order\.Replaces", "if replaces"), (r"\(order\.Replaces,", "(replaces,"))
mend("ca/ca.go", "CompleteOrder", (r"(if authz\.Status != \S+ \{)", r"\1\n\t\t\tauthz.RUnlock()"))
P
mkdir -p "$(dirname "$file")"
go build -o "$file" ./cmd/pebble
echo "$version, with its locks mended" >"$file.version"
