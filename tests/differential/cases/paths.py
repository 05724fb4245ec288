"""Random paths."""

import base64

from cases.flags import FLAGS_PLAIN, FLAGS_UTF8
from observe import API, KEEP, TEXT, WIPE, step


PATH_NAMES = ["zone", "x", "y", "instance", "job", "le", "quantile", "__x", "__name__", "_", "1x", "a-b", "a.b", "é", "a:b", "", "zone@base64", "x@base64", "job@base64", "instance@base64", "@base64", "x@base64@base64", "x@BASE64",
              "U__x", "U__a_2e_b", "U__a_2E_b", "U__a_2e_", "U___", "U__", "U__a_", "U__a_zz_", "U___e9_", "U___1F600_", "U___110000_", "U___d800_", "U____name__", "U_____name____", "U__a__b", "U___5f__5f_x", "U__a_000000002e_b", "U__a_2e", "u__x", "U__job", "U__a_3a_b", "U__1x", "U__é",
              "U__a_2e_b@base64", "%7Aone", "x%40base64", "a%20b", "%5f%5fx"]
PATH_VALUES = ["", "v", "w", "YQ", "YQ==", "YQ=", "Y", "Y=Q", "YR", "w7_Dvj8-", "w7/Dvj8+", "_w", "=", "==", "!!!!", "a b", "a%20b", "a+b", "%2F", "a%2Fb", "%2f", "%", "%zz", "%4", "%00", "%0A", "%E2%82%AC", "%ff", "%C3", "é", "日本",
               ".", "..", "%2e", "%2E%2E", "...", "a.", ";a=b", "a?b", "?", "%3F", "%23", "&", "=a", "a:b", "@", "@base64", "$(x)", "[::1]", "'", "(", "*", ",", "!", "~", "|", "^", "\"", "\\", "{", "}", "YW%0Ai", "4oKs", "_-8", "-_8", "gIA", "7aCA", "%09", "YQ%3D%3D", "%25", "%2520"]


def segment(r, pool):
    if r.random() < 0.85:
        return r.choice(pool)
    if r.random() < 0.5:
        return base64.urlsafe_b64encode(r.randbytes(r.randrange(0, 6))).decode().rstrip("=") + "=" * r.randrange(0, 3)
    return "".join(r.choice(["a", "b", "%", "2", "F", "f", "/", ".", "_", "-", "=", "@", "U__", "_2e_", "%2F", "%2e", "é", ":", "%C3%A9", "+"]) for _ in range(r.randrange(1, 7)))


def gen_path(r):
    c = r.random()
    if c < 0.85:
        job = r.choice(["job", "job", "job", "job", "job@base64", "job@base64", "jobs", "Job", "job@base32", "%6Aob", "job%40base64"])
        path = r.choice(["/metrics/"] * 14 + ["//metrics/", "/metrics//", "/./metrics/", "/Metrics/", "/metrics/../metrics/", "/x/../metrics/", "/%6Detrics/", "/metrics/./"]) + job + "/" + segment(r, PATH_VALUES if r.random() < 0.6 else ["a", "YQ"])
        for _ in range(r.choice([0, 1, 1, 1, 2, 3])):
            path += "/" + segment(r, PATH_NAMES) + "/" + segment(r, PATH_VALUES)
        path += r.choice([""] * 12 + ["/", "//", "/x", "?", "?a=b", "/."])
    else:
        path = r.choice(["/", "/metrics", "/metrics/", "/status", "/status/", "/-/healthy", "/-/ready", "/-/quit", "/-/", "/api/v1/status", "/api/v1/metrics/", "/api/v1/admin/wipes", "/api/v1", "/api/", "/api/v2/metrics", "/METRICS", "/Status", "/-/Healthy",
                         "/static/", "/static/x", "/metrics/job", "/metrics/job/", "/metrics/jo", "/favicon.ico", "/%2e%2e/metrics", "/metrics%2Fjob%2Fa", "/%2Fmetrics", "/metrics?x=/../y", "/-/healthy/", "/api/v1/admin/", "/api/v1/status?x", "/a/b/c", "/status/x", "/API/v1/status"])
    path = "".join("%20" if ch == " " else "%60" if ch == "`" else ch for ch in path if ch not in "#<>")
    method = r.choice(["PUT", "PUT", "PUT", "POST", "DELETE", "GET", "OPTIONS", "HEAD", "PATCH"] if c >= 0.85 else ["PUT"] * 8 + ["POST"] * 3 + ["DELETE"] * 3 + ["GET", "OPTIONS", "PATCH", "FOO"])
    if method in ("GET", "HEAD") and path.split("?")[0] in ("/", "/status", "/metrics", "/api/v1/status"):
        method = "DELETE"
    flags = FLAGS_UTF8 if r.random() < 0.4 else FLAGS_PLAIN
    main = step(method, path, b"m 1\n" if method in ("PUT", "POST") else b"", keep=KEEP["path"])
    main["alone"] = True
    return flags, [WIPE, main, step("PUT", "/metrics/job/zz", b"z 1\n"), API, TEXT]
