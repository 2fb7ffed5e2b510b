//! Runs deciders: snapshots, queues, retries, wake-ups, leases. Owns the clock.
