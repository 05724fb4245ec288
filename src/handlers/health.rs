//! `/-/healthy` and `/-/ready`.

use http::StatusCode;

use super::{Error, Gateway, Handlers, Request};
use crate::http::response::{Response, text};
use crate::telemetry::faults;

/// 200 unless storage has failed, a helper thread panicked, or another core is stuck.
pub(super) async fn healthy(handlers: &Handlers, _: Request<'_>) -> Result<Response, Error> {
    match handlers.gateway.fault() {
        Some(fault) => Err(Error::Unhealthy(fault)),
        None => Ok(text(StatusCode::OK, "OK")),
    }
}

impl Gateway {
    /// Why the gateway is unhealthy. Waits for nothing, so that the health check answers while workers and the store are busy.
    pub(super) fn fault(&self) -> Option<String> {
        let store = self.store.as_ref().and_then(|store| store.fault());
        store.or_else(faults::unhealthy).or_else(|| self.stalls.stuck())
    }
}

/// 200 once all groups are restored.
pub(super) async fn ready(_: &Handlers, _: Request<'_>) -> Result<Response, Error> {
    Ok(text(StatusCode::OK, "OK"))
}
