#!/usr/bin/env python3
"""Sends the same random requests to two programs and compares the responses. See README.md."""

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
import time

from cases import GENERATORS
from cases.flags import FLAGS_PLAIN
from compare import compare
from known import known
from observe import BARRIER, PROTOBUF, see
from pair import Pair
from servers import Server


class Fuzz:
    def __init__(self, arguments):
        self.arguments, self.pairs = arguments, {}
        self.kind = arguments.kind
        self.cases, self.seen, self.known = 0, {}, collections.Counter()
        self.trouble = collections.Counter()

    def pair(self, flags):
        """The programs for this kind and these flags, so that kinds do not influence each other."""
        key = (self.kind, flags)
        pair = self.pairs.get(key)
        if pair and (pair.oracle.process.poll() is not None or pair.target.process.poll() is not None):
            side = "oracle" if pair.oracle.process.poll() is not None else "target"
            print(f"note: the {side} ended by itself", flush=True)
            self.trouble[f"{side} ended by itself"] += 1
            pair.end()
            pair = None
        if not pair:
            pair = self.pairs[key] = Pair(self.arguments, [f for f in flags if f != "persist"], "persist" in flags)
        return pair

    def try_case(self, flags, steps):
        pair = self.pair(flags)
        oracle, target = pair.run(steps)
        difference = compare(steps, oracle, target)
        reason = None
        if difference:
            reason = known(flags, steps, oracle, target, difference)
        if "persist" in flags and not difference:
            difference = self.imported(pair, steps, oracle)
            reason = difference and known(flags, steps, oracle, target, difference)
        for name, answers in (("oracle", oracle), ("target", target)):
            for answer in answers:
                if str(answer.get("status", "")).startswith("no answer"):
                    self.trouble[f"{name}: {answer['status']}"] += 1
        return difference, reason

    def imported(self, pair, steps, oracle):
        """Compares what the target imports from the file that the oracle wrote when it stopped."""
        source = os.path.join(pair.oracle.dir, "store")
        last = max((index for index, s in enumerate(steps) if s["method"] == "restart"), default=len(steps))
        rest = [(s, answer) for s, answer in zip(steps[last:], oracle[last:]) if s["method"] == "GET"]
        if not rest or not os.path.exists(source):
            return None
        directory = tempfile.mkdtemp(prefix="dfuzz-")
        shutil.copyfile(source, os.path.join(directory, "store"))
        server = Server(self.arguments.target_cmd, pair.flags, directory, True)
        try:
            answers = [see(s, *server.ask(s["method"], s["path"], s["headers"], s["body"])) for s, _ in rest]
        finally:
            server.end()
        difference = compare([s for s, _ in rest] + [BARRIER], [answer for _, answer in rest] + [{}], answers + [{}])
        return difference and (("import",) + difference[0], difference[1], difference[2])

    def one(self, label, flags, steps):
        self.cases += 1
        difference, reason = self.try_case(flags, steps)
        if not difference:
            return
        if reason:
            self.known[reason] += 1
            if not self.arguments.show_known:
                return
        sign = (reason,) if reason else difference[0]
        if sign in self.seen:
            self.seen[sign] += 1
            return
        again, reason = self.try_case(flags, steps)  # again, to ignore differences that do not recur
        if not again or ((reason,) if reason else again[0]) != sign:
            self.trouble["not seen again: " + " / ".join(map(str, sign))[:150]] += 1
            return
        self.seen[sign] = 1
        if not self.arguments.no_minimise:
            steps, difference = self.minimise(flags, steps, difference, sign)
        words = [f for f in flags if f not in FLAGS_PLAIN]
        for s in steps:
            if s["method"] not in ("GET", "barrier") or s["headers"] or s is steps[1]:
                words.append(" ".join([s["method"], s["path"]] + [f"[{k}: {v}]" for k, v in s["headers"] if v != PROTOBUF] + ["(protobuf)" for _, v in s["headers"] if v == PROTOBUF]
                                      + ([repr(s["body"])[1:] if len(s["body"]) < 1500 else repr(s["body"][:1500])[1:] + "..."] if s["body"] else [])))
        print("DIFF", label, " / ".join(str(part) for part in sign if part), "|", " ; ".join(words), "| official:", difference[1].replace("\n", "\\n"),
              "| target:", difference[2].replace("\n", "\\n"), flush=True)

    def minimise(self, flags, steps, difference, sign):
        budget = [300 if "persist" not in flags else 25]
        end = time.monotonic() + (8 if len(steps) < 7 else 5)

        def same(candidate):
            if budget[0] <= 0 or time.monotonic() > end:
                return None
            budget[0] -= 1
            found, reason = self.try_case(flags, candidate)
            return found if found and ((reason,) if reason else found[0]) == sign else None

        index = 1  # whole steps first
        while index < len(steps) and len(steps) > 2:
            found = same(steps[:index] + steps[index + 1:]) if steps[index]["method"] != "restart" else None
            if found:
                steps, difference = steps[:index] + steps[index + 1:], found
            else:
                index += 1
        for index, s in enumerate(steps):
            for pieces in (lambda b: b.splitlines(True), lambda b: [b[i:i + 1] for i in range(len(b))]):
                if ("Content-Type", PROTOBUF) in s["headers"] or len(s["body"]) > 4000:
                    break
                parts = pieces(s["body"])
                size = max(1, len(parts) // 2)
                while size and len(parts) > 1:
                    at = 0
                    while at < len(parts):
                        rest = parts[:at] + parts[at + size:]
                        candidate = steps[:index] + [{**s, "body": b"".join(rest)}] + steps[index + 1:]
                        found = same(candidate) if rest else None
                        if found:
                            parts, steps, difference = rest, candidate, found
                        else:
                            at += size
                    size //= 2
                s = steps[index]
        return steps, difference

    def run(self):
        a = self.arguments
        end = time.monotonic() + a.seconds
        kinds = [a.kind] if a.kind else list(GENERATORS)
        index = a.start
        while time.monotonic() < end and (not a.cases or index - a.start < a.cases):
            kind = self.kind = kinds[index % len(kinds)]
            r = random.Random(f"{a.seed}/{kind}/{index}")
            flags, steps = GENERATORS[kind](r)
            self.one(f"{kind}#{index}", flags, steps)
            index += 1
        for (kind, flags), pair in self.pairs.items():
            print("usage", kind, " ".join(flags), "target", pair.target.first, "->", pair.target.usage(), "official", pair.oracle.first, "->", pair.oracle.usage())
        for text, count in self.known.most_common():
            print(f"known {count}x: {text}")
        for text, count in self.trouble.most_common():
            print(f"note {count}x: {text}")
        for sign, count in sorted(self.seen.items(), key=lambda item: -item[1])[:60]:
            print(f"count {count}x:", " / ".join(str(part) for part in sign if part)[:300])
        print(f"{self.cases} cases, {len(self.seen)} differences")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target-cmd", required=True)
    parser.add_argument("--oracle-cmd", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--kind", choices=[*GENERATORS])
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--cases", type=int, default=0, help="how many cases at most; 0: as many as the time allows")
    parser.add_argument("--no-minimise", action="store_true")
    parser.add_argument("--show-known", action="store_true")
    fuzz = Fuzz(parser.parse_args())
    try:
        fuzz.run()
    finally:
        for pair in fuzz.pairs.values():
            pair.end()
    sys.exit(1 if fuzz.seen else 0)


if __name__ == "__main__":
    main()
