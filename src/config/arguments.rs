//! Splits the arguments into flags and values, by the rules of kingpin, the flag library of the official program.
//!
//! * `--flag=value` and `--flag value`; in the second form the value cannot start with a dash. A lone dash is an empty value.
//! * `@FILE` stands for the lines of a file, without blank ones and those that start with `#`; also where a value is expected.
//! * After `--`, no argument is a flag.
//! * `--help-long`, `--help-man` and the completions print at once, whatever follows; they are no flags of the command.
//! * `--version` counts even if a later argument is invalid; help needs valid flags, but not valid values.
//!
//! clap then reads the values.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{ArgAction, Command};

/// How many argument files may be read, so that files that include each other end in an error.
const FILES_MAX: usize = 100;

/// Why arguments are not flags with values. The texts are those of the official program.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArgumentError {
    #[error("unknown long flag '--{0}'")]
    UnknownLong(String),
    #[error("unknown short flag '-{0}'")]
    UnknownShort(String),
    #[error("expected argument for flag '--{0}'")]
    ValueMissing(String),
    #[error("unexpected {0}")]
    Unexpected(String),
    #[error("expected @ file to expand arguments from")]
    FileMissing,
    #[error("failed to open arguments file {file:?}: {source}")]
    File { file: OsString, source: io::Error },
    #[error("more than {FILES_MAX} arguments files; do they include each other?")]
    TooManyFiles,
}

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// To run with these flags. If help or the version is requested, that flag is the only one.
    Run(Vec<OsString>),
    /// To print the help of all commands.
    LongHelp,
    /// To print the help as a manual page.
    Manual,
    /// To print what may follow or complete the last of these words.
    Completions(Vec<String>),
    /// To print a script for a shell, which asks for completions.
    Script(Shell),
}

/// A shell that can complete arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shell {
    Bash,
    Zsh,
}

/// The long flag that is `name`, if it prints at once. `rest` is what follows it.
fn request(name: &str, rest: &VecDeque<OsString>) -> Option<Request> {
    Some(match name {
        "help-long" => Request::LongHelp,
        "help-man" => Request::Manual,
        "completion-bash" => Request::Completions(rest.iter().map(|word| lossy(word)).collect()),
        "completion-script-bash" => Request::Script(Shell::Bash),
        "completion-script-zsh" => Request::Script(Shell::Zsh),
        _ => return None,
    })
}

/// What the arguments of a command ask for, with flags in the form `--flag=value` or `--flag`. `read` reads an arguments file.
pub(super) fn normalized(
    arguments: impl IntoIterator<Item = OsString>,
    command: &Command,
    read: impl Fn(&OsStr) -> io::Result<Vec<u8>>,
) -> Result<Request, ArgumentError> {
    let mut tokens = Tokens { rest: arguments.into_iter().collect(), no_flags: false, files: 0, read };
    let mut flags = Vec::new();
    let (mut help, mut version) = (false, false);
    let end = loop {
        match tokens.next_flag(command) {
            Ok(Some(Flag::Other(_))) if version => break Ok(()),
            Ok(Some(Flag::Other(request))) => return Ok(request),
            Ok(Some(Flag::Normal(flag))) => {
                help |= flag == "--help";
                version |= flag == "--version";
                flags.push(flag);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if version {
        return Ok(Request::Run(vec!["--version".into()]));
    }
    end?;
    Ok(Request::Run(if help { vec!["--help".into()] } else { flags }))
}

/// A flag as it was read.
enum Flag {
    /// In the form `--flag=value` or `--flag`.
    Normal(OsString),
    /// One that prints at once.
    Other(Request),
}

/// An argument, by its form.
enum Token {
    Long(OsString),
    Short(OsString),
    Value(OsString),
}

struct Tokens<R> {
    rest: VecDeque<OsString>,
    /// `--` was read.
    no_flags: bool,
    files: usize,
    read: R,
}

impl<R: Fn(&OsStr) -> io::Result<Vec<u8>>> Tokens<R> {
    fn next(&mut self) -> Result<Option<Token>, ArgumentError> {
        while let Some(argument) = self.rest.pop_front() {
            let bytes = argument.as_bytes();
            if self.no_flags {
                return Ok(Some(Token::Value(argument)));
            } else if bytes == b"--" {
                self.no_flags = true;
            } else if let Some(name) = bytes.strip_prefix(b"--") {
                return Ok(Some(Token::Long(OsStr::from_bytes(name).to_owned())));
            } else if let Some(name) = bytes.strip_prefix(b"-") {
                let name = OsStr::from_bytes(name).to_owned();
                return Ok(Some(if name.is_empty() { Token::Value(name) } else { Token::Short(name) }));
            } else if let Some(file) = bytes.strip_prefix(b"@") {
                self.expand(OsStr::from_bytes(file))?;
            } else {
                return Ok(Some(Token::Value(argument)));
            }
        }
        Ok(None)
    }

    /// Puts the lines of a file before the other arguments.
    fn expand(&mut self, file: &OsStr) -> Result<(), ArgumentError> {
        if file.is_empty() {
            return Err(ArgumentError::FileMissing);
        }
        self.files += 1;
        if self.files > FILES_MAX {
            return Err(ArgumentError::TooManyFiles);
        }
        let content =
            (self.read)(file).map_err(|source| ArgumentError::File { file: file.to_owned(), source })?;
        let lines = content.split(|&byte| byte == b'\n').rev();
        for line in lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
            if !line.starts_with(b"#") && !line.trim_ascii().is_empty() {
                self.rest.push_front(OsString::from_vec(line.to_vec()));
            }
        }
        Ok(())
    }

    /// The next flag, with its value.
    fn next_flag(&mut self, command: &Command) -> Result<Option<Flag>, ArgumentError> {
        let (name, attached) = match self.next()? {
            None => return Ok(None),
            Some(Token::Value(value)) => return Err(ArgumentError::Unexpected(lossy(&value))),
            Some(Token::Short(letters)) => {
                let Some(others) = letters.as_bytes().strip_prefix(b"h") else {
                    let first = lossy(&letters).chars().take(1).collect();
                    return Err(ArgumentError::UnknownShort(first));
                };
                if !others.is_empty() {
                    self.rest.push_front(OsString::from_vec([b"-", others].concat()));
                }
                return Ok(Some(Flag::Normal("--help".into())));
            }
            Some(Token::Long(text)) => match memchr::memchr(b'=', text.as_bytes()) {
                Some(at) => {
                    let (name, value) = text.as_bytes().split_at(at);
                    (lossy(OsStr::from_bytes(name)), Some(OsStr::from_bytes(&value[1..]).to_owned()))
                }
                None => (lossy(&text), None),
            },
        };
        if let Some(request) = request(&name, &self.rest) {
            return Ok(Some(Flag::Other(request)));
        }
        let flag = command.get_arguments().find(|argument| argument.get_long() == Some(name.as_str()));
        let Some(flag) = flag else { return Err(ArgumentError::UnknownLong(name)) };
        let mut text = OsString::from(format!("--{name}"));
        if takes_value(flag) {
            let value = match attached {
                Some(value) => value,
                None => match self.next() {
                    Ok(Some(Token::Value(value))) => value,
                    _ => return Err(ArgumentError::ValueMissing(name)),
                },
            };
            text.push("=");
            text.push(value);
        } else if let Some(value) = attached {
            return Err(ArgumentError::Unexpected(lossy(&value)));
        }
        Ok(Some(Flag::Normal(text)))
    }
}

pub(super) fn takes_value(flag: &clap::Arg) -> bool {
    matches!(flag.get_action(), ArgAction::Set | ArgAction::Append)
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::flags::command;
    use super::super::tests::ENGINES;
    use super::*;

    fn read(arguments: &[&str]) -> Result<String, String> {
        let files = |file: &OsStr| match file.to_str() {
            Some("a") => Ok(b"# comment\n\n--log.level\r\n  \nwarn\n@b".to_vec()),
            Some("b") => Ok(b"--web.enable-lifecycle".to_vec()),
            Some("loop") => Ok(b"@loop\n".to_vec()),
            Some("value") => Ok(b"json\n".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let arguments = arguments.iter().map(OsString::from);
        match normalized(arguments, &command(&ENGINES), files) {
            Ok(Request::Run(flags)) => Ok(flags.join(OsStr::new(" ")).into_string().expect("UTF-8")),
            Ok(other) => Ok(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Each case was run with the official program.
    #[test]
    fn splits_arguments_as_the_official_program_does() {
        for (arguments, expected) in [
            (&["--log.level=warn"][..], "--log.level=warn"),
            (&["--log.level", "warn"], "--log.level=warn"),
            (&["--log.level=a=b"], "--log.level=a=b"),
            (&["--persistence.file", "-"], "--persistence.file="),
            (&["--persistence.file", ""], "--persistence.file="),
            (
                &["--web.enable-lifecycle", "--no-web.enable-admin-api"],
                "--web.enable-lifecycle --no-web.enable-admin-api",
            ),
            (&["@a", "--log.format=json"], "--log.level=warn --web.enable-lifecycle --log.format=json"),
            (&["--log.format", "@value"], "--log.format=json"),
            (&["--"], ""),
            (&["-hh"], "--help"),
            (&["-h", "--version"], "--version"),
            (&["--log.level=loud", "--help"], "--help"),
            (&["--version", "--bogus"], "--version"),
            (&["--version", "--help-long"], "--version"),
            (&["--help-long", "--version", "--bogus"], "LongHelp"),
            (&["--log.level=loud", "--help-man"], "Manual"),
            (&["--help-man=x"], "Manual"),
            (&["--completion-script-bash", "--bogus"], "Script(Bash)"),
            (&["--completion-script-zsh"], "Script(Zsh)"),
            (&["--completion-bash"], "Completions([])"),
            (&["--completion-bash", "--log.level", ""], "Completions([\"--log.level\", \"\"])"),
        ] {
            assert_eq!(read(arguments).as_deref(), Ok(expected), "{arguments:?}");
        }
    }

    #[test]
    fn rejects_arguments_with_the_official_texts() {
        for (arguments, expected) in [
            (&["--bogus"][..], "unknown long flag '--bogus'"),
            (&["--bogus=1"], "unknown long flag '--bogus'"),
            (&["--bogus", "--help-long"], "unknown long flag '--bogus'"),
            (&["--no-log.level=info"], "unknown long flag '--no-log.level'"),
            (&["-x"], "unknown short flag '-x'"),
            (&["-hx"], "unknown short flag '-x'"),
            (&["--log.level"], "expected argument for flag '--log.level'"),
            (&["--persistence.interval", "-5m"], "expected argument for flag '--persistence.interval'"),
            (&["--log.level", "--web.enable-lifecycle"], "expected argument for flag '--log.level'"),
            (&["--web.enable-lifecycle=true"], "unexpected true"),
            (&["word"], "unexpected word"),
            (&["--", "--log.level=info"], "unexpected --log.level=info"),
            (&["@"], "expected @ file to expand arguments from"),
            (&["--help", "--bogus"], "unknown long flag '--bogus'"),
            (&["--bogus", "--version"], "unknown long flag '--bogus'"),
        ] {
            assert_eq!(read(arguments).as_ref().map_err(String::as_str), Err(expected), "{arguments:?}");
        }
        assert!(
            read(&["@absent"]).expect_err("no file").starts_with("failed to open arguments file \"absent\"")
        );
        assert!(read(&["@loop"]).expect_err("a loop").contains("include each other"));
    }
}
