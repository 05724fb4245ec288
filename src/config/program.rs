//! The program to run: the gateway, or a `sluicegate storage` command.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use sluicegate_engine::EngineDescriptor;

use super::error::ConfigError;
use super::flags::Exit;
use super::{Config, EngineChoices};

/// The first argument that selects the storage commands. It cannot collide with an official flag, because those start with `-`.
pub(super) const STORAGE: &str = "storage";

/// The program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// Run the gateway.
    Gateway(Box<Config>),
    /// Run a command on a store.
    Storage(StorageCommand),
}

/// A command for stores that no gateway uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageCommand {
    /// Describe the content of a store.
    Inspect(StorePlace),
    /// Read a store completely and check it.
    Verify(StorePlace),
    /// Copy all groups from one store to another.
    Migrate {
        /// The store to copy.
        from: StorePlace,
        /// The store to copy to; it may be new.
        to: StorePlace,
    },
}

/// A store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePlace {
    /// The engine of the store.
    pub engine: &'static EngineDescriptor,
    /// The folder of the store.
    pub path: PathBuf,
}

impl Program {
    /// Parses the arguments; the first is the name of the program.
    ///
    /// # Errors
    /// If help or the version was requested, or the arguments are invalid.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        engines: &EngineChoices,
    ) -> Result<Self, Exit> {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        match arguments.get(1) {
            Some(word) if word == STORAGE => {
                StorageCommand::parse(&arguments[2..], engines).map(Self::Storage)
            }
            _ => Config::from_arguments(arguments, engines).map(|config| Self::Gateway(Box::new(config))),
        }
    }
}

#[derive(Debug, Parser)]
#[command(
    name = "sluicegate storage",
    about = "Inspects, verifies and copies stores that no gateway uses.",
    disable_help_subcommand = true
)]
struct StorageArguments {
    #[command(subcommand)]
    command: StorageSubcommand,
}

#[derive(Debug, Subcommand)]
enum StorageSubcommand {
    /// Describe the content of a store
    Inspect(StoreFlags),
    /// Read a store completely and check every checksum and every record; the exit status is 1 if anything is wrong
    Verify(StoreFlags),
    /// Copy all groups from one store to another, of any engine, and compare the two; an interrupted copy can be repeated
    Migrate {
        /// Store to copy; it is not changed
        #[arg(long, value_name = "ENGINE:FOLDER")]
        from: OsString,
        /// Store to copy to; it is created if it does not exist
        #[arg(long, value_name = "ENGINE:FOLDER")]
        to: OsString,
    },
}

/// A store, by two flags.
#[derive(Debug, Args)]
struct StoreFlags {
    /// Engine of the store
    // `command` adds the values and the default, which come from the list of engines.
    #[arg(long, value_name = "ENGINE")]
    backend: String,
    /// Folder of the store
    #[arg(long, value_name = "FOLDER")]
    path: PathBuf,
}

impl StorageCommand {
    fn parse(arguments: &[OsString], engines: &EngineChoices) -> Result<Self, Exit> {
        let name = OsString::from("sluicegate storage");
        let arguments = command(engines)
            .try_get_matches_from(std::iter::once(&name).chain(arguments))
            .and_then(|matches| StorageArguments::from_arg_matches(&matches))
            .map_err(|error| match error.kind() {
                ErrorKind::DisplayHelp => Exit::Print(error.render().to_string()),
                _ => Exit::Usage(error.render().to_string()),
            })?;
        let by_flags = |place: StoreFlags| {
            Ok::<_, ConfigError>(StorePlace { engine: engines.find(&place.backend)?, path: place.path })
        };
        Ok(match arguments.command {
            StorageSubcommand::Inspect(place) => Self::Inspect(by_flags(place)?),
            StorageSubcommand::Verify(place) => Self::Verify(by_flags(place)?),
            StorageSubcommand::Migrate { from, to } => {
                Self::Migrate { from: place("--from", &from, engines)?, to: place("--to", &to, engines)? }
            }
        })
    }
}

/// The derived command, with the values from the list of engines.
pub(super) fn command(engines: &EngineChoices) -> Command {
    let with_values = |command: Command| {
        command.mut_arg("backend", |argument| {
            argument
                .required(false)
                .default_value(engines.default_name())
                .value_parser(PossibleValuesParser::new(engines.values()))
        })
    };
    let names: Vec<&str> = engines.compiled_in.iter().map(|engine| engine.name).collect();
    StorageArguments::command()
        .after_help(format!(
            "Engines: {}. A store has one user at a time, so stop its gateway first.",
            names.join(", ")
        ))
        .mut_subcommand("inspect", with_values)
        .mut_subcommand("verify", with_values)
}

/// Parses `snapshot:/var/lib/gateway`. The folder may be any bytes, not only UTF-8.
fn place(flag: &'static str, value: &OsStr, engines: &EngineChoices) -> Result<StorePlace, ConfigError> {
    let known = engines.all.iter().find_map(|name| {
        let path = value.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        (!path.is_empty()).then(|| (name, OsStr::from_bytes(path)))
    });
    match known {
        Some((name, path)) => Ok(StorePlace { engine: engines.find(name)?, path: path.into() }),
        None => {
            let forms: Vec<String> =
                engines.compiled_in.iter().map(|engine| format!("{}:FOLDER", engine.name)).collect();
            Err(ConfigError::InvalidStore {
                flag,
                value: value.to_string_lossy().into_owned(),
                expected: forms.join(" or "),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ENGINES;
    use super::*;

    fn program(arguments: &[&str]) -> Result<Program, Exit> {
        Program::from_arguments(std::iter::once("sluicegate").chain(arguments.iter().copied()), &ENGINES)
    }

    fn command(arguments: &[&str]) -> StorageCommand {
        match program(arguments) {
            Ok(Program::Storage(command)) => command,
            other => panic!("{arguments:?} gave {other:?}"),
        }
    }

    #[test]
    fn runs_the_gateway_unless_the_first_argument_is_storage() {
        assert!(matches!(program(&[]), Ok(Program::Gateway(_))));
        assert!(matches!(program(&["--log.level=debug"]), Ok(Program::Gateway(_))));
        assert!(matches!(program(&["--log.level=debug", "storage"]), Err(Exit::Usage(_))));
        assert!(matches!(program(&["store"]), Err(Exit::Usage(_))));
    }

    #[test]
    fn parses_the_engine_and_folder_of_stores() {
        let path = PathBuf::from("/a:b");
        let [snapshot, sled] = ENGINES.compiled_in else { panic!("two engines") };
        assert_eq!(
            command(&["storage", "verify", "--path=/a:b"]),
            StorageCommand::Verify(StorePlace { engine: snapshot, path: path.clone() })
        );
        assert_eq!(
            command(&["storage", "inspect", "--backend", "sled", "--path", "/a:b"]),
            StorageCommand::Inspect(StorePlace { engine: sled, path: path.clone() })
        );
        assert_eq!(
            command(&["storage", "migrate", "--from=sled:/a:b", "--to", "snapshot:c"]),
            StorageCommand::Migrate {
                from: StorePlace { engine: sled, path },
                to: StorePlace { engine: snapshot, path: "c".into() }
            }
        );
    }

    #[test]
    fn rejects_invalid_stores_and_names_the_flag() {
        for arguments in [
            &["storage"][..],
            &["storage", "wipe"],
            &["storage", "verify"],
            &["storage", "verify", "--path=x", "--backend=memory"],
            &["storage", "verify", "--path=x", "--web.listen-address=:1"],
            &["storage", "migrate", "--from=sled:a"],
            &["storage", "migrate", "--from=sled:a", "--to=b"],
            &["storage", "migrate", "--from=sled:a", "--to=memory:b"],
            &["storage", "migrate", "--from=sled:", "--to=sled:b"],
        ] {
            match program(arguments) {
                Err(Exit::Usage(text)) => assert!(!text.is_empty()),
                other => panic!("{arguments:?} gave {other:?}"),
            }
        }
        let Err(Exit::Usage(text)) = program(&["storage", "migrate", "--from=sled:a", "--to=b"]) else {
            panic!("accepted a folder without an engine");
        };
        assert!(text.contains("--to") && text.contains("'b'"), "{text}");
    }

    #[test]
    fn each_command_prints_its_help() {
        for command in
            [&["storage", "--help"][..], &["storage", "verify", "--help"], &["storage", "migrate", "-h"]]
        {
            assert!(
                matches!(program(command), Err(Exit::Print(text)) if text.contains("Usage: sluicegate storage"))
            );
        }
        super::command(&ENGINES).debug_assert();
    }
}
