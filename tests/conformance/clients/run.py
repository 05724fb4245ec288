#!/usr/bin/env python3
"""Runs real client libraries against a server: clients/run.py --target-cmd 'CMD ... {port} {flags}'.

Each client replaces, adds to and deletes groups, with slashes, spaces, empty and non-ASCII values in the grouping key, and
checks a scrape afterwards. See README.md.
"""

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import Server  # noqa: E402


CLIENTS = ("curl", "python", "node", "go", "java", "rust")
BUILD_TIMEOUT = 600.0
RUN_TIMEOUT = 60.0


class Missing(Exception):
    """A tool that a client needs is missing on this machine."""


def program(name):
    """The path of a tool."""
    path = shutil.which(name)
    if not path:
        raise Missing(f"no {name}")
    return path


def build(folder, *line, **env):
    """Builds a client in its folder. Its build tool downloads the libraries."""
    done = subprocess.run(line, cwd=HERE / folder, env={**os.environ, **env}, timeout=BUILD_TIMEOUT,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"does not build: {done.stdout.strip()[-1500:]}")


def pinned(file, pattern):
    """The version of a library, from the file that pins it."""
    return re.search(pattern, (HERE / file).read_text())[1]


def curl(options):
    line = [program("sh"), str(HERE / "curl_client.sh")]
    version = subprocess.run([program("curl"), "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return line, {}, f"curl {version.split()[1]}"


def python(options):
    try:
        version = importlib.metadata.version("prometheus_client")
    except importlib.metadata.PackageNotFoundError:
        raise Missing("no prometheus_client") from None
    return [sys.executable, str(HERE / "python_client.py")], {}, f"prometheus_client {version}"


def node(options):
    line = [program("node"), str(HERE / "node_client.js")]
    folder = Path(options.node_path or HERE / "node_modules")
    if not (folder / "prom-client").is_dir():
        raise Missing("no prom-client, see --node-path")
    version = json.loads((folder / "prom-client" / "package.json").read_text())["version"]
    return line, {"NODE_PATH": str(folder)}, f"prom-client {version}"


def go(options):
    program("go")
    check = subprocess.run(["go", "list", "-m"], cwd=HERE / "go_client", capture_output=True, text=True, check=False)
    if check.returncode:
        raise Missing(check.stderr.strip())
    line = [os.path.join(options.build, "go_client")]
    build("go_client", "go", "build", "-o", *line, ".")
    return line, {}, f"client_golang {pinned('go_client/go.mod', r'client_golang v(.*)')}"


def java(options):
    classes, paths = os.path.join(options.build, "java"), os.path.join(options.build, "java.classpath")
    line = [program("java"), "-cp"]
    program("javac")
    build("java_client", program("mvn"), "-q", "-B", f"-Doutput={classes}", "compile",
          "org.apache.maven.plugins:maven-dependency-plugin:3.9.0:build-classpath", f"-Dmdep.outputFile={paths}")
    line += [f"{classes}/classes:{Path(paths).read_text().strip()}", "Client"]
    version = pinned("java_client/pom.xml", r"<prometheus.version>(.*)</")
    return line, {}, f"prometheus-metrics-exporter-pushgateway {version}"


def rust(options):
    target = os.path.join(options.build, "rust")
    build("rust_client", program("cargo"), "build", "--quiet", "--locked", "--target-dir", target)
    version = pinned("rust_client/Cargo.toml", r'prometheus = \{ version = "([^"]*)"')
    return [os.path.join(target, "debug", "rust_client")], {}, f"prometheus (Rust) {version}"


def run(name, options):
    """Runs a client against a new server. Returns `passed`, `failed` or `skipped`, and a line to print."""
    try:
        line, env, version = globals()[name](options)
    except Missing as reason:
        return ("failed", f"FAIL client-{name}: {reason}") if options.require_all else (
            "skipped", f"SKIPPED client-{name}: {reason}")
    except (RuntimeError, subprocess.TimeoutExpired) as problem:
        return "failed", f"FAIL client-{name}: {problem}"
    server = Server(options.target_cmd)
    try:
        done = subprocess.run([*line, f"127.0.0.1:{server.port}"], env={**os.environ, **env}, timeout=RUN_TIMEOUT,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except subprocess.TimeoutExpired:
        return "failed", f"FAIL client-{name}: still running after {RUN_TIMEOUT} s"
    finally:
        server.close()
    if done.returncode:
        return "failed", f"FAIL client-{name} ({version}): {done.stdout.strip()[-1500:]}"
    return "passed", f"{done.stdout.strip()} ({version})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target-cmd", required=True)
    parser.add_argument("--node-path", default="", help="the folder with prom-client")
    parser.add_argument("--build", default="", help="a folder for the built clients (default: a temporary one)")
    parser.add_argument("--only", default="", help="names of clients, comma separated")
    parser.add_argument("--require-all", action="store_true", help="a client that cannot be run is a failure")
    options = parser.parse_args()
    chosen = options.only.split(",") if options.only else CLIENTS
    if not set(chosen) <= set(CLIENTS):
        parser.error(f"the clients are {', '.join(CLIENTS)}")
    counts = Counter()
    with tempfile.TemporaryDirectory() as folder:
        options.build = os.path.abspath(options.build or folder)
        for name in chosen:
            outcome, line = run(name, options)
            counts[outcome] += 1
            print(line, flush=True)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
