//! Start-up and composition: from the configuration to a running gateway.

#[cfg(test)]
mod metrics_doc;

use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_listener::Event;

use crate::config::{self, Config, Driver, Durability};
use crate::cores::command::ShardCommand;
use crate::cores::leases::Leases;
use crate::cores::mailbox::Mailboxes;
use crate::cores::shard_task::ShardTask;
use crate::cores::workers::Workers;
use crate::exposition::names::NameRules;
use crate::handlers::push::PushRules;
use crate::handlers::router::Router;
use crate::handlers::{Access, Gateway, Handlers, RequestMetrics};
use crate::http::accept::serve;
use crate::http::limits::{Connections, Limits, ServerState};
use crate::http::slots::Slots;
use crate::runtime::address::BoundAddress;
use crate::runtime::budget::Budget;
use crate::runtime::descriptors::{self, TooFewDescriptors};
use crate::runtime::listen::{ListenError, Listeners};
use crate::runtime::permits::Permits;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::stalls::Stalls;
use crate::runtime::threads::{Cores, DriverChoice, DriverInUse, available, cores_max};
use crate::runtime::{memory, now_seconds, service_manager, sleep, spawn};
use crate::scrape::cache::PieceCache;
use crate::scrape::merge::kind_of;
use crate::shard::limits::StateLimits;
use crate::shard::registry::Registry;
use crate::shard::shapes::Shapes;
use crate::shard::sides::CoreShards;
use crate::shard::{Persistence, Shard};
use crate::storage::engines;
use crate::storage::import::{ImportError, OfficialFile};
use crate::storage::store::{self, CloseError, State, Store};
use crate::telemetry::{self, OwnMetric, Recorder};
use crate::web_config::passwords::Passwords;
use crate::web_config::{self, WebConfigError};
use crate::{cores, handlers, http, runtime, scrape, shard, storage};

/// How often the service manager gets the progress of a restore.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of concurrent group queries, because each looks at every group.
const GROUP_QUERIES_MAX: usize = 8;

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

/// The gateway's own metric families, by the module that declares them.
const METRICS: &[(&str, &[OwnMetric])] = &[
    ("cores", cores::metrics::METRICS),
    ("handlers", handlers::metrics::METRICS),
    ("handlers", handlers::request_metrics::METRICS),
    ("http", http::metrics::METRICS),
    ("runtime", runtime::metrics::METRICS),
    ("scrape", scrape::metrics::METRICS),
    ("server", &[BUILD_INFO, RUNTIME_INFO]),
    ("shard", shard::METRICS),
    ("storage", storage::metrics::METRICS),
    ("telemetry", telemetry::PROCESS_METRICS),
    ("telemetry", telemetry::faults::METRICS),
    ("telemetry", telemetry::log::METRICS),
    ("web_config", web_config::metrics::METRICS),
];

/// The gateway's own metric families. Their names are reserved from the start, so that no push can take one with another
/// type.
fn declared_metrics() -> impl Iterator<Item = OwnMetric> {
    METRICS.iter().flat_map(|(_, metrics)| metrics.iter().copied())
}

/// Why the gateway cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The web configuration file is invalid.
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
    /// Another metrics recorder is already installed.
    #[error("cannot install the gateway's own metrics: {0}")]
    Metrics(String),
    /// An address is invalid or in use.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// More cores are requested than make sense.
    #[error("invalid value '{count}' for '--runtime.cores': this machine allows at most {max}")]
    TooManyCores {
        /// The requested number.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The program and a few connections need more descriptors than it may open.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The threads of the cores, or their runtimes, cannot be started.
    #[error("cannot start the cores: {0}")]
    Cores(#[source] std::io::Error),
    /// Another thread cannot be started.
    #[error("cannot start the {thread} thread: {source}")]
    Thread {
        /// The purpose of the thread.
        thread: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The persistence file of the official program cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The store could not be opened or closed.
    #[error("storage: {0}")]
    Store(#[from] CloseError),
}

/// Runs the gateway until SIGTERM, SIGINT or `/-/quit`, then drains. `inherited` are the descriptors that systemd passed, in case the
/// configuration says to use them.
///
/// # Errors
/// See [`StartError`].
pub fn run(config: Config, inherited: Vec<OwnedFd>) -> Result<(), StartError> {
    let started_seconds = now_seconds();
    tracing::info!(version = config.build.version, revision = config.build.revision, "starting sluicegate");
    let own_metrics = Recorder::new(declared_metrics());
    own_metrics.install().map_err(|error| StartError::Metrics(error.to_string()))?;
    let descriptors = descriptors::raise_limit();

    let count = config.cores.map_or_else(available, NonZero::get);
    if count > cores_max() {
        return Err(StartError::TooManyCores { count, max: cores_max() });
    }
    // Before any port is bound, so that an invalid file never interrupts a service.
    let (web_config, web_config_watch) = match &config.web_config_file {
        Some(path) => web_config::load(path).map(|(current, watch)| (current, Some(watch)))?,
        None => (web_config::Current::default(), None),
    };
    // Before any thread is started, so that a second gateway on the same port exits at once.
    let listeners = if config.systemd_socket {
        tracing::info!("Listening on systemd activated listeners instead of port listeners.");
        Listeners::inherit(inherited, count)?
    } else {
        let addresses: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        Listeners::bind(&addresses, count)?
    };
    let limits = http_limits(&config, count, descriptors, listeners.addresses().len())?;
    let cores = Cores::start(count, driver_choice(config.driver)).map_err(StartError::Cores)?;
    let workers = Workers::start(count).map_err(|source| StartError::Thread { thread: "worker", source })?;
    memory::return_freed().map_err(|source| StartError::Thread { thread: "memory", source })?;
    let shutdown = Shutdown::new();
    let access = match &web_config_watch {
        Some(_) => {
            let passwords =
                Passwords::start().map_err(|source| StartError::Thread { thread: "password", source })?;
            Some(Access::new(web_config.clone(), passwords))
        }
        None => None,
    };
    let reload = web_config_watch.map(web_config::Watch::start).transpose()?;
    let on_hangup = move || match &reload {
        Some(reload) => reload.request(),
        None => tracing::info!("SIGHUP ignored: there is nothing to reload"),
    };
    shutdown
        .request_on_signals(on_hangup)
        .map_err(|source| StartError::Thread { thread: "signal", source })?;

    http::metrics::set_limits(&limits);
    expose_info(&config, &cores, &own_metrics);
    let listening = Listening {
        addresses: listeners.addresses().to_vec(),
        cores: count,
        driver: cores.driver(),
        engine: engine_name(&config),
        web_config: web_config.clone(),
    };
    scrape::metrics::create_series();
    handlers::metrics::create_series();

    let own_names = declared_metrics().map(|metric| (metric.name, kind_of(metric.kind), metric.help));
    let registry = Arc::new(Registry::new(own_names).with_limits(state_limits(&config)));
    let (mailboxes, inboxes) = Mailboxes::new(count, config.limits.push_queue_max.map(NonZero::get));
    let persistence = if config.store.is_some() { Persistence::Stored } else { Persistence::InMemory };
    let shards: Vec<_> = (0..count)
        .map(|core| Shard::new(core as u32, registry.clone(), persistence))
        .map(|main| Arc::new(CoreShards::new(main)))
        .collect();
    let store = match &config.store {
        Some(store) => {
            Some(Arc::new(start_store(store, &shards, &registry, &mailboxes, &shutdown, listening)?))
        }
        None => {
            listening.log();
            None
        }
    };
    let connections = Arc::new(Connections::default());
    let budget = Budget::new(config.limits.memory_in_flight.bytes_max(memory::available()));
    let server = ServerState {
        limits: Arc::new(limits),
        connections: connections.clone(),
        budget,
        shutdown: shutdown.clone(),
        web_config,
    };
    let stalls = Arc::new(Stalls::new(count));
    let gateway = Arc::new(Gateway {
        started_seconds,
        access,
        router: Router::new(&config.route_prefix, &config.telemetry_path, config.admin_api),
        rules: PushRules {
            body_bytes_max: config.limits.push_body_bytes_max,
            consistency_check: config.consistency_check,
            names: if config.utf8_names { NameRules::Utf8 } else { NameRules::Legacy },
        },
        registry: registry.clone(),
        shapes: config.shapes.then(Shapes::default),
        mailboxes: mailboxes.clone(),
        store: store.clone(),
        workers,
        piece_cache: PieceCache::default(),
        budget,
        scrapes: Slots::new(config.limits.web_scrapes_max.map(NonZero::get)),
        group_lists: Slots::new(config.limits.web_group_lists_max.map(NonZero::get)),
        group_queries: Permits::new(Some(GROUP_QUERIES_MAX)),
        matching: async_lock::Semaphore::new(count.div_ceil(4)),
        own_metrics,
        request_metrics: RequestMetrics::new(),
        stalls: stalls.clone(),
        connections,
        shutdown,
        config,
    });
    let leases = Arc::new(Leases::default());
    // Each core takes its listeners and its inbox once.
    let (listeners, socket_files) = listeners.into_parts(cores.driver()).map_err(StartError::Cores)?;
    let core_parts: Vec<_> = listeners.into_iter().zip(inboxes).map(Some).collect();
    let core_parts = Arc::new(Mutex::new(core_parts));
    let drained = Arc::new(Drained { serving: AtomicUsize::new(count), event: Event::new() });
    let core_store = store.clone();
    cores.run(move |index| {
        let core = index.0;
        let parts = core_parts.lock().unwrap_or_else(PoisonError::into_inner)[core].take();
        let (shards, store) = (shards[core].clone(), core_store.clone());
        let shard_task =
            ShardTask::new(core, shards, registry.clone(), leases.clone(), mailboxes.clone(), store.clone());
        let handlers = Handlers::new(gateway.clone(), shard_task.clone());
        let (server, drained, stalls) = (server.clone(), drained.clone(), stalls.clone());
        let piece_cache = gateway.piece_cache.clone();
        async move {
            let Some((listeners, inbox)) = parts else { return };
            spawn(shard_task.clone().merge_regularly());
            spawn(shard_task.run(inbox));
            spawn(stalls.watch(core));
            if core == 0 {
                spawn(piece_cache.drop_idle_regularly());
            }
            if core == 0 && service_manager::is_present() {
                spawn(keep_manager_informed(server.shutdown.clone(), store));
            }
            if let Err(error) = serve(listeners, handlers, server).await {
                tracing::error!(core, %error, "cannot serve; exiting");
                telemetry::log::exit(1);
            }
            drained.wait_for_all().await;
        }
    });
    tracing::info!("HTTP server stopped");
    drop(socket_files);
    if let Some(store) = store {
        store.close()?;
    }
    Ok(())
}

fn engine_name(config: &Config) -> &'static str {
    config.store.as_ref().map_or("memory", |store| store.engine.name)
}

/// Exposes how the gateway runs as metrics.
fn expose_info(config: &Config, cores: &Cores, own_metrics: &Recorder) {
    let (count, driver) = (cores.count(), cores.driver().name());
    let (engine, durability) =
        (engine_name(config), config.store.as_ref().map_or("none", |store| store.durability.name()));
    own_metrics.set_info(BUILD_INFO, &config.build.labels());
    own_metrics.set_info(RUNTIME_INFO, &[("cores", &count.to_string()), ("driver", driver)]);
    own_metrics.set_info(storage::metrics::INFO, &[("backend", engine), ("durability", durability)]);
    if let Some(reason) = cores.fallback() {
        tracing::warn!(reason, "io_uring unavailable, falling back to epoll");
    }
}

/// Tells the service manager when the gateway is ready, how far the restore is until then, and when it stops.
async fn keep_manager_informed(shutdown: Shutdown, store: Option<Arc<Store>>) {
    while let Some(State::Restoring { groups, fraction }) = store.as_ref().map(|store| store.state())
        && !shutdown.is_requested()
    {
        let percent = fraction.map(|fraction| format!(", {:.0}%", fraction * 100.0)).unwrap_or_default();
        service_manager::starting(&format!("Restoring: {groups} groups so far{percent}"));
        sleep(PROGRESS_INTERVAL).await;
    }
    if !shutdown.is_requested() {
        service_manager::ready();
        shutdown.requested().await;
    }
    service_manager::stopping();
}

/// What the log says once the gateway serves requests: at the start, or when its store is open. A gateway that finds the store of
/// another engine exits without having said it.
struct Listening {
    addresses: Vec<BoundAddress>,
    cores: usize,
    driver: DriverInUse,
    engine: &'static str,
    web_config: web_config::Current,
}

impl Listening {
    fn log(&self) {
        let Self { addresses, cores, driver, engine, web_config } = self;
        let active = web_config.get();
        let http2 = active.tls.is_some() && active.config.http2;
        for address in addresses {
            tracing::info!(%address, cores, driver = driver.name(), store = engine, "Listening on");
            if let Some(limit) = active.config.rate_limit {
                tracing::info!(burst = limit.burst, interval = %limit.go_interval(), "Rate Limiter is enabled.");
            }
            let state = if active.tls.is_some() { "TLS is enabled." } else { "TLS is disabled." };
            tracing::info!(http2, %address, "{state}");
        }
    }
}

fn start_store(
    store: &config::StoreConfig,
    shards: &[Arc<CoreShards>],
    registry: &Arc<Registry>,
    mailboxes: &Mailboxes,
    shutdown: &Shutdown,
    listening: Listening,
) -> Result<Store, StartError> {
    // Before the engine opens the store, because that may make the store look newer than the official file.
    let official = OfficialFile::find(store)?;
    let to_open = store.clone();
    let mailboxes = mailboxes.clone();
    let start = store::Start {
        open: Box::new(move || engines::open(&to_open).inspect(|_| listening.log())),
        import: Box::new(move |is_new| official.records(is_new)),
        deliver: Box::new(move |batch, committed| {
            mailboxes.send(batch.core, ShardCommand::Complete(batch, committed));
        }),
        durability: match store.durability {
            Durability::Process => sluicegate_engine::Durability::Process,
            Durability::Disk => sluicegate_engine::Durability::Disk,
        },
        shards: shards.to_vec(),
        registry: registry.clone(),
        shutdown: shutdown.clone(),
    };
    Store::start(start).map_err(|source| StartError::Thread { thread: "storage", source })
}

/// Lets a core end only when all cores have drained: until then, the other cores may need its groups.
struct Drained {
    serving: AtomicUsize,
    event: Event,
}

impl Drained {
    async fn wait_for_all(&self) {
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

fn driver_choice(driver: Driver) -> DriverChoice {
    match driver {
        Driver::Auto => DriverChoice::Auto,
        Driver::IoUring => DriverChoice::IoUring,
        Driver::Epoll => DriverChoice::Epoll,
    }
}

fn state_limits(config: &Config) -> StateLimits {
    let limits = &config.limits;
    let count = |max: Option<NonZero<usize>>| max.map(|max| max.get() as u64);
    StateLimits {
        groups_max: count(limits.push_groups_max),
        series_max: count(limits.push_series_max),
        bytes_max: limits.push_bytes_max,
    }
}

fn http_limits(
    config: &Config,
    cores: usize,
    descriptors: Option<usize>,
    addresses: usize,
) -> Result<Limits, TooFewDescriptors> {
    let limits = &config.limits;
    let configured = limits.web_connections_max.map(NonZero::get);
    let connections_max = match descriptors {
        Some(descriptors) => {
            let possible = descriptors::connections_max(descriptors, cores, addresses)?;
            if let Some(configured) = configured
                && configured > possible
            {
                tracing::warn!(
                    configured,
                    effective = possible,
                    descriptors,
                    "fewer connections than configured, because of the limit of open files"
                );
            }
            Some(configured.map_or(possible, |configured| configured.min(possible)))
        }
        None => configured,
    };
    Ok(Limits {
        head_bytes_max: limits.web_head_bytes_max.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
        connections_max,
        head_timeout: limits.web_head_timeout,
        request_timeout: limits.web_request_timeout,
        response_timeout: limits.web_response_timeout,
        response_rate_min: limits.web_response_rate_min,
        ..Limits::default()
    })
}
