//! Rules of the flags, seen through [`Config`].

use sluicegate_engine::EngineDescriptor;

use super::*;

const fn engine(name: &'static str) -> EngineDescriptor {
    EngineDescriptor { name, summary: "", is_present: |_| false, open: |_, _| panic!("flags open nothing") }
}

/// The engines of these tests. The build leaves out the last.
pub(super) const ENGINES: EngineChoices = EngineChoices {
    all: &["snapshot", "sled", "absent"],
    compiled_in: &const { [engine("snapshot"), engine("sled")] },
};

fn config(arguments: &[&str]) -> Result<Config, Exit> {
    Config::from_arguments(std::iter::once("sluicegate").chain(arguments.iter().copied()), &ENGINES)
}

fn parsed(arguments: &[&str]) -> Config {
    config(arguments).expect("flags that can be meant so")
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
            web_head_bytes_max: Some(64 << 10),
            web_connections_max: NonZeroUsize::new(16384),
            web_head_timeout: Some(Duration::from_secs(10)),
            web_request_timeout: Some(Duration::from_secs(60)),
            web_response_timeout: Some(Duration::from_secs(120)),
            web_scrapes_max: NonZeroUsize::new(32),
        }
    );
}

#[test]
fn zero_switches_a_limit_off() {
    let names = [
        "push.body-bytes-max",
        "push.queue-max",
        "web.head-bytes-max",
        "web.connections-max",
        "web.head-timeout",
        "web.request-timeout",
        "web.response-timeout",
        "web.scrapes-max",
    ];
    let typed = names.map(|name| format!("--{name}=0"));
    let limits = parsed(&typed.each_ref().map(String::as_str)).limits;
    assert_eq!(
        limits,
        Limits {
            push_body_bytes_max: None,
            push_queue_max: None,
            web_head_bytes_max: None,
            web_connections_max: None,
            web_head_timeout: None,
            web_request_timeout: None,
            web_response_timeout: None,
            web_scrapes_max: None,
        }
    );
    for name in names {
        usage_error(&[&format!("--{name}=-1")]);
        usage_error(&[&format!("--{name}=many")]);
    }
    usage_error(&["--web.head-timeout=-5s"]);
}

#[test]
fn values_come_after_an_equals_sign_or_a_blank() {
    assert_eq!(parsed(&["--log.level=warn"]).log_level, LogLevel::Warn);
    assert_eq!(parsed(&["--log.level", "warn"]).log_level, LogLevel::Warn);
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
fn what_the_official_program_refuses_is_refused() {
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
        &["--log.level=DEBUG"],
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
fn listen_addresses_add_up() {
    let config = parsed(&["--web.listen-address=127.0.0.1:1", "--web.listen-address", "[::1]:2"]);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.flags["web.listen-address"], "127.0.0.1:1,[::1]:2");
}

#[test]
fn the_prefix_comes_from_the_external_url_unless_given() {
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
fn flags_are_shown_as_the_official_program_shows_them() {
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

fn kept(arguments: &[&str]) -> StoreConfig {
    parsed(arguments).store.expect("a store")
}

#[test]
fn a_path_or_a_persistence_file_keeps_groups() {
    let plain = StoreConfig {
        engine: &ENGINES.compiled_in[0],
        path: "/var/x".into(),
        durability: Durability::Process,
        archive_interval: Duration::from_secs(300),
        import: None,
    };
    assert_eq!(kept(&["--storage.path=/var/x"]), plain);
    assert_eq!(kept(&["--storage.path=/var/x", "--storage.backend=snapshot", "--persistence.file="]), plain);
    assert_eq!(
        kept(&["--storage.backend=sled", "--storage.durability=disk", "--storage.path", "/var/x"]),
        StoreConfig { engine: &ENGINES.compiled_in[1], durability: Durability::Disk, ..plain.clone() }
    );
    assert_eq!(
        kept(&["--persistence.file=a/b.gob", "--persistence.interval=90s"]),
        StoreConfig {
            path: "a/b.gob.sluicegate".into(),
            archive_interval: Duration::from_secs(90),
            import: Some("a/b.gob".into()),
            ..plain.clone()
        }
    );
    // What is less than a second would do nothing but write archives.
    for interval in ["-5m", "0", "1ms"] {
        let interval = format!("--persistence.interval={interval}");
        assert_eq!(kept(&["--storage.path=x", &interval]).archive_interval, Duration::from_secs(1));
    }
    assert_eq!(parsed(&["--storage.backend=memory"]).store, None);
    assert_eq!(parsed(&["--persistence.interval=1m"]).store, None);
}

#[test]
fn the_engine_in_force_is_shown() {
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
fn flags_that_mean_two_stores_or_none_are_refused() {
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

/// A flag that is forgotten in the list of shown ones would be missing on the web page, and nobody would notice.
#[test]
fn every_flag_is_shown() {
    let shown = parsed(&[]).flags;
    let mut typed = typed_flags();
    typed.retain(|name| !matches!(name.as_str(), "version" | "help"));
    assert_eq!(shown.len(), typed.len());
    assert!(typed.iter().all(|name| shown.contains_key(name)));
}

/// The flags that are typed, by their long names.
fn typed_flags() -> Vec<String> {
    flags::command(&ENGINES)
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect()
}

/// The table in the operator's guide is written by hand.
#[test]
fn every_flag_is_documented() {
    let guide = include_str!("../../docs/operations.md");
    let documented: Vec<&str> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `--"))
        .filter_map(|line| line.split(['`', ' ']).next())
        .collect();
    let typed = typed_flags();
    assert!(typed.iter().all(|name| documented.contains(&name.as_str())), "{typed:?} {documented:?}");
    assert!(documented.iter().all(|name| typed.iter().any(|typed| typed == name)), "{documented:?}");
}

#[test]
fn what_is_not_available_stops_the_start_and_help_says_so() {
    for (argument, name) in
        [("--web.config.file=x", "web.config.file"), ("--web.systemd-socket", "web.systemd-socket")]
    {
        assert_eq!(
            usage_error(&[argument]),
            format!("sluicegate: error: --{name} is not available yet, try --help\n")
        );
    }
    let marked: Vec<String> = flags::command(&ENGINES)
        .get_arguments()
        .filter(|argument| {
            argument.get_help().is_some_and(|help| help.to_string().contains("[not available yet]"))
        })
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect();
    assert_eq!(marked.len(), NOT_YET.len());
    assert!(NOT_YET.iter().all(|(name, _)| marked.iter().any(|marked| marked == name)));
}

#[test]
fn help_and_version_are_answers() {
    for argument in ["-h", "--help"] {
        let help = printed(&[argument]);
        assert!(help.contains("--web.listen-address"), "{help}");
        assert!(!help.contains("--no-web.enable-admin-api"), "{help}");
    }
    assert_eq!(printed(&["--version"]), BUILD.to_string());
    assert_eq!(printed(&["--log.level=error", "--version"]), BUILD.to_string());
}

#[test]
fn the_command_is_sound() {
    flags::command(&ENGINES).debug_assert();
}
