//! Build script: passes the version of the compiler, and the revision and branch of a git checkout, to `src/config/build.rs`.
//!
//! It reads the files of git instead of running it, so a build needs no git. Without a checkout, for example in a source
//! archive, revision and branch are "unknown".

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    println!("cargo::rustc-env=SLUICEGATE_RUSTC={}", compiler().as_deref().unwrap_or("unknown"));

    let root = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let checkout = Checkout::read(&root);
    for path in &checkout.sources {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!(
        "cargo::rustc-env=SLUICEGATE_GIT_REVISION={}",
        checkout.revision.as_deref().unwrap_or("unknown")
    );
    println!("cargo::rustc-env=SLUICEGATE_GIT_BRANCH={}", checkout.branch.as_deref().unwrap_or("unknown"));
}

/// `rustc 1.95.0`, without the commit and its date, which the version implies.
fn compiler() -> Option<String> {
    let output = Command::new(std::env::var_os("RUSTC")?).arg("--version").output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    Some(format!("rustc {}", line.split_whitespace().nth(1)?))
}

/// The state of a git checkout.
#[derive(Debug, Default)]
pub struct Checkout {
    /// The commit that is checked out. `None` before the first commit.
    pub revision: Option<String>,
    /// The branch, or `HEAD` if none is checked out, as `git rev-parse --abbrev-ref HEAD` prints it.
    pub branch: Option<String>,
    /// The files and folders that change with the other two. All of them exist: cargo reruns a build script each time if one
    /// does not.
    pub sources: Vec<PathBuf>,
}

impl Checkout {
    /// Reads the checkout at `root`. Everything is empty if there is none; checkouts further up do not count, because the
    /// sources may have been unpacked inside another project.
    pub fn read(root: &Path) -> Self {
        let mut checkout = Self::default();
        let dot_git = root.join(".git");
        // In a linked worktree and in a submodule, `.git` is a file that names the folder.
        let folder = match fs::read_to_string(&dot_git) {
            Ok(text) => match text.strip_prefix("gitdir:") {
                Some(path) => root.join(path.trim()),
                None => return checkout,
            },
            Err(_) => dot_git,
        };
        // A linked worktree has its own HEAD; branches are in the folder of the main one.
        let common = match fs::read_to_string(folder.join("commondir")) {
            Ok(path) => folder.join(path.trim()),
            Err(_) => folder.clone(),
        };
        let Ok(head) = fs::read_to_string(folder.join("HEAD")) else { return checkout };
        checkout.sources.push(folder.join("HEAD"));
        let Some(reference) = head.strip_prefix("ref:") else {
            checkout.revision = Some(head.trim().to_owned());
            checkout.branch = Some("HEAD".to_owned());
            return checkout;
        };
        let reference = reference.trim();
        checkout.branch = Some(reference.strip_prefix("refs/heads/").unwrap_or(reference).to_owned());
        let loose = common.join(reference);
        if let Ok(revision) = fs::read_to_string(&loose) {
            checkout.revision = Some(revision.trim().to_owned());
            checkout.sources.push(loose);
            return checkout;
        }
        // `git gc` and `git clone` write references to one file. The next commit writes a loose one again.
        let packed = common.join("packed-refs");
        if let Ok(text) = fs::read_to_string(&packed) {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            checkout.revision =
                lines.find(|(_, name)| *name == reference).map(|(revision, _)| revision.to_owned());
            checkout.sources.push(packed);
        }
        checkout.sources.extend(loose.ancestors().skip(1).find(|path| path.is_dir()).map(Path::to_owned));
        checkout
    }
}
