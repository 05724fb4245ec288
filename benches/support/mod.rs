//! Pushes of batch jobs, and shards with their groups.

use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use sluicegate::exposition::memory::Unlimited;
use sluicegate::exposition::model::MetricType;
use sluicegate::exposition::names::NameRules;
use sluicegate::handlers::push::{Format, PushRules, ReceivedPush};
use sluicegate::shard::key::GroupingKey;
use sluicegate::shard::push::{Mode, Push};
use sluicegate::shard::registry::Registry;
use sluicegate::shard::{Decision, FAILURE_TIME, PUSH_TIME, Persistence, PushAttempt, Shard};

/// Rules without limits.
pub const RULES: PushRules =
    PushRules { body_bytes_max: None, consistency_check: true, names: NameRules::Legacy };

/// The address of the client.
pub const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// The body of a job: about 1 KB and 18 series. Every number gives a different body.
pub fn body(number: u32) -> String {
    let mut body = String::new();
    let mut digits = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut value = || {
        digits = digits.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        digits >> (30 + digits % 30)
    };
    for name in ["last_success_timestamp_seconds", "duration_seconds", "exit_code"] {
        writeln!(body, "# TYPE nightly_{name} gauge\nnightly_{name} {}", value())
            .expect("writing to a string cannot fail");
    }
    for name in ["rows", "rejected", "read_bytes", "written_bytes"] {
        writeln!(body, "# HELP nightly_{name}_total Number of {name}.")
            .expect("writing to a string cannot fail");
        writeln!(body, "# TYPE nightly_{name}_total counter\nnightly_{name}_total {}", value())
            .expect("writing to a string cannot fail");
    }
    writeln!(body, "# TYPE nightly_stage_seconds gauge").expect("writing to a string cannot fail");
    for stage in ["read", "sort", "join", "write"] {
        writeln!(body, "nightly_stage_seconds{{stage=\"{stage}\"}} {}", value())
            .expect("writing to a string cannot fail");
    }
    writeln!(body, "# TYPE nightly_step_seconds histogram").expect("writing to a string cannot fail");
    for le in ["0.1", "1", "10", "+Inf"] {
        writeln!(body, "nightly_step_seconds_bucket{{le=\"{le}\"}} {}", value())
            .expect("writing to a string cannot fail");
    }
    writeln!(body, "nightly_step_seconds_sum {}\nnightly_step_seconds_count {}", value(), value())
        .expect("writing to a string cannot fail");
    body
}

/// The key of a group: one of twenty jobs, and an instance of its own.
pub fn key(group: u32) -> GroupingKey {
    GroupingKey::new([
        ("job".to_owned(), format!("job{}", group % 20)),
        ("instance".to_owned(), format!("host-{group}")),
    ])
}

/// A push to a group, parsed and rendered.
pub fn push(group: u32, number: u32) -> Arc<Push> {
    Arc::new(prepare(&received(group, body(number))))
}

/// A push before it is parsed.
pub fn received(group: u32, body: String) -> ReceivedPush {
    ReceivedPush {
        key: key(group),
        mode: Mode::Replace,
        format: Format::of(&HeaderMap::new()),
        encoding: None,
        body: body.into(),
        source: Some(PEER),
    }
}

/// Parses and renders a push.
pub fn prepare(received: &ReceivedPush) -> Push {
    received.prepare(RULES, RULES.sizes(), &mut Unlimited).expect("a valid body")
}

/// Applies a push to a shard.
pub fn apply(shard: &mut Shard, push: &Arc<Push>) {
    let Decision::Apply(edit) = Shard::decide(shard, push, &mut PushAttempt::default(), 1.7e9) else {
        unreachable!("there are no other pushes and no scrapes")
    };
    black_box(edit.finish().outcome);
}

/// A shard with this number of groups.
pub fn shard(groups: u32) -> Shard {
    let own = [PUSH_TIME, FAILURE_TIME].map(|name| (name, MetricType::Gauge, "A time."));
    let mut shard = Shard::new(0, Arc::new(Registry::new(own)), Persistence::InMemory);
    for group in 0..groups {
        apply(&mut shard, &push(group, group));
    }
    shard
}
