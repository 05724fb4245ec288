//! A reference implementation of a Pushgateway, for the bodies that the load test pushes: one lock and one map.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use super::http::{Request, Response, send, serve};

#[derive(Default, Clone)]
struct Group {
    pushed: f64,
    failed: f64,
    families: Families,
}

/// A family: its type and its samples, each with series and value.
#[derive(Default, Clone)]
struct Family {
    kind: String,
    samples: Vec<(String, String)>,
}

/// By name.
type Families = BTreeMap<String, Family>;

/// By grouping labels, as a scrape shows them.
type Groups = BTreeMap<String, Group>;

/// Starts the gateway in `SLUICEGATE_LOADTEST_GATEWAY`, or the reference implementation, and returns its port.
pub fn start() -> u16 {
    match std::env::var("SLUICEGATE_LOADTEST_GATEWAY") {
        Ok(program) => start_program(&program),
        Err(_) => {
            let groups = Mutex::new(Groups::new());
            serve(move |request| respond(&mut groups.lock().expect("no thread panics"), &request))
        }
    }
}

/// The program ends with the process of the test: a shell terminates it once its stdin is closed.
fn start_program(program: &str) -> u16 {
    use std::process::{Command, Stdio};
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    let script = "\"$0\" --web.listen-address=127.0.0.1:$1 & child=$!; cat; kill $child";
    let mut command = Command::new("sh");
    command.args(["-c", script, program, &port.to_string()]).stdin(Stdio::piped());
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell");
    std::mem::forget(child);
    let ready = Request { method: "GET".into(), path: "/-/ready".into(), body: Vec::new() };
    while send(port, &ready).is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    port
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

fn respond(groups: &mut Groups, request: &Request) -> Response {
    let text = |status, text: &str| Response { status, body: text.as_bytes().to_vec() };
    let Some(key) = request.path.strip_prefix("/metrics/job/loadtest/run/") else {
        return match request.path.as_str() {
            "/metrics" => text(200, &exposition(groups)),
            "/-/ready" => text(200, "OK"),
            _ => text(404, "not found\n"),
        };
    };
    let (run, instance) = key.split_once("/instance/").expect("a URL of the load test");
    let labels = format!("instance=\"{instance}\",job=\"loadtest\",run=\"{run}\"");
    if request.method == "DELETE" {
        groups.remove(&labels);
        return text(202, "");
    }
    let Some(families) = parse(&request.body) else { return text(400, "text format parsing error\n") };
    let conflicts = |name: &str, family: &Family| {
        groups.iter().any(|(other, group)| {
            *other != labels && group.families.get(name).is_some_and(|known| known.kind != family.kind)
        })
    };
    let is_inconsistent = families.iter().any(|(name, family)| {
        let mut series: Vec<_> = family.samples.iter().map(|(series, _)| series).collect();
        series.sort();
        let has_duplicate = series.windows(2).any(|pair| pair[0] == pair[1]);
        let has_timestamp = family.samples.iter().any(|(_, value)| value.contains(' '));
        has_duplicate || has_timestamp || conflicts(name, family)
    });
    let group = groups.entry(labels).or_default();
    if is_inconsistent {
        group.failed = now();
        return text(400, "pushed metrics are invalid or inconsistent with existing metrics\n");
    }
    if request.method == "PUT" {
        group.families.clear();
    }
    group.families.extend(families);
    group.pushed = now();
    text(200, "")
}

/// Parses a body; `None` if it is malformed.
fn parse(body: &[u8]) -> Option<Families> {
    let text = std::str::from_utf8(body).ok()?;
    let mut families = Families::new();
    let (mut name, mut kind) = (String::new(), String::new());
    if !text.is_empty() && !text.ends_with('\n') {
        return None;
    }
    for line in text.lines().filter(|line| !line.starts_with("# HELP")) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let words = rest.split_once(' ')?;
            if !["gauge", "counter", "histogram", "summary"].contains(&words.1) {
                return None;
            }
            (name, kind) = (words.0.to_owned(), words.1.to_owned());
            continue;
        }
        let end = line.find('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1))?;
        let (series, value) = (&line[..end], line[end..].strip_prefix(' ')?);
        value.split(' ').next()?.parse::<f64>().ok()?;
        let series_name = series.split('{').next()?;
        if series.contains('{') != series.ends_with('}') {
            return None;
        }
        // The endings of inconsistent bodies (`lt_twice`, `lt_timed`) have no `# TYPE`.
        if !series_name.starts_with(&name) || name.is_empty() || series_name.starts_with("lt_t") {
            (name, kind) = (series_name.to_owned(), "untyped".to_owned());
        }
        let family = families
            .entry(name.clone())
            .or_insert_with(|| Family { kind: kind.clone(), samples: Vec::new() });
        family.samples.push((series.to_owned(), value.to_owned()));
    }
    Some(families)
}

fn exposition(groups: &Groups) -> String {
    let mut families: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    for (labels, group) in groups {
        for (name, Family { kind, samples }) in &group.families {
            let text = &mut families.entry(name).or_insert((kind, String::new())).1;
            for (series, value) in samples {
                let value: f64 = value.parse().expect("parsed before");
                let _ = match series.split_once('{') {
                    Some((name, own)) => writeln!(text, "{name}{{{labels},{own} {value:e}"),
                    None => writeln!(text, "{series}{{{labels}}} {value:e}"),
                };
            }
        }
    }
    let mut text = String::new();
    for (name, (kind, samples)) in families {
        let _ = write!(text, "# TYPE {name} {kind}\n{samples}");
    }
    push_times(&mut text, "push_failure_time_seconds", groups, |group| group.failed);
    push_times(&mut text, "push_time_seconds", groups, |group| group.pushed);
    text
}

fn push_times(text: &mut String, name: &str, groups: &Groups, time: fn(&Group) -> f64) {
    let _ = writeln!(text, "# TYPE {name} gauge");
    for (labels, group) in groups {
        let _ = writeln!(text, "{name}{{{labels}}} {:e}", time(group));
    }
}
