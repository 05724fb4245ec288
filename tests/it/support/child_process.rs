//! Tests that need a process of their own, because they change or observe its state.
//!
//! The child is a test of this binary with `#[ignore]`. It returns at once unless [`is_child`], so that `--ignored` runs
//! without harm. Its parent starts it with [`command`] and requires a line from it: a child that returned at once cannot
//! pass for one that ran.

use std::process::Command;

const VARIABLE: &str = "SLUICEGATE_TEST_CHILD";

/// Whether this process was started by [`command`].
pub fn is_child() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// A command that runs one ignored test of this binary, named with its module, in a new process.
pub fn command(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of the test binary"));
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).env(VARIABLE, "1");
    command
}
