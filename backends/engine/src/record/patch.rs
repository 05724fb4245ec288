//! Patches: records with only what changed in a group.

use std::collections::HashMap;

use super::{Numbers, Record, RecordError, is_numbers};

/// Applies patches to a record, one after the other, and appends the record that results to `out`.
///
/// A patch is an encoded [`Record`] or encoded [`Numbers`]. A record sets the times of the group, and the families that it contains,
/// which it adds or replaces; other families stay. The result does not depend on how many of the patches are applied at a time, nor
/// on numbers that the next patch replaces.
///
/// Never panics. Besides `out`, memory is proportional to the number of families and, if there are numbers, to the size of the result.
///
/// # Errors
/// The record or a patch is invalid, or the result is too large for a record. `out` may contain a part of it.
pub fn apply_patches(record: &[u8], patches: &[&[u8]], out: &mut Vec<u8>) -> Result<(), RecordError> {
    let mut steps = patches.chunk_by(|one, next| is_numbers(one) == is_numbers(next)).peekable();
    if steps.peek().is_none() {
        Record::decode(record)?;
        out.extend_from_slice(record);
    }
    let mut before: Option<Vec<u8>> = None;
    while let Some(patches) = steps.next() {
        let mut between = Vec::new();
        let result = if steps.peek().is_some() { &mut between } else { &mut *out };
        let record = Record::decode(before.as_deref().unwrap_or(record))?;
        match patches {
            [.., last] if is_numbers(last) => Numbers::decode(last)?.apply(&record, result)?,
            _ => apply_records(record, patches, result)?,
        }
        before = Some(between);
    }
    Ok(())
}

fn apply_records(base: Record<'_>, patches: &[&[u8]], out: &mut Vec<u8>) -> Result<(), RecordError> {
    let patches: Vec<Record<'_>> =
        patches.iter().map(|patch| Record::decode(patch)).collect::<Result<_, _>>()?;
    let Some(last) = patches.last() else { return base.encode(out) };
    // The last patch that sets a family. The families of a record come before those of its patches.
    let mut setters: HashMap<&str, usize> = HashMap::new();
    for (number, patch) in patches.iter().enumerate() {
        setters.extend(patch.families.iter().map(|family| (family.name, number)));
    }
    let mut families = base.families;
    families.retain(|family| !setters.contains_key(family.name));
    for (number, patch) in patches.iter().enumerate() {
        families.extend(
            patch.families.iter().filter(|family| setters.get(family.name) == Some(&number)).cloned(),
        );
    }
    let times = Record { families: Vec::new(), ..last.clone() };
    Record { families, ..times }.encode(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Family, Kind};
    use super::*;

    fn encoded(push_seconds: f64, families: &[(&str, &str)]) -> Vec<u8> {
        let families = families.iter().map(|(name, text)| Family {
            name,
            kind: Kind::Gauge,
            help: Some("help"),
            push_seconds,
            text: text.as_bytes(),
            exact: None,
        });
        let record = Record {
            revision: 0,
            push_seconds,
            failure_seconds: 0.0,
            created_seconds: 1.0,
            expires_seconds: None,
            families: families.collect(),
        };
        let mut out = Vec::new();
        record.encode(&mut out).expect("a small record");
        out
    }

    fn applied(record: &[u8], patches: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        apply_patches(record, patches, &mut out).expect("valid records");
        out
    }

    #[test]
    fn a_patch_replaces_and_adds_families_and_sets_the_times() {
        let record = encoded(1.0, &[("a", "1"), ("b", "2")]);
        let patched = applied(&record, &[&encoded(5.0, &[("a", "3"), ("c", "4")])]);
        let patched = Record::decode(&patched).expect("valid");
        let families: Vec<_> =
            patched.families.iter().map(|family| (family.name, family.text, family.push_seconds)).collect();
        assert_eq!(families, [("b", &b"2"[..], 1.0), ("a", b"3", 5.0), ("c", b"4", 5.0)]);
        assert_eq!(patched.push_seconds, 5.0);
        assert_eq!(applied(&record, &[]), record);
        let times_only = applied(&record, &[&encoded(9.0, &[])]);
        let times_only = Record::decode(&times_only).expect("valid");
        assert_eq!((times_only.families.len(), times_only.push_seconds), (2, 9.0));
    }

    #[test]
    fn invalid_bytes_are_an_error() {
        let record = encoded(1.0, &[]);
        for (record, patch) in [(&record[..], &b"x"[..]), (b"", &record)] {
            assert!(apply_patches(record, &[patch], &mut Vec::new()).is_err());
        }
    }

    /// A patch with families that have as many lines as before, or with a number for each of the three lines.
    #[derive(Debug, Clone)]
    enum LinesPatch {
        Families(bool, bool),
        Numbers([f64; 3]),
    }

    fn lines_patch() -> impl Strategy<Value = LinesPatch> {
        prop_oneof![
            any::<(bool, bool)>().prop_map(|(a, b)| LinesPatch::Families(a, b)),
            any::<[f64; 3]>().prop_map(LinesPatch::Numbers),
        ]
    }

    impl LinesPatch {
        fn encoded(&self, push_seconds: f64) -> Vec<u8> {
            match self {
                Self::Families(a, b) => {
                    let families = [(*a, ("a", "a 1\n")), (*b, ("b", "b{x=\"1\"} 2\nb{x=\"2\"} 3\n"))];
                    let families = families.into_iter().filter_map(|(has, family)| has.then_some(family));
                    encoded(push_seconds, &families.collect::<Vec<_>>())
                }
                Self::Numbers(numbers) => {
                    let group = encoded(push_seconds, &[]);
                    let group = Record::decode(&group).expect("valid");
                    let mut out = Vec::new();
                    Numbers::encode(&mut out, &group, numbers.iter().copied()).expect("few numbers");
                    out
                }
            }
        }
    }

    proptest! {
        #[test]
        fn numbers_have_the_same_effect_together_and_one_by_one(patches in prop::collection::vec(lines_patch(), 0..8)) {
            let record = LinesPatch::Families(true, true).encoded(0.5);
            let patches: Vec<Vec<u8>> =
                patches.iter().zip(1_u32..).map(|(patch, number)| patch.encoded(f64::from(number))).collect();
            let one_by_one = patches.iter().fold(record.clone(), |record, patch| applied(&record, &[patch]));
            let patches: Vec<&[u8]> = patches.iter().map(|patch| &**patch).collect();
            prop_assert_eq!(&applied(&record, &patches), &one_by_one);
            // An engine drops numbers that the next patch replaces.
            let is_kept = |at: usize| !patches[at..].iter().take(2).all(|patch| is_numbers(patch)) || at + 1 == patches.len();
            let kept: Vec<&[u8]> = (0..patches.len()).filter(|at| is_kept(*at)).map(|at| patches[at]).collect();
            prop_assert_eq!(applied(&record, &kept), one_by_one);
        }

        #[test]
        fn patches_have_the_same_effect_together_and_one_by_one(
            contents in prop::collection::vec(prop::collection::btree_map("[a-e]", "[x-z]{0,3}", 0..5), 1..6),
        ) {
            let records: Vec<Vec<u8>> = contents
                .iter()
                .zip(1_u32..)
                .map(|(families, number)| {
                    let families: Vec<_> = families.iter().map(|(name, text)| (&**name, &**text)).collect();
                    encoded(f64::from(number), &families)
                })
                .collect();
            let (record, patches) = records.split_first().expect("at least one");
            let one_by_one = patches.iter().fold(record.clone(), |record, patch| applied(&record, &[patch]));
            let patches: Vec<&[u8]> = patches.iter().map(|patch| &**patch).collect();
            prop_assert_eq!(applied(record, &patches), one_by_one);
        }
    }
}
