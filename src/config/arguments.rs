//! Splits the arguments into flags and values, by the rules of kingpin, the flag library of the official program.
//!
//! * `--flag=value` and `--flag value`; in the second form the value cannot start with a dash. A lone dash is an empty value.
//! * `@FILE` stands for the lines of a file, without blank ones and those that start with `#`; also where a value is expected.
//! * After `--`, no argument is a flag.
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

/// Returns the arguments of a command in the form `--flag=value` or `--flag`. If help or the version is requested, that flag is the
/// only one. `read` reads an arguments file.
pub(super) fn normalized(
    arguments: impl IntoIterator<Item = OsString>,
    command: &Command,
    read: impl Fn(&OsStr) -> io::Result<Vec<u8>>,
) -> Result<Vec<OsString>, ArgumentError> {
    let mut tokens = Tokens { rest: arguments.into_iter().collect(), no_flags: false, files: 0, read };
    let mut flags = Vec::new();
    let (mut help, mut version) = (false, false);
    let end = loop {
        match tokens.next_flag(command) {
            Ok(Some(flag)) => {
                help |= flag == "--help";
                version |= flag == "--version";
                flags.push(flag);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if version {
        return Ok(vec!["--version".into()]);
    }
    end?;
    Ok(if help { vec!["--help".into()] } else { flags })
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
    fn next_flag(&mut self, command: &Command) -> Result<Option<OsString>, ArgumentError> {
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
                return Ok(Some("--help".into()));
            }
            Some(Token::Long(text)) => match memchr::memchr(b'=', text.as_bytes()) {
                Some(at) => {
                    let (name, value) = text.as_bytes().split_at(at);
                    (lossy(OsStr::from_bytes(name)), Some(OsStr::from_bytes(&value[1..]).to_owned()))
                }
                None => (lossy(&text), None),
            },
        };
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
        Ok(Some(text))
    }
}

fn takes_value(flag: &clap::Arg) -> bool {
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
            Ok(flags) => Ok(flags.join(OsStr::new(" ")).into_string().expect("UTF-8")),
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
        ] {
            assert_eq!(read(arguments).as_deref(), Ok(expected), "{arguments:?}");
        }
    }

    #[test]
    fn rejects_arguments_with_the_official_texts() {
        for (arguments, expected) in [
            (&["--bogus"][..], "unknown long flag '--bogus'"),
            (&["--bogus=1"], "unknown long flag '--bogus'"),
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
