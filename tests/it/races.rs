//! Concurrent clients. Each test names the mechanism that it guards; without that mechanism it fails within seconds on two
//! cores. All tests are bounded by counts. Writers keep their connections, so groups are pushed through cores that do not
//! own them.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::Gateway;
use crate::support::exposition::Exposition;
use crate::support::gateway::{Encoding, scrape};
use crate::support::http_client::Connection;

/// Scrapes until `stop` is set, alternately without compression and with gzip, and checks each exposition. Returns the
/// number of scrapes.
fn keep_scraping(gateway: &Gateway, stop: &AtomicBool, check: impl Fn(&Exposition)) -> u32 {
    let mut connection = gateway.connect();
    let mut scrapes = 0;
    while !stop.load(Ordering::Relaxed) {
        let encoding = if scrapes % 2 == 0 { Encoding::Plain } else { Encoding::Gzip };
        check(&scrape(&mut connection, encoding));
        scrapes += 1;
    }
    scrapes
}

/// Runs the writers to their end while scrapers check each exposition.
fn race<W>(gateway: &Gateway, writers: Vec<W>, scrapers: usize, check: impl Fn(&Exposition) + Sync)
where
    W: FnOnce() + Send,
{
    /// Stops the scrapers, even if a writer panics.
    struct StopOnDrop<'a>(&'a AtomicBool);
    impl Drop for StopOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let scrapes: u32 = thread::scope(|scope| {
        let scrapers: Vec<_> =
            (0..scrapers).map(|_| scope.spawn(|| keep_scraping(gateway, &stop, &check))).collect();
        let stop_at_the_end = StopOnDrop(&stop);
        let writers: Vec<_> = writers.into_iter().map(|writer| scope.spawn(writer)).collect();
        for writer in writers {
            writer.join().expect("the writer does not panic");
        }
        drop(stop_at_the_end);
        scrapers.into_iter().map(|scraper| scraper.join().expect("the scraper does not panic")).sum()
    });
    check(&gateway.scrape());
    assert!(scrapes > 10, "only {scrapes} scrapes ran beside the writers");
}

fn push(connection: &mut Connection, method: &str, path: &str, body: &str) -> u16 {
    connection.request(method, path, &[], body.as_bytes()).expect("a response").status
}

/// A scrape shows all of a push or nothing of it.
///
/// Guards: each core takes the snapshot of its segments between two pushes, although large pushes are applied in slices,
/// segments are copied while a scrape uses them, and compressed pieces are cached. The number of samples depends on the pushed
/// number, so a mixture of two pushes is visible even if their values are equal.
#[test]
fn no_scrape_shows_half_a_push() {
    const GROUPS: usize = 3;
    const WRITERS: u32 = 2;
    const PUSHES: u32 = 120;
    const FAMILIES: usize = 12;
    fn samples(number: u32) -> usize {
        1 + (number % 7) as usize
    }
    /// More samples than a segment holds, in one family.
    fn big(number: u32) -> usize {
        150 + (number % 5) as usize * 40
    }
    fn body(number: u32) -> String {
        let small = (0..FAMILIES).flat_map(|family| {
            (0..samples(number)).map(move |x| format!("torn_{family}{{x=\"{x}\"}} {number}\n"))
        });
        let big =
            (0..big(number)).map(|x| format!("torn_big{{padding=\"some words\",x=\"{x}\"}} {number}\n"));
        small.chain(big).collect()
    }

    let gateway = Gateway::start(&[]);
    let gateway = &gateway;
    let writers = (0..GROUPS as u32 * WRITERS)
        .map(|writer| {
            move || {
                let mut connection = gateway.connect();
                let path = format!("/metrics/job/torn{}", writer / WRITERS);
                for push_number in 0..PUSHES {
                    let number = push_number * WRITERS + writer % WRITERS;
                    assert_eq!(push(&mut connection, "PUT", &path, &body(number)), 200);
                }
            }
        })
        .collect();
    race(gateway, writers, 3, |seen| {
        let mut groups: BTreeMap<&str, (Vec<&str>, usize)> = BTreeMap::new();
        for family in seen.families.iter().filter(|family| family.name.starts_with("torn_")) {
            for sample in &family.samples {
                let group = groups.entry(sample.label("job")).or_default();
                group.1 += 1;
                if !group.0.contains(&sample.value.as_str()) {
                    group.0.push(&sample.value);
                }
            }
        }
        for (job, (numbers, count)) in groups {
            assert_eq!(numbers.len(), 1, "{job} shows several pushes: {numbers:?}");
            let number = numbers[0].parse().expect("an integer was pushed");
            assert_eq!(count, FAMILIES * samples(number) + big(number), "{job} is incomplete: {number}");
        }
    });
    assert_eq!(gateway.scrape().samples("push_time_seconds").count(), GROUPS, "groups without a push");
}

/// A scrape shows every push that was acknowledged before it began, whichever cores accepted the two connections.
///
/// Guards: the response is sent after the owning core has applied the push, and a scrape asks every core for its current
/// state.
#[test]
fn a_scrape_shows_every_push_acknowledged_before_it() {
    const WRITERS: u32 = 4;
    const PUSHES: u32 = 150;
    let gateway = Gateway::start(&[]);
    let gateway = &gateway;
    let writers = (0..WRITERS)
        .map(|writer| {
            move || {
                let mut pusher = gateway.connect();
                let mut scraper = gateway.connect();
                let job = format!("seen{writer}");
                for number in 0..PUSHES {
                    let (body, number) = (format!("seen {number}\n"), number.to_string());
                    assert_eq!(push(&mut pusher, "PUT", &format!("/metrics/job/{job}"), &body), 200);
                    let encoding = if writer % 2 == 0 { Encoding::Plain } else { Encoding::Gzip };
                    let seen = scrape(&mut scraper, encoding);
                    assert_eq!(seen.value("seen", &[("job", &job)]), Some(number.as_str()));
                }
            }
        })
        .collect();
    race(gateway, writers, 1, |_| {});
}

/// When a group of one core frees a family name and a group of another core takes it with another type, no scrape shows both.
///
/// Guards: the registry of families (type and holders) that all cores share, and the rule that a freed name stays reserved
/// until all scrapes that may show it have finished. Six pairs of jobs, so that some are on different cores. 400 is a valid
/// response while the other group holds the name.
#[test]
fn no_scrape_shows_a_family_with_two_types() {
    const PAIRS: u32 = 6;
    const ROUNDS: u32 = 120;
    let gateway = Gateway::start(&[]);
    let gateway = &gateway;
    let taken = [const { AtomicU32::new(0) }; 2];
    let taken = &taken;
    let writers = (0..PAIRS * 2)
        .map(|writer| {
            move || {
                let (pair, side) = (writer / 2, writer as usize % 2);
                let mut connection = gateway.connect();
                let kind = ["gauge", "counter"][side];
                let path = format!("/metrics/job/{}{pair}", ["left", "right"][side]);
                let body = format!("# TYPE flip_{pair} {kind}\nflip_{pair} 1\n");
                for round in 0..ROUNDS {
                    match push(&mut connection, "PUT", &path, &body) {
                        200 => taken[side].fetch_add(1, Ordering::Relaxed),
                        status => {
                            assert_eq!(status, 400);
                            continue;
                        }
                    };
                    // Each way to free a name.
                    let status = match round % 3 {
                        0 => push(&mut connection, "PUT", &path, ""),
                        1 => push(&mut connection, "PUT", &path, &format!("other_{pair} 1\n")),
                        _ => push(&mut connection, "DELETE", &path, ""),
                    };
                    assert_eq!(status, if round % 3 == 2 { 202 } else { 200 });
                }
            }
        })
        .collect();
    race(gateway, writers, 2, |seen| {
        // The parser already rejects two TYPE lines of one name.
        for family in seen.families.iter().filter(|family| family.name.starts_with("flip_")) {
            let side = if family.kind == "gauge" { "left" } else { "right" };
            for sample in &family.samples {
                assert!(sample.label("job").starts_with(side), "a {} shows {sample:?}", family.kind);
            }
            assert_eq!(family.samples.len(), 1, "both groups at once: {family:?}");
        }
    });
    for (side, taken) in taken.iter().enumerate() {
        assert!(taken.load(Ordering::Relaxed) > 10, "side {side} got the name too rarely");
    }
}

/// A histogram `x` and a family `x_count` of another group exclude each other.
///
/// Guards: names that can collide share a lock in the registry, so the order of arrival does not matter.
#[test]
fn no_scrape_shows_a_histogram_beside_its_suffix() {
    const PAIRS: u32 = 4;
    const ROUNDS: u32 = 120;
    let gateway = Gateway::start(&[]);
    let gateway = &gateway;
    let accepted = [const { AtomicU32::new(0) }; 2];
    let accepted = &accepted;
    let writers = (0..PAIRS * 2)
        .map(|writer| {
            move || {
                let pair = writer / 2;
                let mut connection = gateway.connect();
                let (path, body) = if writer % 2 == 0 {
                    (
                        format!("/metrics/job/whole{pair}"),
                        format!("# TYPE sfx_{pair} histogram\nsfx_{pair}_count 1\n"),
                    )
                } else {
                    (format!("/metrics/job/part{pair}"), format!("sfx_{pair}_count 1\n"))
                };
                for _ in 0..ROUNDS {
                    let status = push(&mut connection, "PUT", &path, &body);
                    assert!(status == 200 || status == 400, "{status}");
                    if status == 200 {
                        accepted[writer as usize % 2].fetch_add(1, Ordering::Relaxed);
                        assert_eq!(push(&mut connection, "PUT", &path, ""), 200);
                    }
                }
            }
        })
        .collect();
    race(gateway, writers, 2, |seen| {
        for pair in 0..PAIRS {
            let (whole, part) = (format!("sfx_{pair}"), format!("sfx_{pair}_count"));
            assert!(
                seen.family(&whole).is_none() || seen.family(&part).is_none(),
                "a scrape shows {whole} and {part}"
            );
        }
    });
    for (side, accepted) in accepted.iter().enumerate() {
        assert!(accepted.load(Ordering::Relaxed) > 10, "side {side} got its name too rarely");
    }
}

/// `m{zone="x"}` pushed to {job} and `m` pushed to {job, zone="x"} are the same series: of two concurrent pushes one succeeds.
///
/// Guards: a family with several sets of grouping names has a lease, held from the lookup of the duplicate until the push is
/// applied; and a new set of names is registered before the lookup. Groups of one job are spread over the cores.
#[test]
fn one_of_two_concurrent_duplicates_is_rejected() {
    const JOBS: u32 = 4;
    const ROUNDS: u32 = 150;
    let gateway = Gateway::start(&[]);
    let gateway = &gateway;
    // Some families have both sets of names from the start, so the lease decides. In the others each round registers them
    // again, so the registry decides.
    for job in 1..JOBS {
        for path in [format!("/metrics/job/keep{job}"), format!("/metrics/job/keep{job}/zone/z")] {
            assert_eq!(gateway.put(&path, &format!("duplicate_{job}{{x=\"keep\"}} 1\n")).status, 200);
        }
    }
    let barriers: Vec<_> = (0..JOBS).map(|_| Barrier::new(2)).collect();
    let results: Vec<_> = (0..JOBS).map(|_| [const { AtomicU32::new(0) }; 2]).collect();
    let wins = [const { AtomicU32::new(0) }; 2];
    let (barriers, results, wins) = (&barriers, &results, &wins);
    let writers = (0..JOBS * 2)
        .map(|writer| {
            move || {
                let (job, side) = ((writer / 2) as usize, writer as usize % 2);
                let mut connection = gateway.connect();
                for round in 0..ROUNDS {
                    // Another zone in each round: other cores, another order of keys.
                    let (zone, family) = (round % 8, format!("duplicate_{job}"));
                    let (path, body) = if side == 0 {
                        (format!("/metrics/job/duplicate{job}"), format!("{family}{{zone=\"z{zone}\"}} 0\n"))
                    } else {
                        (format!("/metrics/job/duplicate{job}/zone/z{zone}"), format!("{family} 1\n"))
                    };
                    barriers[job].wait();
                    // One side waits in turn, so that both orders of arrival occur.
                    if round as usize % 3 == side {
                        thread::sleep(Duration::from_micros(100));
                    }
                    let status = push(&mut connection, ["PUT", "POST"][round as usize % 2], &path, &body);
                    results[job][side].store(status.into(), Ordering::Relaxed);
                    barriers[job].wait();
                    let both = [0, 1].map(|side| results[job][side].load(Ordering::Relaxed));
                    if status == 200 {
                        wins[side].fetch_add(1, Ordering::Relaxed);
                    }
                    // Both sides see both statuses, so neither waits at the barrier after a failure.
                    assert!(both == [200, 400] || both == [400, 200], "job {job}, round {round}: {both:?}");
                    assert_eq!(push(&mut connection, "DELETE", &path, ""), 202);
                }
            }
        })
        .collect();
    race(gateway, writers, 2, |seen| {
        // The parser already rejects repeated series.
        for job in 0..JOBS {
            let name = format!("duplicate_{job}");
            let count = seen.samples(&name).filter(|sample| sample.label("x") != "keep").count();
            assert!(count <= 1, "{count} duplicates in one scrape");
        }
    });
    let wins = [0, 1].map(|side| wins[side].load(Ordering::Relaxed));
    assert_eq!(wins[0] + wins[1], JOBS * ROUNDS);
    assert!(wins.iter().all(|&wins| wins > 0), "one side won every time: {wins:?}");
}

/// Of two grouping keys that differ only by an empty instance, only one can exist, in either order of arrival.
///
/// Guards: the same core owns both keys and rejects the second. The official program accepts both, and its scrapes fail
/// (difference 2 in `docs/compatibility.md`).
#[test]
fn difference_02_only_one_of_two_keys_that_differ_by_an_empty_instance_exists() {
    const ROUNDS: u32 = 100;
    let gateway = Gateway::start(&[]);
    let gateway = &gateway;
    let accepted = [const { AtomicU32::new(0) }; 2];
    let writers = [("/metrics/job/empty", &accepted[0]), ("/metrics/job/empty/instance/", &accepted[1])]
        .map(|(path, accepted)| {
            move || {
                let mut connection = gateway.connect();
                for round in 0..ROUNDS {
                    let status = push(&mut connection, "PUT", path, &format!("empty_{} 1\n", round % 3));
                    assert!(status == 200 || status == 400, "{status}");
                    if status == 200 {
                        accepted.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(push(&mut connection, "DELETE", path, ""), 202);
                    }
                }
            }
        })
        .into();
    race(gateway, writers, 2, |seen| {
        let groups = seen.samples("push_time_seconds").filter(|sample| sample.label("job") == "empty");
        assert!(groups.count() <= 1);
    });
    assert!(accepted.iter().all(|accepted| accepted.load(Ordering::Relaxed) > 0), "{accepted:?}");
}
