//! The help texts of a family on all cores.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::super::tables::Map;

/// Above this many texts, a family has an index of them.
const FEW_MAX: usize = 8;

/// Help texts with the number of cores that have them. The first one is shown as long as a core has it, so that the shown text does
/// not alternate between scrapes.
#[derive(Debug)]
pub(super) enum Helps {
    Few(SmallVec<[(Arc<str>, u32); 1]>),
    Many(Box<Index>),
}

#[derive(Debug, Default)]
pub(super) struct Index {
    /// The cores that have each text, and its place in the order.
    by_text: Map<Arc<str>, (u32, u64)>,
    in_order: BTreeMap<u64, Arc<str>>,
    next: u64,
}

impl Default for Helps {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Helps {
    /// The text that is shown.
    pub fn first(&self) -> Option<&Arc<str>> {
        match self {
            Self::Few(helps) => helps.first().map(|(help, _)| help),
            Self::Many(index) => index.in_order.values().next(),
        }
    }

    /// Counts a core that has a text.
    pub fn add(&mut self, added: &Arc<str>) {
        match self {
            Self::Few(helps) => match helps.iter().position(|(known, _)| known == added) {
                Some(at) => helps[at].1 += 1,
                None if helps.len() < FEW_MAX => helps.push((added.clone(), 1)),
                None => {
                    let mut index = Box::<Index>::default();
                    std::mem::take(helps).into_iter().for_each(|(help, cores)| index.push(help, cores));
                    index.push(added.clone(), 1);
                    *self = Self::Many(index);
                }
            },
            Self::Many(index) => match index.by_text.get_mut(added) {
                Some((cores, _)) => *cores += 1,
                None => index.push(added.clone(), 1),
            },
        }
    }

    /// Counts a core that has a text no longer.
    pub fn remove(&mut self, dropped: &Arc<str>) {
        match self {
            Self::Few(helps) => {
                let Some(at) = helps.iter().position(|(known, _)| known == dropped) else { return };
                helps[at].1 -= 1;
                if helps[at].1 == 0 {
                    helps.remove(at);
                }
            }
            Self::Many(index) => {
                index.remove(dropped);
                if index.in_order.len() <= FEW_MAX / 2 {
                    *self = Self::Few(index.drain().collect());
                }
            }
        }
    }
}

impl Index {
    fn push(&mut self, help: Arc<str>, cores: u32) {
        self.by_text.insert(help.clone(), (cores, self.next));
        self.in_order.insert(self.next, help);
        self.next += 1;
    }

    fn remove(&mut self, help: &Arc<str>) {
        let Some((cores, place)) = self.by_text.get_mut(help) else { return };
        *cores -= 1;
        if *cores == 0 {
            self.in_order.remove(place);
            self.by_text.remove(help);
        }
    }

    fn drain(&mut self) -> impl Iterator<Item = (Arc<str>, u32)> {
        let by_text = std::mem::take(&mut self.by_text);
        std::mem::take(&mut self.in_order).into_values().map(move |help| {
            let cores = by_text.get(&help).map_or(0, |(cores, _)| *cores);
            (help, cores)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_text_is_shown_as_long_as_a_core_has_it() {
        let text = |number: usize| -> Arc<str> { format!("help {number}").into() };
        for count in [3, 40] {
            let mut helps = Helps::default();
            (0..count).for_each(|number| helps.add(&text(number)));
            helps.add(&text(1));
            helps.remove(&text(1));
            for number in 0..count {
                assert_eq!(helps.first(), Some(&text(number)));
                helps.remove(&text(number));
            }
            assert_eq!(helps.first(), None);
            assert!(matches!(helps, Helps::Few(_)), "the index is freed");
        }
    }
}
