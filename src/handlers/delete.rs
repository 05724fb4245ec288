//! `DELETE /metrics/job/…`: deletes a group.

use http::StatusCode;

use super::grouping_key::{GroupingKeyError, grouping_key};
use super::{Error, Handlers, Request};
use crate::cores::command::ShardCommand;
use crate::http::response::{Response, empty};

/// 202, also if the group does not exist, or cannot exist.
pub(super) async fn delete(handlers: &Handlers, request: Request<'_>) -> Result<Response, Error> {
    let key = match grouping_key(&request.group_path(), handlers.gateway.rules.names) {
        Ok(key) => key,
        Err(GroupingKeyError::NeverExists(_)) => return Ok(empty(StatusCode::ACCEPTED)),
        Err(error) => return Err(error.into()),
    };
    let command = |permit, tx| ShardCommand::Delete(key.clone(), permit, tx);
    handlers.shard_task.execute_at_home(&key, 0, command).await.map_err(Error::no_outcome)?;
    Ok(empty(StatusCode::ACCEPTED))
}
