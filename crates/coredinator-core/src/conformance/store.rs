//! Cases for implementors of the trait.
