//! Parses the arguments, runs the selected program, and returns its exit status.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use sluicegate::config::{Config, Exit, LogFormat, LogLevel, Program, StorageCommand};
use sluicegate::runtime::activation;
use sluicegate::runtime::shutdown::survive_file_size_limit;
use sluicegate::{server, storage, telemetry};
use tracing::level_filters::LevelFilter;

fn main() -> ExitCode {
    if let Err(error) = survive_file_size_limit() {
        return fail(&error_line(&format_args!("cannot handle signals: {error}")));
    }
    match Program::from_arguments(std::env::args_os(), &storage::engines::CHOICES) {
        Ok(Program::Gateway(config)) => run_gateway(*config),
        Ok(Program::Storage(command)) => run_storage(&command),
        Err(Exit::Print(text)) => print_to_stdout(&text),
        Err(Exit::Usage(text)) => fail(&text),
    }
}

fn run_gateway(config: Config) -> ExitCode {
    // First of all, because no thread may run and nothing may be open.
    let inherited = if config.systemd_socket { activation::take() } else { Vec::new() };
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
        return fail(&error_line(&error));
    }
    if let Err(error) = server::run(config, inherited) {
        tracing::error!(%error, "gateway failed");
        telemetry::log::flush();
        return ExitCode::FAILURE;
    }
    telemetry::log::flush();
    ExitCode::SUCCESS
}

fn run_storage(command: &StorageCommand) -> ExitCode {
    if let Err(error) = storage::command::run(command, &mut io::stdout().lock()) {
        return fail(&error_line(&error));
    }
    ExitCode::SUCCESS
}

/// Prints what the operator asked for. A reader that has seen enough and left, such as `head`, is no error.
fn print_to_stdout(text: &str) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(&error_line(&format_args!("cannot write to stdout: {error}")))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn error_line(error: &impl Display) -> String {
    format!("sluicegate: error: {error}\n")
}

/// Writes a text to stderr. A failure is ignored, because there is no other place to report it.
fn fail(text: &str) -> ExitCode {
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}
