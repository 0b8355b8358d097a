#!/usr/bin/env python3
"""Issuing, measured beside others on one Pebble. Run by `ci/bench issue-one` and `ci/bench issue-many`, with the services of
ci/services.py in the environment.

    bench-issue.py one          a single certificate over HTTP-01, wall time of the whole program: certbus, uacme, acme-tiny,
                                lego, certbot; the sides take turns
    bench-issue.py many N       N certificates: certbus, a loop of lego, CertMagic (where Go is), and Pebble's own ceiling
"""

import http.server
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

CERTBUS = Path(__file__).resolve().parent.parent / "target" / "release" / "certbus"
ENV = os.environ
CACHE = Path(ENV.get("CERTBUS_CACHE") or Path.home() / ".cache" / "certbus-ci")
DIRECTORY, API_ROOT, PORT = ENV["CERTBUS_TEST_PEBBLE"], ENV["CERTBUS_TEST_PEBBLE_ROOT"], ENV["CERTBUS_TEST_HTTP01_PORT"]
STAMP = f"{time.time_ns():x}"
ROUNDS = 9


def run(command, cwd, env=None, accepted=(0,), **options):
    """Runs a program; its wall time, and the CPU time of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run([str(c) for c in command], cwd=cwd, env={**ENV, **(env or {})}, capture_output=True, text=True,
                          **options)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in accepted:
        raise SystemExit(f"{command[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout + done.stderr


class Webroot:
    """Serves a folder on Pebble's HTTP-01 port, for those who only write files. Its own share is a millisecond."""

    def __init__(self, folder):
        handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        make = lambda *arguments: handler(*arguments, directory=str(folder))  # noqa: E731
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", int(PORT)), make)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Certbus:
    name = "certbus"

    def __init__(self, home):
        self.home = home
        self.env = {"CERTBUS_CONFIG": str(home / "certbus.toml"), "CERTBUS_DATA": str(home / "data")}
        run([CERTBUS, "init", "--ca", DIRECTORY, "--ca-roots", API_ROOT, "--agree-tos", "--http01",
             f"listen=127.0.0.1:{PORT}"], home, self.env)
        # CAA records are asked of the server that has the names, as this Pebble does.
        settings = subprocess.run([CERTBUS, "conf", "display", "--reveal"], env={**ENV, **self.env}, check=True, capture_output=True, text=True)
        subprocess.run([CERTBUS, "conf", "update"], env={**ENV, **self.env}, check=True, stdout=subprocess.DEVNULL, text=True,
                       input=f'resolver = "{os.environ["CERTBUS_TEST_BIND"]}"\n{settings.stdout}')

    def issue(self, name):
        return run([CERTBUS, "cert", "mk", "--subdomain", name], self.home, self.env)[:2]


class Lego:
    name = "lego"

    def __init__(self, home):
        self.home, self.env = home, {"LEGO_CA_CERTIFICATES": API_ROOT}
        self.issue(f"account.{STAMP}.http.test")

    def issue(self, name):
        # An account is made with the first certificate and kept; a new name in the same folder uses it again.
        return run(["lego", "--accept-tos", "--email", "ops@shop.example", "--server", DIRECTORY, "--path", self.home,
                    "--http", "--http.port", f"127.0.0.1:{PORT}", "--key-type", "ec256", "--domains", name, "run"],
                   self.home, self.env)[:2]


class Certbot:
    name = "certbot"

    def __init__(self, home):
        self.home, self.env = home, {"REQUESTS_CA_BUNDLE": API_ROOT}
        self.common = ["--server", DIRECTORY, "--config-dir", home / "c", "--work-dir", home / "w", "--logs-dir",
                       home / "l", "--non-interactive", "--agree-tos"]
        run(["certbot", "register", "--register-unsafely-without-email", *self.common], home, self.env)

    def issue(self, name):
        return run(["certbot", "certonly", "--standalone", "--http-01-address", "127.0.0.1", "--http-01-port", PORT,
                    "--key-type", "ecdsa", "-d", name, *self.common], self.home, self.env)[:2]


class Uacme:
    name = "uacme"

    def __init__(self, home):
        self.home, self.env = home, {}
        self.root = home / "web"
        (self.root / ".well-known/acme-challenge").mkdir(parents=True)
        hook = home / "hook"
        hook.write_text('#!/bin/sh\n[ "$2" = http-01 ] || exit 1\nf="%s/.well-known/acme-challenge/$4"\n'
                        '[ "$1" = begin ] && printf %%s "$5" >"$f"\n[ "$1" = begin ] || rm -f "$f"\n' % self.root)
        hook.chmod(0o755)
        # It reads the system's roots and no others: it is shown other ones in a mount namespace of its own (3 ms).
        show = f'mount --bind "{API_ROOT}" /etc/ssl/certs/ca-certificates.crt && exec "$@"'
        self.base = ["unshare", "-m", "sh", "-c", show, "sh",
                     "uacme", "-a", DIRECTORY, "-c", home / "conf", "-y", "-t", "EC", "-h", hook]
        run([*self.base, "new"], home, self.env)

    def issue(self, name):
        with Webroot(self.root):
            return run([*self.base, "issue", name], self.home, self.env)[:2]


class AcmeTiny:
    name = "acme-tiny"

    def __init__(self, home):
        self.home, self.env = home, {"SSL_CERT_FILE": API_ROOT}
        self.challenges = home / "web" / ".well-known" / "acme-challenge"
        self.challenges.mkdir(parents=True)
        run(["openssl", "genrsa", "-out", home / "account.key", "2048"], home)
        self.issue(f"tiny.{STAMP}.http.test")

    def issue(self, name):
        key, csr = self.home / "site.key", self.home / "site.csr"
        run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key], self.home)
        run(["openssl", "req", "-new", "-key", key, "-subj", "/", "-addext", f"subjectAltName=DNS:{name}", "-out", csr],
            self.home)
        with Webroot(self.home / "web"):
            return run([CACHE / "acme-tiny/bin/acme-tiny", "--account-key", self.home / "account.key", "--csr", csr,
                        "--acme-dir", self.challenges, "--directory-url", DIRECTORY, "--disable-check"], self.home,
                       self.env)[:2]


def one(work):
    sides = []
    for kind in (Certbus, Uacme, AcmeTiny, Lego, Certbot):
        try:
            side = kind(made(work / kind.name))
            if kind is not Uacme:
                side.issue(f"{kind.name}.first.{STAMP}.http.test")
            sides.append(side)
        except (SystemExit, FileNotFoundError) as why:
            if kind is Certbus:
                raise
            print(f"  not measured: {kind.name}: {str(why).strip().splitlines()[-1]}")
    times = {side.name: [] for side in sides}
    for round_ in range(ROUNDS):
        for side in sides:
            # uacme does not read some of the challenges that Pebble offers by chance: it is given a few orders more.
            for attempt in range(10):
                try:
                    times[side.name].append(side.issue(f"{side.name}{round_}-{attempt}.{STAMP}.http.test"))
                    break
                except SystemExit:
                    if not isinstance(side, Uacme):
                        raise
    times = {name: took for name, took in times.items() if took}
    print(f"One certificate over HTTP-01 at one Pebble, whole program, median of {ROUNDS} interleaved rounds")
    medians = {name: statistics.median(wall for wall, _ in took) for name, took in times.items()}
    for name, took in times.items():
        cpu = statistics.median(cpu for _, cpu in took)
        print(f"  {name:<10} {medians[name] * 1000:7.0f} ms, CPU {cpu * 1000:5.0f} ms, of {len(took)}")
    best = min(value for name, value in medians.items() if name != "certbus")
    verdict(f"certbus against the fastest of the others ({best * 1000:.0f} ms)", medians["certbus"] / best, "≤ 1",
            medians["certbus"] <= best)


def verdict(what, figure, goal, met):
    print(f"  {what}: {figure:.2f} (goal {goal}): {'met' if met else 'NOT MET'}")


def made(folder):
    folder.mkdir(parents=True)
    return folder


def many(work, count):
    print(f"{count} certificates over HTTP-01 at one Pebble")
    names = [f"n{number}.{STAMP}" for number in range(count)]
    rates = {}

    ceiling = CACHE / "bin" / "acme-load"
    if shutil.which("go", path=ENV["PATH"] + ":/usr/local/go/bin"):
        build(ceiling, "acme-load")
        build(CACHE / "bin" / "certmagic-many", "certmagic-many")
        for turn in range(3):
            wall, cpu, said = run([ceiling, DIRECTORY, API_ROOT, PORT, str(count), f"load{turn}.{STAMP}.http.test"], work)
            seconds, issued = re.search(r"seconds (\S+) issued (\d+)", said).groups()
            rates.setdefault("ceiling", []).append((int(issued) / float(seconds), cpu))
            rates.setdefault("certbus", []).append(certbus_many(work / f"certbus{turn}", names, turn))
        try:
            some = min(count, 200)
            wall, cpu, said = run([CACHE / "bin" / "certmagic-many", DIRECTORY, API_ROOT, PORT, str(some),
                                   f"magic.{STAMP}.http.test"], made(work / "certmagic"), timeout=120)
            seconds, issued = re.search(r"seconds (\S+) issued (\d+)", said).groups()
            rates["certmagic"] = [(int(issued) / float(seconds), cpu * count / int(issued))]
        except (subprocess.TimeoutExpired, SystemExit) as why:
            print(f"  not measured: CertMagic: {why}")
    else:
        print("  Go is not here: no ceiling and no CertMagic")
        rates["certbus"] = [certbus_many(work / "certbus", names, 0)]
    lego = Lego(made(work / "lego"))
    some = min(count, 20)
    walls = [lego.issue(f"lego{number}.{STAMP}.http.test") for number in range(some)]
    rates["lego loop"] = [(some / sum(wall for wall, _ in walls), sum(cpu for _, cpu in walls) * count / some)]
    for name, took in rates.items():
        rate, cpu = statistics.median(r for r, _ in took), statistics.median(c for _, c in took)
        print(f"  {name:<10} {rate:7.1f} a second, CPU {cpu:6.1f} s for {count}")
    if "ceiling" in rates:
        ratios = [ours[0] / theirs[0] for ours, theirs in zip(rates["certbus"], rates["ceiling"])]
        verdict("certbus against Pebble's own ceiling", statistics.median(ratios), "≥ 0.8", statistics.median(ratios) >= 0.8)


def certbus_many(home, names, turn):
    side = Certbus(made(home))
    file = home / "names"
    file.write_text("".join(f"{name}.c{turn}.http.test\n" for name in names))
    wall, cpu, said = run(["/usr/bin/time", "-v", CERTBUS, "cert", "mk", "--each", file], home, side.env, accepted=(0, 1))
    issued = said.count("✓")
    memory = re.search(r"Maximum resident set size \(kbytes\): (\d+)", said)
    memory = f", {int(memory.group(1)) / 1024:.0f} MiB at most" if memory else ""
    print(f"  certbus: {issued} in {wall:.1f} s{memory}", flush=True)
    return issued / wall, cpu


def build(program, folder):
    """Go programs of ours and of others, from the module proxy."""
    source = Path(__file__).resolve().parent / "bench-peers" / folder
    if program.exists() and program.stat().st_mtime > max(f.stat().st_mtime for f in source.iterdir()):
        return
    env = {"PATH": ENV["PATH"] + ":/usr/local/go/bin"}
    run(["go", "build", "-o", program, "."], source, env)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="certbus-bench-") as folder:
        if sys.argv[1:2] == ["one"]:
            one(Path(folder))
        else:
            many(Path(folder), int((sys.argv[2:3] or ["1000"])[0]))
