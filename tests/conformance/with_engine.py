#!/usr/bin/env python3
"""Starts a gateway whose --persistence.file is a store of another engine, so that the cases of persistence can be put to it.

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
