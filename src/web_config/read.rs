//! Reading files, with errors in Go's words.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Larger files are refused. A Kubernetes secret has at most 1 MiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}: {reason}", path = .path.display())]
pub struct FileError {
    operation: &'static str,
    path: PathBuf,
    reason: String,
}

impl FileError {
    fn new(operation: &'static str, path: &Path, error: &io::Error) -> Self {
        Self { operation, path: path.to_owned(), reason: reason(error) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The text of an error of the operating system as Go has it: `no such file or directory`.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Reads a whole file.
///
/// # Errors
/// If it cannot be read, or is larger than 4 MiB.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(|error| FileError::new("open", path, &error))?;
    let mut content = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content);
    read.map_err(|error| FileError::new("read", path, &error))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::new("read", path, &io::Error::other("file too large; the maximum is 4 MiB")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_words_of_go() {
        let error = |path: &str| read(Path::new(path)).expect_err("cannot be read").to_string();
        assert_eq!(error("nonexist.yml"), "open nonexist.yml: no such file or directory");
        assert_eq!(error("/"), "read /: is a directory");
        assert_eq!(error("/dev/zero"), "read /dev/zero: file too large; the maximum is 4 MiB");
    }
}
