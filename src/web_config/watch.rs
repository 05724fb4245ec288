//! The settings in force, and the thread that replaces them when a file changes.
//!
//! The thread compares contents, not times or inodes, so it notices files that are replaced through a symlink, as Kubernetes does, and
//! ignores files that are only touched. If a change makes the configuration invalid, the last valid one stays in force.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use arc_swap::ArcSwap;
use xxhash_rust::xxh3::xxh3_128;

use super::checks::{Checked, WebConfigError, lacks_http2_cipher};
use super::file::FileContent;
use super::read::{FileError, read};
use super::tls::ServerConfigs;
use super::{Pem, TlsSettings, WebConfig, metrics};
use crate::telemetry::faults;

/// How often the files are compared. A change takes effect within a second, with time to read the files and to build the new state.
const INTERVAL: Duration = Duration::from_millis(500);

/// The settings in force, shared by all clones and all cores.
#[derive(Clone, Debug)]
pub struct Current {
    active: Arc<ArcSwap<Active>>,
}

/// Settings with what was made of them.
#[derive(Debug, Default)]
pub struct Active {
    /// The settings. Whether TLS is on, HTTP/2 and the rate limit are always those of the start.
    pub config: WebConfig,
    /// The configurations of TLS; `None` for plain HTTP.
    pub tls: Option<Arc<ServerConfigs>>,
}

impl Default for Current {
    /// Plain HTTP for everybody, as without a file.
    fn default() -> Self {
        Self::new(Active::default())
    }
}

impl Current {
    fn new(active: Active) -> Self {
        Self { active: Arc::new(ArcSwap::from_pointee(active)) }
    }

    /// The settings for a request or a handshake that begins now. Cheap enough to ask for each.
    pub fn get(&self) -> Arc<Active> {
        self.active.load_full()
    }
}

/// Asks the watching thread to compare the files at once.
#[derive(Clone, Debug)]
pub struct Reload {
    requests: Sender<()>,
}

impl Reload {
    /// Requests a reload, from any thread.
    pub fn request(&self) {
        // The thread ends only with the program.
        let _ = self.requests.send(());
    }
}

/// A file that was read once and can be watched.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    current: Current,
    seen: Seen,
}

/// What came of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unchanged,
    Replaced,
    Refused,
}

/// Reads the file for the first time. All problems are errors.
///
/// # Errors
/// If the file is invalid.
pub fn load(path: &Path) -> Result<(Current, Watch), WebConfigError> {
    let (text, seen) = Seen::look(path, None);
    let checked = check(&text?, path)?;
    let current = Current::new(activate(checked)?);
    Ok((current.clone(), Watch { path: path.to_owned(), current, seen }))
}

fn check(text: &[u8], path: &Path) -> Result<Checked, WebConfigError> {
    Checked::from_content(FileContent::parse(text)?, folder(path))
}

impl Watch {
    /// Starts the thread that watches the file.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(mut self) -> Result<Reload, WebConfigError> {
        let (requests, inbox) = channel();
        metrics::set_success();
        faults::spawn("web-config", move || self.run(&inbox)).map_err(WebConfigError::Thread)?;
        Ok(Reload { requests })
    }

    fn run(&mut self, requests: &Receiver<()>) {
        loop {
            let on_request = match requests.recv_timeout(INTERVAL) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            self.reload(on_request);
        }
    }

    /// Compares the files, and replaces the settings if they changed or if the operator asked for it.
    fn reload(&mut self, on_request: bool) -> Outcome {
        let (text, seen) = Seen::look(&self.path, Some(&self.seen));
        if seen == self.seen && !on_request {
            return Outcome::Unchanged;
        }
        self.seen = seen;
        let path = self.path.display();
        match faults::contain(|| self.replace(&text?)) {
            Ok(Ok(())) => {
                metrics::set_success();
                tracing::info!(%path, "web configuration reloaded");
                Outcome::Replaced
            }
            Ok(Err(error)) => {
                metrics::set_failure();
                tracing::error!(
                    err = %error,
                    %path,
                    "Unable to parse configuration; the last valid one stays in force"
                );
                Outcome::Refused
            }
            Err(_) => {
                metrics::set_failure();
                Outcome::Refused
            }
        }
    }

    fn replace(&self, text: &[u8]) -> Result<(), WebConfigError> {
        let old = self.current.get();
        let checked = check(text, &self.path)?;
        self.current.active.store(Arc::new(successor(&old, checked)?));
        Ok(())
    }
}

/// The state after a reload. What cannot change while the gateway runs stays, with a warning.
fn successor(old: &Active, checked: Checked) -> Result<Active, WebConfigError> {
    let Checked { mut config, late } = checked;
    let mut tls = None;
    match (&old.config.tls, &config.tls) {
        (Some(_), Some(settings)) => tls = Some(Arc::new(build(settings, old.config.http2, late)?)),
        (Some(_), None) => {
            restart_needed("tls_server_config was removed, but TLS stays enabled");
            config.tls.clone_from(&old.config.tls);
            tls.clone_from(&old.tls);
        }
        (None, Some(_)) => {
            restart_needed("tls_server_config was added, but TLS stays disabled");
            config.tls = None;
        }
        (None, None) => {}
    }
    if old.config.tls.is_some() && config.http2 != old.config.http2 {
        restart_needed("http2 was changed");
    }
    if config.rate_limit != old.config.rate_limit {
        restart_needed("rate_limit was changed");
    }
    (config.http2, config.rate_limit) = (old.config.http2, old.config.rate_limit);
    Ok(Active { config, tls })
}

fn restart_needed(change: &str) {
    tracing::warn!(change, "a change of the web configuration takes effect only after a restart");
}

fn activate(checked: Checked) -> Result<Active, WebConfigError> {
    let Checked { config, late } = checked;
    let tls = match &config.tls {
        Some(settings) => Some(Arc::new(build(settings, config.http2, late)?)),
        None => None,
    };
    Ok(Active { config, tls })
}

/// Builds the configurations of TLS. A problem with the settings of clients or of HTTP/2 is reported only if the certificate and key are valid.
fn build(
    settings: &TlsSettings,
    http2: bool,
    late: Option<WebConfigError>,
) -> Result<ServerConfigs, WebConfigError> {
    let http2_problem = (http2 && lacks_http2_cipher(settings)).then_some(WebConfigError::Http2Cipher);
    let Some(late) = late.or(http2_problem) else { return Ok(ServerConfigs::build(settings, http2)?) };
    let without_clients =
        TlsSettings { client_ca: None, client_auth: super::ClientAuth::NoClientCert, ..settings.clone() };
    ServerConfigs::build(&without_clients, http2)?;
    if let Some(Pem::File(path)) = &settings.client_ca {
        read(path)?;
    }
    Err(late)
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// What the files looked like.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    file: Fingerprint,
    /// The files that the configuration names, the last time that it could be read.
    named: Vec<(PathBuf, Fingerprint)>,
}

/// The hash of a file's content, or why there is none.
type Fingerprint = Result<u128, String>;

impl Seen {
    /// Reads all files. The hashes are taken before anything is made of the files, so a change in between is noticed the next time.
    fn look(path: &Path, before: Option<&Seen>) -> (Result<Vec<u8>, FileError>, Seen) {
        let text = read(path);
        let file = fingerprint(&text);
        let content = match (&text, before) {
            (Ok(text), before) if before.is_none_or(|before| before.file != file) => {
                FileContent::parse(text).ok()
            }
            _ => None,
        };
        let named: Vec<PathBuf> = match (content, before) {
            (Some(content), _) => content.tls.files(folder(path)).collect(),
            (None, Some(before)) => before.named.iter().map(|(path, _)| path.clone()).collect(),
            (None, None) => Vec::new(),
        };
        let named = named.into_iter().map(|path| {
            let fingerprint = fingerprint(&read(&path));
            (path, fingerprint)
        });
        let named = named.collect();
        (text, Seen { file, named })
    }
}

fn fingerprint(text: &Result<Vec<u8>, FileError>) -> Fingerprint {
    match text {
        Ok(text) => Ok(xxh3_128(text)),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
