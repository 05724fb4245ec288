//! What many clients do at the same moment. Each test says which mechanism it guards; without that mechanism it fails
//! within seconds on two cores. All are bounded by counts, and writers keep their connections, so that groups are pushed
//! through cores which are not theirs.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::Gateway;
use crate::support::exposition::Exposition;
use crate::support::gateway::{Encoding, is_official, scrape};
use crate::support::http_client::Connection;

/// Scrapes until told to stop, by turns plain and gzip, and checks each exposition. Returns how many there were.
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

/// Runs the writers to their end while scrapers check what there is to be seen.
fn race<W>(gateway: &Gateway, writers: Vec<W>, scrapers: usize, check: impl Fn(&Exposition) + Sync)
where
    W: FnOnce() + Send,
{
    /// Also when a writer panics: the scrapers would never end otherwise.
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
            writer.join().expect("a writer");
        }
        drop(stop_at_the_end);
        scrapers.into_iter().map(|scraper| scraper.join().expect("a scraper")).sum()
    });
    check(&gateway.scrape());
    assert!(scrapes > 10, "only {scrapes} scrapes: nothing was tested");
}

fn push(connection: &mut Connection, method: &str, path: &str, body: &str) -> u16 {
    connection.request(method, path, &[], body.as_bytes()).expect("an answer").status
}

/// A push is in a scrape wholly or not at all.
///
/// Guards: the hand-over of a core's segments at one moment between two pushes, in spite of large pushes that are spliced
/// in slices, of segments that are copied when a scrape holds them, and of compressed forms that are kept. The number of samples
/// depends on the number pushed, so a mixture of two pushes shows even where their numbers do not.
#[test]
fn no_scrape_shows_half_a_push() {
    const GROUPS: usize = 3;
    const WRITERS: u32 = 2;
    const PUSHES: u32 = 120;
    const FAMILIES: usize = 12;
    fn samples(number: u32) -> usize {
        1 + (number % 7) as usize
    }
    /// More than a segment holds, in one family.
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
            assert_eq!(count, FAMILIES * samples(number) + big(number), "{job} is not complete: {number}");
        }
    });
}

/// A push that was answered before a scrape began is in it, on whatever core either was accepted.
///
/// Guards: the answer is sent after the home core applied the push, and a scrape asks every core for its state of now.
#[test]
fn a_scrape_sees_every_push_answered_before_it() {
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

/// A family name given up by one group and taken with another type by a group of another core never shows with both.
///
/// Guards: the registry of families (type and holders) that all cores share, and the rule that a name given up is free for
/// others only after the scrapes that may still see it. Six pairs of jobs, so that some are on different cores. 400 is a
/// legal answer whenever the other group holds the name.
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
                    // Given up in all ways there are.
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
        // Two TYPE lines of one name are an error of the reader already.
        for family in seen.families.iter().filter(|family| family.name.starts_with("flip_")) {
            let side = if family.kind == "gauge" { "left" } else { "right" };
            for sample in &family.samples {
                assert!(sample.label("job").starts_with(side), "a {} shows {sample:?}", family.kind);
            }
            assert_eq!(family.samples.len(), 1, "both groups at once: {family:?}");
        }
    });
    for (side, taken) in taken.iter().enumerate() {
        assert!(taken.load(Ordering::Relaxed) > 10, "side {side} hardly ever got the name");
    }
}

/// The same for suffixes: a histogram `x` and a family `x_count` of another group exclude each other.
///
/// Guards: names that can collide share a lock in the registry, whatever their order of arrival.
#[test]
fn no_scrape_shows_a_histogram_beside_its_suffix() {
    const PAIRS: u32 = 4;
    const ROUNDS: u32 = 120;
    let gateway = Gateway::start(&[]);
    let gateway = &gateway;
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
                        assert_eq!(push(&mut connection, "PUT", &path, ""), 200);
                    }
                }
            }
        })
        .collect();
    race(gateway, writers, 2, |seen| {
        for pair in 0..PAIRS {
            let (whole, part) = (format!("sfx_{pair}"), format!("sfx_{pair}_count"));
            assert!(seen.family(&whole).is_none() || seen.family(&part).is_none(), "both are there: {whole}");
        }
    });
}

/// `m{zone="x"}` pushed to {job} and `m` pushed to {job, zone="x"} are one series: of two pushes at one time one succeeds.
///
/// Guards: the lease of a family with several sets of grouping names, held from the look-up of the twin to the applying; and
/// that a new set of names is registered before the look-up. Groups of one job are spread over the cores.
#[test]
fn one_of_two_twins_wins() {
    const JOBS: u32 = 4;
    const ROUNDS: u32 = 150;
    let gateway = Gateway::start(&[]);
    let gateway = &gateway;
    // In some families both sets of names are there from the start, in others each round brings them anew: in the first the
    // lease decides, in the second the registry.
    for job in 1..JOBS {
        for path in [format!("/metrics/job/keep{job}"), format!("/metrics/job/keep{job}/zone/z")] {
            assert_eq!(gateway.put(&path, &format!("twin_{job}{{x=\"keep\"}} 1\n")).status, 200);
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
                    // Another zone each round: other home cores, other places in the order.
                    let (zone, family) = (round % 8, format!("twin_{job}"));
                    let (path, body) = if side == 0 {
                        (format!("/metrics/job/twin{job}"), format!("{family}{{zone=\"z{zone}\"}} 0\n"))
                    } else {
                        (format!("/metrics/job/twin{job}/zone/z{zone}"), format!("{family} 1\n"))
                    };
                    barriers[job].wait();
                    // A head start by turns, so that both orders of arrival come up.
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
                    // Both sides see the same, so none waits for the other after a failure.
                    assert!(both == [200, 400] || both == [400, 200], "job {job}, round {round}: {both:?}");
                    assert_eq!(push(&mut connection, "DELETE", &path, ""), 202);
                }
            }
        })
        .collect();
    race(gateway, writers, 2, |seen| {
        // A series that appears twice is an error of the reader already.
        for job in 0..JOBS {
            let name = format!("twin_{job}");
            let count = seen.samples(&name).filter(|sample| sample.label("x") != "keep").count();
            assert!(count <= 1, "{count} twins at once");
        }
    });
    let wins = [0, 1].map(|side| wins[side].load(Ordering::Relaxed));
    assert_eq!(wins[0] + wins[1], JOBS * ROUNDS);
    assert!(wins.iter().all(|&wins| wins > 0), "one side always wins: {wins:?}");
}

/// Of two keys that differ by an empty instance only one group lives, whoever comes first.
///
/// Guards: such keys have one home core, which refuses the second at the door. (Official accepts both, and its scrapes fail.)
#[test]
fn an_empty_instance_is_refused_at_the_same_time() {
    const ROUNDS: u32 = 100;
    if is_official() {
        return;
    }
    let gateway = Gateway::start(&[]);
    let gateway = &gateway;
    let writers = ["/metrics/job/empty", "/metrics/job/empty/instance/"]
        .map(|path| {
            move || {
                let mut connection = gateway.connect();
                for round in 0..ROUNDS {
                    let status = push(&mut connection, "PUT", path, &format!("empty_{} 1\n", round % 3));
                    assert!(status == 200 || status == 400, "{status}");
                    if status == 200 {
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
}
