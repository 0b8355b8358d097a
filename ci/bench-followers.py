#!/usr/bin/env python3
"""So many who follow one `certbus serve` over HTTP, each in processes apart: its memory and CPU, and when the last of them has
a new certificate.

    bench-followers.py CERTBUS FOLLOWERS FOLDER [COUNT]
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

certbus, followers, cache = (os.path.abspath(word) for word in sys.argv[1:4])
count = int(sys.argv[4]) if len(sys.argv) > 4 else 10_000
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
if most < count + 2048:
    sys.exit(f"only {most} files may be open: that is not enough for {count}")


def rss(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def cpu(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


with tempfile.TemporaryDirectory(dir=cache) as folder:
    environment = {**os.environ, "CERTBUS_CONFIG": f"{folder}/certbus.toml", "CERTBUS_DATA": f"{folder}/data"}

    def run(*words):
        return subprocess.run([certbus, *words], env=environment, check=True, capture_output=True, text=True).stdout

    run("init", "--ca", "internal")
    run("cert", "mk", "www.shop.example")
    token = run("token", "new", "followers", "--scope", "certs").strip()
    identity = run("cert", "ls", "--json").split('"id":"')[1].split('"')[0]
    log = open(f"{folder}/serve.log", "w")
    server = subprocess.Popen([certbus, "serve", "--listen", "127.0.0.1:0"], env=environment, stdout=log, stderr=log)
    clients = None
    try:
        place = ""
        while not place:
            time.sleep(0.1)
            said = Path(f"{folder}/serve.log").read_text()
            place = said.split("the web is at http://")[1].split(";")[0].split()[0] if "the web is at http://" in said else ""
        before = rss(server)
        clients = subprocess.Popen(
            [followers, place, token, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        ready = clients.stdout.readline().split()
        print(f"{count} followers there after {ready[1]} s; memory of the server {before:.0f} MB before, {rss(server):.0f} MB with"
              f" them: {(rss(server) - before) * 1024 / count:.1f} KiB each; CPU so far {cpu(server):.1f} s")
        begun, used = time.time(), cpu(server)
        time.sleep(30)
        print(f"idle: {(cpu(server) - used) / (time.time() - begun) * 100:.1f} % of one core")
        times = []
        for turn in range(5):
            clients.stdin.write("go\n")
            clients.stdin.flush()
            assert clients.stdout.readline().strip() == "waiting"
            used, begun = cpu(server), time.time()
            run("cert", "renew", identity)
            issued = time.time()
            last = float(clients.stdout.readline().split()[1])
            times.append(last - begun)
            print(f"renewal {turn + 1}: the command took {issued - begun:.2f} s, the last of {count} had it {last - begun:.2f} s"
                  f" after its begin; CPU of the server {cpu(server) - used:.2f} s, memory {rss(server):.0f} MB")
            time.sleep(1)
        worst = max(times)
        print(f"the last one had it after at most {worst:.2f} s (goal < 2 s): {'met' if worst < 2 else 'NOT MET'}")
    finally:
        if clients:
            clients.kill()
        server.kill()
