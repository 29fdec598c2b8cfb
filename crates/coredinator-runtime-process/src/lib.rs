//! Runs instances as local processes.
