//! Starts the program: arguments → what is meant → one `match` runs it → exit code.

use std::process::ExitCode;

use sluicegate::config::{Config, LogFormat, LogLevel, Program, Stop, StorageCommand};
use sluicegate::{server, storage, telemetry};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    match Program::from_arguments(std::env::args_os()) {
        Ok(Program::Gateway(config)) => gateway(*config),
        Ok(Program::Storage(command)) => look_after(&command),
        Err(Stop::Answered(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(Stop::Refused(text)) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn gateway(config: Config) -> ExitCode {
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
    match server::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!(error = %why, "cannot run");
            ExitCode::FAILURE
        }
    }
}

fn look_after(command: &StorageCommand) -> ExitCode {
    match storage::command::run(command, &mut std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("sluicegate: error: {why}");
            ExitCode::FAILURE
        }
    }
}
