//! Which shapes the table knows.

use super::*;

fn key() -> GroupingKey {
    GroupingKey::new([("job".to_owned(), "a".to_owned())])
}

fn body(number: usize) -> Vec<u8> {
    // The first and the last line are the same.
    format!("first 1\nm{{number=\"{number}\"}} 2\nlast 3\n").into_bytes()
}

/// With a fingerprint of its own.
fn other(number: usize) -> Vec<u8> {
    format!("m{{number=\"{number}\"}} 2\n").into_bytes()
}

impl Shapes {
    fn knows(&self, body: &[u8]) -> bool {
        self.find(body, &key(), usize::MAX, &mut Vec::new()).is_some()
    }

    fn learns(&self, body: &[u8]) -> bool {
        self.learn(body, &key(), NameRules::Legacy, usize::MAX, &mut Vec::new()).is_some()
    }

    fn learns_second(&self, body: &[u8]) -> bool {
        self.learns(body) || self.learns(body)
    }
}

#[test]
fn a_shape_is_made_of_the_second_body() {
    let shapes = Shapes::default();
    assert!(!shapes.learns(&body(1)) && !shapes.knows(&body(1)));
    assert!(shapes.learns(&body(1)) && shapes.knows(&body(1)));
    assert!(!shapes.knows(&body(2)));
    // Of the same body for other label names, too.
    let app = GroupingKey::new([("app".to_owned(), "a".to_owned())]);
    let learn = || shapes.learn(&body(1), &app, NameRules::Legacy, usize::MAX, &mut Vec::new());
    assert!(learn().is_none() && learn().is_some());
}

#[test]
fn a_long_body_is_parsed() {
    let shapes = Shapes::default();
    let long: String = (0..5_000).map(|number| format!("m{{a=\"{number}\"}} 1\n")).collect();
    assert!(long.len() > BODY_BYTES_MAX);
    assert!(!shapes.learns_second(long.as_bytes()));
}

/// Shapes are bounded in number and bytes. Those that are used stay.
#[test]
fn the_least_recently_used_shapes_are_forgotten() {
    for limits in [Limits { shapes: 10, bytes: usize::MAX }, Limits { shapes: usize::MAX, bytes: 8_000 }] {
        let shapes = Shapes::with_limits(limits);
        let mut first = None;
        for number in 0..100 {
            assert!(shapes.learns_second(&other(number)));
            let found = shapes.find(&other(0), &key(), usize::MAX, &mut Vec::new());
            first = Some(found.expect("is always used"));
            let table = shapes.table.load();
            let all: Vec<_> = table.by_fingerprint.values().flatten().collect();
            assert_eq!(table.shapes, all.len());
            assert_eq!(table.bytes, all.iter().map(|shape| shape.bytes()).sum::<usize>());
            assert!(table.shapes <= limits.shapes && table.bytes <= limits.bytes);
        }
        assert!(shapes.knows(&other(99)) && !shapes.knows(&other(50)));
        let first = first.expect("there were some");
        assert!(!first.is_evicted.load(Ordering::Relaxed));
        for number in 100..200 {
            shapes.learns_second(&other(number));
        }
        assert!(first.is_evicted.load(Ordering::Relaxed));
    }
}

#[test]
fn few_shapes_have_the_same_fingerprint() {
    let shapes = Shapes::default();
    for number in 0..100 {
        assert!(shapes.learns_second(&body(number)));
        let table = shapes.table.load();
        assert!(table.by_fingerprint.values().all(|candidates| candidates.len() <= CANDIDATES_MAX));
    }
    assert!(shapes.knows(&body(99)) && !shapes.knows(&body(0)));
}

/// A fleet in which every body has a shape of its own, or none, must not pay for shapes all the time.
#[test]
fn pushes_pay_for_shapes() {
    let shapes = Shapes::default();
    let without = |number: usize| format!("m{{a=\"{number}\"}} 1\nm{{b=\"x\"}} 1\n").into_bytes();
    for number in 0..CREDITS_MAX as usize {
        if number % 2 == 0 {
            assert!(shapes.learns_second(&other(number)));
        } else {
            assert!(!shapes.learns_second(&without(number)));
            // Is known to have none, which costs nothing.
            assert!(!shapes.learns_second(&without(number)));
        }
    }
    let new = other(CREDITS_MAX as usize);
    assert!(!shapes.learns_second(&new));
    let mut payments = Payments::default();
    (1..PUSHES_PER_CREDIT).for_each(|_| shapes.pay(&mut payments, true));
    assert!(!shapes.learns_second(&new));
    shapes.pay(&mut payments, true);
    assert!(shapes.learns_second(&new));
    (0..PUSHES_PER_CREDIT / PAID_BY_UNKNOWN).for_each(|_| shapes.pay(&mut payments, false));
    assert!(shapes.learns_second(&other(CREDITS_MAX as usize + 1)));
    assert!(!shapes.learns_second(&other(CREDITS_MAX as usize + 2)));
}
