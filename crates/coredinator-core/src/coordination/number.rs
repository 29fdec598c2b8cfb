//! Which numbers may enter a problem.

/// The largest number that is taken: far above any plant's, and far enough from infinity that sums stay finite.
pub const LARGEST: f64 = 1e15;

/// Whether this is a number that can be reckoned with.
pub(crate) fn is_number(number: f64) -> bool {
    number.abs() <= LARGEST
}

/// Whether this is an amount of something.
pub(crate) fn is_amount(number: f64) -> bool {
    (0.0..=LARGEST).contains(&number)
}
