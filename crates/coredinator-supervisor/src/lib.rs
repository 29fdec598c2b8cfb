//! From desired to running.
