//! `/-/quit`: ends the program, if the lifecycle API is enabled. All texts are those of the official program.

use http::{Method, StatusCode};

use super::{Error, Handlers, Request};
use crate::http::response::{Response, text};

pub(super) async fn quit(handlers: &Handlers, request: Request<'_>) -> Result<Response, Error> {
    let gateway = &handlers.gateway;
    if request.parts.method == Method::GET {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "Only POST or PUT requests allowed."));
    }
    if !gateway.config.lifecycle {
        return Ok(text(StatusCode::FORBIDDEN, "Lifecycle API is not enabled."));
    }
    gateway.shutdown.request();
    tracing::warn!("received termination request via web service, exiting gracefully...");
    Ok(text(StatusCode::OK, "Requesting termination... Goodbye!"))
}
