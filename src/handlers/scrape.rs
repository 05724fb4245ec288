//! `GET /metrics`: the scrape.

use std::sync::Arc;
use std::time::Instant;

use ::http::StatusCode;
use ::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};

use super::pins::Pins;
use super::{Error, Gateway, Handlers, Request};
use crate::cores::shard_task::CommandError;
use crate::encoding::encode::{Coding, Form};
use crate::exposition::escape::Escaping;
use crate::exposition::names::NameRules;
use crate::http::response::{Response, empty};
use crate::http::response_body::ResponseBody;
use crate::http::slots::{Held, ResponseGuard};
use crate::scrape::collect::collect;
use crate::scrape::{metrics, negotiate};
use crate::shard::Counts;
use crate::{cores, http, runtime, storage, telemetry};

/// All groups and the gateway's own metrics, in the form that the client negotiated.
pub(super) async fn scrape(handlers: &Handlers, request: Request<'_>) -> Result<Response, Error> {
    let gateway = &handlers.gateway;
    let started = Instant::now();
    let Some(slot) = gateway.scrapes.acquire(request.peer.ip()).await else {
        metrics::count_rejected();
        return Err(Error::TooManyScrapes);
    };
    let snapshots = collect(&gateway.registry, &gateway.mailboxes).await.ok_or(CommandError::ShuttingDown)?;
    gateway.update_gauges(&snapshots.counts);
    let own = telemetry::gather(&gateway.own_metrics);

    let (format, escaping) = negotiate::format(&request.parts.headers);
    let coding = negotiate::coding(&request.parts.headers);
    // Legacy names never need escaping.
    let spelling = match gateway.rules.names {
        NameRules::Legacy => Escaping::AllowUtf8,
        NameRules::Utf8 => escaping,
    };
    let form = Form { format, escaping: spelling, coding };
    let pins = Pins::new(&gateway.budget, 0)?;
    let pieces = if coding == Coding::Identity {
        let units = handlers.encoder.units(snapshots.families, own, form).await?;
        // Other codings share what is cached, a small part of the text.
        let mut pinning = pins.share();
        handlers.encoder.plain(units, move |segment| pinning.bytes(segment)).await?
    } else {
        handlers.encoder.compressed(snapshots.families, own, form).await?
    };
    let body = ResponseBody::pieces(pieces);

    let encoding = coding.name();
    let bytes = body.len().unwrap_or_default();
    metrics::record_size(encoding, bytes);
    let mut response = empty(StatusCode::OK).map(|_| body);
    response
        .extensions_mut()
        .insert(ResponseGuard::new(slot, Arc::new(RunningScrape { pins, started, encoding })));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, negotiate::content_type(format, escaping));
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if coding != Coding::Identity {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Ok(response)
}

/// A scrape whose body is being sent. Dropped, and then measured, when the body is sent or abandoned.
struct RunningScrape {
    pins: Arc<Pins>,
    started: Instant,
    encoding: &'static str,
}

impl Held for RunningScrape {
    fn fits(&self) -> bool {
        self.pins.fits()
    }
}

impl Drop for RunningScrape {
    fn drop(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        metrics::record_duration(self.encoding, seconds);
    }
}

impl Gateway {
    /// Updates the gauges of values that are counted elsewhere.
    fn update_gauges(&self, counts: &[Counts]) {
        for (core, counts) in counts.iter().enumerate() {
            cores::metrics::set_gauges(core, counts, self.mailboxes.queued(core));
        }
        cores::metrics::set_limit_gauges(&self.registry);
        http::metrics::set(&self.connections);
        runtime::metrics::set(&self.budget);
        runtime::metrics::set_delays(&self.stalls);
        if let Some(store) = &self.store {
            storage::metrics::set_gauges(store);
        }
        metrics::set_in_progress(self.scrapes.in_use());
        super::metrics::set_healthy(self.fault().is_none());
        metrics::set_evicted(self.scrapes.evicted(), self.group_lists.evicted());
    }
}
