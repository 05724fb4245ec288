//! `PUT /api/v1/admin/delete_groups`: deletes the groups that match. An extension; the official program does not have it.
//!
//! Only PUT: the headers of the API let pages of other origins send GET, POST and DELETE from a browser, but not PUT.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::cores::command::ShardCommand;
use crate::cores::shard_task::CommandError;
use crate::exposition::labels::read_labels;
use crate::http::response::Response;
use crate::runtime::now_seconds;
use crate::shard::list::{GroupQuery, ListedGroup};

use super::api::{bad_data, success};
use super::api_groups::{CoreSearch, QueryError, Work, read_query};
use super::{Error, Gateway, Handlers, Request};

/// How many groups a dry run returns.
const SHOWN_MAX: usize = 100;

/// Why a request is invalid. The text is for the client.
#[derive(Debug, thiserror::Error)]
enum DeleteError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("match[] or pushed_before is needed; PUT /api/v1/admin/wipe deletes all groups")]
    NothingSelected,
    #[error("dry_run must be true or false")]
    DryRun,
}

#[derive(Default, Serialize)]
struct Data {
    matching: usize,
    deleted: usize,
    /// The labels of the first groups, of a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<BTreeMap<String, String>>>,
}

/// Deletes the groups that match. Each of them is a change of its own, and one that is pushed in the meantime stays.
pub(super) async fn delete_groups(handlers: &Handlers, request: Request<'_>) -> Result<Response, Error> {
    let gateway = &handlers.gateway;
    let _permit = gateway.group_queries.try_acquire().ok_or(Error::TooManyGroupQueries)?;
    let raw = request.parts.uri.query().unwrap_or_default().to_owned();
    let (query, is_dry_run) = match gateway.workers.run(move |_| read(&raw, now_seconds())).await {
        Some(Ok((query, is_dry_run))) => (Arc::new(query), is_dry_run),
        Some(Err(error)) => return Ok(bad_data(&error.to_string())),
        None => return Err(Error::Internal),
    };
    let work = Work::default();
    let cores =
        (0..gateway.mailboxes.cores()).map(|core| delete_on(gateway, core, &query, &work, is_dry_run));
    let (mut data, mut shown) = (Data::default(), Vec::new());
    for (matching, deleted, listed) in try_join_all(cores).await? {
        data.matching += matching;
        data.deleted += deleted;
        shown.extend(listed);
    }
    if work.is_exceeded() {
        let error = QueryError::TooMuchWork;
        return Ok(bad_data(&format!("{error}; {} groups were deleted before", data.deleted)));
    }
    if is_dry_run {
        let labels = |group: &ListedGroup| {
            let pairs = read_labels(&group.key).into_iter();
            pairs.map(|(name, value)| (Cow::into_owned(name), Cow::into_owned(value))).collect()
        };
        data.groups = Some(query.page(shown).0.iter().take(SHOWN_MAX).map(labels).collect());
    } else {
        tracing::info!(matching = data.matching, deleted = data.deleted, "groups deleted by selector");
    }
    Ok(success(&data))
}

/// Deletes the groups of a core that match. Returns how many match, how many were deleted, and with a dry run the first of them.
async fn delete_on(
    gateway: &Gateway,
    core: usize,
    query: &Arc<GroupQuery>,
    work: &Work,
    is_dry_run: bool,
) -> Result<(usize, usize, Vec<ListedGroup>), Error> {
    let mut search = CoreSearch::new(gateway, core, query, work);
    let (mut matching, mut deleted, mut shown) = (0, 0, Vec::new());
    while let Some(found) = search.next().await? {
        matching += found.matching;
        if is_dry_run {
            shown.extend(found.groups);
            shown = query.page(shown).0;
            shown.truncate(SHOWN_MAX);
            continue;
        }
        let listed = found.groups.into_iter().map(|group| (group.key, group.push_seconds)).collect();
        let (tx, rx) = oneshot::channel();
        gateway.mailboxes.send(core, ShardCommand::DeleteListed(listed, tx));
        let result = rx.await.map_err(|_| CommandError::ShuttingDown)?;
        deleted += result.map_err(CommandError::from)?;
    }
    Ok((matching, deleted, shown))
}

/// Reads the query: that of the groups API without its order and pages, and `dry_run`.
fn read(raw: &str, now: f64) -> Result<(GroupQuery, bool), DeleteError> {
    let query = read_query(raw, now)?;
    let mut is_dry_run = false;
    for (_, value) in form_urlencoded::parse(raw.as_bytes()).filter(|(name, _)| name == "dry_run") {
        is_dry_run = value.parse().map_err(|_| DeleteError::DryRun)?;
    }
    if query.selectors.is_empty() && query.pushed_before.is_none() {
        return Err(DeleteError::NothingSelected);
    }
    // A slice of a search is far smaller than a page can be.
    Ok((GroupQuery { after: None, limit: usize::MAX, ..query }, is_dry_run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_must_be_selected() {
        let read = |raw| read(raw, 1_000.0);
        for raw in ["", "dry_run=true", "failing=true", "limit=5"] {
            assert!(matches!(read(raw), Err(DeleteError::NothingSelected)), "{raw}");
        }
        assert!(matches!(read("match[]=up&dry_run=1"), Err(DeleteError::DryRun)));
        assert!(matches!(read("match[]={"), Err(DeleteError::Query(_))));
        let (query, is_dry_run) = read("pushed_before=10s&dry_run=true&limit=3").expect("is valid");
        assert_eq!((query.pushed_before, query.limit, is_dry_run), (Some(990.0), usize::MAX, true));
    }
}
