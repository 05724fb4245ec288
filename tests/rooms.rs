//! The order of the rooms, and some tidiness: what `src/lib.rs` and `docs/` promise about the source, checked by reading it.
//!
//! A reader of paths, not a compiler: it sees `use` trees and paths written out, with comments and texts taken away.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room may name those before it.
const ORDER: [&str; 6] = ["exposition", "encoding", "shard", "storage", "api", "runtime"];
/// Leaves name no room at all; every room that is not pure may name them.
const LEAVES: [&str; 2] = ["config", "telemetry"];
/// No IO, no time, no counting: everything is an argument.
const PURE: [&str; 3] = ["exposition", "encoding", "shard"];
const IMPURE_PATHS: [&str; 7] = [
    "std::net",
    "std::fs",
    "std::thread",
    "std::time::SystemTime",
    "std::time::Instant",
    "tracing",
    "metrics",
];
/// The only files in which `unsafe` may stand, each with its reason in the header.
const UNSAFE_FILES: [&str; 1] = ["src/runtime/net/socket.rs"];
const LINES_MAX: usize = 700;

struct Source {
    /// From the top of the repository.
    path: String,
    text: String,
    words: Vec<Word>,
}

#[derive(Debug, PartialEq, Clone)]
enum Word {
    Name(String),
    Sign(char),
    /// `::`
    Into,
}

impl Source {
    /// The room of a file under `src`, `main` and `lib` for those two.
    fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split(['/', '.']).next().expect("a file has a name"))
    }

    /// All paths that are named, written out: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
    fn paths(&self) -> BTreeSet<String> {
        let mut paths = BTreeSet::new();
        let mut at = 0;
        while at < self.words.len() {
            // A name alone is a variable, a field or a keyword.
            let used = at > 0 && self.words[at - 1] == Word::Name("use".to_owned());
            let path_begins = used || self.words.get(at + 1) == Some(&Word::Into);
            if matches!(self.words[at], Word::Name(_)) && path_begins {
                at = path(&self.words, at, "", &mut paths);
            } else {
                at += 1;
            }
        }
        paths
    }

    /// The rooms that are named, by whatever way: `crate::x`, `sluicegate::x`, `super::super::x`.
    fn rooms(&self) -> BTreeSet<String> {
        let of = |path: &str| {
            let parts: Vec<_> = path.split("::").collect();
            let begin = match parts[0] {
                "crate" | "sluicegate" => 1,
                "super" | "self" => parts.iter().take_while(|part| ["super", "self"].contains(part)).count(),
                _ => return None,
            };
            let room = parts.get(begin)?;
            (ORDER.contains(room) || LEAVES.contains(room)).then(|| (*room).to_owned())
        };
        self.paths().iter().filter_map(|path| of(path)).collect()
    }

    fn names(&self, prefix: &str) -> bool {
        self.paths().iter().any(|path| path == prefix || path.starts_with(&format!("{prefix}::")))
    }
}

/// Reads a path or a tree of paths; returns where it ends.
fn path(words: &[Word], mut at: usize, prefix: &str, paths: &mut BTreeSet<String>) -> usize {
    let mut whole = prefix.to_owned();
    while let Some(Word::Name(name)) = words.get(at) {
        if !whole.is_empty() {
            whole.push_str("::");
        }
        whole.push_str(name);
        at += 1;
        if words.get(at) != Some(&Word::Into) {
            paths.insert(whole);
            return at;
        }
        at += 1;
    }
    if words.get(at) == Some(&Word::Sign('{')) {
        at += 1;
        while !matches!(words.get(at), None | Some(Word::Sign('}'))) {
            at = match words[at] {
                Word::Name(_) | Word::Sign('{') => path(words, at, &whole, paths),
                _ => at + 1,
            };
        }
        return at + 1;
    }
    // A glob or generic arguments: what stands before it is named.
    paths.insert(whole);
    at
}

/// The words of a source without its comments, texts and characters.
fn words(text: &str) -> Vec<Word> {
    let bytes = text.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let byte = bytes[at];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |end| end + 2);
        } else if let Some(length) = raw_text(rest) {
            at += length;
        } else if byte == b'"' {
            at += closing(rest, b'"');
        } else if byte == b'\'' {
            // A character, or a lifetime.
            let length = rest[1..].chars().next().map_or(1, char::len_utf8);
            let is_char = rest[1..].starts_with('\\') || rest[1 + length..].starts_with('\'');
            at += if is_char { closing(rest, b'\'') } else { 1 };
        } else if rest.starts_with("::") {
            words.push(Word::Into);
            at += 2;
        } else if byte.is_ascii_alphanumeric() || byte == b'_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            words.push(Word::Name(rest[..end].to_owned()));
            at += end;
        } else {
            let char = rest.chars().next().expect("not at the end");
            if !char.is_whitespace() {
                words.push(Word::Sign(char));
            }
            at += char.len_utf8();
        }
    }
    words
}

/// The length of `r"…"`, `br#"…"#` and the like at the start of the text.
fn raw_text(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let signs = body.len() - body.trim_start_matches('#').len();
    let inside = body[signs..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(signs));
    Some(rest.len() - inside.len() + inside.find(&end).map_or(inside.len(), |at| at + end.len()))
}

/// The length of a text in quotes at the start.
fn closing(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn sources() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["src", "backends", "benches", "loadtest", "tests"] {
        collect(&top.join(folder), &mut found);
    }
    assert!(found.len() > 5, "the sources were not found");
    found.sort();
    found
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).expect("a readable source");
            let path = file.strip_prefix(top).expect("below the top").to_str().expect("UTF-8").to_owned();
            Source { path, words: words(&text), text }
        })
        .collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    // Some folders come with later parts of the house.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Fails with all complaints at once.
fn report(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn rooms_name_only_those_before_them() {
    let mut complaints = Vec::new();
    for source in sources() {
        let Some(room) = source.room() else { continue };
        let allowed: Vec<&str> = match ORDER.iter().position(|name| *name == room) {
            Some(place) if PURE.contains(&room) => ORDER[..=place].to_vec(),
            Some(place) => ORDER[..=place].iter().chain(&LEAVES).copied().collect(),
            None if LEAVES.contains(&room) => vec![room],
            None => {
                assert!(
                    ["main", "lib"].contains(&room),
                    "{}: a room without a place in the order",
                    source.path
                );
                continue;
            }
        };
        let wrong = source.rooms().into_iter().filter(|named| !allowed.contains(&named.as_str()));
        complaints.extend(wrong.map(|named| format!("{} names {named}, which is above it", source.path)));
    }
    report(&complaints);
}

#[test]
fn pure_rooms_do_no_io_and_know_no_time() {
    let mut complaints = Vec::new();
    for source in sources() {
        if source.room().is_some_and(|room| PURE.contains(&room)) {
            let wrong = IMPURE_PATHS.into_iter().filter(|path| source.names(path));
            complaints.extend(wrong.map(|path| format!("{} names {path}", source.path)));
        }
    }
    report(&complaints);
}

#[test]
fn only_runtime_knows_monoio_and_only_api_and_runtime_know_status_codes() {
    let mut complaints = Vec::new();
    for source in sources() {
        let Some(room) = source.room() else { continue };
        if room != "runtime" && source.names("monoio") {
            complaints.push(format!("{} names monoio", source.path));
        }
        if !["api", "runtime"].contains(&room) && source.words.contains(&Word::Name("StatusCode".to_owned()))
        {
            complaints.push(format!("{} names StatusCode", source.path));
        }
    }
    report(&complaints);
}

#[test]
fn backends_know_nothing_of_the_server() {
    let sources = sources();
    let wrong =
        sources.iter().filter(|source| source.path.starts_with("backends/") && source.names("sluicegate"));
    report(&wrong.map(|source| format!("{} names the server", source.path)).collect::<Vec<_>>());
}

#[test]
fn unsafe_stands_only_where_it_is_listed() {
    let sources = sources();
    let wrong = sources.iter().filter(|source| {
        source.words.contains(&Word::Name("unsafe".to_owned()))
            && !UNSAFE_FILES.contains(&source.path.as_str())
    });
    report(&wrong.map(|source| format!("{} has unsafe code", source.path)).collect::<Vec<_>>());
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut complaints = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            complaints.push(format!("{} has {lines} lines, more than {LINES_MAX}", source.path));
        }
        if !source.text.starts_with("//!") {
            complaints.push(format!("{} has no header", source.path));
        }
    }
    report(&complaints);
}

#[test]
fn the_reader_sees_paths_and_nothing_else() {
    let text = r##"
        //! crate::comment
        use crate::{api::{self, Route}, shard::*};
        use std::{fs, time::{Duration, Instant}};
        /* crate::block */ const A: &str = "crate::text \" crate::more"; const B: char = '"'; const C: &str = r#"crate::raw"#;
        fn f<'a>(x: &'a super::super::runtime::Net) { let metrics = 1; self.metrics.len(); crate::config::load(x.metrics); }
    "##;
    let source = Source { path: "src/api/mod.rs".to_owned(), text: String::new(), words: words(text) };
    let rooms: Vec<_> = source.rooms().into_iter().collect();
    assert_eq!(rooms, ["api", "config", "runtime", "shard"]);
    assert!(source.names("std::fs") && source.names("std::time::Instant") && source.names("std::time"));
    assert!(!source.names("metrics") && !source.names("std::net"));
    assert!(
        !source
            .paths()
            .iter()
            .any(|path| ["comment", "block", "text", "raw", "more"].iter().any(|word| path.contains(word)))
    );
}
