//! Pushes of known shapes: a gateway that recognises them behaves as one that parses every body.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::Gateway;

/// A generator of random numbers, which are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2.5",
    "17",
    "1e3",
    "123456.789",
    "0.00001",
    "1e21",
    "1000000",
    "NaN",
    "+Inf",
    "-1",
    "-0",
    "1.5e-7",
    "007",
    ".5",
    "5.",
];
const PATHS: &[&str] = &[
    "job/a/instance/1",
    "job/a/instance/2",
    "job/b/instance/%22",
    "job@base64/Yi9j/instance/x",
    "job/a",
    "job/a/zone/eu",
    "job/c",
];

/// The lines of some bodies; `#` stands for a number.
const SHAPES: &[&str] = &[
    "# HELP m Text.\n# TYPE m gauge\nm{kind=\"x\"} #\nm{kind=\"y\"} #\nn #\n",
    "# HELP m Text.\n# TYPE m gauge\nm{kind=\"x\"} #\nm{kind=\"y\"} #\nm{kind=\"z\"} #\nn #\n",
    "# HELP m Text.\n# TYPE m gauge\nm{kind=\"x\"} #\nm{kind=\"y\"} #\nn #\no #\n",
    "# HELP m Text.\n# TYPE m gauge\nm{kind=\"y\"} #\nn #\n",
    "# HELP m Another text.\n# TYPE m gauge\nm{kind=\"x\"} #\nm{kind=\"y\"} #\nn #\n",
    "# TYPE h histogram\nh_bucket{le=\"1\"} #\nh_bucket{le=\"+Inf\"} #\nh_sum #\nh_count #\n",
    "# TYPE s summary\ns{quantile=\"0.5\"} #\ns_sum #\ns_count #\nm{a=\"\\\\ \\\" \\n\"} #\n",
    "# TYPE m counter\nm #\n",
    "n{zone=\"eu\"} #\n",
    "n #\nn{a=\"1\"} #\n",
    "broken #\n#\n",
    "",
];

/// Everything that a gateway shows, without times.
fn shown(gateway: &Gateway) -> String {
    let scrape = gateway.get("/metrics").text();
    let mut shown = String::new();
    for line in scrape.lines() {
        let (series, _) = line.rsplit_once(' ').unwrap_or((line, ""));
        if series.starts_with("push_time_seconds") || series.starts_with("push_failure_time_seconds") {
            let is_zero = line.ends_with(" 0");
            writeln!(shown, "{series} {is_zero}").expect("writing to a string cannot fail");
        } else if ["m", "n", "o", "h", "s"].iter().any(|name| is_of(series, name)) {
            writeln!(shown, "{line}").expect("writing to a string cannot fail");
        }
    }
    let mut api: Value = serde_json::from_str(&gateway.get("/api/v1/metrics").text()).expect("is JSON");
    remove_times(&mut api);
    write!(shown, "{api:#}").expect("writing to a string cannot fail");
    shown
}

fn remove_times(json: &mut Value) {
    match json {
        Value::Array(items) => items.iter_mut().for_each(remove_times),
        Value::Object(fields) => {
            fields.retain(|name, _| {
                !matches!(&**name, "time_stamp" | "push_time_seconds" | "push_failure_time_seconds")
            });
            fields.values_mut().for_each(remove_times);
        }
        _ => {}
    }
}

fn is_of(series: &str, name: &str) -> bool {
    let series = series.strip_prefix("# HELP ").or_else(|| series.strip_prefix("# TYPE ")).unwrap_or(series);
    series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['{', '_', ' ']))
}

#[test]
fn a_gateway_with_shapes_behaves_as_one_without() {
    let folders = [(), ()].map(|()| tempfile::tempdir().expect("a temporary folder"));
    let paths = folders.each_ref().map(|folder| format!("--storage.path={}", folder.path().display()));
    let flags: [&[&str]; 2] = [&[], &["--push.disable-shapes"]];
    let start = |number: usize| {
        // On one core, groups are in the order of their first pushes.
        let common = ["--runtime.cores=1", &paths[number], "--web.enable-admin-api"];
        Gateway::start(&[&common[..], flags[number]].concat())
    };
    let mut gateways = [start(0), start(1)];
    let mut random = Random(7);
    for step in 0..800 {
        // Groups change between shapes only while all groups of their families have the same label names.
        let is_alike = step % 200 < 120;
        let path = format!("/metrics/{}", random.of(if is_alike { &PATHS[..4] } else { PATHS }));
        let shape = random.of(&SHAPES[..if is_alike { 4 } else { SHAPES.len() }]);
        let mut body = String::new();
        let is_plain = random.below(4) > 0;
        for (at, piece) in shape.split_inclusive(" #").enumerate() {
            match piece.strip_suffix('#') {
                Some(text) if piece.ends_with(" #") && !text.ends_with("# ") => {
                    body.push_str(text);
                    body.push_str(if is_plain { NUMBERS[(step + at) % 9] } else { random.of(NUMBERS) });
                }
                _ => body.push_str(piece),
            }
        }
        if random.below(20) == 0 {
            let at = random.below(body.len() + 1);
            body.insert_str(body.floor_char_boundary(at), random.of(&[" ", "x", "\n", "1", "\"", "#"]));
        }
        let method = random.of(&["PUT", "PUT", "PUT", "POST"]);
        let request = |gateway: &Gateway| match random_action(step) {
            Action::Push => gateway.request(method, &path, &[], body.as_bytes()),
            Action::Delete => gateway.delete(&path),
            Action::Wipe => gateway.request("PUT", "/api/v1/admin/wipe", &[], b""),
        };
        let responses = gateways.each_ref().map(request);
        let results = responses.map(|response| (response.status, response.text()));
        assert_eq!(results[0], results[1], "{method} {path}\n{body}");
        if step % 20 == 19 {
            let [first, second] = gateways.each_ref().map(shown);
            assert_eq!(first, second, "after step {step}");
        }
        if step % 200 == 170 {
            for (number, gateway) in gateways.iter_mut().enumerate() {
                gateway.stop();
                *gateway = start(number);
            }
        }
    }
}

enum Action {
    Push,
    Delete,
    Wipe,
}

fn random_action(step: usize) -> Action {
    match step % 400 {
        350 => Action::Wipe,
        step if step % 17 == 5 => Action::Delete,
        _ => Action::Push,
    }
}
