//! Tells the program which compiler built it. Everything else about a build comes from variables that packagers set,
//! see `src/config/build.rs`; nothing here needs git.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let version = std::env::var_os("RUSTC")
        .and_then(|rustc| Command::new(rustc).arg("--version").output().ok())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        // `rustc 1.95.0 (59807616e 2026-04-14)`: the commit and its date say nothing that the version does not.
        .and_then(|line| Some(format!("rustc {}", line.split_whitespace().nth(1)?)))
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=SLUICEGATE_RUSTC={version}");
}
