"""Responses, reduced to what is compared."""

import gzip
import json
import re
import struct
import zlib

from messages import FAMILY, decode, varint

# Families of the programs themselves.
OWN = ("go_", "process_", "pushgateway_", "promhttp_", "sluicegate_")
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"


def see_proto(body):
    families, pos = [], 0
    while pos < len(body):
        size, pos = varint(body, pos)
        family = decode(body[pos:pos + size], FAMILY)
        pos += size
        name = family.get("name", "")
        if name.startswith(OWN):
            continue
        if name in ("push_time_seconds", "push_failure_time_seconds"):
            for metric in family.get("metric", []):
                if "gauge" in metric and metric["gauge"].get("value") != "0.0":
                    metric["gauge"] = "T"
        for metric in family.get("metric", []):
            for pair in metric.get("label", []):
                pair.setdefault("value", "")
            for key in ("gauge", "counter", "untyped"):
                value_of(metric.get(key))
            for key in ("summary", "histogram"):  # an absent zero means the same as a zero
                if isinstance(metric.get(key), dict):
                    for part in metric[key].get("quantile", []) + metric[key].get("bucket", []):
                        for name in ("quantile", "value", "bound"):
                            if part.get(name) == "0.0":
                                del part[name]
                    parts = [metric[key]] + metric[key].get("bucket", [])
                    if key == "histogram" and any(part.get("countf", "0.0") != "0.0" for part in parts):  # then all counts are floats
                        for part in parts:
                            if part.get("countf", "0.0") == "0.0" and "count" in part:
                                part["countf"] = repr(float(part.pop("count")))
                    for part in parts:
                        if part.get("countf") == "0.0":
                            del part["countf"]
                    for part in parts:
                        for name, zero in (("count", 0), ("sum", "0.0")):
                            if part.get(name) == zero:
                                del part[name]
        family["metric"] = in_groups(family.get("metric", []), lambda m: [(p.get("name"), p.get("value", "")) for p in m.get("label", [])])
        family.setdefault("type", 0)
        families.append(family)
    return families


# The labels that distinguish groups.
GROUPING = ("job", "grp", "x", "instance", "g.g", "g_g", "U__g_2e_g")


def in_groups(items, labels):
    """Sorts the groups, whose order is unspecified, and keeps the order within each."""
    return sorted(items, key=lambda item: [str(dict(labels(item)).get(name, "")) for name in GROUPING])


LABEL = re.compile(r'[{,]"?(job|grp|x|instance|g\.g|g_g|U__g_2e_g)"?="((?:[^"\\]|\\.)*)"')


def see_text(body):
    """Pushed families as lists of lines, with push times masked."""
    families, current = [], None
    for line in body.decode("utf-8", "backslashreplace").split("\n"):
        if line.startswith("# HELP ") or line.startswith("# TYPE "):
            name = line[7:].split(" ")[0]
            if not current or current[0] != name:
                current = [name, [], []]
                families.append(current)
            current[1].append(line)
        elif current:
            if line.startswith(("push_time_seconds{", "push_failure_time_seconds{")):
                head, _, value = line.rpartition(" ")
                line = head + (" 0" if value == "0" else " T")
            if line:
                current[2].append(line)
    return [head + in_groups(lines, LABEL.findall) for name, head, lines in families if not name.startswith(OWN)]


def see_api(body):
    document = json.loads(body)
    groups = []
    for group in document.get("data") or []:
        for name, family in group.items():
            if name in ("labels", "last_push_successful"):
                continue
            family.pop("time_stamp", None)
            for metric in family["metrics"]:
                if isinstance(metric.get("count"), str):
                    metric["count"] = repr(float(metric["count"]))
                if isinstance(metric.get("buckets"), dict):
                    metric["buckets"] = {bound: repr(float(count)) for bound, count in metric["buckets"].items()}
            # Difference 5: the order in the API is unspecified.
            family["metrics"].sort(key=lambda metric: json.dumps(metric["labels"], sort_keys=True))
            if name in ("push_time_seconds", "push_failure_time_seconds"):
                for metric in family["metrics"]:
                    metric["value"] = "0" if metric.get("value") == "0" else "T"
        groups.append(group)
    groups.sort(key=lambda group: json.dumps(group["labels"], sort_keys=True))
    return [document.get("status"), groups]


def value_of(part):
    if isinstance(part, dict) and part.get("value") == "0.0":
        del part["value"]


def clean_error(body):
    """The text of an error, without the metric in braces; all inconsistencies in one line."""
    text = body.decode("utf-8", "backslashreplace")
    text = re.sub(r"  +", " ", text.replace("\xa0", " "))
    if text.startswith(INCONSISTENT):
        text = re.sub(r" \{ (?:[^\n])*\}", "", text)
        text = re.sub(r"\d+ error\(s\) occurred:\n\* ", "", text)
        return INCONSISTENT + " | ".join(sorted({line.strip() for line in text[len(INCONSISTENT):].split("\n* ")}))
    return text.strip()


INCONSISTENT = "pushed metrics are invalid or inconsistent with existing metrics: "


def same_errors(a, b):
    """Whether the target names one of the errors that the oracle lists in any order."""
    if not (isinstance(a, str) and isinstance(b, str) and a.startswith(INCONSISTENT) and b.startswith(INCONSISTENT)):
        return False
    return set(b[len(INCONSISTENT):].split(" | ")) <= set(a[len(INCONSISTENT):].split(" | "))


KEEP = {"path": ("location", "allow"), "accept": ("content-type", "content-encoding")}


def see(step, status, headers, body):
    """What is compared of a response."""
    seen = {"status": "redirect" if status in (301, 307, 308, 302) else status}
    if status == 400:
        seen["text"] = clean_error(body)
    for name in step.get("keep", ()):
        seen[name] = re.sub(r"\s", "", headers.get(name, ""))
        if name == "allow":
            seen[name] = ",".join(sorted(seen[name].split(",")))
    if status == 200 and step["method"] == "GET":
        if headers.get("content-encoding") == "gzip":
            try:
                body = gzip.decompress(body)
            except (OSError, zlib.error) as problem:
                return {**seen, "unreadable": repr(problem)}
        try:
            if "/api/" in step["path"]:
                seen["api"] = see_api(body)
            elif "protobuf" in headers.get("content-type", ""):
                seen["proto"] = see_proto(body)
            else:
                seen["text"] = see_text(body)
        except (ValueError, KeyError, IndexError, struct.error) as problem:
            seen["unreadable"] = repr(problem)
    elif status >= 500:
        seen["text"] = clean_error(body)[:300]
    return seen

def step(method, path, body=b"", headers=(), keep=()):
    return {"method": method, "path": path, "body": body if isinstance(body, bytes) else body.encode(), "headers": list(headers), "keep": keep}


TEXT = step("GET", "/metrics")
API = step("GET", "/api/v1/metrics")
DELIMITED = step("GET", "/metrics", headers=[("Accept", PROTOBUF)])
WIPE = step("PUT", "/api/v1/admin/wipe")
BARRIER = {"method": "barrier", "path": "", "body": b"", "headers": [], "keep": ()}
RESTART = {"method": "restart", "path": "", "body": b"", "headers": [], "keep": ()}
