//! The help texts that groups of one core pushed for a family.

use std::sync::Arc;

use smallvec::SmallVec;

use super::tables::Map;

/// Above this many texts, a family has an index of them.
const FEW_MAX: usize = 8;

/// The index of a family that was pushed without HELP.
pub(super) const NO_HELP: u32 = u32::MAX;

/// Help texts by index. An index stays the same while a group has the text.
#[derive(Debug, Default)]
pub(super) struct LocalHelps {
    entries: SmallVec<[Option<Help>; 1]>,
    /// Only with more than [`FEW_MAX`] entries.
    index: Option<Box<Index>>,
}

#[derive(Debug)]
struct Help {
    text: Arc<str>,
    /// The number of groups that pushed it.
    groups: u32,
}

#[derive(Debug, Default)]
struct Index {
    by_text: Map<Arc<str>, u32>,
    /// The free entries.
    free: Vec<u32>,
}

impl LocalHelps {
    /// The text with this index.
    pub fn get(&self, index: u32) -> Option<&Arc<str>> {
        self.entry(index).map(|help| &help.text)
    }

    /// The number of groups that have the text with this index.
    pub fn groups(&self, index: u32) -> u32 {
        self.entry(index).map_or(0, |help| help.groups)
    }

    /// The index of a text, if a group has it.
    pub fn find(&self, text: &str) -> Option<u32> {
        if let Some(index) = &self.index {
            return index.by_text.get(text).copied();
        }
        let is_text = |help: &Option<Help>| help.as_ref().is_some_and(|help| *help.text == *text);
        self.entries.iter().position(is_text).map(|at| at as u32)
    }

    /// Counts a group that pushed this text. Returns its index.
    pub fn add(&mut self, text: Option<&str>) -> u32 {
        let Some(text) = text else { return NO_HELP };
        if let Some(index) = self.find(text) {
            self.add_at(index);
            return index;
        }
        let help = Help { text: text.into(), groups: 1 };
        if self.index.is_none() && self.entries.len() >= FEW_MAX {
            self.build_index();
        }
        let Some(index) = &mut self.index else {
            let at = match self.entries.iter().position(Option::is_none) {
                Some(free) => {
                    self.entries[free] = Some(help);
                    free
                }
                None => {
                    self.entries.push(Some(help));
                    self.entries.len() - 1
                }
            };
            return at as u32;
        };
        let at = index.free.pop().unwrap_or(self.entries.len() as u32);
        index.by_text.insert(help.text.clone(), at);
        match self.entries.get_mut(at as usize) {
            Some(entry) => *entry = Some(help),
            None => self.entries.push(Some(help)),
        }
        at
    }

    /// Counts a group that pushed the text with this index, or [`NO_HELP`].
    pub fn add_at(&mut self, index: u32) {
        if let Some(help) = self.entries.get_mut(index as usize).and_then(Option::as_mut) {
            help.groups += 1;
        }
    }

    /// Counts a group that has the text with this index no longer.
    pub fn release(&mut self, at: u32) {
        let Some(entry) = self.entries.get_mut(at as usize) else { return };
        let Some(help) = entry else { return };
        help.groups -= 1;
        if help.groups > 0 {
            return;
        }
        let help = entry.take();
        if let (Some(index), Some(help)) = (&mut self.index, help) {
            index.by_text.remove(&help.text);
            index.free.push(at);
            if index.by_text.is_empty() {
                *self = Self::default();
            }
        }
    }

    fn entry(&self, index: u32) -> Option<&Help> {
        self.entries.get(index as usize)?.as_ref()
    }

    fn build_index(&mut self) {
        let mut index = Box::<Index>::default();
        for (at, help) in self.entries.iter().enumerate() {
            match help {
                Some(help) => drop(index.by_text.insert(help.text.clone(), at as u32)),
                None => index.free.push(at as u32),
            }
        }
        self.index = Some(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_released_text_is_freed() {
        let mut helps = LocalHelps::default();
        let index = helps.add(Some("text"));
        let text = helps.get(index).map(Arc::downgrade).expect("was added");
        helps.release(index);
        assert!(text.upgrade().is_none());
    }

    proptest! {
        #[test]
        fn an_index_leads_to_its_text(steps in prop::collection::vec((any::<bool>(), 0..30_usize), 0..300)) {
            let mut helps = LocalHelps::default();
            let mut held: Vec<(String, u32)> = Vec::new();
            for (add, number) in steps {
                if add {
                    let text = format!("help {number}");
                    let index = helps.add(Some(&text));
                    held.push((text, index));
                } else if !held.is_empty() {
                    helps.release(held.swap_remove(number % held.len()).1);
                }
                for (text, index) in &held {
                    prop_assert_eq!(helps.get(*index).map(|known| &**known), Some(&**text));
                    prop_assert_eq!(helps.find(text), Some(*index));
                    let groups = held.iter().filter(|(other, _)| other == text).count();
                    prop_assert_eq!(helps.groups(*index) as usize, groups);
                }
                let texts: std::collections::BTreeSet<&str> = held.iter().map(|(text, _)| &**text).collect();
                prop_assert_eq!(helps.entries.iter().flatten().count(), texts.len());
            }
        }
    }
}
