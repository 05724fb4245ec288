//! `/-/healthy` and `/-/ready`.

use http::StatusCode;

use super::{Error, Handlers, Request};
use crate::http::response::{Response, text};
use crate::storage::store::State;

/// 200 unless storage has failed. Scrapes of a gateway whose storage failed continue, but it needs a restart.
pub(super) async fn healthy(handlers: &Handlers, _: Request) -> Result<Response, Error> {
    match handlers.gateway.store.as_ref().map(|store| store.state()) {
        Some(State::Failed(cause)) => Err(Error::Unhealthy(cause)),
        _ => Ok(text(StatusCode::OK, "OK")),
    }
}

/// 200 once all groups are restored.
pub(super) async fn ready(_: &Handlers, _: Request) -> Result<Response, Error> {
    Ok(text(StatusCode::OK, "OK"))
}
