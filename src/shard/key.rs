//! The grouping key: which group a push is about, and on which core that group lives.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;

use crate::exposition::labels::{each_label, read_labels, write_label, write_label_name};

/// The label whose absence and empty value name groups with the same push-time series.
const INSTANCE: &str = "instance";

/// The label with an empty value, as it is written.
static EMPTY_INSTANCE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("instance=\"\""));

/// What the labels of a grouping key say, read in one go.
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
    /// Makes a key of label pairs; of two equal names the later wins.
    pub fn new(labels: impl IntoIterator<Item = (String, String)>) -> Self {
        let sorted: std::collections::BTreeMap<String, String> = labels.into_iter().collect();
        Self::of_sorted(sorted.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Makes a key of pairs that are sorted by name and whose names are unique.
    pub fn of_sorted<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = Vec::with_capacity(64);
        for (name, value) in labels {
            if !text.is_empty() {
                text.push(b',');
            }
            write_label(&mut text, name, value);
        }
        Self { text: String::from_utf8(text).expect("labels were str").into() }
    }

    /// Takes over text that a key was written as.
    pub fn from_text(text: Arc<str>) -> Self {
        Self { text }
    }

    /// `job="a",zone="eu"`: the labels sorted by name, as the exposition writes them.
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The labels, sorted by name.
    pub fn labels(&self) -> Vec<(String, String)> {
        read_labels(&self.text)
            .into_iter()
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect()
    }

    /// The names of the labels as they are written, sorted, separated by line feeds (which no written name has): two groups can
    /// hold the same series only if these differ.
    pub fn names(&self) -> String {
        let mut names = Vec::with_capacity(32);
        each_label(&self.text).for_each(|(name, _)| write_next_name(&mut names, &name));
        String::from_utf8(names).expect("names are UTF-8")
    }

    /// The labels of the group's push-time series: those of the key, and `instance=""` where it has no instance.
    pub fn series_labels(&self) -> Arc<str> {
        if each_label(&self.text).any(|(name, _)| name == INSTANCE) {
            return self.text.clone();
        }
        Self::variant(&read_labels(&self.text), true)
    }

    /// The key that differs only by `instance=""`, if there can be one: both show the same push times.
    pub fn empty_instance_variant(&self) -> Option<Self> {
        self.parts().empty_instance_variant
    }

    /// What the labels say.
    pub fn parts(&self) -> KeyParts {
        let (mut names, mut instance) = (Vec::with_capacity(32), None);
        for (name, value) in each_label(&self.text) {
            write_next_name(&mut names, &name);
            if name == INSTANCE {
                instance = Some(value.is_empty());
            }
        }
        let empty_instance_variant =
            (instance != Some(false)).then(|| Self::variant(&read_labels(&self.text), instance.is_none()));
        KeyParts {
            names: String::from_utf8(names).expect("names are UTF-8"),
            series_labels: empty_instance_variant
                .as_ref()
                .filter(|_| instance.is_none())
                .unwrap_or(&self.text)
                .clone(),
            empty_instance_variant: empty_instance_variant.map(Self::from_text),
        }
    }

    /// The text without, or with, an empty instance.
    fn variant(labels: &[(Cow<'_, str>, Cow<'_, str>)], with: bool) -> Arc<str> {
        let mut pairs: Vec<(&str, &str)> = labels
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .filter(|(name, _)| *name != INSTANCE)
            .collect();
        if with {
            let at = pairs.partition_point(|(name, _)| *name < INSTANCE);
            pairs.insert(at, (INSTANCE, ""));
        }
        Self::of_sorted(pairs).text
    }

    /// A hash that is the same in every run and version. A key and its twin hash alike.
    pub fn hash(&self) -> u64 {
        // A quote inside a value or a quoted name is escaped, so this is a label wherever one can start.
        let empty = EMPTY_INSTANCE
            .find_iter(self.text.as_bytes())
            .any(|at| at == 0 || self.text.as_bytes()[at - 1] == b',');
        match empty {
            false => xxhash_rust::xxh3::xxh3_64(self.text.as_bytes()),
            true => xxhash_rust::xxh3::xxh3_64(Self::variant(&read_labels(&self.text), false).as_bytes()),
        }
    }

    /// The core the group lives on.
    pub fn home(&self, cores: usize) -> usize {
        // The upper bits, multiplied out: an even spread for any number of cores.
        ((u128::from(self.hash()) * cores as u128) >> 64) as usize
    }
}

/// Appends a label name to those before it.
fn write_next_name(names: &mut Vec<u8>, name: &str) {
    if !names.is_empty() {
        names.push(b'\n');
    }
    write_label_name(names, name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(labels: &[(&str, &str)]) -> GroupingKey {
        GroupingKey::new(labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn order_does_not_matter_and_the_later_of_equal_names_wins() {
        assert_eq!(key(&[("x", "1"), ("job", "a")]), key(&[("job", "a"), ("x", "2"), ("x", "1")]));
        assert_eq!(&**key(&[("x", "1"), ("job", "a")]).text(), "job=\"a\",x=\"1\"");
    }

    #[test]
    fn a_key_and_the_same_with_an_empty_instance_are_twins_on_one_core() {
        let (plain, empty) =
            (key(&[("job", "a"), ("z", "")]), key(&[("job", "a"), ("instance", ""), ("z", "")]));
        assert_eq!(plain.empty_instance_variant(), Some(empty.clone()));
        assert_eq!(empty.empty_instance_variant(), Some(plain.clone()));
        assert_eq!(plain.hash(), empty.hash());
        assert_eq!(plain.series_labels(), empty.series_labels());
        assert_ne!(plain, empty);
    }

    #[test]
    fn a_named_instance_has_no_twin() {
        assert_eq!(key(&[("job", "a"), ("instance", "h")]).empty_instance_variant(), None);
    }

    #[test]
    fn a_value_that_looks_like_an_empty_instance_is_a_value() {
        let odd = key(&[("job", ",instance=\"\"")]);
        assert_eq!(odd.labels(), [("job".to_owned(), ",instance=\"\"".to_owned())]);
        assert_eq!(odd.empty_instance_variant().map(|t| t.hash()), Some(odd.hash()));
    }

    #[test]
    fn the_hash_is_fixed_because_stores_depend_on_it() {
        assert_eq!(key(&[("job", "a")]).hash(), xxhash_rust::xxh3::xxh3_64(b"job=\"a\""));
    }
}
