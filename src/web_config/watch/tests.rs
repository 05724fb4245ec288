//! Reloads, without the thread: each test decides when the files are compared.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

const HASH: &str = "$2y$10$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

struct File {
    folder: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().expect("a folder") };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("web.yml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("a file");
    }

    fn load(&self) -> (Current, Watch) {
        load(&self.path()).expect("a valid file")
    }
}

fn users(names: &[&str]) -> String {
    let lines: Vec<String> = names.iter().map(|name| format!("  {name}: {HASH}\n")).collect();
    format!("basic_auth_users:\n{}", lines.concat())
}

fn active_users(current: &Current) -> Vec<String> {
    current.get().config.users.keys().cloned().collect()
}

#[test]
fn users_and_headers_follow_the_file() {
    let file = File::new(&users(&["alice"]));
    let (current, mut watch) = file.load();
    assert_eq!(active_users(&current), ["alice"]);
    let headers = "http_server_config: {headers: {X-Frame-Options: deny}}\n";
    file.write(&format!("{}{headers}", users(&["bob"])));
    watch.reload(false);
    assert_eq!(active_users(&current), ["bob"]);
    assert_eq!(current.get().config.headers.len(), 1);
    file.write("");
    watch.reload(false);
    assert!(current.get().config.users.is_empty() && current.get().config.headers.is_empty());
}

#[test]
fn the_same_content_is_applied_again_only_on_request() {
    let file = File::new(&users(&["alice"]));
    let (current, mut watch) = file.load();
    let before = current.get();
    file.write(&users(&["alice"]));
    watch.reload(false);
    assert!(Arc::ptr_eq(&before, &current.get()));
    watch.reload(true);
    assert!(!Arc::ptr_eq(&before, &current.get()));
}

#[test]
fn a_file_that_becomes_invalid_leaves_the_last_valid_state() {
    let file = File::new(&users(&["alice"]));
    let (current, mut watch) = file.load();
    for invalid in
        ["basic_auth_users: [", "basic_auth_users: {bob: x}", "http_server_config: {headers: {A: b}}"]
    {
        file.write(invalid);
        assert_eq!(watch.reload(false), Outcome::Refused);
        // Reported once, not at each look.
        assert_eq!(watch.reload(false), Outcome::Unchanged);
        assert_eq!(active_users(&current), ["alice"], "{invalid}");
    }
    fs::remove_file(file.path()).expect("a file");
    assert_eq!(watch.reload(false), Outcome::Refused);
    assert_eq!(watch.reload(false), Outcome::Unchanged);
    assert_eq!(active_users(&current), ["alice"]);
    file.write(&users(&["bob"]));
    assert_eq!(watch.reload(false), Outcome::Replaced);
    assert_eq!(active_users(&current), ["bob"]);
}

#[test]
fn a_symlink_that_is_replaced_counts_as_a_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for (version, name) in [("v1", "alice"), ("v2", "bob")] {
        fs::create_dir(at(version)).expect("a folder");
        fs::write(at(version).join("web.yml"), users(&[name])).expect("a file");
    }
    // As Kubernetes mounts secrets: the file is a link into a linked folder, and the folder's link is replaced by a rename.
    symlink("v1", at("data")).expect("a link");
    symlink("data/web.yml", at("web.yml")).expect("a link");
    let (current, mut watch) = load(&at("web.yml")).expect("a valid file");
    assert_eq!(active_users(&current), ["alice"]);
    symlink("v2", at("new")).expect("a link");
    fs::rename(at("new"), at("data")).expect("the link is replaced");
    watch.reload(false);
    assert_eq!(active_users(&current), ["bob"]);
}

#[test]
fn files_that_the_configuration_names_are_watched() {
    let file = File::new("tls_server_config: {cert_file: c.pem, key_file: k.pem, client_ca_file: /dev/null}");
    let at = |name: &str| file.folder.path().join(name);
    let seen = || Seen::look(&file.path(), None).1;
    let mut before = seen();
    for (name, text) in [("c.pem", "1"), ("k.pem", "1"), ("c.pem", "2")] {
        fs::write(at(name), text).expect("a file");
        let now = seen();
        assert_ne!(before, now, "{name}");
        assert_eq!(now, seen());
        before = now;
    }
    // While the file itself is broken, those that it named before are still watched.
    file.write("broken: [");
    let broken = Seen::look(&file.path(), Some(&before)).1;
    assert_eq!((broken.named.len(), &broken.named), (3, &before.named));
}

#[test]
fn what_cannot_change_stays() {
    let file = File::new("rate_limit: {interval: 1s, burst: 5}\n");
    let (current, mut watch) = file.load();
    let before = current.get();
    let added = "tls_server_config: {cert: c, key: k}\nrate_limit: {interval: 1s}\n";
    file.write(&format!("{added}http_server_config: {{http2: false}}\n{}", users(&["alice"])));
    watch.reload(false);
    let after = current.get();
    assert_eq!(after.config.rate_limit, before.config.rate_limit);
    assert_eq!(after.config.http2, before.config.http2);
    assert_eq!(after.config.tls, None);
    assert_eq!(active_users(&current), ["alice"]);
}

#[test]
fn an_invalid_file_cannot_be_loaded() {
    let error = |text: &str| load(&File::new(text).path()).expect_err("invalid").to_string();
    assert!(error("a: [").starts_with("yaml: "));
    assert!(error("basic_auth_users: {john: doe}").contains("too short"));
    assert_eq!(
        load(Path::new("nonexist.yml")).expect_err("missing").to_string(),
        "open nonexist.yml: no such file or directory"
    );
}
