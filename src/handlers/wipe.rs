//! `PUT /api/v1/admin/wipe`: deletes all groups.

use futures_channel::oneshot;
use http::StatusCode;

use super::{Error, Handlers, Request};
use crate::cores::command::ShardCommand;
use crate::cores::shard_task::CommandError;
use crate::http::response::{Response, empty};

/// 202 once all cores have deleted their groups.
pub(super) async fn wipe(handlers: &Handlers, _: Request<'_>) -> Result<Response, Error> {
    let mailboxes = &handlers.gateway.mailboxes;
    let wiped: Vec<_> = (0..mailboxes.cores())
        .map(|core| {
            let (tx, rx) = oneshot::channel();
            mailboxes.send(core, ShardCommand::Wipe(tx));
            rx
        })
        .collect();
    for core in wiped {
        core.await.map_err(|_| CommandError::ShuttingDown)?.map_err(CommandError::from)?;
    }
    Ok(empty(StatusCode::ACCEPTED))
}
