//! Sorting by numbers that lie close together.

/// Sorts by a number of each: first each goes where those of about its number go, then it finds its place among them by
/// comparing. Of numbers that are spread evenly this takes a few steps each, of others no more than comparing all.
pub(crate) fn sort_by_number<T: Copy>(entries: &mut Vec<T>, number: impl Fn(&T) -> u64) {
    /// Entries that go to one place, on average.
    const TOGETHER: u64 = 4;
    const FEW: usize = 32;
    let numbers = || entries.iter().map(&number);
    let (Some(least), Some(most)) = (numbers().min(), numbers().max()) else { return };
    if entries.len() <= FEW || entries.is_sorted_by_key(&number) || u32::try_from(entries.len()).is_err() {
        entries.sort_unstable_by_key(number);
        return;
    }
    // A place for so many numbers in a row, a power of two of them.
    let wanted = entries.len() as u64 / TOGETHER;
    let bits = (most - least).checked_div(wanted).map_or(0, |row| u64::BITS - row.leading_zeros());
    let place = |entry: &T| ((number(entry) - least) >> bits) as usize;
    let places = ((most - least) >> bits) as usize + 1;
    // Where in the sorted list the entries of each place begin, and when they are in it, where they end.
    let mut ends = vec![0_u32; places + 1];
    for entry in &*entries {
        ends[place(entry) + 1] += 1;
    }
    for place in 1..places {
        ends[place] += ends[place - 1];
    }
    let mut sorted = entries.clone();
    for entry in &*entries {
        let end = &mut ends[place(entry)];
        sorted[*end as usize] = *entry;
        *end += 1;
    }
    let mut begin = 0;
    for end in &ends[..places] {
        let end = *end as usize;
        sorted[begin..end].sort_unstable_by_key(&number);
        begin = end;
    }
    *entries = sorted;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_sorts(
            numbers in proptest::collection::vec(any::<u64>(), 0..200),
            shift in 0..64_u32,
            base in 0..1_000_u64,
            far in any::<bool>(),
        ) {
            let spread = numbers.iter().map(|number| (number >> shift).saturating_add(base));
            // One that is far from all others leaves these in one place.
            let mut entries: Vec<(u64, usize)> = spread.chain(far.then_some(u64::MAX)).zip(0..).collect();
            let mut expected: Vec<u64> = entries.iter().map(|(number, _)| *number).collect();
            let mut came: Vec<usize> = (0..entries.len()).collect();
            expected.sort_unstable();
            sort_by_number(&mut entries, |(number, _)| *number);
            prop_assert_eq!(entries.iter().map(|(number, _)| *number).collect::<Vec<_>>(), expected);
            let mut there: Vec<usize> = entries.iter().map(|(_, place)| *place).collect();
            there.sort_unstable();
            came.sort_unstable();
            prop_assert_eq!(there, came);
        }
    }
}
