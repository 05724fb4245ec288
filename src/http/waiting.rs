//! The connections of a core that wait for their client, so that the one that waits longest can be closed when there are too many.
//!
//! Each change takes constant time: a connection is a node of at most one doubly linked list, and the nodes are numbered. Other cores
//! see an [`Overview`] of the lists, which is up to date after each change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a connection waits for, in the order in which connections are closed to make room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// The first byte of another request.
    Request,
    /// The head of the first request, the rest of a later one, or the client's end of a connection that is done.
    Head,
    /// More of a body.
    Body,
}

impl WaitsFor {
    /// In the order in which connections are closed.
    pub(super) const ALL: [WaitsFor; 3] = [WaitsFor::Request, WaitsFor::Head, WaitsFor::Body];
}

/// How many connections of a core wait for the same thing, and since when the first of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) count: usize,
    pub(super) since: u64,
}

/// What other cores see of a core's lists. The two numbers of a list may be out of step for a moment.
#[derive(Debug, Default)]
pub(super) struct Overview {
    counts: [AtomicUsize; WaitsFor::ALL.len()],
    since: [AtomicU64; WaitsFor::ALL.len()],
}

impl Overview {
    /// `None` if no connection waits.
    pub(super) fn waiting(&self, waits_for: WaitsFor) -> Option<Waiting> {
        let count = self.counts[waits_for as usize].load(Ordering::Relaxed);
        let since = self.since[waits_for as usize].load(Ordering::Relaxed);
        (count > 0).then_some(Waiting { count, since })
    }
}

/// The number of a node.
pub(super) type Node = u32;

/// No node.
const NONE: Node = Node::MAX;

/// One list for each [`WaitsFor`], in the order in which the connections began to wait.
#[derive(Debug)]
pub(super) struct WaitingLists<T> {
    nodes: Vec<Linked<T>>,
    free: Vec<Node>,
    lists: [List; WaitsFor::ALL.len()],
    overview: Arc<Overview>,
}

#[derive(Debug)]
struct Linked<T> {
    /// `None` if the node is free.
    connection: Option<T>,
    waits_for: Option<WaitsFor>,
    since: u64,
    previous: Node,
    next: Node,
}

#[derive(Debug, Clone, Copy)]
struct List {
    first: Node,
    last: Node,
    count: usize,
}

impl<T> Default for WaitingLists<T> {
    fn default() -> Self {
        let list = List { first: NONE, last: NONE, count: 0 };
        let overview = Arc::default();
        Self { nodes: Vec::new(), free: Vec::new(), lists: [list; WaitsFor::ALL.len()], overview }
    }
}

impl<T> WaitingLists<T> {
    /// Adds a connection, which is in no list at first.
    pub(super) fn add(&mut self, make: impl FnOnce(Node) -> T) -> &T {
        let node = self.free.pop().unwrap_or_else(|| {
            let (connection, waits_for) = (None, None);
            self.nodes.push(Linked { connection, waits_for, since: 0, previous: NONE, next: NONE });
            // There are fewer connections than descriptors, whose numbers are 31 bits wide.
            (self.nodes.len() - 1) as Node
        });
        self.nodes[node as usize].connection.insert(make(node))
    }

    /// Removes a connection.
    pub(super) fn remove(&mut self, node: Node) {
        self.unlink(node);
        self.nodes[node as usize].connection = None;
        self.free.push(node);
    }

    /// Moves a connection to the end of a list, or out of its list. `since` must not decrease.
    pub(super) fn set(&mut self, node: Node, waits_for: Option<WaitsFor>, since: u64) {
        let linked = &self.nodes[node as usize];
        if linked.waits_for == waits_for && (waits_for.is_none() || linked.since == since) {
            return;
        }
        self.unlink(node);
        let Some(list) = waits_for else { return };
        let last = std::mem::replace(&mut self.lists[list as usize].last, node);
        match last {
            NONE => self.lists[list as usize].first = node,
            last => self.nodes[last as usize].next = node,
        }
        let linked = &mut self.nodes[node as usize];
        (linked.waits_for, linked.since, linked.previous, linked.next) = (waits_for, since, last, NONE);
        self.lists[list as usize].count += 1;
        self.publish(list);
    }

    /// What other cores see of the lists.
    pub(super) fn overview(&self) -> &Arc<Overview> {
        &self.overview
    }

    /// The connection that has waited longest, and since when.
    pub(super) fn longest(&self, waits_for: WaitsFor) -> Option<(u64, &T)> {
        let linked = self.nodes.get(self.lists[waits_for as usize].first as usize)?;
        linked.connection.as_ref().map(|connection| (linked.since, connection))
    }

    fn unlink(&mut self, node: Node) {
        let linked = &mut self.nodes[node as usize];
        let Some(list) = linked.waits_for.take() else { return };
        let (previous, next) = (linked.previous, linked.next);
        match previous {
            NONE => self.lists[list as usize].first = next,
            previous => self.nodes[previous as usize].next = next,
        }
        match next {
            NONE => self.lists[list as usize].last = previous,
            next => self.nodes[next as usize].previous = previous,
        }
        self.lists[list as usize].count -= 1;
        self.publish(list);
    }

    fn publish(&self, waits_for: WaitsFor) {
        let list = &self.lists[waits_for as usize];
        self.overview.counts[waits_for as usize].store(list.count, Ordering::Relaxed);
        if let Some(first) = self.nodes.get(list.first as usize) {
            self.overview.since[waits_for as usize].store(first.since, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Add,
        Remove(usize),
        Set(usize, Option<WaitsFor>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let waits_for = prop::option::of(prop::sample::select(&WaitsFor::ALL[..]));
        let step = prop_oneof![
            Just(Step::Add),
            any::<usize>().prop_map(Step::Remove),
            (any::<usize>(), waits_for).prop_map(|(at, waits_for)| Step::Set(at, waits_for)),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn the_lists_are_sorted_by_the_time_of_waiting(steps in steps()) {
            let mut lists = WaitingLists::<(usize, Node)>::default();
            // By connection: its node, what it waits for, and since when.
            let mut reference: Vec<(usize, Node, Option<WaitsFor>, u64)> = Vec::new();
            for (time, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Add => {
                        let (_, node) = *lists.add(|node| (time, node));
                        reference.push((time, node, None, 0));
                    }
                    Step::Remove(at) if !reference.is_empty() => {
                        let removed = reference.swap_remove(at % reference.len());
                        lists.remove(removed.1);
                    }
                    Step::Set(at, waits_for) if !reference.is_empty() => {
                        let at = at % reference.len();
                        lists.set(reference[at].1, waits_for, time as u64);
                        (reference[at].2, reference[at].3) = (waits_for, time as u64);
                    }
                    Step::Remove(_) | Step::Set(..) => {}
                }
                for list in WaitsFor::ALL {
                    let waiting = reference.iter().filter(|(_, _, waits_for, _)| *waits_for == Some(list));
                    let longest = waiting.min_by_key(|(_, _, _, since)| *since);
                    let expected = longest.map(|(connection, node, _, since)| (*since, (*connection, *node)));
                    prop_assert_eq!(lists.longest(list).map(|(since, entry)| (since, *entry)), expected);
                    let count = reference.iter().filter(|(_, _, waits_for, _)| *waits_for == Some(list)).count();
                    let waiting = expected.map(|(since, _)| Waiting { count, since });
                    prop_assert_eq!(lists.overview().waiting(list), waiting);
                }
            }
        }
    }
}
