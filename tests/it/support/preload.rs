//! Libraries in C that replace functions of the C library in a gateway (`LD_PRELOAD`), so that the real program meets rare faults.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::skip;

/// Compiles `support/NAME.c` to `NAME.so` in a folder. `None` without a C compiler, which is reported as a skip.
pub fn build(name: &str, folder: &Path) -> Option<PathBuf> {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support"));
    let library = folder.join(name).with_extension("so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &sources.join(name).with_extension("c")])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        skip::report("cc", "no C compiler");
        return None;
    }
    Some(library)
}
