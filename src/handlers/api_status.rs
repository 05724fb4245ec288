//! `GET /api/v1/status`: the build, the flags, and when the program started.

use std::collections::BTreeMap;

use serde::Serialize;

use super::api::success;
use super::time::rfc3339;
use super::{Error, Handlers, Request};
use crate::http::response::Response;

pub(super) async fn status(handlers: &Handlers, _: Request<'_>) -> Result<Response, Error> {
    let gateway = &handlers.gateway;
    let data = Data {
        build_information: gateway.config.build.entries().into_iter().collect(),
        flags: &gateway.config.flags,
        start_time: rfc3339(gateway.started_seconds),
    };
    Ok(success(&data))
}

#[derive(Serialize)]
struct Data<'a> {
    build_information: BTreeMap<&'static str, &'static str>,
    flags: &'a BTreeMap<String, String>,
    start_time: String,
}
