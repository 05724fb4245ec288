"""Random request headers: Accept, Accept-Encoding, Content-Type and Content-Encoding."""

import gzip
import struct

from cases.flags import FLAGS_PLAIN, FLAGS_UTF8
from cases.protobuf import delimited, f_bytes, f_double, f_int, vint
from cases.text import mutate
from observe import KEEP, TEXT, WIPE, step


def gen_accept(r):
    types = ["text/plain", "text/*", "*/*", "application/openmetrics-text", "application/vnd.google.protobuf", "application/json", "text/html", "application/*", "TEXT/PLAIN", "text", "", "text/plain/x", "application/vnd.google.Protobuf"]
    params = ["version=0.0.4", "version=1.0.0", "version=0.0.1", "version=0.0.2", "charset=utf-8", "q=0.5", "q=0", "q=1", "q=0.001", "q=2", "q=x", "q=-1", "q=.5", "q=1e-1", "Q=0.3", "q=0.5 ", "q=nan", "q=inf", "escaping=underscores", "escaping=dots", "escaping=values", "escaping=allow-utf-8", "escaping=foo",
              "escaping=\"dots\"", "Escaping=dots", "ESCAPING=Dots", "proto=io.prometheus.client.MetricFamily", "encoding=delimited", "encoding=\"delimited\"", "version=\"0.0.4\"", "validchars=utf8", "proto=x", "x", "=", "q", "q=", "escaping", "x=\"a,b\"", "x=\"a;b\""]
    def clause():
        c = r.random()
        if c < 0.3:
            parts = ["application/vnd.google.protobuf", "proto=io.prometheus.client.MetricFamily", "encoding=delimited"] + r.sample(params[:25], r.choice([0, 0, 1, 2]))
        elif c < 0.5:
            parts = ["text/plain", "version=0.0.4"] + r.sample(params[:25], r.choice([0, 1, 1, 2]))
        else:
            parts = [r.choice(types)] + r.sample(params, r.choice([0, 1, 2, 3]))
        return r.choice([";", ";", "; ", " ; "]).join(parts)
    flags = FLAGS_UTF8 if r.random() < 0.6 else FLAGS_PLAIN
    mixed = ACCEPT_UTF8 if flags == FLAGS_UTF8 else ACCEPT_PLAIN
    if r.random() < 0.6:
        headers = [("Accept", r.choice([",", ", ", " , "]).join(clause() for _ in range(r.choice([1, 1, 2, 3]))) + r.choice([""] * 9 + [",", ";"])) for _ in range(r.choice([0, 1, 1, 1, 1, 2]))]
        if r.random() < 0.5:
            codings = ["gzip", "identity", "*", "deflate", "GZIP", "x-gzip", "br", "", "gzip;q=0", "gzip;q=0.5", "identity;q=1", "identity;q=0", "gzip; q=1", "*;q=0", "gzip;q=x", "gzip ;q=0.1", "identity;q=0.2", "gzip;Q=0.9", "gzip;q=2", "gzip;x=y", "gzip;q=0.0001", "gzip;q=0,gzip"]
            headers += [("Accept-Encoding", r.choice([",", ", "]).join(r.choice(codings) for _ in range(r.choice([1, 1, 2, 3])))) for _ in range(r.choice([1, 1, 1, 2]))]
        return flags, mixed + [step("GET", "/metrics", headers=headers, keep=KEEP["accept"])]
    body, kind = r.choice([(b"m 1\n", "text"), (delimited([f_bytes(1, "m") + f_int(3, 1) + f_bytes(4, f_bytes(2, f_double(1, 5.0)))]), "proto"), (b"", "none")])
    names = ["application/vnd.google.protobuf", "Application/Vnd.Google.Protobuf", "text/plain", "application/vnd.google.protobuf ", "application/x-protobuf", "application/vnd.google.protobuf,text/plain"]
    p = ["proto=io.prometheus.client.MetricFamily", "encoding=delimited", "PROTOBUF=io.prometheus.client.MetricFamily", "Encoding=delimited", "encoding=\"delimited\"", "encoding=Delimited", "proto=\"io.prometheus.client.MetricFamily\"", "proto=x", "encoding=text", "q=1", "escaping=values", "x", "", "encoding*=utf-8''delimited",
         "encoding*0=deli; encoding*1=mited", "encoding=delimited\\", "encoding=\"deli\\mited\"", "encoding = delimited", "encoding=delimited; encoding=text", "encoding= delimited", "encoding*=UTF-8'en'%64elimited", "x=\"", "x=\"a;b\"", "encoding=deli mited"]
    content = r.choice(names) + "".join(r.choice([";", "; ", " ;"]) + x for x in ([p[0], p[1]] if r.random() < 0.5 else []) + r.sample(p, r.choice([0, 1, 1, 2, 3])))
    headers = [("Content-Type", content)] if r.random() < 0.85 else []
    if r.random() < 0.5:
        coding = r.choice(["gzip", "gzip", "GZIP", "Gzip", "x-gzip", "snappy", "deflate", "identity", "", "gzip, gzip", "gzip,identity", " gzip ", "br", "snappy;q=1"])
        if r.random() < 0.75:
            c = r.randrange(5)
            if "nappy" in coding:
                body = snappy(body, r) if c else body
            elif c == 0:
                body = gzip.compress(body, mtime=0) + gzip.compress(b"n 2\n", mtime=0)
            elif c == 1:
                body = gzip.compress(body, mtime=0) + r.choice([b"\x00", b"x", b"\x1f\x8b", b"\x00" * 20])
            elif c == 2:
                body = mutate(r, gzip.compress(body, mtime=0))
            else:
                body = gzip.compress(body, mtime=0)
        headers.append(("Content-Encoding", coding))
    return flags, [WIPE, step("PUT", "/metrics/job/a", body, headers), TEXT]


CRC = []


def crc32c(data):
    if not CRC:
        for n in range(256):
            c = n
            for _ in range(8):
                c = c >> 1 ^ 0x82F63B78 if c & 1 else c >> 1
            CRC.append(c)
    c = 0xFFFFFFFF
    for byte in data:
        c = CRC[(c ^ byte) & 255] ^ c >> 8
    c ^= 0xFFFFFFFF
    return ((c >> 15 | c << 17) + 0xA282EAD8) & 0xFFFFFFFF


def snappy(data, r):
    """Framed snappy of stored chunks, sometimes invalid."""
    def chunk(kind, raw):
        return bytes([kind]) + len(raw).to_bytes(3, "little") + raw
    out = [chunk(0xFF, b"sNaPpY")]
    literal = vint(len(data)) + (bytes([len(data) - 1 << 2]) + data if 0 < len(data) <= 60 else b"")
    out.append(chunk(1, struct.pack("<I", crc32c(data)) + data) if r.random() < 0.5 or len(data) > 60 else chunk(0, struct.pack("<I", crc32c(data)) + literal))
    if r.random() < 0.3:
        out.insert(r.randrange(len(out) + 1), chunk(r.choice([0xFE, 0x80, 0x02, 0x7F, 0xFF, 0x00, 0x01]), r.choice([b"", b"abc", b"sNaPpY", b"abcdef"])))
    raw = b"".join(out)
    return mutate(r, raw) if r.random() < 0.3 else raw


ACCEPT_PLAIN = [step("PUT", "/metrics/job/a", '# HELP m he\\nlp\n# TYPE m counter\nm{a="é"} 1\n# TYPE h histogram\nh_bucket{le="1"} 1\nh_bucket{le="+Inf"} 2\nh_sum 3\nh_count 2\n# TYPE s summary\ns{quantile="0.5"} 1\ns_sum 2\ns_count 3\nu 1e21\n')]
ACCEPT_UTF8 = [step("PUT", "/metrics/job/a", '# HELP "m.é" he\\nlp\n# TYPE "m.é" counter\n{"m.é","a.b"="é",c__d="1"} 1\n# TYPE "h h" histogram\n{"h h_bucket",le="1"} 1\n{"h h_bucket",le="+Inf"} 2\n{"h h_sum"} 3\n{"h h_count"} 2\n# TYPE s summary\ns{quantile="0.5"} 1\ns_sum 2\ns_count 3\nu__x 1e21\n')]
