#!/usr/bin/env python3
"""A CSV of a million lines with three bad ones: 999,997 stored, three reported with their numbers, memory bounded.

    bench-import.py CERTBUS FOLDER [LINES]
"""

import os
import resource
import subprocess
import sys
import tempfile
import time

certbus, cache = sys.argv[1:3]
lines = int(sys.argv[3]) if len(sys.argv) > 3 else 1_000_000
bad = {10: "shop.example,70000,", lines // 2: "no host,443,", lines - 1: "short.example"}

with tempfile.TemporaryDirectory(dir=cache) as folder:
    environment = {**os.environ, "CERTBUS_CONFIG": f"{folder}/certbus.toml", "CERTBUS_DATA": f"{folder}/data"}
    subprocess.run([certbus, "init", "--ca", "internal"], env=environment, check=True, stdout=subprocess.DEVNULL)
    with open(f"{folder}/endpoints.csv", "w") as file:
        file.write("host,port,tags\n")
        for number in range(2, lines + 2):
            file.write(bad.get(number, f"host-{number}.shop-{number // 10}.example.com,443,eu") + "\n")
    for turn in ("first", "again"):
        begun = time.monotonic()
        ran = subprocess.run(
            [certbus, "endpoint", "import", f"{folder}/endpoints.csv"], env=environment, capture_output=True, text=True
        )
        spent = time.monotonic() - begun
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"import of {lines} lines, {turn}: {spent:.0f} s, {lines / spent:.0f} a second, at most {memory:.0f} MB")
        print("  " + ran.stdout.strip())
        for line in ran.stderr.strip().splitlines():
            print("  " + line)
    size = sum(os.path.getsize(f"{folder}/data/{name}") for name in os.listdir(f"{folder}/data") if name.startswith("inventory"))
    print(f"  database: {size / 1e6:.0f} MB")
