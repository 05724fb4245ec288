#!/usr/bin/env python3
"""Black-box conformance suite for Pushgateway servers.

    run.py --target-cmd 'CMD --listen 127.0.0.1:{port} {flags}' [--oracle PROGRAM] [--only REGEX]
    run.py record [--oracle PROGRAM] [--cases MODULE] [--out expected.json]
    run.py --target-cmd '...' --cases cases_public --expected expected.json [--later later.txt]

{port} is the loopback port, {dir} an empty folder, {flags} the flags of the case, in the spelling of
the official program. A command without {port} gets the address in the official spelling.
"""

import argparse
import importlib
import json
import re
import shutil
import sys
import time
from collections import Counter
from pathlib import Path

from harness import NotReady, PoolOfServers, observe
from wire import parse_text

HERE = Path(__file__).resolve().parent
DEFAULT_ORACLES = ("prometheus-pushgateway", "pushgateway")
BRIEF = 160


def load_cases(names):
    cases = []
    for name in names:
        cases += importlib.import_module(name).CASES
    ids = [case.id for case in cases]
    twice = {id for id in ids if ids.count(id) > 1}
    if twice:
        raise SystemExit(f"repeated case ids: {sorted(twice)}")
    return cases


def load_later(path, known):
    """Reads the cases that the target does not pass yet, with reasons: lines of `id reason`."""
    later = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        id, _, reason = line.strip().partition(" ")
        if id not in known:
            raise SystemExit(f"{path}:{number}: unknown case {id}")
        if id in later or not reason.strip():
            raise SystemExit(f"{path}:{number}: {id} is repeated or has no reason")
        later[id] = reason.strip()
    return later


def differences(want, got, path=""):
    """Yields (where, wanted, got) for each difference between two observations."""
    if isinstance(want, dict) and isinstance(got, dict):
        for key in sorted(set(want) | set(got)):
            if key not in want or key not in got:
                yield f"{path}.{key}", want.get(key, "absent"), got.get(key, "absent")
            else:
                yield from differences(want[key], got[key], f"{path}.{key}")
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        for index, (one, other) in enumerate(zip(want, got)):
            yield from differences(one, other, f"{path}[{index}]")
    elif want != got:
        yield path, want, got


def loosen(observation):
    """Removes what is not part of the contract: the error that ended a connection."""
    for step in observation["steps"]:
        step.pop("problem", None)
    return observation


def check_expect(case, got):
    """Yields the differences between a case's expected result and an observation."""
    expect = case.expect
    if "not ready" in got:
        yield ".ready", True, got["not ready"]
        return
    for index, (status, step) in enumerate(zip(expect.statuses, got["steps"], strict=True)):
        yield from differences(status, step.get("status"), f".steps[{index}].status")
        if status == 400 and step.get("message") == "none":
            yield f".steps[{index}].message", "some text", "none"
        for key, value in expect.extra.get(index, {}).items():
            yield from differences(value, step.get(key), f".steps[{index}].{key}")
    if expect.scrape is not None:
        want = parse_text(expect.scrape)
        for family in want.values():
            family["samples"].sort(key=lambda item: json.dumps(item[:2]))
        have = got["final"].get("families")
        if isinstance(have, dict):
            have = {name: family for name, family in have.items() if not name.startswith("push_")}
        want = {name: {**family, "samples": [[s, dict(sorted(l.items())), v] for s, l, v in family["samples"]]}
                for name, family in want.items()}
        yield from differences(want, have, ".families")


def brief(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= BRIEF else text[:BRIEF] + "..."


def observe_on(pool, case):
    try:
        server = pool.take(case)
    except NotReady as problem:
        return {"steps": [], "not ready": str(problem).splitlines()[-1]}
    try:
        return loosen(observe(server, case))
    finally:
        pool.give_back(server)


def find_oracle(given):
    for name in (given,) if given else DEFAULT_ORACLES:
        path = shutil.which(name)
        if path:
            return path
    raise SystemExit("no official program on PATH: install it, name it with --oracle, or use --expected")


def record(cases, oracle, out):
    pool = PoolOfServers(oracle)
    try:
        result = {case.id: observe_on(pool, case) for case in cases if not case.expect}
    finally:
        pool.close()
    lines = (f"{json.dumps(id)}: {json.dumps(result[id], sort_keys=True, ensure_ascii=False)}" for id in sorted(result))
    Path(out).write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(result)} results recorded in {out}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", choices=("run", "record"), default="run")
    parser.add_argument("--target-cmd", help="command of the server under test")
    parser.add_argument("--oracle", help="official program (default: looked up on PATH)")
    parser.add_argument("--expected", help="recorded results to use in place of an oracle")
    parser.add_argument("--out", default="expected.json", help="where record writes")
    parser.add_argument("--only", default="", help="regular expression on case ids")
    parser.add_argument("--cases", default=None, help="case modules, comma separated (default: all here)")
    parser.add_argument("--skip-newer", action="store_true",
                        help="skip cases that describe newer releases than the oracle's")
    parser.add_argument("--oracle-is-newest", action="store_true",
                        help="run the cases with expect= against the oracle, too: it is of the release that they describe")
    parser.add_argument("--later", help="file of cases that are run and printed, but may fail")
    parser.add_argument("--json", help="write all results to this file")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    options = parser.parse_args()

    modules = options.cases.split(",") if options.cases else sorted(p.stem for p in HERE.glob("cases_*.py"))
    cases = load_cases(modules)
    later = load_later(options.later, {case.id for case in cases}) if options.later else {}
    cases = [case for case in cases if re.search(options.only, case.id)]
    if options.skip_newer:
        cases = [case for case in cases if not case.expect]
    if not cases:
        parser.error("no case matches")
    if options.list:
        for case in cases:
            print(f"{case.id}: {case.purpose}")
        return 0
    if options.mode == "record":
        record(cases, find_oracle(options.oracle), options.out)
        return 0
    if not options.target_cmd:
        parser.error("--target-cmd is required")
    if options.oracle_is_newest and options.expected:
        parser.error("--oracle-is-newest needs a running oracle")

    recorded = json.loads(Path(options.expected).read_text()) if options.expected else None
    try:
        target = PoolOfServers(options.target_cmd)
        oracle = None if recorded is not None else PoolOfServers(find_oracle(options.oracle))
    except NotReady as problem:
        raise SystemExit(str(problem)) from problem
    results, failed, begin = [], 0, time.monotonic()
    postponed = Counter()
    try:
        for case in cases:
            got = observe_on(target, case)
            if case.expect and not options.oracle_is_newest:
                found = list(check_expect(case, got))
            else:
                if recorded is not None and case.id not in recorded:
                    raise SystemExit(f"no recorded result for {case.id}: run record again")
                want = recorded[case.id] if recorded is not None else observe_on(oracle, case)
                found = list(differences(want, got))
                if case.expect:
                    found += [(f" expected{where}", wanted, had) for where, wanted, had in check_expect(case, want)]
            if case.id in later and found:
                postponed[case.area] += 1
                print(f"LATER {case.id}: {later[case.id]}", flush=True)
            elif case.id in later:
                failed += 1
                print(f"FAIL {case.id}: passes; remove it from {options.later}", flush=True)
            elif found:
                failed += 1
                where, wanted, had = found[0]
                more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
                print(f"FAIL {case.id}: {case.purpose} | oracle: {where.lstrip('.')} = {brief(wanted)}"
                      f" | target: {brief(had)}{more}", flush=True)
            results.append({"id": case.id, "purpose": case.purpose, "passed": not found, "later": later.get(case.id),
                            "differences": [list(item) for item in found], "observed": got})
    finally:
        target.close()
        if oracle:
            oracle.close()
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"({time.monotonic() - begin:.1f} s)")
    closing = f"{len(cases) - failed - postponed.total()} passed, {failed} failed"
    if options.later:
        areas = ", ".join(f"{area} {count}" for area, count in sorted(postponed.items()))
        closing += f", {postponed.total()} later" + (f" ({areas})" if areas else "")
    print(closing)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
