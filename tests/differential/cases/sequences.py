"""Random sequences of pushes and deletes to several groups."""

import re

from cases.flags import FLAGS_PLAIN, FLAGS_UTF8
from cases.protobuf import delimited, pb_family
from observe import API, BARRIER, DELIMITED, PROTOBUF, RESTART, TEXT, WIPE, step


SEQ_GROUPS = ["/metrics/job/a", "/metrics/job/a/grp/1", "/metrics/job/b", "/metrics/job/a/x/1", "/metrics/job/b/instance/i"]


def seq_body(r, utf8=False):
    lines = []
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        name = r.choice(["m", "m", "n", "x", "x_count", "x_sum", "x_bucket", "x_total", "x", "y"] + (["a.b", "a_b", "é"] if utf8 else []))
        q = '"%s"' % name if utf8 and not re.fullmatch("[a-z_]+", name) else name
        kind = r.choice([None, "counter", "gauge", "counter", "histogram", "summary", "untyped"]) if r.random() < 0.97 else "gaugehistogram"
        if r.random() < 0.5:
            lines.append(f"# HELP {q} {r.choice(['h', 'h', 'other', ''])}")
        if kind:
            lines.append(f"# TYPE {q} {kind}")
        label = r.choice(["", "", '{x="1"}', '{x="2"}', '{a="1"}', '{a="2",b="1"}', '{instance="i"}', '{job="b"}', '{grp="1"}', '{le="1"}', '{quantile="0.5"}', '{a=""}', '{x="1",instance="i"}'])
        add = lambda more: "{" + ",".join(filter(None, [label.strip("{}"), more])) + "}"
        value = r.choice(["1", "2", "3.5", "NaN"])
        if kind in ("histogram", "gaugehistogram") and q == name:
            lines += [f"{name}_bucket{add('le=%s1%s' % (chr(34), chr(34)))} 1"] if "le=" not in label else []
            lines += [f"{name}_sum{label} {value}", f"{name}_count{label} 2"]
        elif kind == "summary" and q == name:
            lines += [f"{name}_sum{label} {value}", f"{name}_count{label} 2"]
        elif q == name:
            lines.append(f"{name}{label} {value}")
        else:
            lines.append("{" + ",".join(filter(None, [q, label.strip("{}")])) + "} " + value)
    if r.random() < 0.05:
        lines.append(r.choice(["m 1 5", "broken", "m 1 x"]))
    return "\n".join(lines) + "\n"


def seq_proto(r):
    return delimited([pb_family(r) for _ in range(r.choice([1, 1, 2]))])


def gen_steps(r, check, utf8, most=30):
    steps = []
    for _ in range(r.randrange(1, most)):
        c = r.random()
        group = r.choice(SEQ_GROUPS + (["/metrics/job/a/U__g_2e_g/1"] if utf8 else []))
        if c < 0.72:
            if r.random() < 0.1:
                steps.append(step(r.choice(["PUT", "POST"]), group, seq_proto(r), [("Content-Type", PROTOBUF)]))
            elif r.random() < 0.04:
                steps.append(step(r.choice(["PUT", "POST"]), group, b""))
            else:
                steps.append(step(r.choice(["PUT", "POST"]), group, seq_body(r, utf8)))
        elif c < 0.9:
            steps.append(step("DELETE", group))
        elif c < 0.92:
            steps.append(WIPE)
        else:
            steps += [BARRIER, TEXT]
        if not check and r.random() < 0.3:
            steps += [BARRIER, TEXT]
    return steps


def gen_sequence(r):
    utf8, check = r.random() < 0.2, r.random() < 0.75
    flags = (FLAGS_UTF8 if utf8 else FLAGS_PLAIN) + (() if check else ("--push.disable-consistency-check",))
    return flags, [WIPE] + gen_steps(r, check, utf8) + [BARRIER, TEXT, API, DELIMITED]


def gen_restart(r):
    utf8 = r.random() < 0.2
    return (FLAGS_UTF8 if utf8 else FLAGS_PLAIN) + ("persist",), [WIPE] + gen_steps(r, True, utf8, 20) + [BARRIER, TEXT, RESTART, TEXT, API, DELIMITED]
