//! Start-up and composition of the gateway.

#[cfg(test)]
mod metrics_doc;

use std::fmt;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use event_listener::Event;

use crate::config::{self, Config, Driver, Durability};
use crate::exposition::names::NameRules;
use crate::handlers::push::PushRules;
use crate::handlers::router::Router;
use crate::scrape::merge::kind_of;
use crate::shard::Shard;
use crate::shard::registry::Registry;
use crate::storage::engines;
use crate::storage::import::Official;
use crate::telemetry::http::HttpMetrics;
use crate::telemetry::{self, OwnMetric, Recorder};
use crate::{cores, handlers, http, scrape, shard, storage};

use crate::cores::leases::Leases;
use crate::cores::mailbox::Mailboxes;
use crate::cores::shard_task::{Home, now_seconds};
use crate::cores::workers::Workers;
use crate::handlers::{Front, Shared};
use crate::http::accept::serve;
use crate::http::limits::{Common, Connections, Limits};
use crate::runtime::listen::Listeners;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::threads::{Cores, DriverChoice, DriverInUse, available, raise_descriptor_limit};
use crate::scrape::collect::CopiedUnits;
use crate::storage::store::{self, Store};

const BUILD_INFO: OwnMetric = OwnMetric::gauge(
    "pushgateway_build_info",
    "A metric with a constant '1' value labeled by version, revision, branch, goversion from which pushgateway was built, \
     and the goos and goarch for the build.",
)
.with_labels(&["branch", "goarch", "goos", "goversion", "revision", "tags", "version"]);
const RUNTIME_INFO: OwnMetric = OwnMetric::gauge(
    "sluicegate_runtime_info",
    "A metric with a constant '1' value labeled by the number of cores and the driver of network IO.",
)
.with_labels(&["cores", "driver"]);

/// The metric families of the gateway's own, by the module that declares them.
const METRICS: &[(&str, &[OwnMetric])] = &[
    ("cores", cores::metrics::METRICS),
    ("handlers", handlers::metrics::METRICS),
    ("http", http::metrics::METRICS),
    ("scrape", scrape::metrics::METRICS),
    ("server", &[BUILD_INFO, RUNTIME_INFO]),
    ("shard", shard::METRICS),
    ("storage", storage::metrics::METRICS),
    ("telemetry", telemetry::PROCESS_METRICS),
    ("telemetry", telemetry::http::METRICS),
];

/// The metric families of the gateway's own. Their names are reserved from the start, so that no push can take one with another
/// type.
fn declared_metrics() -> impl Iterator<Item = OwnMetric> {
    METRICS.iter().flat_map(|(_, metrics)| metrics.iter().copied())
}

/// Why the gateway cannot run, in words for the operator.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl StartError {
    fn because(what: &str, why: impl fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }
}

/// Runs the gateway until SIGTERM, SIGINT or `/-/quit`, then drains.
///
/// # Errors
/// If an address is taken, a driver was demanded that cannot be had, or threads cannot be started.
pub fn run(config: Config) -> Result<(), StartError> {
    let started_seconds = now_seconds();
    let build = config.build;
    tracing::info!(version = build.version, revision = build.revision, "starting sluicegate");
    let own_metrics = Recorder::new(declared_metrics());
    own_metrics.install().map_err(|why| StartError::because("own metrics", why))?;
    raise_descriptor_limit();

    let count = config.cores.map_or_else(available, NonZero::get);
    let addresses: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    // Before the threads: whoever finds the port taken shall leave at once.
    let listeners = Listeners::bind(&addresses, count).map_err(|why| StartError(why.to_string()))?;
    let cores =
        Cores::start(count, choice(config.driver)).map_err(|why| StartError::because("cores", why))?;
    let workers = Workers::start(count).map_err(|why| StartError::because("workers", why))?;
    let shutdown = Shutdown::new();
    shutdown.request_on_signals().map_err(|why| StartError::because("signals", why))?;

    own_metrics.set_info(BUILD_INFO, &build.labels());
    let driver = driver_name(cores.driver());
    own_metrics.set_info(RUNTIME_INFO, &[("cores", &count.to_string()), ("driver", driver)]);
    scrape::metrics::create_series();
    handlers::metrics::create_series();
    if let Some(reason) = cores.fallback() {
        tracing::warn!(reason, "io_uring cannot be had, epoll does the network IO");
    }
    let engine = config.store.as_ref().map_or("memory", |store| store.engine.name);
    for address in listeners.addresses() {
        tracing::info!(%address, cores = count, driver, store = engine, "listening");
    }

    let own_names = declared_metrics().map(|metric| (metric.name, kind_of(metric.kind), metric.help));
    let registry = Arc::new(Registry::new(own_names));
    let (mailboxes, inboxes) = Mailboxes::new(count, config.limits.push_queue_max.map(NonZero::get));
    let shards: Vec<_> = (0..count)
        .map(|core| Shard::new(core as u32, registry.clone(), config.store.is_some()))
        .map(|shard| Arc::new(async_lock::Mutex::new(shard)))
        .collect();
    let store = match &config.store {
        Some(store) => {
            let durability = if store.durability == Durability::Disk { "disk" } else { "process" };
            own_metrics.set_info(storage::metrics::INFO, &[("backend", engine), ("durability", durability)]);
            Some(Arc::new(start_store(store, &shards, &registry, &mailboxes, &shutdown)?))
        }
        None => {
            own_metrics.set_info(storage::metrics::INFO, &[("backend", engine), ("durability", "none")]);
            None
        }
    };
    let connections = Arc::new(Connections::default());
    let common = Common {
        limits: Arc::new(limits(&config)),
        connections: connections.clone(),
        shutdown: shutdown.clone(),
    };
    let shared = Arc::new(Shared {
        started_seconds,
        router: Router::new(&config.route_prefix, &config.telemetry_path, config.admin_api),
        rules: PushRules {
            body_bytes_max: config.limits.push_body_bytes_max,
            refusals_are_told: config.consistency_check,
            names: if config.utf8_names { NameRules::Utf8 } else { NameRules::Legacy },
        },
        config,
        registry: registry.clone(),
        mailboxes: mailboxes.clone(),
        store: store.clone(),
        workers,
        copied: Arc::new(CopiedUnits::default()),
        scrapes: Arc::new(AtomicUsize::new(0)),
        lists: Arc::new(AtomicUsize::new(0)),
        own_metrics,
        http_metrics: HttpMetrics::new(),
        connections,
        shutdown,
    });
    let leases = Arc::new(Leases::default());
    // Each core takes its own listeners and inbox out once.
    let rooms: Vec<_> = listeners.into_cores().into_iter().zip(inboxes).map(Some).collect();
    let rooms = Arc::new(Mutex::new(rooms));
    let drained = Arc::new(Drained { serving: AtomicUsize::new(count), event: Event::new() });
    let kept = store.clone();
    cores.run(move |index| {
        let core = index.0;
        let room = rooms.lock().unwrap_or_else(PoisonError::into_inner)[core].take();
        let (shard, store) = (shards[core].clone(), kept.clone());
        let home = Home::new(core, shard, registry.clone(), leases.clone(), mailboxes.clone(), store);
        let front = Front::new(shared.clone(), home.clone(), core);
        let (common, drained) = (common.clone(), drained.clone());
        async move {
            let Some((listeners, inbox)) = room else { return };
            monoio::spawn(home.serve(inbox));
            if let Err(why) = serve(listeners, front, common).await {
                tracing::error!(core, error = %why, "cannot serve");
                std::process::exit(1);
            }
            drained.all().await;
        }
    });
    let closed = store.map_or(Ok(()), |store| store.close());
    closed.map_err(|why| StartError::because("the store", why))?;
    tracing::info!("stopped");
    Ok(())
}

fn start_store(
    store: &config::StoreConfig,
    shards: &[Arc<async_lock::Mutex<Shard>>],
    registry: &Arc<Registry>,
    mailboxes: &Mailboxes,
    shutdown: &Shutdown,
) -> Result<Store, StartError> {
    // Before anything is opened, which would make the store look newer than the file.
    let official = Official::look_for(store).map_err(|why| StartError(why.to_string()))?;
    let opened = store.clone();
    let start = store::Start {
        open: Box::new(move || engines::open(&opened).map_err(|why| why.to_string())),
        import: Box::new(move |is_new| official.records(is_new).map_err(|why| why.to_string())),
        durability: match store.durability {
            Durability::Process => sluicegate_engine::Durability::Process,
            Durability::Disk => sluicegate_engine::Durability::Disk,
        },
        shards: shards.to_vec(),
        registry: registry.clone(),
        mailboxes: mailboxes.clone(),
        shutdown: shutdown.clone(),
    };
    Store::start(start).map_err(|why| StartError::because("the store's thread", why))
}

/// Lets a core end only when all have drained: until then others may need the groups that live on it.
struct Drained {
    serving: AtomicUsize,
    event: Event,
}

impl Drained {
    async fn all(&self) {
        let is_last = self.serving.fetch_sub(1, Ordering::SeqCst) == 1;
        if is_last {
            self.event.notify(usize::MAX);
        }
        loop {
            let drained = self.event.listen();
            if self.serving.load(Ordering::SeqCst) == 0 {
                return;
            }
            drained.await;
        }
    }
}

fn choice(driver: Driver) -> DriverChoice {
    match driver {
        Driver::Auto => DriverChoice::Auto,
        Driver::IoUring => DriverChoice::IoUring,
        Driver::Epoll => DriverChoice::Epoll,
    }
}

fn driver_name(driver: DriverInUse) -> &'static str {
    match driver {
        DriverInUse::IoUring => "io_uring",
        DriverInUse::Epoll => "epoll",
    }
}

fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        head_bytes_max: limits.web_head_bytes_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
        connections_max: limits.web_connections_max.map(NonZero::get),
        head_timeout: limits.web_head_timeout,
        request_timeout: limits.web_request_timeout,
        response_timeout: limits.web_response_timeout,
        ..Limits::default()
    }
}
