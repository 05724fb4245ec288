//! What the program was asked to do: to be a gateway, or to look after a store while no gateway uses it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{TypedValueParser, ValueParserFactory};
use clap::error::ErrorKind;
use clap::{Arg, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::flags::Exit;
use super::{Config, EngineKind};

/// The first argument by which the program is no gateway. The official program takes no words, so none of its flags is meant.
const STORAGE: &str = "storage";

/// What the program was asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// Be a gateway.
    Gateway(Box<Config>),
    /// Look after a store.
    Storage(StorageCommand),
}

/// What can be done with stores that no gateway uses.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum StorageCommand {
    /// Say what is in a store.
    Inspect(StorePlace),
    /// Read all of a store and check every checksum and every record. Exit status 1 if anything is wrong.
    Verify(StorePlace),
    /// Copy all groups from one store to another, of whatever engines, and compare both in the end. Can be interrupted and
    /// started again.
    Migrate {
        /// The store to copy. It stays as it is.
        #[arg(long, value_name = "ENGINE:FOLDER")]
        from: Place,
        /// The store to copy to; it may be new.
        #[arg(long, value_name = "ENGINE:FOLDER")]
        to: Place,
    },
}

/// A store, by two flags.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct StorePlace {
    /// The engine that wrote it.
    #[arg(long, value_name = "ENGINE", value_enum, default_value_t = EngineKind::Snapshot)]
    pub backend: EngineKind,
    /// Its folder.
    #[arg(long, value_name = "FOLDER")]
    pub path: PathBuf,
}

/// A store, by one word: `snapshot:/var/lib/gateway`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The engine that wrote it, or shall.
    pub engine: EngineKind,
    /// Its folder.
    pub path: PathBuf,
}

impl Program {
    /// Reads the arguments; the first is the name of the program.
    ///
    /// # Errors
    /// There is nothing to run.
    pub fn from_arguments(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, Exit> {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        match arguments.get(1) {
            Some(word) if word == STORAGE => StorageCommand::read(&arguments[2..]).map(Self::Storage),
            _ => Config::from_arguments(arguments).map(|config| Self::Gateway(Box::new(config))),
        }
    }
}

#[derive(Debug, Parser)]
#[command(
    name = "sluicegate storage",
    about = "Looks after stores that no gateway uses.",
    after_help = "Engines: snapshot, sled. A store has one user at a time, so stop its gateway before.",
    disable_help_subcommand = true
)]
struct Typed {
    #[command(subcommand)]
    command: StorageCommand,
}

impl StorageCommand {
    fn read(arguments: &[OsString]) -> Result<Self, Exit> {
        let name = OsString::from("sluicegate storage");
        command()
            .try_get_matches_from(std::iter::once(&name).chain(arguments))
            .and_then(|matches| Typed::from_arg_matches(&matches))
            .map(|typed| typed.command)
            .map_err(|error| match error.kind() {
                ErrorKind::DisplayHelp => Exit::Print(error.render().to_string()),
                _ => Exit::Usage(error.render().to_string()),
            })
    }
}

/// The derived command.
pub(super) fn command() -> Command {
    Typed::command()
}

impl ValueParserFactory for Place {
    type Parser = PlaceParser;

    fn value_parser() -> PlaceParser {
        PlaceParser
    }
}

/// Reads a [`Place`]. Its own, because a folder need not be UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct PlaceParser;

impl TypedValueParser for PlaceParser {
    type Value = Place;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Place, clap::Error> {
        place(value).ok_or_else(|| {
            let (flag, value) =
                (argument.map(ToString::to_string).unwrap_or_default(), value.to_string_lossy());
            let text =
                format!("'{value}' for '{flag}' names no store: write snapshot:FOLDER or sled:FOLDER\n");
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}

fn place(value: &OsStr) -> Option<Place> {
    use std::os::unix::ffi::OsStrExt;
    EngineKind::value_variants().iter().find_map(|engine| {
        let path = value.as_bytes().strip_prefix(engine.name().as_bytes())?.strip_prefix(b":")?;
        (!path.is_empty()).then(|| Place { engine: *engine, path: OsStr::from_bytes(path).into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(arguments: &[&str]) -> Result<Program, Exit> {
        Program::from_arguments(std::iter::once("sluicegate").chain(arguments.iter().copied()))
    }

    fn command(arguments: &[&str]) -> StorageCommand {
        match program(arguments) {
            Ok(Program::Storage(command)) => command,
            other => panic!("{arguments:?} gave {other:?}"),
        }
    }

    #[test]
    fn without_the_word_it_is_a_gateway() {
        assert!(matches!(program(&[]), Ok(Program::Gateway(_))));
        assert!(matches!(program(&["--log.level=debug"]), Ok(Program::Gateway(_))));
        assert!(matches!(program(&["--log.level=debug", "storage"]), Err(Exit::Usage(_))));
        assert!(matches!(program(&["store"]), Err(Exit::Usage(_))));
    }

    #[test]
    fn stores_are_named_by_engine_and_folder() {
        let path = PathBuf::from("/a:b");
        assert_eq!(
            command(&["storage", "verify", "--path=/a:b"]),
            StorageCommand::Verify(StorePlace { backend: EngineKind::Snapshot, path: path.clone() })
        );
        assert_eq!(
            command(&["storage", "inspect", "--backend", "sled", "--path", "/a:b"]),
            StorageCommand::Inspect(StorePlace { backend: EngineKind::Sled, path: path.clone() })
        );
        assert_eq!(
            command(&["storage", "migrate", "--from=sled:/a:b", "--to", "snapshot:c"]),
            StorageCommand::Migrate {
                from: Place { engine: EngineKind::Sled, path },
                to: Place { engine: EngineKind::Snapshot, path: "c".into() }
            }
        );
    }

    #[test]
    fn what_names_no_store_is_refused_with_the_flag() {
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
            panic!("a folder without an engine is taken");
        };
        assert!(text.contains("--to") && text.contains("'b'"), "{text}");
    }

    #[test]
    fn each_command_has_its_help() {
        for command in
            [&["storage", "--help"][..], &["storage", "verify", "--help"], &["storage", "migrate", "-h"]]
        {
            assert!(
                matches!(program(command), Err(Exit::Print(text)) if text.contains("Usage: sluicegate storage"))
            );
        }
        super::command().debug_assert();
    }
}
