//! Starts the gateway: arguments → [`Config`] → [`runtime::run`] → exit code.

use std::process::ExitCode;

use sluicegate::config::{Config, LogFormat, LogLevel, Stop};
use sluicegate::{runtime, telemetry};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    let config = match Config::from_arguments(std::env::args_os()) {
        Ok(config) => config,
        Err(Stop::Answered(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(Stop::Refused(text)) => {
            eprint!("{text}");
            return ExitCode::FAILURE;
        }
    };
    let level = match config.log_level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let format = match config.log_format {
        LogFormat::Logfmt => telemetry::log::Format::Logfmt,
        LogFormat::Json => telemetry::log::Format::Json,
    };
    if telemetry::log::install(level, format).is_err() {
        eprintln!("sluicegate: error: the log cannot be set up");
        return ExitCode::FAILURE;
    }
    match runtime::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!(error = %why, "cannot run");
            ExitCode::FAILURE
        }
    }
}
