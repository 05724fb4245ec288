//! Flags and the [`Config`] that they give.

use sluicegate_engine::EngineDescriptor;

use super::*;

const fn engine(name: &'static str) -> EngineDescriptor {
    EngineDescriptor {
        name,
        summary: "",
        is_present: |_| false,
        open: |_, _| panic!("flags do not open stores"),
    }
}

/// The engines of these tests. The last one is not compiled in.
pub(super) const ENGINES: EngineChoices = EngineChoices {
    all: &["snapshot", "sled", "absent"],
    compiled_in: &const { [engine("snapshot"), engine("sled")] },
};

fn config(arguments: &[&str]) -> Result<Config, Exit> {
    Config::from_arguments(std::iter::once("sluicegate").chain(arguments.iter().copied()), &ENGINES)
}

fn parsed(arguments: &[&str]) -> Config {
    config(arguments).expect("valid flags")
}

fn usage_error(arguments: &[&str]) -> String {
    match config(arguments) {
        Err(Exit::Usage(text)) => text,
        other => panic!("{arguments:?} gave {other:?}"),
    }
}

fn printed(arguments: &[&str]) -> String {
    match config(arguments) {
        Err(Exit::Print(text)) => text,
        other => panic!("{arguments:?} gave {other:?}"),
    }
}

#[test]
fn defaults() {
    let config = parsed(&[]);
    assert_eq!(config.listen, [ListenAddress::AllInterfaces { port: 9091 }]);
    assert_eq!((config.route_prefix.as_str(), config.external_prefix.as_str()), ("", ""));
    assert_eq!(config.telemetry_path, "/metrics");
    assert!(!config.lifecycle && !config.admin_api && config.consistency_check);
    assert_eq!(config.store, None);
    assert_eq!((config.cores, config.driver), (None, Driver::Auto));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Info, LogFormat::Logfmt));
    assert_eq!(
        config.limits,
        Limits {
            push_body_bytes_max: Some(64 << 20),
            push_queue_max: NonZeroUsize::new(4096),
            push_groups_max: None,
            push_series_max: None,
            push_bytes_max: None,
            memory_in_flight: MemoryLimit::Automatic,
            web_head_bytes_max: Some(64 << 10),
            web_connections_max: NonZeroUsize::new(16384),
            web_head_timeout: Some(Duration::from_secs(10)),
            web_request_timeout: Some(Duration::from_secs(60)),
            web_response_timeout: Some(Duration::from_secs(120)),
            web_response_rate_min: Some(1 << 10),
            web_scrapes_max: NonZeroUsize::new(32),
            web_group_lists_max: NonZeroUsize::new(16),
        }
    );
}

#[test]
fn zero_disables_a_limit() {
    let names = [
        "push.body-bytes-max",
        "push.queue-max",
        "push.groups-max",
        "push.series-max",
        "push.bytes-max",
        "memory.in-flight-max",
        "web.head-bytes-max",
        "web.connections-max",
        "web.head-timeout",
        "web.request-timeout",
        "web.response-timeout",
        "web.response-rate-min",
        "web.scrapes-max",
        "web.group-lists-max",
    ];
    let flags = names.map(|name| format!("--{name}=0"));
    let limits = parsed(&flags.each_ref().map(String::as_str)).limits;
    assert_eq!(
        limits,
        Limits {
            push_body_bytes_max: None,
            push_queue_max: None,
            push_groups_max: None,
            push_series_max: None,
            push_bytes_max: None,
            memory_in_flight: MemoryLimit::Unlimited,
            web_head_bytes_max: None,
            web_connections_max: None,
            web_head_timeout: None,
            web_request_timeout: None,
            web_response_timeout: None,
            web_response_rate_min: None,
            web_scrapes_max: None,
            web_group_lists_max: None,
        }
    );
    for name in names {
        usage_error(&[&format!("--{name}=-1")]);
        usage_error(&[&format!("--{name}=many")]);
    }
    usage_error(&["--web.head-timeout=-5s"]);
}

#[test]
fn accepts_values_after_an_equals_sign_or_a_space() {
    assert_eq!(parsed(&["--log.level=warn"]).log_level, LogLevel::Warn);
    assert_eq!(parsed(&["--log.level", "warn"]).log_level, LogLevel::Warn);
    for text in ["WARN", "Warn"] {
        let config = parsed(&["--log.level", text]);
        assert_eq!((config.log_level, config.flags["log.level"].as_str()), (LogLevel::Warn, "warn"));
    }
    assert_eq!(parsed(&["--web.route-prefix", ""]).route_prefix, "");
    assert_eq!(parsed(&["--persistence.file="]).flags["persistence.file"], "");
    assert_eq!(parsed(&["--runtime.driver=io_uring"]).driver, Driver::IoUring);
    assert_eq!(parsed(&["--runtime.cores=3"]).cores, NonZeroUsize::new(3));
    assert_eq!(parsed(&["--log.format=json"]).log_format, LogFormat::Json);
    parsed(&["--"]);
}

#[test]
fn switches_can_be_negated() {
    assert!(parsed(&["--web.enable-lifecycle"]).lifecycle);
    assert!(!parsed(&["--no-web.enable-lifecycle"]).lifecycle);
    assert!(parsed(&["--no-push.disable-consistency-check"]).consistency_check);
    assert!(!parsed(&["--push.disable-consistency-check"]).consistency_check);
    assert!(parsed(&["--web.enable-admin-api"]).admin_api);
    assert!(parsed(&["--push.enable-utf8-names"]).utf8_names && !parsed(&[]).utf8_names);
    parsed(&["--no-web.systemd-socket", "--no-push.enable-utf8-names", "--no-web.enable-admin-api"]);
}

#[test]
fn rejects_what_the_official_program_rejects() {
    for arguments in [
        &["--bogus"][..],
        &["-x"],
        &["word"],
        &["--web.enable-life"],
        &["--web.enable-lifecycle=true"],
        &["--web.enable-lifecycle", "--web.enable-lifecycle"],
        &["--web.enable-lifecycle", "--no-web.enable-lifecycle"],
        &["--no-log.level=info"],
        &["--log.level=info", "--log.level=warn"],
        &["--log.level="],
        &["--log.level=loud"],
        &["--log.format=JSON"],
        &["--log.format=xml"],
        &["--persistence.interval"],
        &["--persistence.interval="],
        &["--persistence.interval=5"],
        &["--persistence.interval", "-5m"],
        &["--web.listen-address=foo"],
        &["--web.external-url=%zz"],
        &["--web.telemetry-path="],
        &["--web.telemetry-path=metrics"],
        &["--web.telemetry-path=/status"],
    ] {
        assert!(!usage_error(arguments).is_empty());
    }
}

#[test]
fn listen_addresses_can_be_repeated() {
    let config = parsed(&["--web.listen-address=127.0.0.1:1", "--web.listen-address", "[::1]:2"]);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.flags["web.listen-address"], "127.0.0.1:1,[::1]:2");
}

#[test]
fn the_route_prefix_defaults_to_the_path_of_the_external_url() {
    for (arguments, route_prefix, external_prefix, telemetry_path) in [
        (&["--web.external-url=http://x/a/"][..], "/a", "/a", "/a/metrics"),
        (&["--web.external-url=http://x/"], "", "", "/metrics"),
        (&["--web.external-url=http://x/a", "--web.route-prefix=/"], "", "/a", "/metrics"),
        (&["--web.external-url=http://x/a%20b", "--web.route-prefix="], "/a b", "/a b", "/a b/metrics"),
        (&["--web.route-prefix=c/", "--web.telemetry-path=m"], "/c", "", "/c/m"),
        (&["--web.telemetry-path=/x//y/"], "", "", "/x/y"),
        (&["--web.route-prefix=/status"], "/status", "", "/status/metrics"),
    ] {
        let config = parsed(arguments);
        assert_eq!(config.route_prefix, route_prefix, "{arguments:?}");
        assert_eq!(config.external_prefix, external_prefix, "{arguments:?}");
        assert_eq!(config.telemetry_path, telemetry_path, "{arguments:?}");
        assert_eq!(config.flags["web.route-prefix"], route_prefix, "{arguments:?}");
    }
}

#[test]
fn shows_flags_like_the_official_program() {
    let flags = parsed(&["--persistence.interval=90s", "--web.external-url=http://x/a%20b/?q#f"]).flags;
    for (name, value) in [
        ("log.format", "logfmt"),
        ("log.level", "info"),
        ("persistence.file", ""),
        ("persistence.interval", "1m30s"),
        ("push.disable-consistency-check", "false"),
        ("push.enable-utf8-names", "false"),
        ("web.config.file", ""),
        ("web.enable-admin-api", "false"),
        ("web.enable-lifecycle", "false"),
        ("web.external-url", "http://x/a%20b/?q#f"),
        ("web.listen-address", ":9091"),
        ("web.route-prefix", "/a b"),
        ("web.systemd-socket", "false"),
        ("web.telemetry-path", "/metrics"),
    ] {
        assert_eq!(flags[name], value, "{name}");
    }
    assert_eq!(parsed(&["--persistence.interval=-5m"]).flags["persistence.interval"], "-5m0s");
}

fn store(arguments: &[&str]) -> StoreConfig {
    parsed(arguments).store.expect("a store")
}

#[test]
fn a_path_or_a_persistence_file_selects_a_store() {
    let plain = StoreConfig {
        engine: &ENGINES.compiled_in[0],
        path: "/var/x".into(),
        durability: Durability::Process,
        archive_interval: Duration::from_secs(300),
        import: None,
    };
    assert_eq!(store(&["--storage.path=/var/x"]), plain);
    assert_eq!(store(&["--storage.path=/var/x", "--storage.backend=snapshot", "--persistence.file="]), plain);
    assert_eq!(
        store(&["--storage.backend=sled", "--storage.durability=disk", "--storage.path", "/var/x"]),
        StoreConfig { engine: &ENGINES.compiled_in[1], durability: Durability::Disk, ..plain.clone() }
    );
    assert_eq!(
        store(&["--persistence.file=a/b.gob", "--persistence.interval=90s"]),
        StoreConfig {
            path: "a/b.gob.sluicegate".into(),
            archive_interval: Duration::from_secs(90),
            import: Some("a/b.gob".into()),
            ..plain.clone()
        }
    );
    // Intervals below a second are raised to a second.
    for interval in ["-5m", "0", "1ms"] {
        let interval = format!("--persistence.interval={interval}");
        assert_eq!(store(&["--storage.path=x", &interval]).archive_interval, Duration::from_secs(1));
    }
    assert_eq!(parsed(&["--storage.backend=memory"]).store, None);
    assert_eq!(parsed(&["--persistence.interval=1m"]).store, None);
}

#[test]
fn shows_the_engine_in_effect() {
    for (arguments, backend, durability) in [
        (&[][..], "memory", "process"),
        (&["--storage.path=x", "--storage.durability=disk"], "snapshot", "disk"),
        (&["--storage.path=x", "--storage.backend=sled"], "sled", "process"),
        (&["--persistence.file=x"], "snapshot", "process"),
    ] {
        let flags = parsed(arguments).flags;
        assert_eq!(flags["storage.backend"], backend, "{arguments:?}");
        assert_eq!(flags["storage.durability"], durability, "{arguments:?}");
    }
}

#[test]
fn rejects_flags_for_two_stores_or_for_none() {
    for (arguments, word) in [
        (&["--persistence.file=x", "--storage.path=y"][..], "together"),
        (&["--persistence.file=x", "--storage.backend=memory"], "together"),
        (&["--persistence.file=x", "--storage.durability=disk"], "together"),
        (&["--storage.backend=snapshot"], "--storage.path"),
        (&["--storage.backend=sled", "--storage.path="], "--storage.path"),
        (&["--storage.backend=memory", "--storage.path=y"], "memory"),
        (&["--storage.durability=disk"], "--storage.path"),
        (&["--storage.backend=memory", "--storage.durability=disk"], "memory"),
        (&["--storage.backend=redb", "--storage.path=y"], "snapshot"),
        (&["--storage.backend=absent", "--storage.path=y"], "build with the feature \"absent\""),
        (&["--storage.durability=ram", "--storage.path=y"], "disk"),
    ] {
        let text = usage_error(arguments);
        assert!(text.contains(word), "{arguments:?} gave {text}");
    }
}

#[test]
fn shows_every_flag() {
    let shown = parsed(&[]).flags;
    let mut names = flag_names();
    names.retain(|name| !matches!(name.as_str(), "version" | "help"));
    names.sort();
    assert!(shown.keys().eq(&names), "{shown:?} {names:?}");
}

/// The long names of all flags.
fn flag_names() -> Vec<String> {
    flags::command(&ENGINES)
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect()
}

#[test]
fn every_flag_is_documented() {
    let guide = include_str!("../../docs/operations.md");
    let documented: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `--"))
        .filter_map(|line| line.split(['`', ' ']).next())
        .collect();
    let names = flag_names();
    assert!(names.iter().all(|name| documented.contains(&name.as_str())), "{names:?} {documented:?}");
    assert!(
        documented.iter().all(|documented| names.iter().any(|name| name == documented)),
        "{documented:?}"
    );
}

#[test]
fn the_sockets_of_systemd_replace_addresses() {
    assert!(!parsed(&["--no-web.systemd-socket"]).systemd_socket);
    let config = parsed(&["--web.systemd-socket", "--web.listen-address=:1"]);
    assert!(config.systemd_socket);
    assert_eq!(config.flags["web.systemd-socket"], "true");
}

#[test]
fn prints_help_and_version() {
    for argument in ["-h", "--help"] {
        let help = printed(&[argument]);
        assert!(help.contains("--web.listen-address"), "{help}");
        assert!(!help.contains("--no-web.enable-admin-api"), "{help}");
    }
    assert_eq!(printed(&["--version"]), BUILD.to_string());
    assert_eq!(printed(&["--log.level=error", "--version"]), BUILD.to_string());
}

#[test]
fn the_command_is_valid() {
    flags::command(&ENGINES).debug_assert();
}

#[test]
fn the_limit_of_memory_in_flight_follows_the_machine_unless_it_is_set() {
    let bytes_max =
        |arguments: &[&str], available| parsed(arguments).limits.memory_in_flight.bytes_max(available);
    assert_eq!(bytes_max(&[], Some(512 << 20)), Some(256 << 20));
    assert_eq!(bytes_max(&[], Some(64 << 30)), Some(1 << 30));
    assert_eq!(bytes_max(&[], None), Some(1 << 30));
    assert_eq!(bytes_max(&["--memory.in-flight-max=32MiB"], Some(1)), Some(32 << 20));
    assert_eq!(bytes_max(&["--memory.in-flight-max=0"], Some(1)), None);
}
