//! Which groups have lines in a segment, and where the lines of each end.
//!
//! There is a run for each family of each group, so it has to be small. Most families are in every group, so the numbers of the groups
//! usually follow each other, and the text of most segments is short: then a run takes two bytes.

use std::ops::Range;

/// The runs of a segment, sorted by group.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    groups: Groups,
    ends: Ends,
}

#[derive(Debug, Clone)]
enum Groups {
    /// From this number on, without a gap.
    From(u32),
    Listed(Vec<u32>),
}

/// The ends of the lines in the text.
#[derive(Debug, Clone)]
enum Ends {
    Short(Vec<u16>),
    Long(Vec<u32>),
}

impl Default for Groups {
    fn default() -> Self {
        Self::From(0)
    }
}

impl Default for Ends {
    fn default() -> Self {
        Self::Short(Vec::new())
    }
}

impl Runs {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first group.
    pub fn first(&self) -> Option<u32> {
        (!self.is_empty()).then(|| self.group(0))
    }

    /// The last group.
    pub fn last(&self) -> Option<u32> {
        self.len().checked_sub(1).map(|last| self.group(last))
    }

    /// The group of the run at `index`.
    pub fn group(&self, index: usize) -> u32 {
        match &self.groups {
            Groups::From(first) => first + index as u32,
            Groups::Listed(groups) => groups[index],
        }
    }

    /// The index of a group's run, or the index at which it would be inserted.
    pub fn find(&self, group: u32) -> Result<usize, usize> {
        match &self.groups {
            Groups::From(first) => match group.checked_sub(*first) {
                None => Err(0),
                Some(index) if (index as usize) < self.len() => Ok(index as usize),
                Some(_) => Err(self.len()),
            },
            Groups::Listed(groups) => groups.binary_search(&group),
        }
    }

    /// Where the lines of the run at `index` are in the text.
    pub fn range(&self, index: usize) -> Range<usize> {
        self.start(index)..self.ends.get(index)
    }

    /// How many runs end there or before.
    pub fn count_up_to(&self, end: usize) -> usize {
        match &self.ends {
            Ends::Short(ends) => ends.partition_point(|known| usize::from(*known) <= end),
            Ends::Long(ends) => ends.partition_point(|known| *known as usize <= end),
        }
    }

    /// Adds a run after all others.
    pub fn push(&mut self, group: u32, end: usize) {
        self.insert(self.len(), group, end);
    }

    /// Adds a run.
    pub fn insert(&mut self, index: usize, group: u32, end: usize) {
        let len = self.len();
        match &mut self.groups {
            Groups::From(first) if len == 0 => *first = group,
            Groups::From(first) if index == len && *first + len as u32 == group => {}
            Groups::From(first) if index == 0 && group + 1 == *first => *first = group,
            _ => self.list().insert(index, group),
        }
        self.ends.insert(index, end);
        self.omit_list();
    }

    pub fn remove(&mut self, index: usize) {
        match &mut self.groups {
            Groups::From(first) if index == 0 => *first += 1,
            Groups::From(_) if index + 1 == self.ends.len() => {}
            _ => drop(self.list().remove(index)),
        }
        match &mut self.ends {
            Ends::Short(ends) => drop(ends.remove(index)),
            Ends::Long(ends) => drop(ends.remove(index)),
        }
        self.omit_list();
    }

    /// The lines of the run at `index` have another length now.
    pub fn resize(&mut self, index: usize, len: usize) {
        let old_len = self.range(index).len();
        self.ends.widen_for((self.ends.last() + len).saturating_sub(old_len));
        match &mut self.ends {
            Ends::Short(ends) => {
                let added = (len as u16).wrapping_sub(old_len as u16);
                ends[index..].iter_mut().for_each(|end| *end = end.wrapping_add(added));
            }
            Ends::Long(ends) => {
                let added = (len as u32).wrapping_sub(old_len as u32);
                ends[index..].iter_mut().for_each(|end| *end = end.wrapping_add(added));
            }
        }
    }

    /// Adds some runs of another segment after all others. The text of the first one begins at `start`.
    pub fn extend(&mut self, other: &Self, range: Range<usize>, start: usize) {
        if range.is_empty() {
            return;
        }
        let (first, last) = (other.group(range.start), other.group(range.end - 1));
        let has_gap = (last - first) as usize + 1 > range.len();
        match &mut self.groups {
            Groups::From(known) if self.ends.len() == 0 && !has_gap => *known = first,
            Groups::From(known) if *known + self.ends.len() as u32 == first && !has_gap => {}
            _ => self.list().extend(range.clone().map(|index| other.group(index))),
        }
        let old_start = other.start(range.start);
        self.ends.widen_for(other.ends.get(range.end - 1) - old_start + start);
        match (&mut self.ends, &other.ends) {
            (Ends::Short(ends), Ends::Short(others)) => {
                let added = (start as u16).wrapping_sub(old_start as u16);
                ends.extend(others[range].iter().map(|end| end.wrapping_add(added)));
            }
            (Ends::Short(ends), Ends::Long(_)) => {
                ends.extend(range.map(|index| (other.ends.get(index) - old_start + start) as u16));
            }
            (Ends::Long(ends), _) => {
                ends.extend(range.map(|index| (other.ends.get(index) - old_start + start) as u32));
            }
        }
    }

    /// Removes and returns the runs from `index` on. Their text begins at 0.
    pub fn split_off(&mut self, index: usize) -> Self {
        let mut rest = Self::default();
        rest.extend(self, index..self.len(), 0);
        if let Groups::Listed(groups) = &mut self.groups {
            groups.truncate(index);
        }
        match &mut self.ends {
            Ends::Short(ends) => ends.truncate(index),
            Ends::Long(ends) => ends.truncate(index),
        }
        // Without what only the rest needed.
        let whole = std::mem::take(self);
        self.extend(&whole, 0..whole.len(), 0);
        rest
    }

    /// Removes all runs, and keeps the memory.
    pub fn clear(&mut self) {
        self.groups = Groups::default();
        match &mut self.ends {
            Ends::Short(ends) => ends.clear(),
            Ends::Long(_) => self.ends = Ends::default(),
        }
    }

    /// Replaces all runs. Keeps the memory only if it fits.
    pub fn set(&mut self, new: &Self) {
        match (&mut self.ends, &new.ends) {
            (Ends::Short(ends), Ends::Short(new)) if ends.len() == new.len() => ends.copy_from_slice(new),
            (ends, new) => *ends = new.clone(),
        }
        self.groups.clone_from(&new.groups);
    }

    /// Frees memory that is not needed.
    pub fn shrink(&mut self) {
        match &mut self.ends {
            Ends::Short(ends) => ends.shrink_to_fit(),
            Ends::Long(ends) => ends.shrink_to_fit(),
        }
        if let Groups::Listed(groups) = &mut self.groups {
            groups.shrink_to_fit();
        }
    }

    #[cfg(test)]
    pub fn allocated_bytes(&self) -> usize {
        let ends = match &self.ends {
            Ends::Short(ends) => ends.capacity() * size_of::<u16>(),
            Ends::Long(ends) => ends.capacity() * size_of::<u32>(),
        };
        match &self.groups {
            Groups::From(_) => ends,
            Groups::Listed(groups) => ends + groups.capacity() * size_of::<u32>(),
        }
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends.get(before))
    }

    /// The list of the groups, made if there is none.
    fn list(&mut self) -> &mut Vec<u32> {
        if let Groups::From(first) = self.groups {
            self.groups = Groups::Listed((first..).take(self.len()).collect());
        }
        match &mut self.groups {
            Groups::Listed(groups) => groups,
            Groups::From(_) => unreachable!("the groups are listed now"),
        }
    }

    /// Drops the list of groups if it is not needed.
    fn omit_list(&mut self) {
        if let Groups::Listed(groups) = &self.groups {
            match (groups.first(), groups.last()) {
                (Some(first), Some(last)) if (last - first) as usize + 1 > groups.len() => {}
                (first, _) => self.groups = Groups::From(first.copied().unwrap_or(0)),
            }
        }
    }
}

impl Ends {
    fn len(&self) -> usize {
        match self {
            Self::Short(ends) => ends.len(),
            Self::Long(ends) => ends.len(),
        }
    }

    fn get(&self, index: usize) -> usize {
        match self {
            Self::Short(ends) => ends[index].into(),
            Self::Long(ends) => ends[index] as usize,
        }
    }

    fn last(&self) -> usize {
        self.len().checked_sub(1).map_or(0, |last| self.get(last))
    }

    fn insert(&mut self, index: usize, end: usize) {
        self.widen_for(end);
        match self {
            Self::Short(ends) => ends.insert(index, end as u16),
            Self::Long(ends) => ends.insert(index, end as u32),
        }
    }

    /// Makes room for texts of this length.
    fn widen_for(&mut self, end: usize) {
        if let Self::Short(ends) = self
            && end > u16::MAX.into()
        {
            *self = Self::Long(ends.iter().map(|end| u32::from(*end)).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same as a list of groups and the lengths of their lines.
    type Reference = Vec<(u32, usize)>;

    fn check(runs: &Runs, reference: &Reference) {
        assert_eq!((runs.len(), runs.is_empty()), (reference.len(), reference.is_empty()));
        assert_eq!(runs.first(), reference.first().map(|(group, _)| *group));
        assert_eq!(runs.last(), reference.last().map(|(group, _)| *group));
        let mut start = 0;
        for (index, (group, len)) in reference.iter().enumerate() {
            assert_eq!((runs.group(index), runs.range(index)), (*group, start..start + len));
            start += len;
        }
        for group in 0..12 {
            assert_eq!(runs.find(group), reference.binary_search_by_key(&group, |(group, _)| *group));
        }
        let is_listed = matches!(runs.groups, Groups::Listed(_));
        let has_gap = reference.windows(2).any(|pair| pair[0].0 + 1 < pair[1].0);
        assert_eq!(is_listed, has_gap);
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Sets the length of a group's lines.
        Set(u32, usize),
        Remove(u32),
        /// Splits, and appends the rest again.
        Split(usize),
        Copy,
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = prop_oneof![4 => 1..100_usize, 1 => 20_000..40_000_usize];
        prop_oneof![
            6 => (0..12_u32, len).prop_map(|(group, len)| Step::Set(group, len)),
            3 => (0..12_u32).prop_map(Step::Remove),
            1 => (0..13_usize).prop_map(Step::Split),
            1 => Just(Step::Copy),
        ]
    }

    proptest! {
        #[test]
        fn runs_behave_like_a_list(steps in prop::collection::vec(step(), 0..60)) {
            let (mut runs, mut reference) = (Runs::default(), Reference::new());
            for step in steps {
                match step {
                    Step::Set(group, len) => match runs.find(group) {
                        Ok(index) => {
                            runs.resize(index, len);
                            reference[index].1 = len;
                        }
                        Err(index) => {
                            let start = reference[..index].iter().map(|(_, len)| len).sum();
                            runs.insert(index, group, start);
                            runs.resize(index, len);
                            reference.insert(index, (group, len));
                        }
                    },
                    Step::Remove(group) => {
                        if let Ok(index) = runs.find(group) {
                            runs.resize(index, 0);
                            runs.remove(index);
                            reference.remove(index);
                        }
                    }
                    Step::Split(at) => {
                        let at = at.min(runs.len());
                        let rest = runs.split_off(at);
                        let expected = reference.split_off(at);
                        check(&rest, &expected);
                        check(&runs, &reference);
                        let start = reference.iter().map(|(_, len)| len).sum();
                        prop_assert_eq!(runs.count_up_to(start), runs.len());
                        runs.extend(&rest, 0..rest.len(), start);
                        reference.extend(expected);
                    }
                    Step::Copy => {
                        let mut copy = Runs::default();
                        (0..runs.len()).for_each(|index| copy.push(runs.group(index), runs.range(index).end));
                        runs.set(&copy);
                        runs.shrink();
                        copy.clear();
                        check(&copy, &Reference::new());
                    }
                }
                check(&runs, &reference);
            }
        }
    }

    #[test]
    fn a_usual_run_takes_two_bytes() {
        let mut runs = Runs::default();
        (5..205).for_each(|group| runs.push(group, 70 * (group as usize - 4)));
        assert!(matches!(&runs.ends, Ends::Short(ends) if ends.len() == 200));
        assert!(matches!(runs.groups, Groups::From(5)));
    }
}
