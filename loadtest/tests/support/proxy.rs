//! Stands between the program and a gateway that is right, and makes one thing wrong, now and then.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::http::{Answer, Request, ask, serve};

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Answers a push without passing it on.
    Drop,
    /// Answers a push, and passes it on only later.
    Reorder,
    /// Passes a push on in two halves.
    Split,
    /// Passes a push on twice, the second time later.
    Repeat,
    /// Brings a deleted group back.
    Revive,
    /// Shows a family with another type than it has.
    TwoTypes,
    /// Shows push times that run backwards.
    TimeBack,
    /// Says that it took what it refused.
    TakeBad,
    /// Leaves out a line of a family.
    HalfFamily,
    /// Keeps the content of a push that it refuses.
    ShowRefused,
}

/// One push in that many is treated wrongly.
const ONE_IN: u64 = 23;
/// How late what comes late is.
const LATE: Duration = Duration::from_millis(30);

/// A proxy; it lives as long as the test.
pub struct Proxy {
    pub port: u16,
}

struct Wrong {
    gateway: u16,
    fault: Fault,
    pushes: AtomicU64,
    scrapes: AtomicU64,
    latest: Mutex<HashMap<String, Request>>,
}

impl Proxy {
    /// Before the gateway at that port.
    pub fn start(gateway: u16, fault: Fault) -> Self {
        let wrong = Wrong {
            gateway,
            fault,
            pushes: AtomicU64::new(0),
            scrapes: AtomicU64::new(0),
            latest: Mutex::new(HashMap::new()),
        };
        Self { port: serve(move |request| wrong.handle(request)) }
    }
}

impl Wrong {
    fn pass(&self, request: &Request) -> Answer {
        ask(self.gateway, request).unwrap_or(Answer { status: 502, body: Vec::new() })
    }

    fn later(&self, request: Request) {
        let gateway = self.gateway;
        std::thread::spawn(move || {
            std::thread::sleep(LATE);
            ask(gateway, &request);
        });
    }

    fn handle(&self, request: Request) -> Answer {
        if request.method == "GET" {
            let answer = self.pass(&request);
            return if request.path == "/metrics" { self.scrape(answer) } else { answer };
        }
        let well_meant = well_meant(&request.body);
        let contested = String::from_utf8_lossy(&request.body).contains("_contested");
        let now = self.pushes.fetch_add(1, Ordering::Relaxed).is_multiple_of(ONE_IN);
        let done = Answer { status: 200, body: Vec::new() };
        let delete = request.method == "DELETE";
        match self.fault {
            Fault::Drop if now && well_meant && !delete => done,
            Fault::Reorder if now && well_meant && !delete => {
                self.later(request);
                done
            }
            Fault::Repeat if now && well_meant && !delete && !contested => {
                self.later(request.clone());
                self.pass(&request)
            }
            Fault::Split if well_meant && !contested && request.method == "PUT" => {
                let text = String::from_utf8_lossy(&request.body).into_owned();
                let Some(middle) = text.rfind("# HELP").filter(|at| *at > 0) else {
                    return self.pass(&request);
                };
                let half = |method: &str, body: &str| Request {
                    method: method.to_owned(),
                    path: request.path.clone(),
                    body: body.as_bytes().to_vec(),
                };
                let answer = self.pass(&half("PUT", &text[..middle]));
                if answer.status == 200 {
                    std::thread::sleep(Duration::from_millis(2));
                    return self.pass(&half("POST", &text[middle..]));
                }
                answer
            }
            Fault::Revive if delete => {
                let answer = self.pass(&request);
                let latest = self.latest.lock().expect("nobody panics").get(&request.path).cloned();
                if let Some(latest) = latest {
                    self.pass(&latest);
                }
                answer
            }
            Fault::Revive if well_meant => {
                let answer = self.pass(&request);
                if answer.status == 200 {
                    self.latest.lock().expect("nobody panics").insert(request.path.clone(), request);
                }
                answer
            }
            Fault::TakeBad if !well_meant => {
                self.pass(&request);
                done
            }
            Fault::ShowRefused if !well_meant => {
                let text = String::from_utf8_lossy(&request.body).into_owned();
                let broken = ["lt_broken", "lt_twice", "lt_timed", "# TYPE lt_broken"];
                let end = broken.iter().filter_map(|word| text.find(word)).min().unwrap_or(0);
                let answer = self.pass(&request);
                self.pass(&Request { body: text.as_bytes()[..end].to_vec(), ..request });
                answer
            }
            _ => self.pass(&request),
        }
    }

    fn scrape(&self, answer: Answer) -> Answer {
        let number = self.scrapes.fetch_add(1, Ordering::Relaxed);
        if number % 5 != 4 {
            return answer;
        }
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let text = match self.fault {
            Fault::TwoTypes => text.replace("# TYPE lt_c_0 gauge", "# TYPE lt_c_0 counter"),
            Fault::TimeBack => {
                let changed = text.lines().map(|line| match line.rsplit_once(' ') {
                    Some((series, value))
                        if series.starts_with("push_time_seconds{") && value != "0e0" && value != "0" =>
                    {
                        let value: f64 = value.parse().expect("a number");
                        format!("{series} {:e}\n", value - 100.0)
                    }
                    _ => format!("{line}\n"),
                });
                changed.collect()
            }
            Fault::HalfFamily => {
                let victim = text.lines().position(|line| line.starts_with("lt_c_0{"));
                let kept = text.lines().enumerate().filter(|(at, _)| Some(*at) != victim);
                kept.map(|(_, line)| format!("{line}\n")).collect()
            }
            _ => text,
        };
        Answer { status: answer.status, body: text.into_bytes() }
    }
}

fn well_meant(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    !["lt_broken", "lt_twice", "lt_timed"].iter().any(|word| text.contains(word))
}
