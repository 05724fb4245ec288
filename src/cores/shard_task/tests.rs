//! Commands beside a command to a very large group.

use futures_util::FutureExt;

use super::*;
use crate::exposition::model::MetricType;
use crate::exposition::names::NameRules;
use crate::reference::{Mode, push_of};
use crate::runtime::budget::Budget;
use crate::runtime::threads::block_on_epoll;
use crate::shard::shapes::Shapes;
use crate::shard::{FAILURE_TIME, PUSH_TIME, Persistence};

/// So many that a push is decided and applied in more than a hundred slices.
const FAMILIES: usize = 8_000;

type Reply = oneshot::Receiver<CommandResult>;

fn task() -> Rc<ShardTask> {
    task_with_queue(None)
}

fn task_with_queue(queue_max: Option<usize>) -> Rc<ShardTask> {
    let own = [PUSH_TIME, FAILURE_TIME].map(|name| (name, MetricType::Gauge, "help"));
    let registry = Arc::new(Registry::new(own));
    let shard = Shard::new(0, registry.clone(), Persistence::InMemory);
    let (mailboxes, _inboxes) = Mailboxes::new(1, queue_max);
    ShardTask::new(0, Arc::new(CoreShards::new(shard)), registry, Arc::default(), mailboxes, None)
}

fn key(job: &str) -> GroupingKey {
    GroupingKey::new([("job".to_owned(), job.to_owned())])
}

fn push(task: &Rc<ShardTask>, job: &str, body: &str) -> Reply {
    let push = push_of(Mode::Replace, &key(job), body).expect("is readable");
    let (tx, rx) = oneshot::channel();
    let permit = task.mailboxes.queue_permit(0).expect("there is no limit");
    task.execute(ShardCommand::Push(Arc::new(push), permit, tx));
    rx
}

fn delete(task: &Rc<ShardTask>, job: &str) -> Reply {
    let (tx, rx) = oneshot::channel();
    let permit = task.mailboxes.queue_permit(0).expect("there is no limit");
    task.execute(ShardCommand::Delete(key(job), permit, tx));
    rx
}

fn many_families(count: usize, value: usize) -> String {
    (0..count).map(|number| format!("large_{number} {value}\n")).collect()
}

/// The lines that a scrape shows of pushed families.
async fn shown(task: &Rc<ShardTask>) -> Vec<String> {
    let (tx, rx) = oneshot::channel();
    task.execute(ShardCommand::Snapshot(tx));
    let (snapshots, _) = rx.await.expect("the task runs");
    let mut lines = Vec::new();
    for family in snapshots.iter().flatten().filter(|family| !family.shared.name.starts_with("push_")) {
        for segment in family.text.segments() {
            let text = String::from_utf8(segment.text().to_vec()).expect("lines are UTF-8");
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    lines
}

async fn applied(mut reply: Reply) {
    assert_eq!((&mut reply).await.expect("the task runs"), Ok(Outcome::Applied));
}

/// Lets the other tasks run for some slices.
async fn some_slices() {
    for _ in 0..10 {
        yield_now().await;
    }
}

/// A push with very many families once kept all other groups of its core waiting until it was applied, and all scrapes.
#[test]
fn other_groups_are_pushed_and_scraped_while_a_large_push_is_applied() {
    block_on_epoll(async {
        let task = task();
        applied(push(&task, "other", "small 1\n")).await;
        let mut large = push(&task, "large", &many_families(FAMILIES, 1));
        some_slices().await;
        applied(push(&task, "other", "small 2\n")).await;
        applied(push(&task, "new", "small 3\n")).await;
        applied(delete(&task, "other")).await;
        // Nothing of the large push is visible yet, and everything that was acknowledged is.
        assert_eq!(shown(&task).await, ["small{instance=\"\",job=\"new\"} 3"]);
        assert!((&mut large).now_or_never().is_none(), "the large push is still being applied");
        applied(large).await;
        assert_eq!(shown(&task).await.len(), FAMILIES + 1);
    });
}

/// The same with a large group that exists: replaced, deleted, and made small, which returns it to the main shard.
#[test]
fn other_groups_are_pushed_while_a_large_group_changes() {
    block_on_epoll(async {
        let task = task();
        let changes: [&dyn Fn() -> Reply; 3] = [
            &|| push(&task, "large", &many_families(FAMILIES, 2)),
            &|| push(&task, "large", "few 1\n"),
            &|| delete(&task, "large"),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            applied(push(&task, "large", &many_families(FAMILIES, 1))).await;
            let mut change = change();
            some_slices().await;
            applied(push(&task, "other", "small 2\n")).await;
            assert!((&mut change).now_or_never().is_none(), "command {number} is still being executed");
            applied(change).await;
        }
        assert_eq!(shown(&task).await, ["small{instance=\"\",job=\"other\"} 2"]);
        assert!(task.shards.side_from(0).is_none(), "the side shard was removed with its group");
    });
}

/// A scrape that begins while a large push is applied shows the group as it was, or as it is afterwards.
#[test]
fn a_scrape_never_shows_half_of_a_large_push() {
    block_on_epoll(async {
        let task = task();
        applied(push(&task, "large", &many_families(FAMILIES, 1))).await;
        for value in 2..5 {
            let large = push(&task, "large", &many_families(FAMILIES, value));
            some_slices().await;
            let lines = shown(&task).await;
            assert_eq!(lines.len(), FAMILIES);
            let values: std::collections::BTreeSet<_> =
                lines.iter().filter_map(|line| line.rsplit_once(' ')).map(|(_, value)| value).collect();
            assert_eq!(values.len(), 1, "{values:?}");
            applied(large).await;
        }
    });
}

/// A group that becomes large and small again is always in exactly one shard.
#[test]
fn a_group_moves_between_shards_unnoticed() {
    block_on_epoll(async {
        let task = task();
        for round in 0..3 {
            applied(push(&task, "a", &format!("few {round}\n"))).await;
            assert_eq!(shown(&task).await.len(), 1);
            applied(push(&task, "a", &many_families(FAMILIES, round))).await;
            assert!(task.shards.side_from(0).is_some());
            assert_eq!(shown(&task).await.len(), FAMILIES);
            let mut last = push(&task, "a", &format!("last {round}\n"));
            while (&mut last).now_or_never().is_none() {
                let lines = shown(&task).await.len();
                assert!(lines == FAMILIES || lines == 1, "{lines} lines");
            }
            while task.shards.side_from(0).is_some() {
                assert_eq!(shown(&task).await.len(), 1);
                yield_now().await;
            }
            assert_eq!(shown(&task).await, [format!("last{{instance=\"\",job=\"a\"}} {round}")]);
            let counts = task.shards.main.lock().await.counts();
            assert_eq!((counts.groups, counts.families), (1, 3));
        }
    });
}

/// The readers of pages and documents find each group once, whether it is in the main shard or not.
#[test]
fn groups_in_side_shards_are_listed() {
    block_on_epoll(async {
        let task = task();
        applied(push(&task, "first", "m 1\n")).await;
        for job in ["large", "larger"] {
            applied(push(&task, job, &many_families(FAMILIES, 1))).await;
        }
        applied(push(&task, "last", "m 1\n")).await;
        let (mut keys, mut from) = (Vec::new(), Some(0));
        while let Some(start) = from {
            let (tx, rx) = oneshot::channel();
            task.execute(ShardCommand::CopyGroups(start, tx));
            let slice = rx.await.expect("the task runs");
            keys.extend(slice.groups.iter().map(|group| group.key.to_string()));
            if let Some(large) = slice.large {
                keys.push(large.head.key.to_string());
                let (tx, rx) = oneshot::channel();
                task.execute(ShardCommand::ListFamilies(Arc::new(large), 0, tx));
                assert_eq!(rx.await.expect("the task runs").len(), LISTED_FAMILIES);
            }
            from = slice.next;
        }
        assert_eq!(keys, ["first", "last", "large", "larger"].map(|job| format!("job=\"{job}\"")));
    });
}

/// The pushes of known shapes in these tests.
struct Shaped {
    shapes: Shapes,
}

impl Shaped {
    fn new() -> Self {
        let shaped = Self { shapes: Shapes::default() };
        for value in 0..2 {
            shaped.shapes.learn(
                &Self::body(value),
                &key("a"),
                NameRules::Legacy,
                usize::MAX,
                &mut Vec::new(),
            );
        }
        shaped
    }

    fn body(value: usize) -> Vec<u8> {
        format!("m {value}\nn{{a=\"1\"}} {value}\nn{{a=\"2\"}} {value}\n").into_bytes()
    }

    fn made(&self, job: &str, value: usize) -> ShapedPush {
        let (key, mut numbers) = (key(job), Vec::new());
        let shape = self.shapes.find(&Self::body(value), &key, usize::MAX, &mut numbers);
        let shape = shape.expect("the shape is known");
        ShapedPush { key, mode: Mode::Replace, source: None, shape, numbers }
    }

    fn push(&self, task: &Rc<ShardTask>, job: &str, value: usize) -> Reply {
        let (tx, rx) = oneshot::channel();
        let permit = task.mailboxes.queue_permit(0).expect("there is no limit");
        task.execute(ShardCommand::ShapedPush(Arc::new(self.made(job, value)), permit, tx));
        rx
    }
}

/// The values that a scrape shows of each job.
async fn values(task: &Rc<ShardTask>) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut values: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    for line in shown(task).await {
        let (series, value) = line.rsplit_once(' ').expect("a line has a value");
        let job = series.split("job=\"").nth(1).and_then(|rest| rest.split('"').next());
        values.entry(job.expect("has a job").to_owned()).or_default().push(value.to_owned());
    }
    values
}

#[test]
fn a_push_at_home_returns_its_numbers_whether_it_is_applied_at_once_or_not() {
    block_on_epoll(async {
        let (task, shaped) = (task(), Shaped::new());
        // The group has no shape before the first push, and another command holds the shard during the third.
        for value in 1..4 {
            let shard = if value == 3 { Some(task.lock_main().await) } else { None };
            let memory = Budget::new(None).request();
            let mut pushed = std::pin::pin!(task.push_numbers_at_home(shaped.made("a", value), memory));
            let (outcome, numbers) = match pushed.as_mut().now_or_never() {
                Some(result) if shard.is_none() => result,
                Some(_) => panic!("another command holds the shard"),
                None => {
                    drop(shard);
                    pushed.await
                }
            };
            assert_eq!((outcome, numbers), (Ok(Outcome::Applied), vec![value as f64; 3]));
            assert_eq!(values(&task).await["a"], vec![value.to_string(); 3]);
        }
    });
}

#[test]
fn a_push_at_home_needs_a_permit_of_the_queue() {
    block_on_epoll(async {
        let (task, shaped) = (task_with_queue(Some(1)), Shaped::new());
        for value in 0..2 {
            applied(shaped.push(&task, "a", value)).await;
        }
        let permit = task.mailboxes.queue_permit(0).expect("nothing is queued");
        let push = || task.push_numbers_at_home(shaped.made("a", 2), Budget::new(None).request());
        assert_eq!(push().await.0, Err(CommandError::QueueFull));
        drop(permit);
        assert_eq!(push().await.0, Ok(Outcome::Applied));
    });
}

/// So many that merging them takes several slices.
const GROUPS: usize = 4_000;

#[test]
fn a_scrape_contains_what_was_pushed_before_it_and_no_push_in_part() {
    block_on_epoll(async {
        let (task, shaped) = (task(), Shaped::new());
        let job = |number: usize| format!("job{number}");
        // The first push of a group is not pending, because the group has no shape before.
        for round in 1..3 {
            for number in 0..GROUPS {
                applied(shaped.push(&task, &job(number), round)).await;
            }
        }
        assert_eq!(task.shards.main.lock().await.pending_groups(), GROUPS);
        // Several scrapes, and commands of all kinds while the numbers are merged.
        let scrapes: Vec<_> = (0..3)
            .map(|_| {
                let (task, (tx, rx)) = (task.clone(), oneshot::channel());
                spawn(async move {
                    let _ = tx.send(values(&task).await);
                });
                rx
            })
            .collect();
        for number in 0..GROUPS / 10 {
            applied(shaped.push(&task, &job(number * 10), 3)).await;
            applied(push(&task, &job(number * 10 + 1), "m 4\nn{a=\"3\"} 4\nn{a=\"4\"} 4\n")).await;
            applied(delete(&task, &job(number * 10 + 2))).await;
            applied(shaped.push(&task, &job(number * 10 + 2), 5)).await;
            if number % 20 == 0 {
                yield_now().await;
            }
        }
        for scrape in scrapes {
            let values = scrape.await.expect("the task runs");
            for (job, values) in &values {
                assert_eq!(values.len(), 3, "{job}");
                assert!(values.iter().all(|value| *value == values[0] && value != "1"), "{job}: {values:?}");
            }
            // A group may be deleted at that moment.
            assert!(values.len() >= GROUPS - GROUPS / 10);
        }
        let values = values(&task).await;
        assert_eq!(values.len(), GROUPS);
        for (number, value) in ["3", "4", "5", "2"].into_iter().enumerate() {
            assert_eq!(values[&job(number)], [value; 3]);
        }
        let main = task.shards.main.lock().await;
        assert_eq!((main.pending_groups(), main.next_merged()), (0, None));
        assert_eq!(main.counts().series, 5 * GROUPS);
    });
}

/// A round that a delete made unnecessary must not keep a scrape waiting.
#[test]
fn a_scrape_ends_although_pending_groups_are_deleted() {
    block_on_epoll(async {
        let (task, shaped) = (task(), Shaped::new());
        for value in 0..2 {
            applied(shaped.push(&task, "a", value)).await;
        }
        let (tx, rx) = oneshot::channel();
        task.execute(ShardCommand::Snapshot(tx));
        applied(delete(&task, "a")).await;
        rx.await.expect("the task runs");
        assert!(shown(&task).await.is_empty());
    });
}
