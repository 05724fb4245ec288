"""Starts servers, sends the steps of a case, and reduces the responses to comparable observations."""

import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from datetime import datetime

from model import Exited, Restart, Run
from wire import ExpositionError, parse_delimited, parse_text

# Prefixes of the gateway's own families; each implementation has its own.
OWN_PREFIXES = ("go_", "process_", "pushgateway_", "promhttp_", "sluicegate_")
TIMES = ("push_time_seconds", "push_failure_time_seconds")
PAUSE_AFTER_WRITE = 0.0025  # seconds; gives two writes different times, see Clock
PAUSE_AFTER_ASYNC = 0.02    # seconds; the official program may apply a request a little after its 202
REQUEST_TIMEOUT = 5.0


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class NotReady(Exception):
    """The server did not become ready."""


def words_of(line):
    """Splits a command line and makes paths of files absolute, because each server runs in its own folder."""
    return [os.path.abspath(word) if "/" in word and os.path.isfile(word) else word for word in shlex.split(line)]


class Server:
    """One server process on a free loopback port.

    command: template with {port}, {dir} and {flags}; the name of a program gets the usual flags.
    """

    def __init__(self, command, flags=(), prefix="", persist=False):
        if "{port}" not in command:
            command += " --web.listen-address=127.0.0.1:{port} {flags}"
        self.command, self.flags, self.prefix = command, list(flags), prefix
        self.dir = tempfile.mkdtemp(prefix="conformance-")
        self.flags.append(f"--persistence.file={os.path.join(self.dir, 'store') if persist else ''}")
        self.process = None
        self.start()

    def start(self):
        for attempt in range(3):
            self.port = free_port()
            line = self.command.format(port=self.port, dir=shlex.quote(self.dir), flags=shlex.join(self.flags))
            self.log = open(os.path.join(self.dir, "log"), "ab")
            self.process = subprocess.Popen(words_of(line), cwd=self.dir, stdin=subprocess.DEVNULL,
                                            stdout=self.log, stderr=self.log)
            if self._wait_ready():
                return
            self.stop()
        raise NotReady(f"the server did not become ready: {line}\n{self.tail()}")

    def _wait_ready(self):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.request("GET", self.prefix + "/-/ready").status == 200:
                    return True
            except OSError:
                pass
            time.sleep(0.01)
        return False

    def tail(self):
        with open(os.path.join(self.dir, "log"), "rb") as log:
            return log.read()[-1500:].decode(errors="replace")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def restart(self):
        self.stop()
        self.start()

    def run(self, step):
        """Runs the same command with other arguments until it exits."""
        line = self.command.format(port=free_port(), dir=shlex.quote(self.dir), flags=shlex.join(step.args))
        try:
            done = subprocess.run(words_of(line), cwd=self.dir, stdin=subprocess.DEVNULL, timeout=3,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        except subprocess.TimeoutExpired:
            return {"exit": "still running"}
        # The spelling of switches depends on the release of the official program.
        printed = done.stdout.decode(errors="replace").replace("--[no-]", "--")
        return {"exit": done.returncode, "missing": [word for word in step.words if word not in printed]}

    def close(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def request(self, method, path, body=b"", headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_TIMEOUT)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body or method in ("PUT", "POST"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            try:
                connection.send(body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the server has rejected the request early, and its response can be read
            response = connection.getresponse()
            response.content = response.read()
            return response
        except http.client.HTTPException as problem:
            raise OSError(f"invalid response: {problem!r}") from problem
        finally:
            connection.close()


class PoolOfServers:
    """Keeps one server for the cases without flags, and starts others on demand."""

    PLAIN_FLAGS = ("--web.enable-admin-api",)

    def __init__(self, command):
        self.command, self.plain = command, Server(command, self.PLAIN_FLAGS)

    def take(self, case):
        if case.flags or case.persist:
            return Server(self.command, case.flags, case.prefix, case.persist)
        if not self._wiped():
            self.plain.close()
            self.plain = Server(self.command, self.PLAIN_FLAGS)
        return self.plain

    def _wiped(self):
        try:
            if self.plain.request("PUT", "/api/v1/admin/wipe").status != 202:
                return False
            for _ in range(20):
                scrape = self.plain.request("GET", "/metrics")
                if scrape.status == 200 and not pushed(parse_text(scrape.content.decode())):
                    return True
                time.sleep(0.01)
        except (OSError, ValueError):
            pass
        return False

    def give_back(self, server):
        if server is not self.plain:
            server.close()

    def close(self):
        self.plain.close()


def pushed(families):
    return {name: family for name, family in families.items() if not name.startswith(OWN_PREFIXES)}


class Clock:
    """Replaces times by their rank among all times of the case ("t1", "t2", ...) or by "zero"."""

    def __init__(self):
        self.begin, self.seen = time.time(), []

    def mark(self, seconds):
        if seconds == 0:
            return "zero"
        if not self.begin - 1 <= seconds <= time.time() + 1:
            return f"implausible time {seconds}"
        self.seen.append(seconds)
        return {"time": seconds}

    def resolve(self, value):
        if isinstance(value, dict):
            if set(value) == {"time"}:
                return self._rank(value["time"])
            return {key: self.resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        return value

    def _rank(self, seconds):
        rank, last = 0, None
        for moment in sorted(self.seen):
            if last is None or moment - last > 0.0015:
                rank, last = rank + 1, moment
            if moment == seconds:
                return f"t{rank}"
        return "t?"


def observe_families(families, clock, ordered=False):
    result = {}
    for name, family in pushed(families).items():
        samples = []
        for sample, labels, value in family["samples"]:
            if name in TIMES:
                value = clock.mark(float(value))
            samples.append([sample, dict(sorted(labels.items())), value])
        if not ordered:
            samples.sort(key=lambda item: json.dumps(item[:2]))
        result[name] = {"type": family["type"], "help": family["help"], "samples": samples}
    return result


def _number(text):
    try:
        return repr(float(text))
    except ValueError:
        return text


def observe_api(document, clock, exact=False):
    """The groups of /api/v1/metrics in a fixed order, with marked times."""
    number = (lambda text: text) if exact else _number
    groups = []
    for group in document.get("data") or []:
        seen = {"labels": group.pop("labels"), "last_push_successful": group.pop("last_push_successful")}
        for name, family in sorted(group.items()):
            moment = family["time_stamp"]
            family["time_stamp"] = clock.mark(_rfc3339(moment))
            for metric in family["metrics"]:
                for key in ("value", "count", "sum"):
                    if key in metric:
                        metric[key] = clock.mark(float(metric[key])) if name in TIMES else number(metric[key])
                for key in ("buckets", "quantiles"):
                    if isinstance(metric.get(key), dict):
                        metric[key] = {number(k): number(v) for k, v in sorted(metric[key].items())}
            family["metrics"].sort(key=lambda metric: json.dumps(metric["labels"], sort_keys=True))
            seen[name] = family
        groups.append(seen)
    return sorted(groups, key=lambda group: json.dumps(group["labels"], sort_keys=True))


def _rfc3339(text):
    head, _, rest = text.partition(".")
    digits = "".join(char for char in rest if char.isdigit()) if rest else "0"
    zone = "+00:00"
    for sign in "+-":
        if sign in rest:
            digits, zone = rest.split(sign)[0], sign + rest.split(sign)[1]
    base = datetime.fromisoformat(head.rstrip("Z") + zone)
    return base.timestamp() + float("0." + (digits.rstrip("Z") or "0"))


def _status(status):
    """All redirects count as the same status, because Go changed its choice between releases."""
    return "redirect" if status in (301, 302, 307, 308) else status


def _show(response, what, clock):
    body = response.content
    if what == "body":
        return body.decode(errors="replace")
    if what == "allow":
        return sorted(part.strip() for part in (response.getheader("Allow") or "").split(",") if part.strip())
    if what == "type":
        return (response.getheader("Content-Type") or "").split(";")[0].strip()
    if what == "location":
        return response.getheader("Location")
    if what == "encoding":
        return response.getheader("Content-Encoding")
    if what == "json":
        return json.loads(body)
    if what == "api":
        return observe_api(json.loads(body), clock, exact=True)
    if what == "keys":
        return _shape(json.loads(body))
    if what == "text":
        return observe_families(parse_text(body.decode()), clock)
    if what == "order":
        families = observe_families(parse_text(body.decode()), clock, ordered=True)
        return {"names": list(families), "families": families, "sorted": list(parse_text(body.decode())) ==
                sorted(parse_text(body.decode()))}
    if what == "names":
        return list(pushed(parse_text(body.decode())))
    if what == "raw":
        lines = body.decode().split("\n")
        return [line for line in lines if line and not any(
            line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(prefix)
            for prefix in OWN_PREFIXES + TIMES)]
    if what == "proto":
        return observe_families(parse_delimited(body), clock)
    if what.startswith("header:"):
        return response.getheader(what.partition(":")[2])
    if what.startswith("has:"):
        return what.partition(":")[2] in body.decode(errors="replace")
    raise ValueError(f"unknown name in show: {what}")


def _shape(value):
    """The keys of the status document, and the values on which all implementations must agree."""
    data = value.get("data", {})
    flags = data.get("flags", {})
    return {
        "status": value.get("status"),
        "data": sorted(data),
        "build": sorted(data.get("build_information", {})),
        "flags": {name: flags.get(name) for name in (
            "persistence.interval", "push.disable-consistency-check", "web.enable-admin-api",
            "web.enable-lifecycle", "web.telemetry-path", "web.route-prefix", "web.external-url")},
        "start_time": isinstance(data.get("start_time"), str) and "T" in data["start_time"],
    }


def _persistent_request(server, step, attempts=3):
    """Sends a request again if the server rejects its request line and closes before it has read the body."""
    for attempt in range(attempts):
        try:
            return server.request(step.method, step.path, step.body, step.headers)
        except TimeoutError:
            raise
        except OSError:
            if attempt == attempts - 1:
                raise


def observe_step(server, step, clock):
    if isinstance(step, Restart):
        server.restart()
        return {"restarted": True}
    if isinstance(step, Run):
        return server.run(step)
    if isinstance(step, Exited):
        try:
            return {"exit": server.process.wait(5)}
        except subprocess.TimeoutExpired:
            return {"exit": "still running"}
    try:
        response = _persistent_request(server, step)
    except OSError as problem:
        return {"status": "no response", "problem": str(problem)}
    seen = {"status": _status(response.status)}
    if response.status == 400 and step.method != "HEAD":
        seen["message"] = "some text" if response.content.strip() else "none"
    for what in step.show:
        try:
            seen[what] = _show(response, what, clock)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError, ExpositionError) as problem:
            seen[what] = f"unreadable: {problem}"
    if response.status == 202:
        time.sleep(PAUSE_AFTER_ASYNC)
    elif step.method in ("PUT", "POST"):
        time.sleep(PAUSE_AFTER_WRITE)
    return seen


def observe_final(server, prefix, clock):
    final = {}
    try:
        scrape = server.request("GET", prefix + "/metrics")
        final["scrape"] = scrape.status
        if scrape.status == 200:
            final["families"] = observe_families(parse_text(scrape.content.decode()), clock)
    except (OSError, ValueError, KeyError, IndexError) as problem:
        final["families"] = f"unreadable: {problem}"
    try:
        api = server.request("GET", prefix + "/api/v1/metrics")
        final["groups"] = observe_api(json.loads(api.content), clock)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        final["groups"] = f"unreadable: {problem}"
    return final


def observe(server, case):
    """Runs a case and returns all observations as JSON values."""
    clock = Clock()
    result = {"steps": [observe_step(server, step, clock) for step in case.steps]}
    if case.final:
        result["final"] = observe_final(server, case.prefix, clock)
        if not case.api:
            del result["final"]["groups"]
    return clock.resolve(json.loads(json.dumps(result)))

