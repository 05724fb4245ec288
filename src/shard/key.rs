//! The grouping key: the identity of a group, which also selects its home core.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;

use super::hash::hash_64;
use crate::exposition::labels::{
    each_label, read_label_name, read_labels, read_quoted, write_label, write_label_name,
};

/// Two keys of which one lacks this label and the other has it with an empty value have the same push-time series.
const INSTANCE: &str = "instance";

/// The label with an empty value, as rendered.
static EMPTY_INSTANCE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("instance=\"\""));

/// What is derived from the labels of a grouping key, read once.
#[derive(Debug, Clone)]
pub struct KeyParts {
    /// See [`GroupingKey::names`].
    pub names: String,
    /// See [`GroupingKey::series_labels`].
    pub series_labels: Arc<str>,
    /// See [`GroupingKey::empty_instance_variant`].
    pub empty_instance_variant: Option<GroupingKey>,
}

/// A grouping key, canonical: equal keys have equal text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupingKey {
    text: Arc<str>,
}

impl GroupingKey {
    /// A key of label pairs. Of two equal names, the later one wins.
    pub fn new(labels: impl IntoIterator<Item = (String, String)>) -> Self {
        let sorted: std::collections::BTreeMap<String, String> = labels.into_iter().collect();
        Self::of_sorted(sorted.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// A key of pairs with unique names, sorted by name.
    pub fn of_sorted<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = Vec::with_capacity(128);
        for (name, value) in labels {
            if !text.is_empty() {
                text.push(b',');
            }
            write_label(&mut text, name, value);
        }
        Self { text: String::from_utf8(text).expect("labels were str").into() }
    }

    /// A key from its [`Self::text`].
    pub fn from_text(text: Arc<str>) -> Self {
        Self { text }
    }

    /// The labels sorted by name, as rendered: `job="a",zone="eu"`.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// Whether [`Self::names`] are these.
    pub fn has_names(&self, names: &str) -> bool {
        let mut wanted = names.split('\n');
        each_raw_name(&self.text).all(|(raw, ..)| wanted.next() == Some(raw)) && wanted.next().is_none()
    }

    /// Appends [`Self::series_labels`].
    pub fn write_series_labels(&self, out: &mut Vec<u8>) {
        write_series_labels(out, &self.text);
    }

    /// The labels, sorted by name.
    pub fn labels(&self) -> Vec<(String, String)> {
        read_labels(&self.text)
            .into_iter()
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect()
    }

    /// The label names as rendered, sorted, separated by line feeds (which no rendered name contains). Two groups can have the
    /// same series only if their label names differ.
    pub fn names(&self) -> String {
        let mut names = Vec::with_capacity(32);
        each_label(&self.text).for_each(|(name, _)| write_next_name(&mut names, &name));
        String::from_utf8(names).expect("names are UTF-8")
    }

    /// The labels of the group's push-time series: those of the key, and `instance=""` if it has no instance.
    pub fn series_labels(&self) -> Arc<str> {
        if each_label(&self.text).any(|(name, _)| name == INSTANCE) {
            return self.text.clone();
        }
        Self::with_instance(&read_labels(&self.text), Some(""))
    }

    /// The key that differs only by an empty instance, which one of the two has and the other lacks. Their groups would have the
    /// same push-time series. `None` if this key has an instance that is not empty.
    pub fn empty_instance_variant(&self) -> Option<Self> {
        self.parts().empty_instance_variant
    }

    /// Everything that is derived from the labels.
    pub fn parts(&self) -> KeyParts {
        let (mut names, mut has_instance, mut has_empty_instance) = (Vec::with_capacity(32), false, false);
        for (name, value) in each_label(&self.text) {
            write_next_name(&mut names, &name);
            if name == INSTANCE {
                has_instance = true;
                has_empty_instance = value.is_empty();
            }
        }
        let with_instance = |instance| Self::with_instance(&read_labels(&self.text), instance);
        let (series_labels, variant) = if !has_instance {
            let variant = with_instance(Some(""));
            (variant.clone(), Some(variant))
        } else if has_empty_instance {
            (self.text.clone(), Some(with_instance(None)))
        } else {
            (self.text.clone(), None)
        };
        KeyParts {
            names: String::from_utf8(names).expect("names are UTF-8"),
            series_labels,
            empty_instance_variant: variant.map(Self::from_text),
        }
    }

    /// The text of a key with these labels, but another instance or none.
    fn with_instance(labels: &[(Cow<'_, str>, Cow<'_, str>)], instance: Option<&str>) -> Arc<str> {
        let mut pairs: Vec<(&str, &str)> = labels
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .filter(|(name, _)| *name != INSTANCE)
            .collect();
        if let Some(instance) = instance {
            let at = pairs.partition_point(|(name, _)| *name < INSTANCE);
            pairs.insert(at, (INSTANCE, instance));
        }
        Self::of_sorted(pairs).text
    }

    /// The text, without an empty instance. A key and its [`Self::empty_instance_variant`] have the same.
    pub fn without_empty_instance(&self) -> Arc<str> {
        // A quote inside a value or a quoted name is escaped, so a match after a comma is a label.
        let is_empty = EMPTY_INSTANCE
            .find_iter(self.text.as_bytes())
            .any(|at| at == 0 || self.text.as_bytes()[at - 1] == b',');
        if is_empty { Self::with_instance(&read_labels(&self.text), None) } else { self.text.clone() }
    }

    /// A hash that clients cannot predict. A key and its [`Self::empty_instance_variant`] have the same hash.
    fn hash(&self) -> u64 {
        hash_64(self.without_empty_instance().as_bytes())
    }

    /// The home core of the group. It differs between runs, so that clients cannot choose groups of one core.
    pub fn home(&self, cores: usize) -> usize {
        // Uses the upper bits, which spreads keys evenly over any number of cores.
        ((u128::from(self.hash()) * cores as u128) >> 64) as usize
    }
}

/// Appends [`GroupingKey::series_labels`] of the key with this text.
pub(super) fn write_series_labels(out: &mut Vec<u8>, text: &str) {
    let mut at = text.len();
    for (_, name, start) in each_raw_name(text) {
        match (*name).cmp(INSTANCE) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return out.extend_from_slice(text.as_bytes()),
            std::cmp::Ordering::Greater => {
                at = start;
                break;
            }
        }
    }
    let (before, after) = text.as_bytes().split_at(at);
    out.extend_from_slice(before);
    if after.is_empty() && !before.is_empty() {
        out.push(b',');
    }
    out.extend_from_slice(b"instance=\"\"");
    if !after.is_empty() {
        out.push(b',');
        out.extend_from_slice(after);
    }
}

/// The label names of a key's text: as they are written there, without escapes, and where they begin.
fn each_raw_name(text: &str) -> impl Iterator<Item = (&str, Cow<'_, str>, usize)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let start = text.len() - rest.len();
        let (name, after) = read_label_name(rest)?;
        let raw = &rest[..rest.len() - after.len()];
        let (_, after) = after.strip_prefix("=\"").and_then(read_quoted)?;
        rest = after.strip_prefix(',').unwrap_or("");
        Some((raw, name, start))
    })
}

/// Appends a label name to a list of names.
fn write_next_name(names: &mut Vec<u8>, name: &str) {
    if !names.is_empty() {
        names.push(b'\n');
    }
    write_label_name(names, name);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(labels: &[(&str, &str)]) -> GroupingKey {
        GroupingKey::new(labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn the_order_of_labels_does_not_matter_and_the_later_of_equal_names_wins() {
        assert_eq!(key(&[("x", "1"), ("job", "a")]), key(&[("job", "a"), ("x", "2"), ("x", "1")]));
        assert_eq!(&**key(&[("x", "1"), ("job", "a")]).text(), "job=\"a\",x=\"1\"");
    }

    #[test]
    fn a_key_and_its_empty_instance_variant_share_hash_and_push_times() {
        let (plain, empty) =
            (key(&[("job", "a"), ("z", "")]), key(&[("job", "a"), ("instance", ""), ("z", "")]));
        assert_eq!(plain.empty_instance_variant(), Some(empty.clone()));
        assert_eq!(empty.empty_instance_variant(), Some(plain.clone()));
        assert_eq!(plain.hash(), empty.hash());
        assert_eq!(plain.series_labels(), empty.series_labels());
        assert_ne!(plain, empty);
    }

    proptest! {
        #[test]
        fn names_and_series_labels_are_read_from_the_text(
            labels in prop::collection::btree_map("[a-z]{1,2}|instance|inst|job|zone[.\\\\]x", "[a-b\"\\\\=,\n]{0,3}", 1..5),
            others in prop::collection::btree_map("[a-z]{1,2}|instance", "x", 1..3),
        ) {
            let (key, other) = (GroupingKey::new(labels), GroupingKey::new(others));
            let mut written = Vec::new();
            key.write_series_labels(&mut written);
            prop_assert_eq!(String::from_utf8(written).expect("UTF-8"), &*key.series_labels());
            prop_assert!(key.has_names(&key.names()));
            prop_assert_eq!(key.has_names(&other.names()), key.names() == other.names());
        }
    }

    #[test]
    fn a_key_with_an_instance_has_no_variant() {
        assert_eq!(key(&[("job", "a"), ("instance", "h")]).empty_instance_variant(), None);
    }

    #[test]
    fn a_value_that_contains_an_empty_instance_does_not_change_the_hash() {
        let key = key(&[("job", ",instance=\"\"")]);
        assert_eq!(key.labels(), [("job".to_owned(), ",instance=\"\"".to_owned())]);
        assert_eq!(key.empty_instance_variant().map(|t| t.hash()), Some(key.hash()));
    }
}
