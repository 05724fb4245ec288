//! Parses the arguments, runs the selected program, and returns its exit status.

use std::process::ExitCode;

use sluicegate::config::{Config, Exit, LogFormat, LogLevel, Program, StorageCommand};
use sluicegate::{server, storage, telemetry};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    match Program::from_arguments(std::env::args_os(), &storage::engines::CHOICES) {
        Ok(Program::Gateway(config)) => run_gateway(*config),
        Ok(Program::Storage(command)) => run_storage(&command),
        Err(Exit::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(Exit::Usage(text)) => {
            eprint!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn run_gateway(config: Config) -> ExitCode {
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
    if let Err(error) = telemetry::log::install(level, format) {
        eprintln!("sluicegate: error: {error}");
        return ExitCode::FAILURE;
    }
    if let Err(error) = server::run(config) {
        tracing::error!(%error, "gateway failed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run_storage(command: &StorageCommand) -> ExitCode {
    if let Err(error) = storage::command::run(command, &mut std::io::stdout().lock()) {
        eprintln!("sluicegate: error: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
