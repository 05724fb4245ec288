#!/usr/bin/env python3
"""Starts a gateway with --storage.backend and --storage.path instead of --persistence.file, to run the persistence cases with
any storage engine.

    python3 tests/conformance/run.py --only '^persist-' --target-cmd \\
        'python3 tests/conformance/with_engine.py sled target/release/sluicegate --web.listen-address=127.0.0.1:{port} {flags}'
"""

import os
import sys

engine, program, *flags = sys.argv[1:]
name = "--persistence.file="
paths = [flag.removeprefix(name) for flag in flags if flag.startswith(name)]
flags = [flag for flag in flags if not flag.startswith(name)]
if paths and paths[-1]:
    flags += [f"--storage.backend={engine}", f"--storage.path={paths[-1]}.{engine}"]
os.execv(program, [program, *flags])
