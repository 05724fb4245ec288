"""Finds the first difference between the responses of both programs, and its signature."""

import json
import re
import urllib.parse

from observe import INCONSISTENT, same_errors


def without_help(answers):
    result = []
    for answer in answers:
        answer = dict(answer)
        if isinstance(answer.get("text"), list):
            answer["text"] = [[line for line in family if not line.startswith("# HELP")] for family in answer["text"]]
        if "proto" in answer:
            answer["proto"] = [{key: value for key, value in family.items() if key != "help"} for family in answer["proto"]]
        result.append(answer)
    return result


def mask(value):
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    text = re.sub(r'"(?:[^"\\]|\\.)*"', '"…"', text)
    text = re.sub(r"'(?:[^'\\]|\\.)+'", "'…'", text)
    text = re.sub(r"0x[0-9a-fA-F]+", "0xN", text)
    return re.sub(r"[0-9]+", "N", text)[:160]


def first_difference(a, b, path=""):
    if type(a) != type(b):
        return path, a, b
    if isinstance(a, dict):
        for key in sorted(set(a) | set(b)):
            if a.get(key) != b.get(key):
                if key not in a or key not in b:
                    return f"{path}.{key}", a.get(key, "(absent)"), b.get(key, "(absent)")
                return first_difference(a[key], b[key], f"{path}.{key}")
    if isinstance(a, list):
        for x, y in zip(a, b):
            if x != y:
                return first_difference(x, y, path + "[]")
        return path + "[]", a[len(b):][:1] or "(end)", b[len(a):][:1] or "(end)"
    return path, a, b


def kind_of_line(value):
    if isinstance(value, str):
        if value.startswith("#"):
            return value.split(" ")[1]
        match = re.search(r" ([^ ]*)$", value)
        number = match[1] if match else value
        return "sample" if re.match(r"[a-zA-Z_:{]", value) else mask(number)
    return mask(value)


def compare(steps, oracle, target):
    """None, or a signature, the response of the oracle and that of the target."""
    unread, several = False, any(s["method"] == "barrier" for s in steps)
    if several:  # with several groups, the oracle shows any of their help texts
        oracle, target = without_help(oracle), without_help(target)
    for s, a, b in zip(steps, oracle, target):
        if unread and len(steps) < 7 and s["method"] == "GET" and not any(s["method"] == "barrier" for s in steps):
            return None  # the oracle deletes a little later, and no step waited for that
        unread = unread or s["method"] in ("PUT", "POST") and a.get("status") == b.get("status") == 400 and INCONSISTENT not in str(a.get("text"))
        if a == b or a.get("status") == b.get("status") == 400 and (several or same_errors(a.get("text"), b.get("text"))):
            continue  # in sequences, the texts of the oracle depend on the order of a map
        what = s["method"] + (" " + s["path"].split("?")[0] if s["method"] == "GET" and len(s["path"]) < 20 else "")
        if a.get("status") != b.get("status"):
            sign = (what, "status", str(a.get("status")), str(b.get("status")), mask(a.get("text", "")) if a["status"] != 200 else "",
                    mask(b.get("text", "")) if b["status"] != 200 else "")
            return sign, short(a), short(b)
        where, x, y = first_difference(a, b)
        if where == ".location" and x and y:
            return (what, where, location_class(x, y)), f"{where}: {x!r}"[:700], f"{where}: {y!r}"[:700]
        for key in ("text", "proto", "api"):
            if key in a and key in b and a[key] != b[key] and unordered(a[key]) == unordered(b[key]):
                return (what, key, "another order"), f"{where}: {x!r}"[:700], f"{where}: {y!r}"[:700]
        if s["method"] == "GET":
            sign = (what, re.sub(r"\.[a-zA-Z_0-9:]{1,2}\b", ".…", where), kind_of_line(x), kind_of_line(y))
        else:
            sign = (what, where, mask(x), mask(y))
        return sign, f"{where}: {x!r}"[:700], f"{where}: {y!r}"[:700]
    return None

def location_class(a, b):
    a, b = (part.encode("latin1", "replace").decode("utf-8", "replace") for part in (a, b))
    path_a, _, query_a = a.partition("?")
    path_b, _, query_b = b.partition("?")
    for _ in range(3):
        path_a, path_b = urllib.parse.unquote(path_a), urllib.parse.unquote(path_b)
    if path_a == path_b:
        return "only the encoding differs" if urllib.parse.unquote(query_a) == urllib.parse.unquote(query_b) else "another query"
    if path_b.startswith("/api/v1/") and path_b == "/api/v1" + path_a:
        return "prefix dropped"
    if path_a.rstrip("/") == path_b.rstrip("/"):
        return "slash at the end"
    return "other path, // inside" if "//" in path_b else "other path"


def unordered(value):
    if isinstance(value, list):
        return sorted((unordered(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if isinstance(value, dict):
        return {key: unordered(item) for key, item in value.items()}
    return value


def short(answer):
    text = answer.get("text", "")
    return f"{answer.get('status')} {text if isinstance(text, str) else ''}"[:500]
