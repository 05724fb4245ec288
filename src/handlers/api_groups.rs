//! `GET /api/v1/groups`: pages of groups for people and for the web page. Ours; the official program has no such thing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use crate::exposition::labels::read_labels;
use crate::exposition::selector::Selector;
use crate::shard::list::{GroupQuery, ListedGroup, Position};

use super::api_metrics::json;
use super::time::rfc3339;
use crate::http::response::Answer;

/// Groups on a page, where nothing else is asked for.
const LIMIT: usize = 100;
/// More are not given at once.
const LIMIT_MAX: usize = 1_000;
/// Selectors in one request.
const SELECTORS_MAX: usize = 16;

/// Reads what is asked for: `match[]` (any number), `sort` (`-push_time` or `push_time`), `limit`, `after`.
///
/// # Errors
/// The text of a 400 answer.
pub fn query(raw: &str) -> Result<GroupQuery, String> {
    let mut query = GroupQuery { limit: LIMIT, ..GroupQuery::default() };
    for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
        match &*name {
            "match[]" if query.selectors.len() >= SELECTORS_MAX => {
                return Err(format!("more than {SELECTORS_MAX} selectors"));
            }
            "match[]" => {
                let selector = Selector::parse(&value).map_err(|problem| problem.to_string())?;
                query.selectors.push(selector);
            }
            "sort" => {
                query.oldest_first = match &*value {
                    "push_time" => true,
                    "-push_time" => false,
                    _ => return Err("sort must be push_time or -push_time".to_owned()),
                };
            }
            "limit" => {
                query.limit = value
                    .parse()
                    .ok()
                    .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                    .ok_or_else(|| format!("limit must be a number from 1 to {LIMIT_MAX}"))?;
            }
            "after" => {
                let position = read_position(&value);
                query.after = Some(position.ok_or("after must be what the page before gave as next")?);
            }
            // As the official API does.
            _ => {}
        }
    }
    Ok(query)
}

/// A place as clients pass it back.
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

/// The document of one page: the groups on it and how many match in all.
pub fn page(query: &GroupQuery, groups: Vec<ListedGroup>, matching: usize) -> Answer {
    #[derive(Serialize)]
    struct Document<'a> {
        status: &'static str,
        data: Data<'a>,
    }
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
    to_json(&Document { status: "success", data })
}

#[derive(Serialize)]
struct GroupDocument<'a> {
    labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Absent where there was none.
    push_time: Option<String>,
    push_failure_time: Option<String>,
    created_time: String,
    last_push_successful: bool,
    families: usize,
    last_refusal: Option<RefusalDocument<'a>>,
}

#[derive(Serialize)]
struct RefusalDocument<'a> {
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
            last_refusal: group.last_failure.as_ref().map(|refusal| RefusalDocument {
                time: rfc3339(failure_seconds),
                reason: &refusal.reason,
                source: refusal.source.map(|source| source.to_string()),
            }),
        }
    }
}

/// 400 in the API's own form.
pub fn bad_query(reason: &str) -> Answer {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Document<'a> {
        status: &'static str,
        error_type: &'static str,
        error: &'a str,
    }
    let mut answer = to_json(&Document { status: "error", error_type: "bad_data", error: reason });
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    answer
}

fn to_json(document: &impl Serialize) -> Answer {
    let document = serde_json::to_vec(document).expect("keys are strings and nothing fails to serialize");
    json(Bytes::from(document).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read() {
        let query = query("match%5B%5D=%7Bjob%3D%22a%22%7D&match[]=up&sort=push_time&limit=7&other=1")
            .expect("valid");
        assert_eq!((query.selectors.len(), query.oldest_first, query.limit), (2, true, 7));
        assert!(query.selectors[0].matches_labels(&[("job".into(), "a".into())]));
        assert_eq!(super::query("").expect("valid").limit, LIMIT);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for raw in
            ["match[]={", "match[]=", "sort=name", "limit=0", "limit=1001", "limit=x", "after=x", "after="]
        {
            assert!(query(raw).is_err(), "{raw}");
        }
        assert!(query(&"match[]=up&".repeat(SELECTORS_MAX + 1)).is_err());
    }

    #[test]
    fn a_place_comes_back_as_it_went() {
        let position = Position { push_seconds: 1_700_000_000.25, hash: 7 };
        assert_eq!(read_position(&write_position(position)), Some(position));
    }
}
