//! Errors of flags that are valid on their own but not in their context.

use std::path::PathBuf;

use super::url::UrlError;

/// Why the flags give no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConfigError {
    #[error("invalid value '{value}' for '--web.external-url': {source}")]
    ExternalUrl { value: String, source: UrlError },
    #[error("invalid value '{0}' for '--web.telemetry-path': the path must start with a slash")]
    TelemetryPathWithoutSlash(String),
    #[error(
        "invalid value '{0}' for '--web.telemetry-path': another endpoint has this path; choose another one"
    )]
    TelemetryPathInUse(String),
    #[error(
        "--persistence.file and --storage.* cannot be used together: the file selects the {engine} engine in {path:?}; for \
         other settings use --storage.path={path:?} instead of the file"
    )]
    TwoStores { engine: &'static str, path: PathBuf },
    #[error("{0} needs --storage.path")]
    PathMissing(&'static str),
    #[error("--storage.backend=memory and {0} cannot be used together: memory stores nothing on disk")]
    MemoryWith(&'static str),
    #[error("this build has no {0} engine: build with the feature \"{0}\", or choose another engine")]
    EngineNotCompiledIn(String),
    #[error("invalid value '{value}' for '{flag}': expected {expected}")]
    InvalidStore { flag: &'static str, value: String, expected: String },
}
