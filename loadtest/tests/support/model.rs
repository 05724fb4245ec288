//! The smallest gateway that is right for what the program pushes: one lock, one map, whole texts of families.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use super::http::{Answer, Request, serve};

#[derive(Default, Clone)]
struct Group {
    pushed: f64,
    failed: f64,
    families: Families,
}

/// Type and samples of a family, by name.
type Families = BTreeMap<String, (String, Vec<(String, String)>)>;

type Groups = BTreeMap<String, Group>;

/// The port of a gateway that is right: the real one if it is named, else the model.
pub fn start() -> u16 {
    match std::env::var("SLUICEGATE_LOADTEST_GATEWAY") {
        Ok(program) => real(&program),
        Err(_) => {
            let groups = Mutex::new(Groups::new());
            serve(move |request| answer(&mut groups.lock().expect("nobody panics"), &request))
        }
    }
}

/// Lives as long as the test's process: it is told to end when our end of its stdin closes.
fn real(program: &str) -> u16 {
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
    while super::http::ask(port, &Request { method: "GET".into(), path: "/-/ready".into(), body: Vec::new() })
        .is_none()
    {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    port
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

fn answer(groups: &mut Groups, request: &Request) -> Answer {
    let text = |status, text: &str| Answer { status, body: text.as_bytes().to_vec() };
    let Some(key) = request.path.strip_prefix("/metrics/job/loadtest/run/") else {
        return match request.path.as_str() {
            "/metrics" => text(200, &exposition(groups)),
            "/-/ready" => text(200, "OK"),
            _ => text(404, "not found\n"),
        };
    };
    let (run, instance) = key.split_once("/instance/").expect("the program's URL");
    let labels = format!("instance=\"{instance}\",job=\"loadtest\",run=\"{run}\"");
    if request.method == "DELETE" {
        groups.remove(&labels);
        return text(202, "");
    }
    let Some(families) = parse(&request.body) else { return text(400, "text format parsing error\n") };
    let clash = |name: &String, kind: &String| {
        groups.iter().any(|(other, group)| {
            *other != labels && group.families.get(name).is_some_and(|(known, _)| known != kind)
        })
    };
    let bad = families.iter().any(|(name, (kind, samples))| {
        let mut series: Vec<_> = samples.iter().map(|(series, _)| series).collect();
        series.sort();
        let twice = series.windows(2).any(|pair| pair[0] == pair[1]);
        twice || samples.iter().any(|(_, value)| value.contains(' ')) || clash(name, kind)
    });
    let group = groups.entry(labels).or_default();
    if bad {
        group.failed = now();
        return text(400, "pushed metrics are invalid or inconsistent with existing metrics: so it is\n");
    }
    if request.method == "PUT" {
        group.families.clear();
    }
    group.families.extend(families);
    group.pushed = now();
    text(200, "")
}

/// Families by name; `None` if it is not what the program pushes when it means well.
fn parse(body: &[u8]) -> Option<Families> {
    let text = std::str::from_utf8(body).ok()?;
    let mut families = Families::new();
    let mut current = (String::new(), String::new());
    if !text.is_empty() && !text.ends_with('\n') {
        return None;
    }
    for line in text.lines().filter(|line| !line.starts_with("# HELP")) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ')?;
            if !["gauge", "counter", "histogram", "summary"].contains(&kind) {
                return None;
            }
            current = (name.to_owned(), kind.to_owned());
            continue;
        }
        let end = line.find('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1))?;
        let (series, value) = (&line[..end], line[end..].strip_prefix(' ')?);
        value.split(' ').next()?.parse::<f64>().ok()?;
        let bare = series.split('{').next()?;
        if series.contains('{') != series.ends_with('}') {
            return None;
        }
        if !bare.starts_with(&current.0) || current.0.is_empty() || bare.starts_with("lt_t") {
            current = (bare.to_owned(), "untyped".to_owned());
        }
        let family = families.entry(current.0.clone()).or_insert((current.1.clone(), Vec::new()));
        family.1.push((series.to_owned(), value.to_owned()));
    }
    Some(families)
}

fn exposition(groups: &Groups) -> String {
    let mut families: BTreeMap<&str, (&str, String)> = BTreeMap::new();
    for (labels, group) in groups {
        for (name, (kind, samples)) in &group.families {
            let text = &mut families.entry(name).or_insert((kind, String::new())).1;
            for (series, value) in samples {
                let value: f64 = value.parse().expect("it was parsed before");
                let _ = match series.split_once('{') {
                    Some((bare, own)) => writeln!(text, "{bare}{{{labels},{own} {value:e}"),
                    None => writeln!(text, "{series}{{{labels}}} {value:e}"),
                };
            }
        }
    }
    let mut text = String::new();
    for (name, (kind, samples)) in families {
        let _ = write!(text, "# TYPE {name} {kind}\n{samples}");
    }
    for (name, time) in [("push_failure_time_seconds", 0), ("push_time_seconds", 1)] {
        let _ = writeln!(text, "# TYPE {name} gauge");
        for (labels, group) in groups {
            let _ = writeln!(text, "{name}{{{labels}}} {:e}", [group.failed, group.pushed][time]);
        }
    }
    text
}
