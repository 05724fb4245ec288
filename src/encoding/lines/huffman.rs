//! Huffman codes of limited length, from the frequencies of symbols.

/// The code of a symbol, lowest bit first, and its length in bits. A symbol without a code has length 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Code {
    pub bits: u16,
    pub len: u8,
}

impl Code {
    /// The code, or an empty one.
    #[inline(always)]
    pub(super) fn only_if(self, condition: bool) -> Self {
        let mask = u16::from(condition).wrapping_neg();
        Self { bits: self.bits & mask, len: self.len & mask as u8 }
    }
}

/// Assigns canonical codes (RFC 1951, 3.2.2) of at most `LEN_MAX` bits. At least two symbols get a code, also if fewer occur, because
/// some decoders reject less.
///
/// There must be at least two symbols, at most 2^`LEN_MAX`, and at most 2^23 occurrences of each.
pub(super) fn assign<const LEN_MAX: usize, const SYMBOLS: usize>(
    counts: &[u32; SYMBOLS],
    codes: &mut [Code; SYMBOLS],
) {
    // Symbols by frequency: the frequency is in the upper bits.
    let mut sorted = [0u32; SYMBOLS];
    let mut used = 0;
    for (symbol, &count) in counts.iter().enumerate() {
        if count > 0 {
            sorted[used] = (count << SYMBOL_BITS) | symbol as u32;
            used += 1;
        }
    }
    let mut symbol = 0;
    while used < 2 {
        if counts[symbol] == 0 {
            sorted[used] = (1 << SYMBOL_BITS) | symbol as u32;
            used += 1;
        }
        symbol += 1;
    }
    let sorted = &mut sorted[..used];
    sorted.sort_unstable();

    let mut lens = [0u16; 16];
    count_lens::<LEN_MAX, SYMBOLS>(sorted, &mut lens);

    // The rarest symbols get the longest codes; among codes of one length, they rise with the symbol.
    *codes = [Code::default(); SYMBOLS];
    let mut rest = sorted.iter();
    for len in (1..=LEN_MAX).rev() {
        for &entry in rest.by_ref().take(usize::from(lens[len])) {
            codes[(entry & SYMBOL_MASK) as usize].len = len as u8;
        }
    }
    let mut next = [0u16; 16];
    let mut first = 0;
    for (next, shorter) in next[1..].iter_mut().zip(lens) {
        first = (first + shorter) << 1;
        *next = first;
    }
    for code in codes.iter_mut().filter(|code| code.len > 0) {
        let next = &mut next[usize::from(code.len)];
        code.bits = next.reverse_bits() >> (16 - code.len);
        *next += 1;
    }
}

const SYMBOL_BITS: u32 = 9;
const SYMBOL_MASK: u32 = (1 << SYMBOL_BITS) - 1;

/// Counts how many codes of each length an optimal tree has, limited to `LEN_MAX`.
fn count_lens<const LEN_MAX: usize, const SYMBOLS: usize>(sorted: &[u32], lens: &mut [u16; 16]) {
    let leaves = sorted.len();
    // The inner nodes, in the order of their creation, which is the order of their weight.
    let mut weights = [0u32; SYMBOLS];
    let mut leaf_parents = [0u16; SYMBOLS];
    let mut node_parents = [0u16; SYMBOLS];
    let (mut leaf, mut node) = (0, 0);
    for new in 0..leaves - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            if leaf < leaves && (node >= new || sorted[leaf] >> SYMBOL_BITS <= weights[node]) {
                weight += sorted[leaf] >> SYMBOL_BITS;
                leaf_parents[leaf] = new as u16;
                leaf += 1;
            } else {
                weight += weights[node];
                node_parents[node] = new as u16;
                node += 1;
            }
        }
        weights[new] = weight;
    }
    let mut depths = [0u8; SYMBOLS];
    for node in (0..leaves - 2).rev() {
        depths[node] = depths[usize::from(node_parents[node])].saturating_add(1);
    }
    for &parent in &leaf_parents[..leaves] {
        let len = usize::from(depths[usize::from(parent)]) + 1;
        lens[len.min(LEN_MAX)] += 1;
    }
    // Codes that were too long now take more than all the space. Replacing one of the longest codes and a shorter one by two that are
    // longer than the latter frees one unit.
    let space =
        |lens: &[u16; 16]| (1..=LEN_MAX).map(|len| u32::from(lens[len]) << (LEN_MAX - len)).sum::<u32>();
    let mut excess = space(lens).saturating_sub(1 << LEN_MAX);
    while excess > 0 {
        let Some(len) = (1..LEN_MAX).rev().find(|&len| lens[len] > 0) else { return };
        lens[LEN_MAX] -= 1;
        lens[len] -= 1;
        lens[len + 1] += 2;
        excess -= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The cost of the best code without a limit: the sum of the weights of all inner nodes.
    fn least_bits(counts: &[u32]) -> u64 {
        let mut weights: Vec<u64> =
            counts.iter().filter(|&&count| count > 0).map(|&count| u64::from(count)).collect();
        let mut bits = 0;
        while weights.len() > 1 {
            weights.sort_unstable_by(|a, b| b.cmp(a));
            let sum = weights.pop().unwrap_or_default() + weights.pop().unwrap_or_default();
            bits += sum;
            weights.push(sum);
        }
        bits
    }

    fn check<const LEN_MAX: usize>(counts: &[u32; 30]) -> Result<u64, TestCaseError> {
        let mut codes = [Code::default(); 30];
        assign::<LEN_MAX, 30>(counts, &mut codes);
        let used: Vec<Code> = codes.iter().copied().filter(|code| code.len > 0).collect();
        prop_assert!(counts.iter().zip(&codes).all(|(&count, code)| count == 0 || code.len > 0));
        prop_assert!(used.iter().all(|code| usize::from(code.len) <= LEN_MAX));
        // Complete, and no code begins with another one.
        let space: u32 = used.iter().map(|code| 1 << (LEN_MAX - usize::from(code.len))).sum();
        prop_assert_eq!(space, 1 << LEN_MAX);
        for (at, a) in used.iter().enumerate() {
            for b in &used[at + 1..] {
                let shorter = a.len.min(b.len);
                prop_assert!((a.bits ^ b.bits) << (16 - shorter) != 0, "{:?} {:?}", a, b);
            }
        }
        Ok(counts.iter().zip(&codes).map(|(&count, code)| u64::from(count) * u64::from(code.len)).sum())
    }

    proptest! {
        #[test]
        fn codes_are_complete_and_as_short_as_possible(
            counts in prop::collection::vec(prop_oneof![Just(0), 0..5u32, 0..1000u32, 0..8_000_000u32], 30),
        ) {
            let counts: [u32; 30] = counts.try_into().expect("has that length");
            check::<7>(&counts)?;
            let bits = check::<12>(&counts)?;
            if counts.iter().filter(|&&count| count > 0).count() > 1 {
                prop_assert!(bits >= least_bits(&counts));
                // With few small counts, no code of the best tree is too long.
                if counts.iter().sum::<u32>() < 300 {
                    prop_assert_eq!(check::<15>(&counts)?, least_bits(&counts));
                }
            }
        }
    }

    #[test]
    fn a_tree_that_is_too_deep_is_limited() {
        let mut counts = [0u32; 30];
        let (mut a, mut b) = (1, 1);
        for count in &mut counts {
            *count = a;
            (a, b) = (b, a + b);
        }
        check::<7>(&counts).expect("is complete");
        check::<12>(&counts).expect("is complete");
        check::<12>(&[0; 30]).expect("two symbols have codes anyway");
    }
}
