//! Groups that wait for their shard.

use super::*;
use crate::exposition::model::MetricType;
use crate::shard::Persistence;
use crate::shard::registry::Registry;
use crate::shard::{FAILURE_TIME, PUSH_TIME};

fn record(bytes: usize) -> Vec<u8> {
    let text = format!("m{{job=\"a\",x=\"{}\"}} 1\n", "x".repeat(bytes));
    let family = sluicegate_engine::record::Family {
        name: "m",
        kind: sluicegate_engine::record::Kind::Untyped,
        help: None,
        push_seconds: 1.0,
        text: text.as_bytes(),
        exact: None,
    };
    let record = Record {
        revision: 0,
        push_seconds: 1.0,
        failure_seconds: 0.0,
        created_seconds: 1.0,
        expires_seconds: None,
        families: vec![family],
    };
    let mut out = Vec::new();
    record.encode(&mut out).expect("a small record");
    out
}

fn shards() -> Vec<Arc<CoreShards>> {
    let kind = MetricType::Gauge;
    let registry = Arc::new(Registry::new([(PUSH_TIME, kind, "pushed"), (FAILURE_TIME, kind, "failed")]));
    vec![Arc::new(CoreShards::new(Shard::new(0, registry, Persistence::Stored)))]
}

#[test]
fn a_group_whose_shard_is_in_use_is_loaded_later() {
    let (shards, shared) = (shards(), Shared::new(1));
    let restoring = Restoring::new(shards.clone(), &shared);
    let groups = || shards[0].main.lock_blocking().counts().groups;
    let add = |job: &str, bytes| {
        assert!(restoring.add(&format!("job=\"{job}\""), &record(bytes)).is_continue());
    };
    let held = shards[0].main.lock_blocking();
    add("a", 1);
    add("b", 1);
    drop(held);
    assert_eq!(groups(), 0);
    add("c", 1);
    assert_eq!(groups(), 3, "whoever gets the shard loads those that wait");
    let held = shards[0].main.lock_blocking();
    add("d", 1);
    drop(held);
    assert_eq!(restoring.load_all_waiting(), None);
    assert_eq!(groups(), 4);
}
