"""The differences that docs/compatibility.md documents, recognised by their requests and responses.

Each rule returns whether it explains a difference. Its label is the number of the difference, and a word about the case.
"""

import re

from messages import families_of, types_of
from observe import INCONSISTENT, PROTOBUF

CHECK_OFF = "--push.disable-consistency-check"
UTF8_NAMES = "--push.enable-utf8-names"
ACCEPTED = ("200", "202")


class Found:
    """A difference with all that the rules look at."""

    def __init__(self, flags, steps, oracle, target, difference):
        self.signature, self.official, self.ours = difference
        if self.signature[0] == "import":
            self.signature = self.signature[1:]
        self.flags, self.steps, self.oracle, self.target = flags, steps, oracle, target
        self.where, self.rest = self.signature[1], self.signature[2:]
        self.body = b"\n".join(step["body"] for step in steps)
        self.is_get = self.signature[0].startswith("GET")
        self.protobuf_bodies = [step["body"] for step in steps if ("Content-Type", PROTOBUF) in step["headers"]]
        self.is_protobuf = bool(self.protobuf_bodies)
        self.has_several_groups = any(step["method"] == "barrier" for step in steps)
        self.has_gauge_histogram = self.is_protobuf or re.search(rb"(?i)gauge_?histogram", self.body) is not None
        self.has_braces = re.search(rb"^[ \t]*\{", self.body, re.M) is not None
        self.official_accepts = self.official.startswith(ACCEPTED)
        self.is_text = self.where == ".text"

    def headers(self, name):
        return [value for step in self.steps for key, value in step["headers"] if key == name]

    def ours_has(self, *texts):
        return any(text in self.ours for text in texts)

    def official_has(self, *texts):
        return any(text in self.official for text in texts)

    def both_inconsistent(self):
        return INCONSISTENT in self.official and INCONSISTENT in self.ours


def failures(answers):
    """The lines of failure times, in all responses to scrapes."""
    texts = [answer["text"] for answer in answers if isinstance(answer.get("text"), list)]
    lines = (line for text in texts for family in text for part in family for line in (part if isinstance(part, list) else [part]))
    return {line for line in lines if line.startswith("push_failure_time_seconds{") and line.endswith(" T")}


def check_is_always_on(d):
    if CHECK_OFF not in d.flags:
        return False
    return (d.official.startswith("500") or failures(d.target) - failures(d.oracle) or any(answer.get("status") == 500 for answer in d.oracle)
            or "no answer" in d.official
            or (d.is_get and (d.has_gauge_histogram or UTF8_NAMES in d.flags)))


def breaks_a_scrape(d):
    reasons = ("native histogram", 'must not have an explicit "le" label', "an exemplar has a label that is not utf8",
               "has the unknown type", "is not a HISTOGRAM", "is not a GAUGE_HISTOGRAM", "is not a gauge_histogram")
    return d.ours_has(*reasons) and (d.official_accepts or d.both_inconsistent())


def gauge_histogram_or_histogram(d):
    return d.has_gauge_histogram and d.official_accepts and d.ours_has("gathered metric family", "collides with previously collected histogram")


def family_without_metrics(d):
    is_empty = any(not family.get("metric") for body in d.protobuf_bodies for family in families_of(body))
    return is_empty and d.official_accepts and d.ours_has("gathered metric family", "is not a ", "collides with previously collected")


def foreign_value(d):
    return d.is_protobuf and "must not have an explicit" in d.official and d.ours.startswith(ACCEPTED)


def unnamed_family(d):
    unnamed = any(sum(not family.get("name") for family in families_of(body)) > 1 for body in d.protobuf_bodies)
    return unnamed and d.official_accepts and d.ours_has("must not have timestamps")


def unknown_type(d):
    return any(not 0 <= kind <= 5 for body in d.protobuf_bodies for kind in types_of(body))


def text_of_an_inconsistency(d):
    return (d.is_text or d.where == "status") and d.both_inconsistent()


def failure_before_parsing(d):
    """A form that is an error of the parser here, and inconsistent there or the reverse."""
    return d.is_text and d.has_braces and "parsing error" in d.ours


def protobuf_errors(d):
    return "protobuf parsing error" in d.ours and re.search(r"proto: |unexpected EOF|EOF|parsing error|no answer", d.official) is not None


def decoder_errors(d):
    return re.search("gzip: |snappy: ", d.ours) is not None and (d.official.startswith("400") or d.is_text)


def accept_encoding(d):
    odd = re.compile(r"q=2|x=y|Q=|q=x|q=0\.0001| ;|,,|GZIP|^,|, ,|,$|^$|identity;q=0")
    return d.where == ".content-encoding" and any(odd.search(value) for value in d.headers("Accept-Encoding"))


def float_counts(d):
    if not d.where.startswith((".api", ".proto", ".text[]")):
        return False
    return (re.search(r"countf|nan|NaN", d.official + d.ours) is not None and ("nan" in d.body.decode("latin1").lower() or d.is_protobuf)) \
        or (d.is_protobuf and re.search(r" (-[^ ]*|NaN)'?$", d.official) is not None)


LABEL = re.compile(r'([a-zA-Z_0-9]+|"[^"]*")\s*=\s*"((?:[^"\\\\]|\\\\.)*)"')


def labels_of_series(text):
    """The labels in a line, without those that distinguish the lines of one series."""
    return sorted(pair for pair in LABEL.findall(text) if pair[0].strip('"') not in ("le", "quantile"))


def two_counts(d):
    """A body with several counts of one series."""
    lines = [line for line in d.body.decode("latin1").split("\n") if re.search(r'_count[ \t{]|_count"', line)]
    series = [labels_of_series(line) for line in lines]
    several = any(labels in series[:at] for at, labels in enumerate(series))
    return several and d.where.startswith((".text", ".proto", ".api")) and ("count" in d.where or "buckets" in d.where or re.search("_bucket|_count", d.official + d.ours))


def clamped_count(d):
    large = re.search(r"9\.223372036854776e\+18|1\.8446744073709552e\+19|9223372036854775808|18446744073709551615", d.official + d.ours)
    return large is not None and d.where.startswith((".text", ".proto", ".api"))


def api_of_gauge_histograms(d):
    return d.has_gauge_histogram and d.where.startswith(".api") and re.search(r"\.(buckets|value|count|sum)", d.where) is not None


def equal_values(d):
    """Series with equal label values, which the oracle leaves in the order of the push."""
    if d.where.startswith(".proto") and d.where.endswith("label[].name"):
        return True
    official, ours = labels_of_series(d.official), labels_of_series(d.ours)
    values = lambda labels: [value for _, value in labels]
    return d.where == ".text[][]" and official != ours and values(official) == values(ours)


def raw_characters(d):
    """A path with a character that must be escaped, beside an encoded slash: the oracle redirects to a path without `//`."""
    paths = [step["path"].partition("?")[0] for step in d.steps]
    return any(re.search('["#<>`]', path) and re.search("%2[ef]", path, re.IGNORECASE) for path in paths)


def colons(d):
    plain = lambda text: re.sub("[:_]", "_", text.partition("{")[2])
    return UTF8_NAMES in d.flags and d.where == ".text[][]" and ":" in d.official and plain(d.official) == plain(d.ours)


def escaped_names(d):
    return UTF8_NAMES in d.flags and d.ours_has("after escaping for scrapers", "it is reserved after decoding")


RULES = [
    ("1: the consistency check is always on", check_is_always_on),
    ("21: redirects are escaped once, and stay below the API", lambda d: d.where == ".location" and d.rest[0] in ("only the encoding differs", "prefix dropped")),
    ("21: the case of a path with job@base64 is corrected", lambda d: d.where == "status" and d.rest[:2] == ("404", "redirect") and any("base64" in s["path"] or "%40" in s["path"] for s in d.steps)),
    ("21: raw characters beside an encoded slash or dot", lambda d: (d.where == ".location" or d.rest[:1] == ("redirect",)) and raw_characters(d)),
    ("17: there are no files below /static/", lambda d: d.is_get and any(s["path"].startswith("/static/") for s in d.steps)),
    ("6: a job that is not base64", lambda d: "invalid base64 encoding in job name" in d.ours and "no answer" in d.official),
    ("14: names that collide after escaping, or are reserved after decoding", escaped_names),
    ("14: colons in label names are escaped", colons),
    ("2: grouping values that are not UTF-8", lambda d: "is not valid UTF-8" in d.ours),
    ("2: a length in protobuf beyond the body", lambda d: "no answer" in d.official and "protobuf parsing error" in d.ours),
    ("4: names in protobuf", lambda d: d.is_protobuf and d.ours_has("invalid metric name", "has a label with an invalid name") and (d.official_accepts or d.both_inconsistent())),
    ("4: values that do not belong to the type", lambda d: re.search(r"^\.proto.*\.(counter|gauge|untyped|summary|histogram)$", d.where) is not None and "(absent)" in d.ours),
    ("4: labels beside a value that does not belong to the type", foreign_value),
    ("4: a family without a name that is replaced", unnamed_family),
    ("2: a type that does not exist", unknown_type),
    ("2: a push that breaks a scrape", breaks_a_scrape),
    ("2: a family is a histogram or a gauge histogram", gauge_histogram_or_histogram),
    ("2: a family without metrics has a type", family_without_metrics),
    ("2: a gauge histogram reserves the names of its parts", lambda d: d.has_gauge_histogram and "collides with previously collected histogram" in d.ours),
    ("3: HELP that is not UTF-8", lambda d: "HELP" in d.signature and "\\x" in d.official),
    ("22: text of protobuf errors", protobuf_errors),
    ("22: text of decoding errors", decoder_errors),
    ("22: which inconsistency is named", text_of_an_inconsistency),
    ("23: Accept-Encoding", accept_encoding),
    ("24: reserved flags in a gzip header", lambda d: "gzip" in d.ours and d.official_accepts),
    ("25: letters of types that are not ASCII", lambda d: "unknown metric type" in d.ours and re.search("ı|ſ|K", d.body.decode("utf-8", "replace")) is not None),
    ("12: the API shows the buckets of gauge histograms", api_of_gauge_histograms),
    ("10: the last of two counts", two_counts),
    ("10: a count is clamped", clamped_count),
    ("10: a sample without a name before its braces", lambda d: d.has_braces and "no answer" in d.official and d.ours.startswith(("400", "200"))),
    ("10: a sample without any name", lambda d: d.has_braces and d.official_accepts and "invalid metric name" in d.ours),
    ("10: samples of the form {…}", failure_before_parsing),
    ("26: counts that are floats", float_counts),
    ("5: order of series with equal values", equal_values),
    ("5: order", lambda d: d.where in ("api", "text", "proto") and d.rest == ("another order",)),
    ("13: only the delimited form of protobuf", lambda d: d.where == ".content-type" and d.official_has("encoding=text", "encoding=compact-text")),
]


def known(flags, steps, oracle, target, difference):
    """The documented difference that explains this one, or None."""
    found = Found(flags, steps, oracle, target, difference)
    return next((label for label, explains in RULES if explains(found)), None)
