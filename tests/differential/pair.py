"""Both programs with the same flags."""

import time

from observe import see
from servers import Gone, Server, request


class Pair:
    """The official program (the oracle) and the program under test (the target)."""

    counter = 0

    def __init__(self, arguments, flags=(), persist=False):
        self.oracle = Server(arguments.oracle_cmd, flags, persist=persist)
        self.target = Server(arguments.target_cmd, flags, persist=persist)
        self.flags, self.persist = flags, persist
        self.check = "--push.disable-consistency-check" not in flags

    def end(self):
        self.oracle.end()
        self.target.end()

    def barrier(self, server):
        """Waits until the server has applied what it accepted."""
        if self.check:
            server.ask("PUT", "/metrics/job/zz")
            server.ask("DELETE", "/metrics/job/zz")
            server.ask("PUT", "/metrics/job/zz")
            return
        Pair.counter += 1
        want = b"0.7%06d1" % Pair.counter
        path = "/metrics" if server is self.target else "/api/v1/metrics"
        for body, there in ((b"barrier " + want + b"\n", True), (b"barrier 0\n", False)):
            server.ask("PUT", "/metrics/job/zz", body=body)
            end = time.monotonic() + 1
            while time.monotonic() < end:
                try:
                    if (want in server.ask("GET", path)[2]) == there:
                        break
                except Gone:  # the oracle aborts responses with some inconsistent groups
                    time.sleep(0.05)
                    break
                time.sleep(0.001)

    def run(self, steps):
        """The responses of both programs, step by step."""
        pipelined = all(s["method"] not in ("barrier", "restart") and not s.get("alone") for s in steps)
        result = []
        if pipelined:
            data = b"".join(request(s["method"], s["path"], s["headers"], s["body"]) for s in steps)
            for server in (self.oracle, self.target):
                for _ in (0, 1):
                    try:
                        server.send(data)
                        break
                    except (OSError, Gone):
                        server.close_socket()
        for server in (self.oracle, self.target):
            answers, piped = [], pipelined
            for index, s in enumerate(steps):
                if s["method"] == "barrier":
                    self.barrier(server)
                    answers.append({})
                    continue
                if s["method"] == "restart":
                    server.stop()
                    server.start()
                    answers.append({})
                    continue
                try:
                    if piped and server.sock:
                        answer = server.read()
                    else:
                        piped = False
                        answer = server.ask(s["method"], s["path"], s["headers"], s["body"])
                    answers.append(see(s, *answer))
                except (Gone, OSError, ValueError, IndexError) as problem:
                    server.close_socket()
                    piped = False
                    answers.append({"status": f"no answer ({problem})"})
            result.append(answers)
        return result
