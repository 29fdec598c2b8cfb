//! Probes and the health monitor.
