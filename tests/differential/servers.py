"""A program under test, and HTTP/1.1 requests to it over one connection."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time

TIMEOUT_SECONDS = 8


class Gone(Exception):
    """The connection ended, or no response came in time."""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A program with its own port and folder, and a connection to it."""

    def __init__(self, command, flags, directory=None, persist=False):
        self.command, self.flags = command, list(flags)
        self.dir = directory or tempfile.mkdtemp(prefix="dfuzz-")
        self.flags.append("--persistence.file=" + (os.path.join(self.dir, "store") if persist else ""))
        self.sock, self.buffer, self.process = None, b"", None
        self.start()

    def start(self):
        for _ in range(3):
            self.port = free_port()
            line = self.command.format(port=self.port, flags=shlex.join(self.flags))
            self.log = open(os.path.join(self.dir, "log"), "ab")
            self.process = subprocess.Popen(shlex.split(line), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=self.dir)
            end = time.monotonic() + 15
            while time.monotonic() < end and self.process.poll() is None:
                try:
                    if self.ask("GET", "/-/ready")[0] == 200:
                        self.close_socket()
                        self.first = self.usage()
                        return
                except (OSError, Gone):
                    self.close_socket()
                time.sleep(0.004)
            self.stop()
        with open(os.path.join(self.dir, "log"), "rb") as log:
            raise RuntimeError("did not start: " + log.read()[-800:].decode(errors="replace"))

    def usage(self):
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                text = status.read()
            number = lambda key: int(re.search(key + r":\s+(\d+)", text)[1])
            return {"rss_mib": number("VmRSS") // 1024, "threads": number("Threads"),
                    "descriptors": len(os.listdir(f"/proc/{self.process.pid}/fd"))}
        except (OSError, TypeError):
            return {"gone": self.process.poll()}

    def stop(self):
        self.close_socket()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def end(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def close_socket(self):
        if self.sock:
            self.sock.close()
        self.sock, self.buffer = None, b""

    def send(self, data):
        if not self.sock:
            self.sock = socket.create_connection(("127.0.0.1", self.port), TIMEOUT_SECONDS)
            self.sock.settimeout(TIMEOUT_SECONDS)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.buffer = b""
        self.sock.sendall(data)

    def _more(self):
        try:
            piece = self.sock.recv(1 << 18)
        except (TimeoutError, socket.timeout):
            raise Gone("timeout") from None
        except OSError as problem:
            raise Gone("closed") from problem
        if not piece:
            raise Gone("closed")
        self.buffer += piece

    def _line(self):
        while True:
            at = self.buffer.find(b"\r\n")
            if at >= 0:
                line, self.buffer = self.buffer[:at], self.buffer[at + 2:]
                return line
            self._more()

    def _take(self, count):
        while len(self.buffer) < count:
            self._more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read(self, head=False):
        status = int(self._line().split()[1])
        headers = {}
        while True:
            line = self._line()
            if not line:
                break
            name, _, value = line.partition(b":")
            headers[name.decode("latin1").lower()] = value.decode("latin1").strip()
        if head:
            body = b""
        elif "chunked" in headers.get("transfer-encoding", ""):
            parts = []
            while True:
                size = int(self._line().split(b";")[0], 16)
                parts.append(self._take(size))
                self._line()
                if not size:
                    break
            body = b"".join(parts)
        elif "content-length" in headers:
            body = self._take(int(headers["content-length"]))
        else:
            parts = []
            try:
                while status not in (204, 304):
                    self._more()
            except Gone:
                pass
            body, self.buffer = self.buffer, b""
        if headers.get("connection", "").lower() == "close":
            self.close_socket()
        return status, headers, body

    def ask(self, method, path, headers=(), body=b""):
        for attempt in (0, 1):
            fresh = self.sock is None
            try:
                self.send(request(method, path, headers, body))
                return self.read(method == "HEAD")
            except (Gone, OSError) as problem:
                self.close_socket()
                if fresh or attempt or "timeout" in str(problem):
                    raise Gone(str(problem)) from None

def request(method, path, headers=(), body=b""):
    if isinstance(path, str):
        path = path.encode("utf-8", "surrogateescape")
    head = [method.encode() + b" " + path + b" HTTP/1.1", b"Host: x"]
    for name, value in headers:
        head.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")))
    if body or method in ("PUT", "POST"):
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body
