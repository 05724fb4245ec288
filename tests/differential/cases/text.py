"""Random text bodies."""

import struct

from cases.flags import FLAGS_PLAIN, FLAGS_UTF8
from observe import API, DELIMITED, TEXT, step


NUMBERS = ["0", "-0", "+0", "1", "-1", "42", "1.5", ".5", "5.", "+.5", "-.5e-3", "1e3", "1E3", "1e+3", "1e03", "1e", "e1", ".", "-", "+", "",
           "1e308", "1e309", "-1e309", "1e400", "1e-323", "4.9e-324", "2.5e-324", "2.4703282292062327e-324", "2.4703282292062328e-324",
           "1e-400", "2.2250738585072014e-308", "2.2250738585072011e-308", "1.7976931348623157e308", "1.7976931348623158e308",
           "1.7976931348623159e308", "1e99999999999", "1e-99999999999", "0e99999999999", "0x1p4", "0X1P-2", "0x1", "0x.8p1", "0x1_0p0", "1_000",
           "_1", "0b1", "0o7", "inf", "Inf", "INF", "+inf", "-Inf", "infinity", "Infinity", "+Infinity", "-INFINITY", "infi", "iNf", "infinit",
           "nan", "NaN", "NAN", "+nan", "-nan", "nAn", "NaN()", "nan1", "1f", "1d", "1,5", "1'000", "９", "1e1.5", "--1", "1-", "0x", "1e+",
           "9007199254740993", "9007199254740992", "18446744073709551615", "18446744073709551616", "9223372036854775807", "-9223372036854775808",
           "123456789012345678901234567890", "1e21", "1e20", "999999999999999999999", "100000", "1000000", "123456789", "0.000001", "0.0000001",
           "1e-5", "0.0001", "0.00001", "12345678.9", "1e6", "1e7", "3.0", "1.0", "true", "null", "1e22", "1e23", "8.41e21", "5e-324", "0.1", "0.3",
           "9.5367431640625e-07", "000001", "1.00000000000000000000001", "0." + "0" * 400 + "1", "1" + "0" * 310, "1" + "0" * 400 + "e-400",
           "9" * 800 + "e-790"]


def number(r):
    c = r.random()
    if c < 0.35:
        return r.choice(NUMBERS)
    if c < 0.5:
        return str(r.randrange(-3, 30))
    if c < 0.6:
        return repr(struct.unpack("<d", r.randbytes(8))[0])
    if c < 0.7:  # the middle between two doubles, exactly
        from fractions import Fraction
        bits = r.getrandbits(63) % 0x7FE0000000000000
        a, b = (struct.unpack("<d", struct.pack("<Q", bits + d))[0] for d in (0, 1))
        middle = (Fraction(a) + Fraction(b)) / 2
        from decimal import Decimal, getcontext
        getcontext().prec = 1200
        text = str(Decimal(middle.numerator) / Decimal(middle.denominator))
        return text if r.random() < 0.5 else text[:-1] + r.choice("0123456789") if "E" not in text else text
    if c < 0.8:
        return r.choice(["", "-", "+"]) + "".join(r.choice("0123456789") for _ in range(r.choice([1, 3, 17, 20, 40]))) + r.choice(["", ".", ".5", "." + str(r.getrandbits(70))]) + \
            r.choice(["", "", f"e{r.randrange(-340, 320)}", f"E+{r.randrange(0, 320)}"])
    if c < 0.9:
        return "0x" + "".join(r.choice("0123456789abcdefABCDEF_.") for _ in range(r.randrange(1, 20))) + r.choice(["", "p", "P"]) + r.choice(["", "1", "-1", "+1023", "-1074", "1024", "-1075"])
    return "".join(r.choice("0123456789.eE+-_xpinfNaInF ") for _ in range(r.randrange(1, 8)))


METRIC_NAMES = ["m", "m", "n", "x", "x", "x_sum", "x_count", "x_bucket", "x_total", "a:b", "_", ":", "m1",
                "x_created", "x_bucket_bucket", "le", "job", "__name__", "HELP", "TYPE", "nan", "inf", "x_sum_sum", "m_count", "m_sum", "m_bucket"]
ODD_NAMES = ["é", "m.n", "m-n", "1m", "m n", "", "m\\nn", 'm\\"n', "m\\\\n", "{", "}", "m{", "m=1", "日本", "\U0001F600", "a\x00b", "U__m", "U__m_2e_n", "m\\x", "#", "a,b", " m", "m "]
LABEL_NAMES = ["a", "b", "c", "a", "b", "job", "instance", "le", "quantile", "__x", "_", "A", "a1", "__name__", "x"]
ODD_LABELS = ["é", "a.b", "a-b", "1a", "a b", "", "a:b", "日本", "a\\n", 'a\\"', "a\\\\", "le ", "U__a", "{", ",", "=", "a\x00"]
LABEL_VALUES = ["", "v", "w", "1", "0.5", "+Inf", "1.0", "NaN", "é", "日本", "a\\nb", 'a\\"b', "a\\\\b", "a\\qb", "a\\", "a b", "\t", "\x00", "a\rb", "{}", "a,b=\\\"", "\\u00e9", "\x7f", "a'b", " "]
HELPS = ["help", "help", "other help", "", " ", "a\\nb", 'a\\"b', "a\\\\b", "a\\qb", "a\\", 'a "quoted"', "é", "日本\U0001F600", "tab\there", "trailing ", "cr\r", "\x00", "\u2028", "a # b"]
TYPES = ["counter", "gauge", "summary", "histogram", "untyped", "counter", "gauge", "histogram", "summary", "gaugehistogram", "gauge_histogram", "COUNTER", "Gauge", "unknown", "info", "stateset",
         "GaugeHistogram", "GAUGE_HISTOGRAM", "counter ", "", "counter gauge", "untyped\r"] + ["hıstogram", "ſummary"]


def blank(r, least=0):
    return r.choice(["", "", "", " ", "\t", "  ", " \t "]) if not least else r.choice([" ", " ", " ", " ", "\t", "  ", "\t\t "])


def quoted(r, text):
    return '"' + text + '"'


def metric_name(r, odd=0.1):
    c = r.random()
    if c < odd:
        return quoted(r, r.choice(ODD_NAMES + METRIC_NAMES)) if r.random() < 0.6 else r.choice(ODD_NAMES)
    return r.choice(METRIC_NAMES)


def labels(r, name=None, extra=(), odd=0.08):
    pairs = []
    for _ in range(r.choice([0, 0, 1, 1, 2, 3])):
        ln = r.choice(LABEL_NAMES)
        if r.random() < odd:
            ln = r.choice(ODD_LABELS)
            if r.random() < 0.7:
                ln = quoted(r, ln)
        elif r.random() < 0.05:
            ln = quoted(r, ln)
        pairs.append(blank(r) + ln + blank(r) + r.choice(["="] * 12 + ["", ":"]) + blank(r) + quoted(r, r.choice(LABEL_VALUES)) + blank(r))
    for ln, lv in extra:
        pairs.insert(r.randrange(len(pairs) + 1), f'{ln}="{lv}"')
    if name is not None:
        pairs.insert(0 if r.random() < 0.85 else r.randrange(len(pairs) + 1), blank(r) + name + blank(r))
    if not pairs and r.random() < 0.7:
        return ""
    return "{" + r.choice([","] * 15 + [", ", " ,", ";", ",,"]).join(pairs) + r.choice(["", "", "", "", ","]) + blank(r) + "}"


def sample(r, name, extra=(), value=None):
    inside = r.random() < 0.12
    body = labels(r, name if name.startswith('"') or r.random() < 0.2 else quoted(r, name), extra) if inside else name + blank(r) + labels(r, None, extra)
    value = number(r) if value is None else value
    end = r.choice([""] * 14 + [blank(r, 1) + str(r.choice([0, 1, -5, 1700000000000, "x", "1.5", "+3", 2 ** 63, "1_0"])), " # {a=\"b\"} 1", " ", "\t", "\r", " 1 1"])
    return blank(r) + body + r.choice([" "] * 9 + ["\t", "", "  "]) + value + end


def small(r):
    return r.choice(["0", "1", "2", "3", "4", "5", "10", "2.5", "-1", "NaN", "+Inf", "1e3", "0.5", "1e19", "1e20", "9007199254740993", "-0", "18446744073709551615", "-0.5", "1e-3"])


def coherent(r):
    """A family almost as a client library writes it."""
    name, kind, lines = r.choice(["x", "m", "n", "x_sum", "x_count"]), r.choice(TYPES[:12]), []
    lines += r.sample([f"# HELP {name} {r.choice(HELPS)}", f"# TYPE {name} {kind}"], r.choice([1, 2, 2, 2]))
    if not any("TYPE" in line for line in lines):
        kind = "untyped"
    low = kind.lower()
    series = [[(r.choice(["a", "b"]), r.choice(["1", "2", "v"]))] if r.random() < 0.5 else [] for _ in range(r.choice([1, 1, 2, 3]))]
    for extra in series:
        text = lambda more: "{" + ",".join(f'{k}="{v}"' for k, v in r.sample(extra + more, len(extra + more))) + "}" if extra + more else ""
        parts = []
        if low in ("histogram", "gaugehistogram", "gauge_histogram"):
            bounds = [r.choice(["1", "2", "5", "+Inf", "NaN", "-Inf", "0.1", "1.0", "1e0", "-1", "0", "-0", "1e300", "Inf", "x"]) for _ in range(r.choice([0, 1, 2, 3, 4]))]
            if r.random() < 0.6:
                bounds = ["0.5", "1", "2.5", "+Inf"][r.randrange(3):]
            parts += [f"{name}_bucket{text([('le', b)])} {small(r)}" for b in bounds]
            parts += r.sample([f"{name}_sum{text([])} {small(r)}", f"{name}_count{text([])} {small(r)}"], r.choice([0, 1, 2, 2, 2]))
            if r.random() < 0.15:
                parts.append(f"{name}{text([])} {small(r)}")
            if r.random() < 0.15:
                parts.append(r.choice([f"{name}_bucket{text([])} 3", f"{name}_count{text([('le', '1')])} 3", f"{name}{text([('le', '1')])} 3", f"{name}_sum{text([('quantile', '0.5')])} 3"]))
        elif low == "summary":
            parts += [f"{name}{text([('quantile', r.choice(['0.5', '0.9', '0.99', '0', '1', 'NaN', '-1', '2', '+Inf', '1.0', '0.50', 'x']))])} {small(r)}" for _ in range(r.choice([0, 1, 2, 3]))]
            parts += r.sample([f"{name}_sum{text([])} {small(r)}", f"{name}_count{text([])} {small(r)}"], r.choice([0, 1, 2, 2, 2]))
            if r.random() < 0.15:
                parts.append(r.choice([f"{name}{text([])} 3", f"{name}_count{text([('quantile', '0.5')])} 3", f"{name}_bucket{text([('le', '1')])} 3"]))
        else:
            parts += [f"{name}{text([])} {number(r) if r.random() < 0.6 else small(r)}"]
        if r.random() < 0.2:
            r.shuffle(parts)
        lines += parts
    if r.random() < 0.1:
        r.shuffle(lines)
    return lines

def mutate(r, data):
    data = bytearray(data)
    for _ in range(r.choice([1, 1, 1, 2, 3, 6])):
        at = r.randrange(len(data) + 1)
        c = r.randrange(8)
        if c == 0 and data:
            del data[at:at + r.choice([1, 1, 2, 5])]
        elif c == 1:
            data[at:at] = r.choice([b"\r", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\\", b'"', b"{", b"}", b",", b"=", b"#", b"\n", b" ", b"\t", b"\xef\xbb\xbf",
                                    b"\xc2\xa0", b"\x0b", b"\x0c", b"\xe2\x80\xa8", b"\x85", b"\\n", b'\\"', b"# ", b"# HELP ", b"# TYPE m ", b"0", b"e", b"_", b"\xc0\x80"])
        elif c == 2 and data:
            data[at % len(data)] = r.randrange(256)
        elif c == 3 and data:
            a, b = sorted((r.randrange(len(data)), r.randrange(len(data))))
            data[at:at] = data[a:b][:40]
        elif c == 4:
            lines = bytes(data).split(b"\n")
            r.shuffle(lines)
            data = bytearray(b"\n".join(lines))
        elif c == 5:
            lines = bytes(data).split(b"\n")
            lines.insert(r.randrange(len(lines) + 1), r.choice(lines))
            data = bytearray(b"\n".join(lines))
        elif c == 6:
            data = data[:at]
        elif c == 7 and data:
            data[at:at + 1] = r.choice([b"\r\n", b" ", b"\n\n", b"", b'"'])
    return bytes(data)


def many_numbers(r):
    """A body of numbers, most of them valid, without mutations."""
    lines = ["# TYPE h histogram"]
    for index in range(r.choice([20, 60, 150])):
        text = number(r)
        try:
            value = float(text) if not set(text.lower()) & set("_p ") and text.isascii() else float("inf")
        except ValueError:
            continue
        if abs(value) == float("inf"):
            continue
        lines.append(f'm{{i="{index}"}} {text}')
        if r.random() < 0.2 and value == value:
            lines.append(f'h_bucket{{le="{text}"}} {abs(value) if r.random() < 0.5 else 1}')
    return "\n".join(lines).encode() + b"\n"


def text_body(r):
    if r.random() < 0.05:
        return many_numbers(r)
    lines = []
    for _ in range(r.choice([1, 1, 2, 3])):
        c = r.random()
        if c < 0.5:
            lines += coherent(r)
        else:
            for _ in range(r.choice([1, 1, 2, 3, 5])):
                c = r.random()
                name = metric_name(r)
                if c < 0.15:
                    lines.append(blank(r) + "#" + blank(r, r.random() < 0.9) + "HELP" + blank(r, 1) + name + blank(r, r.random() < 0.95) + r.choice(HELPS))
                elif c < 0.35:
                    lines.append(blank(r) + "#" + blank(r, r.random() < 0.9) + "TYPE" + blank(r, 1) + name + blank(r, r.random() < 0.95) + r.choice(TYPES))
                elif c < 0.4:
                    lines.append(r.choice(["", " ", "#", "# ", "# HELP", "# TYPE", "# HELP ", "# TYPE m", "# EOF", "#HELP m h", "# UNIT m s", "\t", "{}", "{} 1", "{", "}", '{"m"} 1', '{"m"}1', '{m} 1', '{m,} 1', '{"m",} 1',
                                           '{"m",a="b",} 1', '{a="b","m"} 1', '{a="b"} 1', '{"m","n"} 1', '{"m"="n"} 1', 'm{"a"="b"} 1', 'm{"n"} 1', 'm{,} 1', 'm{} 1', '"m" 1', '"m"{a="b"} 1', '"m"', "# HELP \"m\" h", '# TYPE "m" gauge',
                                           '# TYPE "m"gauge', "# help m h", "# Type m gauge", "##", "# # HELP m h", "#\tTYPE\tm\tgauge"]))
                else:
                    lines.append(sample(r, name))
    data = r.choice(["\n"] * 12 + ["\r\n", "\n\n"]).join(lines).encode("utf-8", "surrogatepass") + r.choice([b"\n"] * 12 + [b"", b"\n\n", b"\r\n", b"\n ", b"\n#", b"\x00"])
    if r.random() < 0.35:
        data = mutate(r, data)
    return data


def gen_text(r):
    flags = FLAGS_UTF8 if r.random() < 0.25 else FLAGS_PLAIN
    return flags, [step("DELETE", "/metrics/job/a"), step(r.choice(["PUT", "POST"]), "/metrics/job/a", text_body(r)), TEXT] + ([API] if r.random() < 0.3 else []) + ([DELIMITED] if r.random() < 0.4 else [])
