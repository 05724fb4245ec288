//! The one table of routes. A new route is one file with its handler, and one row here.

use std::future::Future;
use std::pin::Pin;

use super::router::{Path, Tail};
use super::{
    Error, Handlers, Request, api, api_groups, api_metrics, api_status, delete, delete_groups, health, push,
    quit, scrape, status_page, wipe,
};
use crate::http::response::Response;

/// What an endpoint does with the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyUse {
    /// The handler reads it.
    Read,
    /// A short one is read and discarded, so that the client can use the connection again.
    Skipped,
    /// It is not read, and the connection is closed.
    Ignored,
}

/// One row of the table.
struct Row {
    paths: &'static [Path],
    methods: &'static [&'static str],
    /// The value of the metric label `handler`. Scrapes and `/-/quit` are not counted, as in the official program.
    metric_label: Option<&'static str>,
    /// Served while groups are restored from the store; otherwise the response is 503.
    while_restoring: bool,
    /// Changes groups, so it is rejected after storage has failed.
    writes: bool,
    body: BodyUse,
}

/// Generates the enum of endpoints from the table. Each handler is an `async fn(&Handlers, Request) -> Result<Response, Error>`.
macro_rules! endpoints {
    ($($name:ident => $handler:path, $row:expr;)*) => {
        /// An endpoint of the gateway.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the table documents each endpoint")]
        pub enum Endpoint { $($name),* }

        impl Endpoint {
            /// All endpoints. The router tries them in this order.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            fn row(self) -> &'static Row {
                match self { $(Self::$name => const { &$row }),* }
            }

            /// Calls the endpoint's handler. Only a push is called without a box: each connection has room for the largest future that
            /// is not in one.
            pub(super) async fn call(self, handlers: &Handlers, request: Request<'_>) -> Result<Response, Error> {
                if self == Self::Push {
                    return push::push(handlers, request).await;
                }
                let response: Pin<Box<dyn Future<Output = Result<Response, Error>> + '_>> = match self {
                    $(Self::$name => Box::pin($handler(handlers, request))),*
                };
                response.await
            }
        }
    };
}

const READS: Row = Row {
    paths: &[],
    methods: &["GET"],
    metric_label: None,
    while_restoring: false,
    writes: false,
    body: BodyUse::Ignored,
};
const WRITES: Row = Row { writes: true, ..READS };

const GROUP: &[Path] =
    &[Path { head: "/metrics/job/", tail: Tail::Job }, Path { head: JOB_BASE64, tail: Tail::JobBase64 }];
/// The start of a group's path whose job is encoded in base64.
pub(crate) const JOB_BASE64: &str = "/metrics/job@base64/";

endpoints! {
    Healthy => health::healthy, Row {
        paths: &[Path::exact("/-/healthy")], metric_label: Some("healthy"), while_restoring: true, ..READS
    };
    Ready => health::ready, Row {
        paths: &[Path::exact("/-/ready")], metric_label: Some("ready"), ..READS
    };
    Quit => quit::quit, Row {
        paths: &[Path::exact("/-/quit")], methods: &["GET", "POST", "PUT"], while_restoring: true, ..READS
    };
    // The scrape. `--web.telemetry-path` replaces its path.
    Metrics => scrape::scrape, Row {
        paths: &[Path::exact("/metrics")], ..READS
    };
    Push => push::push, Row {
        paths: GROUP, methods: &["POST", "PUT"], metric_label: Some("push"), body: BodyUse::Read, ..WRITES
    };
    Delete => delete::delete, Row {
        paths: GROUP, methods: &["DELETE"], metric_label: Some("delete"), body: BodyUse::Skipped, ..WRITES
    };
    StatusPage => status_page::status_page, Row {
        paths: &[Path::exact("/status"), Path::exact("/")], metric_label: Some("status"), ..READS
    };
    // Files of the official web page. There are none, but the path exists.
    Static => status_page::no_such_file, Row {
        paths: &[Path { head: "/static/", tail: Tail::Anything }], metric_label: Some("static"),
        while_restoring: true, ..READS
    };
    ApiStatus => api_status::status, Row {
        paths: &[Path::exact("/api/v1/status")], metric_label: Some("api/v1/status"), while_restoring: true, ..READS
    };
    ApiMetrics => api_metrics::metrics, Row {
        paths: &[Path::exact("/api/v1/metrics")], metric_label: Some("api/v1/metrics"), ..READS
    };
    ApiGroups => api_groups::groups, Row {
        paths: &[Path::exact("/api/v1/groups")], metric_label: Some("api/v1/groups"), ..READS
    };
    // OPTIONS on any path of the API.
    ApiOptions => api::options, Row {
        paths: &[Path { head: "/api/v1/", tail: Tail::Anything }], methods: &["OPTIONS"],
        metric_label: Some("api/v1/options"), while_restoring: true, ..READS
    };
    // Both exist only with `--web.enable-admin-api`. The first deletes all groups, the second those that match.
    Wipe => wipe::wipe, Row {
        paths: &[Path::exact("/api/v1/admin/wipe")], methods: &["PUT"], metric_label: Some("wipe"), ..WRITES
    };
    DeleteGroups => delete_groups::delete_groups, Row {
        paths: &[Path::exact("/api/v1/admin/delete_groups")], methods: &["PUT"],
        metric_label: Some("api/v1/admin/delete_groups"), ..WRITES
    };
}

impl Endpoint {
    pub(crate) fn paths(self) -> &'static [Path] {
        self.row().paths
    }

    pub(crate) fn methods(self) -> &'static [&'static str] {
        self.row().methods
    }

    pub(crate) fn metric_label(self) -> Option<&'static str> {
        self.row().metric_label
    }

    /// Whether it exists only with `--web.enable-admin-api`.
    pub(crate) fn is_of_admin_api(self) -> bool {
        matches!(self, Self::Wipe | Self::DeleteGroups)
    }

    pub(crate) fn served_while_restoring(self) -> bool {
        self.row().while_restoring
    }

    pub(crate) fn writes(self) -> bool {
        self.row().writes
    }

    pub(crate) fn body(self) -> BodyUse {
        self.row().body
    }
}
