//! Information about the build, for `--version`, the status API and `pushgateway_build_info`.

use std::fmt;

/// Information about the build. Packagers set `SLUICEGATE_REVISION`, `SLUICEGATE_BRANCH`, `SLUICEGATE_BUILD_USER` and
/// `SLUICEGATE_BUILD_DATE` in the environment of the compiler. Without the first two, revision and branch are those of the git
/// checkout (`build.rs`). Other unset values are "unknown".
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
    /// The compiler, shown as `goversion`.
    pub compiler: &'static str,
    /// The operating system, as Go names it.
    pub os: &'static str,
    /// The processor architecture, as Go names it.
    pub arch: &'static str,
}

/// Information about this build.
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
    /// `build_information` of the status API. The keys, including `goVersion`, are official, because clients read them.
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

    /// The labels of `pushgateway_build_info`. The names, including `goversion`, are official, because dashboards group by them.
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

/// The output of `--version`. The layout is the official one, because scripts extract the version from the first line.
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
    fn the_first_line_has_the_official_layout() {
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
