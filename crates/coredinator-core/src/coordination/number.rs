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

/// A number for people: one with more digits than they read is written by its power of ten.
pub(crate) fn shown(number: f64) -> String {
    let size = number.abs();
    if number.is_finite() && size != 0.0 && !(1e-6..LARGEST).contains(&size) {
        format!("{number:e}")
    } else {
        number.to_string()
    }
}

/// What is told of one that is no number to reckon with.
pub(crate) fn no_number(number: f64) -> String {
    format!("must be a number from {} to {}, but is {}", shown(-LARGEST), shown(LARGEST), shown(number))
}

/// What is told of one that is no amount.
pub(crate) fn no_amount(number: f64) -> String {
    format!("must be an amount of 0 or more, at most {}, but is {}", shown(LARGEST), shown(number))
}

/// What is wrong with one that must be above 0, as a weight must be.
#[must_use]
pub fn not_positive(number: f64) -> Option<String> {
    let positive = number > 0.0 && number <= LARGEST;
    (!positive).then(|| format!("must be above 0 and at most {}, but is {}", shown(LARGEST), shown(number)))
}
