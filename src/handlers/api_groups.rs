//! `GET /api/v1/groups`: pages of groups, for people and for the web page. An extension; the official program does not have it.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::exposition::labels::read_labels;
use crate::exposition::selector::{Cost, Selector, SelectorError};
use crate::shard::list::{GroupOrder, GroupQuery, ListedGroup, Position, last_push_failed};

use super::api::{bad_data, json, success_json};
use super::pins::Pins;
use super::time::{read_time, rfc3339};
use super::{Error, Gateway, Handlers, Request};
use crate::cores::command::ShardCommand;
use crate::cores::shard_task::CommandError;
use crate::http::response::Response;
use crate::http::slots::ResponseGuard;
use crate::runtime::now_seconds;
use crate::shard::LargeGroup;

/// The default number of groups on a page.
const LIMIT_DEFAULT: usize = 100;
/// The maximum number of groups on a page.
const LIMIT_MAX: usize = 1_000;
/// The maximum number of selectors in one request.
const SELECTORS_MAX: usize = 16;

/// The most that one comparison may cost, in units of selectors (about eight nanoseconds): it cannot be interrupted.
const COMPARISON_UNITS_MAX: u64 = 4 << 20;
/// The most that the work of one query on the workers may cost.
const QUERY_UNITS_MAX: u64 = 256 << 20;
/// The work for a group on a page, in bytes of JSON, beside its key; and how much of it is done on the core.
const GROUP_BYTES: usize = 256;
const CORE_BYTES_MAX: usize = 32 * 1024;
/// How many names a worker looks at in one job.
const NAMES_OF_JOB: usize = 64;
/// What a response holds: the page as groups, and as JSON.
const RESPONSE_BYTES: usize = 4 << 20;

/// Why a query is invalid. The text is for the client.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryError {
    #[error("more than {SELECTORS_MAX} selectors")]
    TooManySelectors,
    #[error(transparent)]
    Selector(#[from] SelectorError),
    #[error("sort must be push_time, -push_time or labels")]
    Sort,
    #[error("failing must be true or false")]
    Failing,
    #[error("pushed_before must be a time in RFC 3339, in Unix seconds, or an age such as 7d")]
    PushedBefore,
    #[error("limit must be a number from 1 to {LIMIT_MAX}")]
    Limit,
    #[error("the selectors need too much work: use simpler expressions, or fewer")]
    TooMuchWork,
    #[error("after must be the value of next from the previous page, with the same sort")]
    After,
}

/// A page of groups. Each core searches its groups in slices and serves other requests in between.
pub(super) async fn groups(handlers: &Handlers, request: Request<'_>) -> Result<Response, Error> {
    let gateway = &handlers.gateway;
    let slot = gateway.group_lists.acquire(request.peer.ip()).await.ok_or(Error::TooManyGroupLists)?;
    let pins = Pins::new(&gateway.budget, RESPONSE_BYTES)?;
    let _permit = gateway.group_queries.try_acquire().ok_or(Error::TooManyGroupQueries)?;
    // Compiling a regular expression can take a while, so it happens on a worker.
    let raw_query = request.parts.uri.query().unwrap_or_default().to_owned();
    let query = match gateway.workers.run(move |_| read_query(&raw_query, now_seconds())).await {
        Some(Ok(query)) => Arc::new(query),
        Some(Err(error)) => return Ok(bad_data(&error.to_string())),
        None => return Err(Error::Internal),
    };
    let work = Work::default();
    let cores =
        (0..gateway.mailboxes.cores()).map(|core| CoreSearch::new(gateway, core, &query, &work).run());
    let mut found = Found::default();
    for other in try_join_all(cores).await? {
        found.add(other);
    }
    if work.is_exceeded() {
        return Ok(bad_data(&QueryError::TooMuchWork.to_string()));
    }
    let key_bytes: usize = found.groups.iter().map(|group| group.key.len()).sum();
    let page = if key_bytes + GROUP_BYTES * found.groups.len() <= CORE_BYTES_MAX {
        page(&query, found)
    } else {
        let query = query.clone();
        gateway.workers.run(move |_| page(&query, found)).await.ok_or(Error::Internal)?
    };
    let mut response = json(Response::new(page.into()));
    response.extensions_mut().insert(ResponseGuard::new(slot, pins));
    Ok(response)
}

/// What a query has found.
#[derive(Default)]
pub(super) struct Found {
    /// The first groups.
    pub groups: Vec<ListedGroup>,
    /// Whether groups were left out because they had too many bytes.
    is_cut: bool,
    /// How many groups match.
    pub matching: usize,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.groups.extend(other.groups);
        self.matching += other.matching;
        self.is_cut |= other.is_cut;
    }
}

/// What matching may still cost.
pub(super) struct Work {
    units_left: Cell<u64>,
    is_exceeded: Cell<bool>,
}

impl Default for Work {
    fn default() -> Self {
        Self { units_left: Cell::new(QUERY_UNITS_MAX), is_exceeded: Cell::new(false) }
    }
}

impl Work {
    /// Whether the query needs too much work, so that what it has found is not complete.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exceeded.get()
    }

    /// Whether something that costs so much may be done.
    fn spend(&self, cost: Cost) -> bool {
        let left =
            self.units_left.get().checked_sub(cost.total).filter(|_| cost.longest <= COMPARISON_UNITS_MAX);
        self.units_left.set(left.unwrap_or(0));
        self.is_exceeded.set(self.is_exceeded.get() || left.is_none());
        left.is_some()
    }
}

/// The search of the groups of one core.
pub(super) struct CoreSearch<'g> {
    gateway: &'g Gateway,
    core: usize,
    query: &'g Arc<GroupQuery>,
    work: &'g Work,
    /// `None` at the end.
    from: Option<u32>,
}

impl<'g> CoreSearch<'g> {
    pub(super) fn new(gateway: &'g Gateway, core: usize, query: &'g Arc<GroupQuery>, work: &'g Work) -> Self {
        Self { gateway, core, query, work, from: Some(0) }
    }

    /// The first groups of the core.
    async fn run(mut self) -> Result<Found, Error> {
        let mut found = Found::default();
        while let Some(more) = self.next().await? {
            found.add(more);
            let (groups, is_cut) = self.query.page(found.groups);
            found.groups = groups;
            found.is_cut |= is_cut;
        }
        Ok(found)
    }

    /// Searches the next slice of groups. `None` at the end, or once the query needs too much work.
    pub(super) async fn next(&mut self) -> Result<Option<Found>, Error> {
        let Some(start) = self.from.filter(|_| !self.work.is_exceeded()) else { return Ok(None) };
        let query = self.query.clone();
        let listed = self.ask(|tx| ShardCommand::ListGroups(query, start, tx)).await?;
        self.from = listed.next;
        let mut found = Found { groups: listed.groups, is_cut: listed.is_cut, matching: listed.matching };
        for (listed, group) in listed.undecided {
            if self.matches(Arc::new(group)).await? {
                found.matching += 1;
                found.groups.extend(Some(listed).filter(|listed| self.query.is_after(listed)));
            }
        }
        Ok(Some(found))
    }

    /// Whether a selector matches a group, decided by workers in short jobs. The next job starts only if the client still waits.
    async fn matches(&self, group: Arc<LargeGroup>) -> Result<bool, Error> {
        for at in 0..self.query.selectors.len() {
            let key = group.head.key.clone();
            let cost = self.query.selectors[at].labels_cost(&read_labels(&key));
            let matches =
                self.decide(cost, move |query| query.selectors[at].matches_labels(&read_labels(&key)));
            if matches.await? && self.matches_name(&group, at).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn matches_name(&self, group: &Arc<LargeGroup>, at: usize) -> Result<bool, Error> {
        let selector = &self.query.selectors[at];
        if !selector.has_name_matchers() {
            return Ok(true);
        }
        let mut from = 0;
        loop {
            let names = self.ask(|tx| ShardCommand::ListFamilies(group.clone(), from, tx)).await?;
            let Some(last) = names.last() else { return Ok(false) };
            from = last.number + 1;
            for names in names.chunks(NAMES_OF_JOB) {
                let mut cost = Cost::default();
                names.iter().for_each(|name| cost = cost.and(selector.name_cost(&name.shared.name)));
                let names = names.to_vec();
                let any = move |query: &GroupQuery| {
                    names.iter().any(|name| query.selectors[at].matches_name(&name.shared.name))
                };
                if self.decide(cost, any).await? {
                    return Ok(true);
                }
            }
        }
    }

    /// Runs a job on a worker. Only a few such jobs run at a time, so that the workers can do other work in between.
    async fn decide(
        &self,
        cost: Cost,
        job: impl FnOnce(&GroupQuery) -> bool + Send + 'static,
    ) -> Result<bool, Error> {
        if !self.work.spend(cost) {
            return Ok(false);
        }
        let _turn = self.gateway.matching.acquire().await;
        let query = self.query.clone();
        self.gateway.workers.run(move |_| job(&query)).await.ok_or(Error::Internal)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> ShardCommand) -> Result<T, Error> {
        let (tx, rx) = oneshot::channel();
        self.gateway.mailboxes.send(self.core, command(tx));
        Ok(rx.await.map_err(|_| CommandError::ShuttingDown)?)
    }
}

/// Reads the query: `match[]` (repeatable), `failing`, `pushed_before`, `sort`, `limit`, `after`. `now` is in Unix seconds.
///
/// # Errors
/// See [`QueryError`]; the response is 400.
pub(super) fn read_query(raw: &str, now: f64) -> Result<GroupQuery, QueryError> {
    let mut query = GroupQuery { limit: LIMIT_DEFAULT, ..GroupQuery::default() };
    for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
        match &*name {
            "match[]" if query.selectors.len() >= SELECTORS_MAX => {
                return Err(QueryError::TooManySelectors);
            }
            "match[]" => {
                query.selectors.push(Selector::parse(&value)?);
            }
            "failing" => {
                query.failing = Some(value.parse().map_err(|_| QueryError::Failing)?);
            }
            "pushed_before" => {
                query.pushed_before = Some(read_time(&value, now).ok_or(QueryError::PushedBefore)?);
            }
            "sort" => {
                query.order = match &*value {
                    "push_time" => GroupOrder::OldestFirst,
                    "-push_time" => GroupOrder::LatestFirst,
                    "labels" => GroupOrder::Labels,
                    _ => return Err(QueryError::Sort),
                };
            }
            "limit" => {
                query.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                    .ok_or(QueryError::Limit)?;
            }
            "after" => {
                query.after = Some(read_position(&value).ok_or(QueryError::After)?);
            }
            // Ignored, as the official API does.
            _ => {}
        }
    }
    if query.after.as_ref().is_some_and(|after| !after.is_in(query.order)) {
        return Err(QueryError::After);
    }
    Ok(query)
}

/// Begins positions in the order of labels.
const LABELS: char = '.';

/// A position as clients pass it back.
fn write_position(position: &Position) -> String {
    match position {
        Position::Pushed { seconds, hash } => format!("{:016x}{hash:016x}", seconds.to_bits()),
        Position::Labels { labels, hash } => {
            format!("{LABELS}{hash:016x}{}", BASE64_URL_SAFE_NO_PAD.encode(&**labels))
        }
    }
}

fn read_position(text: &str) -> Option<Position> {
    let number = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, 16).ok())?
    };
    if let Some(text) = text.strip_prefix(LABELS) {
        let (hash, labels) = text.split_at_checked(16)?;
        let labels = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(labels).ok()?).ok()?;
        return Some(Position::Labels { labels: labels.into(), hash: number(hash)? });
    }
    let (seconds, hash) = text.split_at_checked(16).filter(|(_, hash)| hash.len() == 16)?;
    Some(Position::Pushed { seconds: f64::from_bits(number(seconds)?), hash: number(hash)? })
}

/// The document of one page: its groups, and how many groups match in total.
fn page(query: &GroupQuery, found: Found) -> Bytes {
    #[derive(Serialize)]
    struct Data<'a> {
        matching: usize,
        groups: Vec<GroupDocument<'a>>,
        next: Option<String>,
    }
    let (groups, is_cut) = query.page(found.groups);
    let has_more = is_cut || found.is_cut || groups.len() == query.limit;
    let next = groups.last().filter(|_| has_more).map(|last| write_position(&last.position));
    let matching = found.matching;
    let data = Data { matching, groups: groups.iter().map(GroupDocument::of).collect(), next };
    success_json(&data)
}

#[derive(Serialize)]
struct GroupDocument<'a> {
    labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Absent if no push has succeeded.
    push_time: Option<String>,
    push_failure_time: Option<String>,
    created_time: String,
    last_push_successful: bool,
    families: usize,
    last_refusal: Option<RejectionDocument<'a>>,
}

#[derive(Serialize)]
struct RejectionDocument<'a> {
    time: String,
    reason: &'a str,
    source: Option<String>,
}

impl<'a> GroupDocument<'a> {
    fn of(group: &'a ListedGroup) -> Self {
        let (push_seconds, failure_seconds) = (group.push_seconds, group.failure_seconds);
        let time = |seconds: f64| (seconds > 0.0).then(|| rfc3339(seconds));
        Self {
            labels: read_labels(&group.key).into_iter().collect(),
            push_time: time(push_seconds),
            push_failure_time: time(failure_seconds),
            created_time: rfc3339(group.created_seconds),
            last_push_successful: !last_push_failed(push_seconds, failure_seconds),
            families: group.families,
            last_refusal: group.last_failure.as_ref().map(|failure| RejectionDocument {
                time: rfc3339(failure_seconds),
                reason: &failure.reason,
                source: failure.source.map(|source| source.to_string()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_query() {
        let read = |raw| read_query(raw, 1_000_000.0).expect("the query is valid");
        let query = read("match%5B%5D=%7Bjob%3D%22a%22%7D&match[]=up&sort=push_time&limit=7&other=1");
        assert_eq!((query.selectors.len(), query.order, query.limit), (2, GroupOrder::OldestFirst, 7));
        assert!(query.selectors[0].matches_labels(&[("job".into(), "a".into())]));
        assert_eq!(read("").limit, LIMIT_DEFAULT);
        let query = read("failing=true&pushed_before=1h&sort=labels");
        assert_eq!((query.failing, query.pushed_before), (Some(true), Some(1_000_000.0 - 3_600.0)));
        assert_eq!(query.order, GroupOrder::Labels);
    }

    #[test]
    fn rejects_invalid_queries() {
        for raw in [
            "match[]={",
            "match[]=",
            "failing=yes",
            "pushed_before=never",
            "sort=name",
            "limit=0",
            "limit=1001",
            "limit=x",
            "after=x",
            "after=",
            "sort=labels&after=00000000000000000000000000000000",
            "after=.0000000000000000YQ",
        ] {
            assert!(read_query(raw, 0.0).is_err(), "{raw}");
        }
        assert!(read_query(&"match[]=up&".repeat(SELECTORS_MAX + 1), 0.0).is_err());
    }

    #[test]
    fn a_position_survives_the_round_trip() {
        for position in [
            Position::Pushed { seconds: 1_700_000_000.25, hash: 7 },
            Position::Labels { labels: "a\0zone\0é/+".into(), hash: u64::MAX },
        ] {
            assert_eq!(read_position(&write_position(&position)), Some(position));
        }
    }
}
