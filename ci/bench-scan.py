#!/usr/bin/env python3
"""Measures the prober against its peers and against the bare limit, on endpoints that nginx serves on loopback.

    ci/bench scan            builds everything and runs this
    CERTBUS_SCAN_ENDPOINTS   how many endpoints (5000)
    CERTBUS_SCAN_ROUNDS      how many rounds; the median counts (3)
    CERTBUS_SCAN_PARTS       loopback, memory, delay: which of them (all, with spaces between)
    CERTBUS_SCAN_NO_PEERS    any value: without other programs

Each side is a process of its own; its CPU time and peak memory are what the system says of it. The sides take turns.
Slow peers get fewer endpoints, and their figures are scaled to 10,000. Roots are kept from peers that would load them.
"""

import collections
import fcntl
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BENCH, CERTBUS, CACHE = sys.argv[1], sys.argv[2], Path(sys.argv[3])
COUNT = int(os.environ.get("CERTBUS_SCAN_ENDPOINTS", "5000"))
ROUNDS = int(os.environ.get("CERTBUS_SCAN_ROUNDS", "3"))
FIRST, PORT = "127.20.0.1", 8443
work = Path(tempfile.mkdtemp(prefix="certbus-bench-scan-"))
(work / "empty").write_text("")
QUIET = {**os.environ, "SSL_CERT_FILE": str(work / "empty"), "SSL_CERT_DIR": str(work / "nowhere"), "HOME": str(work)}
PYTHON_LOOP = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for line in open(sys.argv[1]):
    host, port = line.split(":")
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain) as tls:
        assert tls.getpeercert(True)
"""


# Servers that are running: whatever happens, they are stopped at the end.
RUNNING = []
# How a command is run in another network.
INSIDE = []


class Nginx:
    def __init__(self, farm: Path, protocols: str, inside=()):
        conf = work / "nginx.conf"
        conf.write_text(f"""
daemon off; error_log {work}/error.log crit; pid {work}/nginx.pid; worker_processes 2; worker_rlimit_nofile 20000;
events {{ worker_connections 12000; }}
http {{ access_log off; ssl_protocols {protocols}; ssl_session_cache off; ssl_session_tickets off; server_tokens off;
client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u;
scgi_temp_path {work}/s; server_names_hash_max_size 20000; include {farm}/servers.conf; }}
""")
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        self.process = subprocess.Popen([*inside, shutil.which("nginx", path=path), "-c", str(conf)])
        RUNNING.append(self.process)
        # With thousands of sites it takes its time; its pid file comes last.
        deadline = time.monotonic() + 180
        while not (work / "nginx.pid").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("nginx does not start")
            time.sleep(0.1)
        time.sleep(1)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        (work / "nginx.pid").unlink(missing_ok=True)


def listens(host, port):
    try:
        socket.create_connection((host, port), 1).close()
        return True
    except OSError:
        return False


def timed(command, environment=None, within=300, output=subprocess.PIPE):
    """Wall seconds, CPU seconds, peak KiB and what it printed."""
    began = time.monotonic()
    process = subprocess.Popen([*INSIDE, *command], stdout=output, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                               env=environment or os.environ, cwd=work)
    killer = threading.Timer(within, process.kill)
    killer.start()
    peak = Peak(process.pid)
    out = process.stdout.read() if process.stdout else b""
    _, _, usage = os.wait4(process.pid, 0)
    killer.cancel()
    process.returncode = 0
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, peak.end(), out.decode(errors="replace")


class Peak:
    """The peak memory of a process in KiB, looked at again and again: ru_maxrss has that of this program in it."""

    def __init__(self, pid):
        self.pid, self.most, self.going = pid, 0, True
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while self.going:
            try:
                for line in open(f"/proc/{self.pid}/status"):
                    if line.startswith("VmHWM:"):
                        self.most = max(self.most, int(line.split()[1]))
            except OSError:
                return
            time.sleep(0.02)

    def end(self):
        self.going = False
        self.thread.join()
        return self.most


def per_ten_thousand(seconds, found):
    return seconds / max(found, 1) * 10_000


class Side:
    """One prober: how it is run on a list of targets, and how many certificates it saw."""

    def __init__(self, name, run, share=1.0):
        self.name, self.run, self.share = name, run, share
        self.rounds = []

    def round(self, targets):
        wall, cpu, peak, found = self.run(targets)
        self.rounds.append((found / wall, per_ten_thousand(cpu, found), peak / 1024, found / len(targets)))

    def median(self, index):
        return statistics.median(one[index] for one in self.rounds)


def file_of(targets):
    file = work / "targets.txt"
    file.write_text("".join(f"{target}\n" for target in targets))
    return str(file)


def bench(*words):
    def run(targets):
        file = file_of(targets)
        wall, cpu, peak, out = timed([BENCH, *[word.replace("TARGETS", file) for word in words]])
        return wall, cpu, peak, int(re.search(r'"found":(\d+)', out).group(1))
    return run


def certbus(*words):
    def run(targets):
        out = work / "seen.jsonl"
        with open(out, "wb") as output:
            wall, cpu, peak, _ = timed([CERTBUS, "scan", "@" + file_of(targets), "--json", "--per-network", "0", *words],
                                       output=output)
        return wall, cpu, peak, sum('"chain":' in line for line in open(out))
    return run


def tlsx(concurrency):
    def run(targets):
        out = work / "tlsx.jsonl"
        out.unlink(missing_ok=True)
        wall, cpu, peak, _ = timed([CACHE / "bin/tlsx", "-l", file_of(targets), "-json", "-silent", "-duc", "-sm", "ctls",
                                    "-c", str(concurrency), "-o", str(out), "-timeout", "5"], QUIET)
        return wall, cpu, peak, sum('"fingerprint_hash"' in line for line in open(out)) if out.exists() else 0
    return run


def zgrab2(senders):
    def run(targets):
        out, hosts = work / "zgrab2.jsonl", work / "hosts.txt"
        hosts.write_text("".join(target.split(":")[0] + "\n" for target in targets))
        out.unlink(missing_ok=True)
        wall, cpu, peak, _ = timed([CACHE / "bin/zgrab2", "tls", "--port", str(PORT), "--senders", str(senders),
                                    "-f", str(hosts), "-o", str(out), "-b", str(work / "empty")], QUIET)
        return wall, cpu, peak, sum('"status":"success"' in line for line in open(out)) if out.exists() else 0
    return run


def python_loop(targets):
    wall, cpu, peak, _ = timed([sys.executable, "-c", PYTHON_LOOP, file_of(targets)])
    return wall, cpu, peak, len(targets)


def sslyze(targets):
    out = work / "sslyze.json"
    wall, cpu, peak, _ = timed([CACHE / "sslyze/bin/sslyze", "--certinfo", "--quiet", f"--json_out={out}",
                                f"--targets_in={file_of(targets)}"], QUIET)
    results = json.loads(out.read_text())["server_scan_results"] if out.exists() else []
    return wall, cpu, peak, sum(one["scan_status"] == "COMPLETED" for one in results)


def blackbox(targets):
    config = work / "blackbox.yml"
    config.write_text("modules:\n  tls:\n    prober: tcp\n    timeout: 5s\n    tcp:\n      tls: true\n"
                      "      tls_config:\n        insecure_skip_verify: true\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(["prometheus-blackbox-exporter", f"--config.file={config}", "--log.level=error",
                                f"--web.listen-address=127.0.0.1:{port}"], env=QUIET, stderr=subprocess.DEVNULL)
    while not listens("127.0.0.1", port):
        time.sleep(0.05)

    def probe(target):
        url = f"http://127.0.0.1:{port}/probe?module=tls&target={target}"
        return b"probe_success 1" in urllib.request.urlopen(url, timeout=20).read()

    began = time.monotonic()
    with ThreadPoolExecutor(32) as pool:
        found = sum(pool.map(probe, targets))
    wall = time.monotonic() - began
    peak = Peak(process.pid)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return wall, usage.ru_utime + usage.ru_stime, peak.end(), found


def table(title, sides, base, goals):
    print(f"\n{title}", flush=True)
    print(f"  {'':44} {'certificates/s':>14} {'CPU s/10,000':>13} {'peak MB':>8} {'seen':>6}  CPU against {base}")
    limit = next(side for side in sides if side.name == base).median(1)
    for side in sides:
        rate, cpu, peak, seen = (side.median(index) for index in range(4))
        print(f"  {side.name:44} {rate:14.0f} {cpu:13.3f} {peak:8.1f} {seen:6.1%}  {cpu / limit:5.2f}", flush=True)
    by_name = {side.name: side.median(1) for side in sides}
    for what, against, goal in goals:
        if what in by_name and against in by_name:
            ratio = by_name[what] / by_name[against]
            met = "met" if ratio <= goal else "NOT MET"
            print(f"  CPU of {what} / {against}: {ratio:.3f} (goal {goal}: {met})", flush=True)


def measure(sides, targets):
    for number in range(ROUNDS):
        for side in sides:
            if side.share < 1 and number > 0:
                continue
            side.round(targets[: max(1, int(len(targets) * side.share))])


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    parts = os.environ.get("CERTBUS_SCAN_PARTS", "loopback memory delay").split()
    peers = not os.environ.get("CERTBUS_SCAN_NO_PEERS")
    if "loopback" in parts:
        loopback(peers)
    if "memory" in parts:
        memory()
    if "delay" in parts:
        delayed(peers)


def loopback(peers):
    farm = work / "farm"
    run(BENCH, "farm", str(farm), str(COUNT), FIRST, str(PORT))
    targets = (farm / "targets.txt").read_text().split()
    for title, protocols, highest in [
        ("TLS 1.2 allowed", "TLSv1.2 TLSv1.3", "1.2"),
        ("TLS 1.3 only", "TLSv1.3", "1.3"),
    ]:
        nginx = Nginx(farm, protocols)
        sides = [Side("bare limit", bench("bare", "TARGETS", "1000"))]
        if highest == "1.2":
            sides += [Side("quick look, clear text", bench("look", "TARGETS", "1.2", "quick", "presented", "1000"))]
        sides += [
            Side("quick look", bench("look", "TARGETS", "1.3", "quick", "presented", "1000")),
            Side("quick look, signed", bench("look", "TARGETS", "1.3", "quick", "signed", "1000")),
            Side("full, presented", bench("look", "TARGETS", "1.3", "full", "presented", "1000")),
            Side("full, finished", bench("look", "TARGETS", "1.3", "auto", "finished", "1000")),
            Side("certbus scan --json --raw", certbus("--raw", "--method", "quick")),
            Side("certbus scan --json, with a verdict", certbus("--roots", str(farm / "root.pem"))),
        ]
        if peers:
            sides += [
                Side("tlsx", tlsx(300)),
                Side("zgrab2", zgrab2(1000)),
                Side("Python ssl, one by one", python_loop, 0.2),
                Side("blackbox_exporter", blackbox, 0.2),
                Side("sslyze", sslyze, 0.01),
            ]
        measure(sides, targets)
        goal, look = (1.5, "quick look, clear text") if highest == "1.2" else (2.0, "quick look")
        table(f"{title}, {COUNT} endpoints on loopback", sides, "bare limit", [
            (look, "bare limit", goal),
            ("quick look", "bare limit", 2.0),
            ("certbus scan --json --raw", "tlsx", 0.1),
            ("certbus scan --json --raw", "zgrab2", 0.1),
            (look, "tlsx", 0.1),
            (look, "zgrab2", 0.1),
            ("full, finished", "tlsx", 0.5),
        ])
        nginx.stop()


class Delay:
    """Two network namespaces with a tunnel between them that keeps every packet for 10 ms: 20 ms there and back."""

    HERE, THERE = "certbus-scan-a", "certbus-scan-b"

    def __enter__(self):
        self.clean()
        self.ends = []
        for number, (name, other) in enumerate([(self.HERE, "10.97.0.0/16"), (self.THERE, "10.96.0.0/16")]):
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            # TUNSETIFF: a tunnel of IP packets without a header before them.
            fcntl.ioctl(end, 0x400454CA, struct.pack("16sH22s", f"cbscan{number}".encode(), 0x0001 | 0x1000, b""))
            self.ends.append(end)
            run("ip", "netns", "add", name)
            run("ip", "link", "set", f"cbscan{number}", "netns", name)
            here = ["ip", "-n", name]
            run(*here, "link", "set", "lo", "up")
            run(*here, "addr", "add", f"10.96.0.{number + 1}/32" if number == 0 else "10.97.255.1/32", "dev", f"cbscan{number}")
            run(*here, "link", "set", f"cbscan{number}", "mtu", "1500", "txqueuelen", "20000", "up")
            run(*here, "route", "add", other, "dev", f"cbscan{number}")
        # Every address of a range is the server's; those of the range beside it are nobody's, and nobody says so.
        run("ip", "-n", self.THERE, "route", "add", "local", "10.97.0.0/17", "dev", "lo")
        self.going = True
        self.thread = threading.Thread(target=self.forward, daemon=True)
        self.thread.start()
        return self

    def forward(self):
        waiting = (collections.deque(), collections.deque())
        while self.going:
            first = min((queue[0][0] for queue in waiting if queue), default=time.monotonic() + 0.1)
            ready, _, _ = select.select(self.ends, [], [], max(0, min(0.1, first - time.monotonic())))
            now = time.monotonic()
            for end in ready:
                queue = waiting[1 - self.ends.index(end)]
                for _ in range(256):
                    try:
                        queue.append((now + 0.010, os.read(end, 2048)))
                    except BlockingIOError:
                        break
            for end, queue in zip(self.ends, waiting):
                while queue and queue[0][0] <= now:
                    try:
                        os.write(end, queue.popleft()[1])
                    except OSError:
                        pass

    def __exit__(self, *_):
        self.going = False
        self.thread.join()
        for end in self.ends:
            os.close(end)
        self.clean()

    def clean(self):
        for name in [self.HERE, self.THERE]:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


def run(*command):
    subprocess.run(command, check=True)


def delayed(peers):
    """20 ms away, and a third of the targets dead."""
    farm = work / "far"
    count = COUNT * 2 // 3
    run(BENCH, "farm", str(farm), str(count), "10.97.0.2", str(PORT))
    alive = (farm / "targets.txt").read_text().split()
    dead = [f"10.97.{128 + number // 250}.{1 + number % 250}:{PORT}" for number in range(COUNT // 3)]
    targets = [target for three in zip(alive[0::2], alive[1::2], dead) for target in three]
    with Delay() as delay:
        global INSIDE
        INSIDE = ["ip", "netns", "exec", delay.HERE]
        nginx = Nginx(farm, "TLSv1.2 TLSv1.3", ["ip", "netns", "exec", delay.THERE])
        for in_flight in [1000, 5000]:
            some = str(in_flight)
            sides = [
                Side("quick look", bench("look", "TARGETS", "1.3", "quick", "presented", some)),
                Side("full, finished", bench("look", "TARGETS", "1.3", "auto", "finished", some)),
                Side("certbus scan --json --raw", certbus("--raw", "--concurrency", some)),
            ]
            if peers:
                sides += [Side("tlsx", tlsx(in_flight)), Side("zgrab2", zgrab2(in_flight))]
            measure(sides, targets)
            title = f"20 ms away, {len(targets)} targets, a third of them dead, {in_flight} in flight"
            table(title, sides, "quick look", [("certbus scan --json --raw", "tlsx", 0.1), ("certbus scan --json --raw", "zgrab2", 0.1)])
        nginx.stop()
        INSIDE = []


def memory():
    """10,000 probes in flight at servers that hold on to them."""
    print("\n10,000 probes in flight at hostile servers (goal: under 40 MB)", flush=True)
    for behaviour in ["silent", "half"]:
        first = 21000
        server = subprocess.Popen([BENCH, "hostile", behaviour, str(first), "20"], stdout=subprocess.PIPE)
        RUNNING.append(server)
        server.stdout.readline()
        file = work / "hostile.txt"
        file.write_text("".join(f"127.0.0.1:{first + number % 20}\n" for number in range(12_000)))
        for name, command in [
            ("quick look", [BENCH, "look", str(file), "1.3", "quick", "presented", "10000"]),
            ("full", [BENCH, "look", str(file), "1.3", "full", "presented", "10000"]),
            ("certbus scan", [CERTBUS, "scan", f"@{file}", "--json", "--per-host", "0", "--per-network", "0"]),
        ]:
            # The full way has few handshakes at a time, and would take minutes to the end: the peak is long reached.
            wall, cpu, peak, _ = timed(command, within=20, output=subprocess.DEVNULL)
            print(f"  {behaviour:8} {name:14} peak {peak / 1024:6.1f} MB, {wall:5.1f} s, CPU {cpu:5.2f} s", flush=True)
        server.kill()
        server.wait()


try:
    main()
finally:
    for process in RUNNING:
        if process.poll() is None:
            process.terminate()
            process.wait()
    shutil.rmtree(work, ignore_errors=True)
