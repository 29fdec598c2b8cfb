//! Store back ends.
