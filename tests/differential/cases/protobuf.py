"""Random protobuf bodies."""

import struct

from cases.flags import FLAGS_PLAIN, FLAGS_UTF8
from messages import BYTES, FIXED32, FIXED64, VARINT
from observe import API, DELIMITED, PROTOBUF, TEXT, step


def vint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while True:
        byte = value & 127
        value >>= 7
        out.append(byte | (128 if value else 0))
        if not value:
            return bytes(out)


def tag(number, wire):
    return vint(number << 3 | wire)


def f_bytes(number, data):
    data = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    return tag(number, BYTES) + vint(len(data)) + data


def f_double(number, value):
    return tag(number, FIXED64) + struct.pack("<d", value)


def f_int(number, value):
    return tag(number, VARINT) + vint(value)


def zigzag(value):
    return (value << 1) ^ (value >> 63)


def double(r):
    return r.choice([0.0, 1.0, 2.5, -1.0, float("nan"), float("inf"), float("-inf"), 1e300, 5e-324, -0.0, 0.1, 3.0, 1e21, 123456789.0, struct.unpack("<d", r.randbytes(8))[0]])


PB_NAMES = ["m", "m", "n", "x", "x_sum", "x_count", "x_bucket", "a:b", "m"] + ["push_time_seconds"]
PB_ODD = ["", "é", "m.n", "m n", "1m", "m\n", 'm"', b"\xff", b"m\xc3", "__name__", "{", "a\x00", "U__m"]
PB_LABELS = ["a", "b", "c", "job", "instance", "le", "quantile", "x"]
PB_ODD_LABELS = ["", "é", "a.b", "1a", "a:b", "__name__", "__x", b"\xff", "a\n"]
PB_VALUES = ["", "v", "w", "1", "a", "é", 'q"\\\n', "+Inf", b"\xff", b"a\xc3"]


def pb_label(r):
    name = r.choice(PB_LABELS) if r.random() < 0.93 else r.choice(PB_ODD_LABELS)
    value = r.choice(PB_VALUES[:8]) if r.random() < 0.97 else r.choice(PB_VALUES)
    return (f_bytes(1, name) if r.random() < 0.97 else b"") + (f_bytes(2, value) if r.random() < 0.95 else b"")


def pb_exemplar(r):
    return b"".join(f_bytes(1, pb_label(r)) for _ in range(r.choice([0, 1, 2]))) + (f_double(2, double(r)) if r.random() < 0.9 else b"") + \
        (f_bytes(3, pb_time(r)) if r.random() < 0.5 else b"")


def pb_time(r):
    return f_int(1, r.choice([0, 1, 1700000000, -5, 253402300800, 2 ** 62])) + (f_int(2, r.choice([0, 1, 999999999, -1, 1000000000])) if r.random() < 0.6 else b"")


def uint(r):
    return r.choice([0, 1, 2, 3, 5, 10, 2 ** 53 + 1, 2 ** 63, 2 ** 64 - 1])


def pb_spans(r, number):
    return [(number, f_bytes(number, (f_int(1, zigzag(r.choice([0, 0, 1, 2, -1, -5, 100, 2 ** 31 - 1]))) if r.random() < 0.9 else b"") +
                             (f_int(2, r.choice([0, 1, 1, 2, 3, 4, 1000, 2 ** 32 - 1])) if r.random() < 0.9 else b""))) for _ in range(r.choice([0, 1, 1, 2, 3]))]


def pb_native(r):
    """The fields of a native histogram, mostly consistent."""
    parts, floats = [], r.random() < 0.3
    total = 0
    for span, delta, count in ((12, 13, 14), (9, 10, 11)):
        if r.random() < 0.3:
            continue
        spans = [(r.choice([0, 1, -3, 5]) if i == 0 else r.choice([0, 1, 4]), r.choice([1, 2, 3, 0])) for i in range(r.choice([0, 1, 2]))]
        buckets = [r.choice([1, 2, 0, 5, 3]) for _ in range(sum(length for _, length in spans))]
        if r.random() < 0.15:
            buckets = buckets[:-1] if r.random() < 0.5 else buckets + [1]
        if r.random() < 0.07 and buckets:
            buckets[0] = -1
        for offset, length in spans:
            parts.append(f_bytes(span, f_int(1, zigzag(offset)) + f_int(2, length)))
        if floats:
            raw = [struct.pack("<d", float(b)) for b in buckets]
            parts.append(f_bytes(count, b"".join(raw))) if r.random() < 0.5 and raw else parts.extend(tag(count, FIXED64) + x for x in raw)
        else:
            deltas = [b - a for a, b in zip([0] + buckets, buckets)]
            raw = [vint(zigzag(d)) for d in deltas]
            parts.append(f_bytes(delta, b"".join(raw))) if r.random() < 0.5 and raw else parts.extend(tag(delta, VARINT) + x for x in raw)
        total += sum(buckets)
    zero = r.choice([0, 0, 1, 2])
    total += zero
    if r.random() < 0.1:
        total += r.choice([-1, 1])
    parts.append(f_int(5, zigzag(r.choice([0, 1, 3, 8, -4, 0, 0, 9, -5, -53]))) if r.random() < 0.95 else b"")
    parts.append(f_double(6, r.choice([1e-128, 0.0, 0.5, -1.0])) if r.random() < 0.9 else b"")
    if floats:
        parts += [f_double(4, float(total)), f_double(8, float(zero))]
    else:
        parts += [f_int(1, max(total, 0)), f_int(7, zero)]
    parts.append(f_double(2, double(r)) if r.random() < 0.9 else b"")
    if r.random() < 0.3:
        parts.append(f_bytes(16, pb_exemplar(r)))
    if r.random() < 0.3:
        parts.append(f_bytes(3, f_int(1, total) + f_double(2, float("inf"))))
    return parts


def pb_histogram(r):
    parts = []
    if r.random() < 0.35:
        parts = pb_native(r)
    else:
        if r.random() < 0.9:
            parts.append(f_int(1, uint(r)))
        if r.random() < 0.9:
            parts.append(f_double(2, double(r)))
        bounds = sorted(r.choice([0.1, 1.0, 2.0, 5.0, float("inf"), -1.0]) for _ in range(r.choice([0, 1, 2, 3])))
        if r.random() < 0.25:
            bounds = [double(r) for _ in bounds]
        for bound in bounds:
            bucket = (f_int(1, uint(r)) if r.random() < 0.9 else b"") + (f_double(2, bound) if r.random() < 0.97 else b"")
            if r.random() < 0.12:
                bucket += f_double(4, double(r))
            if r.random() < 0.2:
                bucket += f_bytes(3, pb_exemplar(r))
            parts.append(f_bytes(3, bucket))
        if r.random() < 0.1:
            parts.append(f_double(4, double(r)))
        if r.random() < 0.05:
            parts += [raw for _, raw in pb_spans(r, 12)]
    if r.random() < 0.15:
        parts.append(f_bytes(15, pb_time(r)))
    if r.random() < 0.1:
        r.shuffle(parts)
    return b"".join(parts)


def pb_metric(r, kind):
    parts = [f_bytes(1, pb_label(r)) for _ in range(r.choice([0, 0, 1, 1, 2, 3]))]
    if r.random() < 0.06:
        kind = r.randrange(6)
    value = f_double(1, double(r)) if r.random() < 0.95 else b""
    if kind == 0:
        parts.append(f_bytes(3, value + (f_bytes(2, pb_exemplar(r)) if r.random() < 0.2 else b"") + (f_bytes(3, pb_time(r)) if r.random() < 0.2 else b"")))
    elif kind == 1:
        parts.append(f_bytes(2, value))
    elif kind == 2:
        quantiles = b"".join(f_bytes(3, (f_double(1, r.choice([0.5, 0.9, 0.99, 0.0, 1.0, double(r)])) if r.random() < 0.97 else b"") + (f_double(2, double(r)) if r.random() < 0.97 else b"")) for _ in range(r.choice([0, 1, 2, 3])))
        parts.append(f_bytes(4, (f_int(1, uint(r)) if r.random() < 0.9 else b"") + (f_double(2, double(r)) if r.random() < 0.9 else b"") + quantiles + (f_bytes(4, pb_time(r)) if r.random() < 0.1 else b"")))
    elif kind == 3:
        parts.append(f_bytes(5, value))
    else:
        parts.append(f_bytes(7, pb_histogram(r)))
    if r.random() < 0.03:
        parts.append(f_int(6, r.choice([0, 1, -1, 1700000000000])))
    if r.random() < 0.05:
        parts.append(parts[-1])
    if r.random() < 0.05:
        parts.append(pb_unknown(r))
    if r.random() < 0.1:
        r.shuffle(parts)
    if r.random() < 0.03:
        parts = parts[:-1]
    return b"".join(parts)


def pb_unknown(r):
    number = r.choice([17, 100, 6, 2 ** 29 - 1, 1, 2, 3, 4, 7, 0, 2 ** 29, 19000])
    c = r.randrange(7)
    if c == 0:
        return tag(number, VARINT) + vint(r.getrandbits(64))
    if c == 1:
        return tag(number, FIXED64) + r.randbytes(8)
    if c == 2:
        return f_bytes(number, r.randbytes(r.randrange(6)))
    if c == 3:
        return tag(number, FIXED32) + r.randbytes(4)
    if c == 4:
        return tag(number, 3) + (f_int(1, 5) if r.random() < 0.5 else b"") + tag(number if r.random() < 0.8 else number ^ 1, 4)
    if c == 5:
        return tag(number, VARINT) + r.choice([b"\xff" * 9 + b"\x01", b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x01", b"\x80\x00", b"\x80" * 9 + b"\x00", b"\x80" * 10 + b"\x00"])
    return tag(number, r.choice([4, 6, 7, 3]))


def pb_family(r):
    kind = r.choice([0, 0, 1, 1, 2, 3, 4, 4, 5])
    name = r.choice(PB_NAMES) if r.random() < 0.95 else r.choice(PB_ODD)
    parts = [f_bytes(1, name) if r.random() < 0.98 else b"", f_bytes(2, r.choice(["help", "other", "", "é", 'a\nb\\"', b"\xff"])) if r.random() < 0.8 else b"",
             f_int(3, kind) if r.random() < 0.95 else b""]
    if r.random() < 0.02:
        parts[2] = f_int(3, r.choice([6, 7, -1, 100, 2 ** 40, 2 ** 32]))
    parts += [f_bytes(4, pb_metric(r, kind)) for _ in range(r.choice([0, 1, 1, 1, 2, 3]))]
    if r.random() < 0.1:
        parts.append(f_bytes(5, r.choice(["seconds", "", "é", b"\xff"])))
    if r.random() < 0.05:
        parts.append(pb_unknown(r))
    if r.random() < 0.05:
        r.shuffle(parts)
    return b"".join(parts)


def delimited(messages):
    return b"".join(vint(len(m)) + m for m in messages)


def gen_proto(r):
    body = delimited([pb_family(r) for _ in range(r.choice([1, 1, 1, 2, 3]))])
    if r.random() < 0.2:
        body = bytearray(body)
        for _ in range(r.choice([1, 1, 2])):
            at = r.randrange(len(body) + 1)
            c = r.randrange(5)
            if c == 0 and body:
                body[at % len(body)] ^= 1 << r.randrange(8)
            elif c == 1:
                del body[at:]
            elif c == 2:
                body[at:at] = pb_unknown(r)
            elif c == 3 and body:
                del body[at % len(body)]
            else:
                body += r.choice([b"\x00", b"\x80", b"\xff" * 10, b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\xff\xff\x0f", b"\x05abc", b"\x80\x00"])
        body = bytes(body)
    flags = FLAGS_UTF8 if r.random() < 0.2 else FLAGS_PLAIN
    return flags, [step("DELETE", "/metrics/job/a"), step(r.choice(["PUT", "POST"]), "/metrics/job/a", body, [("Content-Type", PROTOBUF)]), TEXT, DELIMITED] + ([API] if r.random() < 0.3 else [])
