//! `GET /api/v1/groups`: pages of groups, for people and for the web page. An extension; the official program does not have it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::exposition::labels::read_labels;
use crate::exposition::selector::{Selector, SelectorError};
use crate::shard::list::{GroupQuery, ListedGroup, Position, PushOrder};

use super::api::{bad_data, success};
use super::time::rfc3339;
use super::{Error, Gateway, Handlers, Request};
use crate::cores::command::ShardCommand;
use crate::cores::shard_task::CommandError;
use crate::http::response::Response;

/// The default number of groups on a page.
const LIMIT_DEFAULT: usize = 100;
/// The maximum number of groups on a page.
const LIMIT_MAX: usize = 1_000;
/// The maximum number of selectors in one request.
const SELECTORS_MAX: usize = 16;

/// Why a query is invalid. The text is for the client.
#[derive(Debug, thiserror::Error)]
enum QueryError {
    #[error("more than {SELECTORS_MAX} selectors")]
    TooManySelectors,
    #[error(transparent)]
    Selector(#[from] SelectorError),
    #[error("sort must be push_time or -push_time")]
    Sort,
    #[error("limit must be a number from 1 to {LIMIT_MAX}")]
    Limit,
    #[error("after must be the value of next from the previous page")]
    After,
}

/// A page of groups. Each core searches its groups in slices and serves other requests in between.
pub(super) async fn groups(handlers: &Handlers, request: Request) -> Result<Response, Error> {
    let gateway = &handlers.gateway;
    let _permit = gateway.group_queries.try_acquire().ok_or(Error::TooManyGroupQueries)?;
    // Compiling a regular expression can take a while, so it happens on a worker.
    let raw_query = request.parts.uri.query().unwrap_or_default().to_owned();
    let query = match gateway.workers.run(move |_| read_query(&raw_query)).await {
        Some(Ok(query)) => Arc::new(query),
        Some(Err(error)) => return Ok(bad_data(&error.to_string())),
        None => return Err(Error::Internal),
    };
    let cores = (0..gateway.mailboxes.cores()).map(|core| groups_of_core(gateway, core, &query));
    let (mut groups, mut matching) = (Vec::new(), 0);
    for (page, count) in try_join_all(cores).await? {
        groups.extend(page);
        matching += count;
    }
    Ok(page(&query, groups, matching))
}

/// The first matching groups of one core, and how many match.
async fn groups_of_core(
    gateway: &Gateway,
    core: usize,
    query: &Arc<GroupQuery>,
) -> Result<(Vec<ListedGroup>, usize), CommandError> {
    let (mut groups, mut matching, mut from) = (Vec::new(), 0, Some(0));
    while let Some(start) = from {
        let (tx, rx) = oneshot::channel();
        gateway.mailboxes.send(core, ShardCommand::ListGroups(query.clone(), start, tx));
        let listed = rx.await.map_err(|_| CommandError::ShuttingDown)?;
        matching += listed.matching;
        from = listed.next;
        groups.extend(listed.groups);
        groups = query.page(groups);
    }
    Ok((groups, matching))
}

/// Reads the query: `match[]` (repeatable), `sort` (`-push_time` or `push_time`), `limit`, `after`.
///
/// # Errors
/// See [`QueryError`]; the response is 400.
fn read_query(raw: &str) -> Result<GroupQuery, QueryError> {
    let mut query = GroupQuery { limit: LIMIT_DEFAULT, ..GroupQuery::default() };
    for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
        match &*name {
            "match[]" if query.selectors.len() >= SELECTORS_MAX => {
                return Err(QueryError::TooManySelectors);
            }
            "match[]" => {
                query.selectors.push(Selector::parse(&value)?);
            }
            "sort" => {
                query.order = match &*value {
                    "push_time" => PushOrder::OldestFirst,
                    "-push_time" => PushOrder::LatestFirst,
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
    Ok(query)
}

/// A position as clients pass it back.
fn write_position(position: Position) -> String {
    format!("{:016x}{:016x}", position.push_seconds.to_bits(), position.hash)
}

fn read_position(text: &str) -> Option<Position> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    Some(Position { push_seconds: f64::from_bits(number(&text[..16])?), hash: number(&text[16..])? })
}

/// The response with one page: its groups, and how many groups match in total.
fn page(query: &GroupQuery, groups: Vec<ListedGroup>, matching: usize) -> Response {
    #[derive(Serialize)]
    struct Data<'a> {
        matching: usize,
        groups: Vec<GroupDocument<'a>>,
        next: Option<String>,
    }
    let groups = query.page(groups);
    let next =
        groups.last().filter(|_| groups.len() == query.limit).map(|last| write_position(last.position));
    let data = Data { matching, groups: groups.iter().map(GroupDocument::of).collect(), next };
    success(&data)
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
        let (push_seconds, failure_seconds) = (group.position.push_seconds, group.failure_seconds);
        let time = |seconds: f64| (seconds > 0.0).then(|| rfc3339(seconds));
        Self {
            labels: read_labels(&group.key).into_iter().collect(),
            push_time: time(push_seconds),
            push_failure_time: time(failure_seconds),
            created_time: rfc3339(group.created_seconds),
            last_push_successful: failure_seconds == 0.0 || push_seconds > failure_seconds,
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
        let query = read_query("match%5B%5D=%7Bjob%3D%22a%22%7D&match[]=up&sort=push_time&limit=7&other=1")
            .expect("the query is valid");
        assert_eq!((query.selectors.len(), query.order, query.limit), (2, PushOrder::OldestFirst, 7));
        assert!(query.selectors[0].matches_labels(&[("job".into(), "a".into())]));
        assert_eq!(read_query("").expect("the query is valid").limit, LIMIT_DEFAULT);
    }

    #[test]
    fn rejects_invalid_queries() {
        for raw in
            ["match[]={", "match[]=", "sort=name", "limit=0", "limit=1001", "limit=x", "after=x", "after="]
        {
            assert!(read_query(raw).is_err(), "{raw}");
        }
        assert!(read_query(&"match[]=up&".repeat(SELECTORS_MAX + 1)).is_err());
    }

    #[test]
    fn a_position_survives_the_round_trip() {
        let position = Position { push_seconds: 1_700_000_000.25, hash: 7 };
        assert_eq!(read_position(&write_position(position)), Some(position));
    }
}
