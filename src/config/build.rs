//! What is known of this build, as `--version`, the status API and `pushgateway_build_info` show it.

use std::fmt;

/// Facts of the build. Packagers set `SLUICEGATE_REVISION`, `SLUICEGATE_BRANCH`, `SLUICEGATE_BUILD_USER` and
/// `SLUICEGATE_BUILD_DATE` in the environment of the compiler. Without the first two, revision and branch are those of the git
/// checkout (`build.rs`). Unset facts are "unknown".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildInfo {
    /// The version of the program.
    pub version: &'static str,
    /// The commit it was built from.
    pub revision: &'static str,
    /// The branch it was built from.
    pub branch: &'static str,
    /// Who built it, and where.
    pub build_user: &'static str,
    /// When it was built.
    pub build_date: &'static str,
    /// The compiler. Dashboards know the place of this fact as `goversion`.
    pub compiler: &'static str,
    /// The operating system, by the name that Go has for it.
    pub os: &'static str,
    /// The processor, by the name that Go has for it.
    pub arch: &'static str,
}

/// The facts of the running program.
pub const BUILD: BuildInfo = BuildInfo {
    version: env!("CARGO_PKG_VERSION"),
    revision: or(option_env!("SLUICEGATE_REVISION"), env!("SLUICEGATE_GIT_REVISION")),
    branch: or(option_env!("SLUICEGATE_BRANCH"), env!("SLUICEGATE_GIT_BRANCH")),
    build_user: or(option_env!("SLUICEGATE_BUILD_USER"), "unknown"),
    build_date: or(option_env!("SLUICEGATE_BUILD_DATE"), "unknown"),
    compiler: env!("SLUICEGATE_RUSTC"),
    os: std::env::consts::OS,
    arch: go_arch(),
};

impl BuildInfo {
    /// `build_information` of the status API: the official keys, `goVersion` among them because clients read it.
    pub fn entries(&self) -> [(&'static str, &'static str); 6] {
        [
            ("branch", self.branch),
            ("buildDate", self.build_date),
            ("buildUser", self.build_user),
            ("goVersion", self.compiler),
            ("revision", self.revision),
            ("version", self.version),
        ]
    }

    /// The labels of `pushgateway_build_info`: the official ones, `goversion` among them because dashboards group by it.
    pub fn labels(&self) -> [(&'static str, &'static str); 7] {
        [
            ("branch", self.branch),
            ("goarch", self.arch),
            ("goos", self.os),
            ("goversion", self.compiler),
            ("revision", self.revision),
            ("tags", "unknown"),
            ("version", self.version),
        ]
    }
}

/// What `--version` prints: the layout of the official program, because scripts cut the version out of its first line.
impl fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "sluicegate, version {} (branch: {}, revision: {})",
            self.version, self.branch, self.revision
        )?;
        writeln!(f, "  build user:       {}", self.build_user)?;
        writeln!(f, "  build date:       {}", self.build_date)?;
        writeln!(f, "  rustc version:    {}", self.compiler.trim_start_matches("rustc "))?;
        writeln!(f, "  platform:         {}/{}", self.os, self.arch)
    }
}

/// `Option::unwrap_or` in a constant.
const fn or(value: Option<&'static str>, default: &'static str) -> &'static str {
    match value {
        Some(value) => value,
        None => default,
    }
}

const fn go_arch() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        std::env::consts::ARCH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_cut_by_scripts() {
        let info = BuildInfo { version: "1.2.3", branch: "b", revision: "r", ..BUILD };
        let text = info.to_string();
        assert_eq!(text.lines().next(), Some("sluicegate, version 1.2.3 (branch: b, revision: r)"));
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn the_status_api_has_the_official_keys() {
        let keys = BUILD.entries().map(|(key, _)| key);
        assert_eq!(keys, ["branch", "buildDate", "buildUser", "goVersion", "revision", "version"]);
        assert!(BUILD.compiler.starts_with("rustc "), "{}", BUILD.compiler);
    }
}
