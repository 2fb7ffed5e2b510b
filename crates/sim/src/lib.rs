//! A whole cluster in one thread: real deciders, memory store, virtual clock, fake doers, seeded faults.
