//! A proxy between the load test and a correct gateway that makes one kind of error now and then.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::http::{Request, Response, send, serve};

/// What the proxy does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Acknowledges a push without forwarding it.
    DropPush,
    /// Acknowledges a push and forwards it later.
    DelayPush,
    /// Forwards a push in two halves.
    SplitPush,
    /// Forwards a push twice, the second time later.
    RepeatPush,
    /// Restores a deleted group.
    ReviveGroup,
    /// Shows a family with another type.
    ChangeType,
    /// Shows push times that go backwards.
    TurnBackTime,
    /// Acknowledges a push that the gateway rejects.
    AcceptInvalid,
    /// Omits a line of a family from a scrape.
    OmitLine,
    /// Stores the valid part of a push that the gateway rejects.
    ShowRejected,
}

/// One push in this many is dropped, delayed or repeated.
const PUSH_FAULT_INTERVAL: u64 = 23;
/// One scrape in this many is changed.
const SCRAPE_FAULT_INTERVAL: u64 = 5;
/// Delay of pushes that are forwarded later.
const DELAY: Duration = Duration::from_millis(30);
/// Names in the endings that make a body malformed or inconsistent.
const INVALID_NAMES: [&str; 3] = ["lt_broken", "lt_twice", "lt_timed"];

/// A proxy; it runs until the test process ends.
pub struct FaultyProxy {
    pub port: u16,
}

struct State {
    gateway: u16,
    fault: Fault,
    pushes: AtomicU64,
    scrapes: AtomicU64,
    /// The last accepted push to each path, for [`Fault::ReviveGroup`].
    latest: Mutex<HashMap<String, Request>>,
}

impl FaultyProxy {
    /// Starts a proxy for the gateway on a port.
    pub fn start(gateway: u16, fault: Fault) -> Self {
        let state = State {
            gateway,
            fault,
            pushes: AtomicU64::new(0),
            scrapes: AtomicU64::new(0),
            latest: Mutex::new(HashMap::new()),
        };
        Self { port: serve(move |request| state.respond(request)) }
    }
}

impl State {
    fn respond(&self, request: Request) -> Response {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/metrics") => self.change_scrape(self.forward(&request)),
            ("GET", _) => self.forward(&request),
            ("DELETE", _) => self.respond_to_delete(&request),
            _ if is_valid(&request.body) => self.respond_to_push(request),
            _ => self.respond_to_invalid_push(request),
        }
    }

    fn respond_to_push(&self, request: Request) -> Response {
        let number = self.pushes.fetch_add(1, Ordering::Relaxed);
        let is_affected = number.is_multiple_of(PUSH_FAULT_INTERVAL);
        let is_contested = String::from_utf8_lossy(&request.body).contains("_contested");
        let accepted = Response { status: 200, body: Vec::new() };
        match self.fault {
            Fault::DropPush if is_affected => accepted,
            Fault::DelayPush if is_affected => {
                self.forward_later(request);
                accepted
            }
            Fault::RepeatPush if is_affected && !is_contested => {
                self.forward_later(request.clone());
                self.forward(&request)
            }
            Fault::SplitPush if !is_contested && request.method == "PUT" => self.forward_in_halves(&request),
            Fault::ReviveGroup => {
                let response = self.forward(&request);
                if response.status == 200 {
                    self.latest.lock().expect("no thread panics").insert(request.path.clone(), request);
                }
                response
            }
            _ => self.forward(&request),
        }
    }

    fn respond_to_invalid_push(&self, request: Request) -> Response {
        let response = self.forward(&request);
        match self.fault {
            Fault::AcceptInvalid => Response { status: 200, body: Vec::new() },
            Fault::ShowRejected => {
                let text = String::from_utf8_lossy(&request.body).into_owned();
                let endings = INVALID_NAMES.iter().chain(&["# TYPE lt_broken"]);
                let end = endings.filter_map(|name| text.find(name)).min().unwrap_or(0);
                self.forward(&Request { body: text.as_bytes()[..end].to_vec(), ..request });
                response
            }
            _ => response,
        }
    }

    fn respond_to_delete(&self, request: &Request) -> Response {
        let response = self.forward(request);
        if self.fault == Fault::ReviveGroup {
            let latest = self.latest.lock().expect("no thread panics").get(&request.path).cloned();
            if let Some(latest) = latest {
                self.forward(&latest);
            }
        }
        response
    }

    fn forward(&self, request: &Request) -> Response {
        send(self.gateway, request).unwrap_or(Response { status: 502, body: Vec::new() })
    }

    fn forward_later(&self, request: Request) {
        let gateway = self.gateway;
        std::thread::spawn(move || {
            std::thread::sleep(DELAY);
            send(gateway, &request);
        });
    }

    /// Forwards all families but the last by PUT, and the last one later by POST.
    fn forward_in_halves(&self, request: &Request) -> Response {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let Some(middle) = text.rfind("# HELP").filter(|at| *at > 0) else {
            return self.forward(request);
        };
        let half = |method: &str, body: &str| Request {
            method: method.to_owned(),
            path: request.path.clone(),
            body: body.as_bytes().to_vec(),
        };
        let response = self.forward(&half("PUT", &text[..middle]));
        if response.status != 200 {
            return response;
        }
        std::thread::sleep(Duration::from_millis(2));
        self.forward(&half("POST", &text[middle..]))
    }

    fn change_scrape(&self, response: Response) -> Response {
        let number = self.scrapes.fetch_add(1, Ordering::Relaxed);
        if number % SCRAPE_FAULT_INTERVAL != SCRAPE_FAULT_INTERVAL - 1 {
            return response;
        }
        let text = String::from_utf8_lossy(&response.body).into_owned();
        let text = match self.fault {
            Fault::ChangeType => text.replace("# TYPE lt_c_0 gauge", "# TYPE lt_c_0 counter"),
            Fault::TurnBackTime => text.lines().map(turn_back_push_time).collect(),
            Fault::OmitLine => {
                let victim = text.lines().position(|line| line.starts_with("lt_c_0{"));
                let kept = text.lines().enumerate().filter(|(at, _)| Some(*at) != victim);
                kept.map(|(_, line)| format!("{line}\n")).collect()
            }
            _ => text,
        };
        Response { status: response.status, body: text.into_bytes() }
    }
}

/// The line with a push time that is 100 s earlier; other lines are unchanged.
fn turn_back_push_time(line: &str) -> String {
    match line.rsplit_once(' ') {
        Some((series, value))
            if series.starts_with("push_time_seconds{") && value != "0e0" && value != "0" =>
        {
            let value: f64 = value.parse().expect("a number");
            format!("{series} {:e}\n", value - 100.0)
        }
        _ => format!("{line}\n"),
    }
}

fn is_valid(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    !INVALID_NAMES.iter().any(|name| text.contains(name))
}
