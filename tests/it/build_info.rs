//! Revision and branch in `pushgateway_build_info` and `--version`, and how `build.rs` finds them.

use std::path::Path;
use std::process::Command;

use build_script::Checkout;

use crate::support::gateway::program;
use crate::support::{Gateway, skip};

#[path = "../../build.rs"]
#[expect(dead_code, reason = "cargo runs the main function; the tests need only the reader of checkouts")]
mod build_script;

/// The output of a git command in a folder. `None` if git is not installed or the command fails.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    output.status.success().then(|| text.trim().to_owned())
}

/// Panics unless `build.rs` finds the revision and the branch that git prints, and watches only what exists.
fn check(folder: &Path) -> Checkout {
    let checkout = Checkout::read(folder);
    assert_eq!(checkout.revision, git(folder, &["rev-parse", "HEAD"]));
    assert_eq!(checkout.branch, git(folder, &["rev-parse", "--abbrev-ref", "HEAD"]));
    assert!(checkout.sources.iter().all(|path| path.exists()), "{:?}", checkout.sources);
    checkout
}

fn commit(folder: &Path) {
    git(folder, &["commit", "-q", "--allow-empty", "-m", "x"]).expect("a commit");
}

#[test]
fn build_info_shows_the_revision_and_the_branch_of_the_checkout() {
    // Those of the time of the build, because a commit may have been made since.
    let revision = option_env!("SLUICEGATE_REVISION").unwrap_or(env!("SLUICEGATE_GIT_REVISION"));
    let branch = option_env!("SLUICEGATE_BRANCH").unwrap_or(env!("SLUICEGATE_GIT_BRANCH"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if Checkout::read(root).revision.is_some() && option_env!("SLUICEGATE_REVISION").is_none() {
        assert!(revision.len() >= 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit()), "{revision}");
        assert_ne!(branch, "unknown");
        if git(root, &["--version"]).is_some() {
            assert!(git(root, &["cat-file", "-e", revision]).is_some(), "{revision} is not in the checkout");
        }
    }
    let gateway = Gateway::start(&[]);
    let seen = gateway.scrape();
    let info = seen.samples("pushgateway_build_info").next().expect("the gateway exposes its build");
    assert_eq!((info.label("revision"), info.label("branch")), (revision, branch));
    let output = Command::new(program()).arg("--version").output().expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains(&format!("(branch: {branch}, revision: {revision})\n")), "{text}");
}

#[test]
fn the_build_script_agrees_with_git() {
    let folder = tempfile::tempdir().expect("a new folder");
    let root = folder.path().join("main");
    std::fs::create_dir(&root).expect("a new folder");
    let checkout = check_without_git(&root);
    assert!(checkout.sources.is_empty(), "{:?}", checkout.sources);
    if git(&root, &["init", "-q"]).is_none() {
        return skip::report("git", "git is not installed");
    }
    // A branch without a commit.
    let checkout = Checkout::read(&root);
    assert_eq!((checkout.revision, checkout.branch.as_deref()), (None, Some("main")));
    commit(&root);
    let first = check(&root);
    commit(&root);
    let second = check(&root);
    assert_ne!(first.revision, second.revision);
    assert_eq!(first.sources, second.sources);
    // References in one file, as after a clone; then a loose one again.
    git(&root, &["pack-refs", "--all"]).expect("packed references");
    let packed = check(&root);
    assert_ne!(packed.sources, second.sources);
    commit(&root);
    check(&root);
    git(&root, &["checkout", "-q", "-b", "topic/one"]).expect("a branch");
    assert_eq!(check(&root).branch.as_deref(), Some("topic/one"));
    git(&root, &["checkout", "-q", "--detach", "HEAD~1"]).expect("an older commit");
    assert_eq!(check(&root).branch.as_deref(), Some("HEAD"));
    // A linked worktree with a branch of its own.
    git(&root, &["worktree", "add", "-q", "-b", "other", "../other"]).expect("a worktree");
    let other = folder.path().join("other");
    commit(&other);
    assert_eq!(check(&other).branch.as_deref(), Some("other"));
    git(&other, &["pack-refs", "--all"]).expect("packed references");
    check(&other);
    // A folder inside a checkout is no checkout.
    let inner = root.join("inner");
    std::fs::create_dir(&inner).expect("a new folder");
    check_without_git(&inner);
}

/// Panics unless `build.rs` finds nothing.
fn check_without_git(folder: &Path) -> Checkout {
    let checkout = Checkout::read(folder);
    assert_eq!((&checkout.revision, &checkout.branch), (&None, &None));
    checkout
}
