//! Medians and majorities.

use std::cmp::Ordering;

/// The low median: of an even number of values the lower one of the middle.
pub(super) fn low_median<T: Ord + Copy>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// The most frequent value; of several the greatest.
pub(super) fn most_frequent<T: Ord + Copy>(values: impl IntoIterator<Item = T>) -> Option<T> {
    most_frequent_by(values, T::cmp)
}

/// The most frequent value; of several the greatest by `order`, which tells all values apart.
pub(super) fn most_frequent_by<T: PartialEq + Copy>(
    values: impl IntoIterator<Item = T>,
    order: impl Fn(&T, &T) -> Ordering,
) -> Option<T> {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_unstable_by(order);
    // Of equal maxima `max_by_key` gives the last.
    values.chunk_by(T::eq).max_by_key(|same| same.len()).and_then(|same| same.first().copied())
}

/// The values that stand more than `limit` times in a sorted list, once each.
pub(super) fn more_than<T: PartialEq + Copy>(limit: usize, sorted: &[T]) -> impl Iterator<Item = T> {
    sorted.chunk_by(T::eq).filter(move |same| same.len() > limit).filter_map(|same| same.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_low() {
        assert_eq!(low_median([] as [u32; 0]), None);
        assert_eq!(low_median([7]), Some(7));
        assert_eq!(low_median([9, 1]), Some(1));
        assert_eq!(low_median([9, 1, 5]), Some(5));
        assert_eq!(low_median([9, 1, 5, 7]), Some(5));
    }

    #[test]
    fn ties_go_to_the_greatest() {
        assert_eq!(most_frequent([] as [u32; 0]), None);
        assert_eq!(most_frequent([3, 1, 3, 2, 1]), Some(3));
        assert_eq!(most_frequent([1, 2, 1, 3]), Some(1));
        assert_eq!(most_frequent_by([1, 2, 3], |a, b| b.cmp(a)), Some(1));
    }

    #[test]
    fn majorities() {
        assert_eq!(more_than(1, &[1, 2, 2, 3, 3, 3]).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(more_than(3, &[1, 2, 2, 3, 3, 3]).count(), 0);
    }
}
