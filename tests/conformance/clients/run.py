#!/usr/bin/env python3
"""Runs real client libraries against a server: clients/run.py --target-cmd 'CMD ... {port} {flags}'.

Clients whose tools are missing are skipped by name, with --require-all they fail. --node-path names the folder with
prom-client.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Server  # noqa: E402


GOPATH = "/usr/share/gocode"


def missing(node_path):
    """What keeps a client from being run: name -> reason."""
    if not shutil.which("curl"):
        yield "curl", "no curl"
    if not importlib.util.find_spec("prometheus_client"):
        yield "python", "no prometheus_client"
    if not shutil.which("node"):
        yield "node", "no node"
    elif not os.path.isdir(os.path.join(node_path or HERE / "node_modules", "prom-client")):
        yield "node", "no prom-client, see --node-path"
    if not shutil.which("go"):
        yield "go", "no Go"
    elif not os.path.isdir(f"{GOPATH}/src/github.com/prometheus/client_golang"):
        yield "go", "no client_golang (Debian: golang-github-prometheus-client-golang-dev)"


def command(name, node_path, build):
    """How a client is started, and its environment."""
    if name == "curl":
        return ["sh", str(HERE / "curl_client.sh")], {}
    if name == "python":
        return [sys.executable, str(HERE / "python_client.py")], {}
    if name == "node":
        return ["node", str(HERE / "node_client.js")], {"NODE_PATH": node_path} if node_path else {}
    program = os.path.join(build, "go_client")
    subprocess.run(["go", "build", "-o", program, "."], cwd=HERE / "go_client", check=True,
                   env={**os.environ, "GO111MODULE": "off", "GOPATH": GOPATH, "GOFLAGS": "",
                        "GOCACHE": os.path.join(build, "cache")})
    return [program], {}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target-cmd", required=True)
    parser.add_argument("--node-path", default="")
    parser.add_argument("--only", default="", help="name of one client")
    parser.add_argument("--require-all", action="store_true", help="a client that cannot be run is a failure")
    parser.add_argument("--later", default=[], action="append", metavar="NAME=REASON",
                        help="a client that is run, but may fail for now; that it passes is a failure")
    options = parser.parse_args()
    later = dict(item.split("=", 1) for item in options.later)
    postponed = 0
    passed = failed = 0
    reasons = dict(missing(options.node_path))
    with tempfile.TemporaryDirectory() as build:
        for name in ("curl", "python", "node", "go"):
            if options.only not in ("", name):
                continue
            if name in reasons:
                failed += options.require_all
                print(f"{'FAIL' if options.require_all else 'SKIPPED'} client-{name}: {reasons[name]}")
                continue
            line, env = command(name, options.node_path, build)
            server = Server(options.target_cmd)
            try:
                done = subprocess.run([*line, f"127.0.0.1:{server.port}"], env={**os.environ, **env}, timeout=60,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            finally:
                server.close()
            if done.returncode and name in later:
                postponed += 1
                print(f"LATER client-{name}: {later[name]}")
            elif name in later:
                failed += 1
                print(f"FAIL client-{name}: passes now: it is no longer for later")
            elif done.returncode:
                failed += 1
                print(f"FAIL client-{name}: {done.stdout.strip()[-600:]}")
            else:
                passed += 1
                print(done.stdout.strip())
    print(f"{passed} passed, {failed} failed" + (f", {postponed} later" if later else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
