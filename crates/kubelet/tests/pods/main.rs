//! Pods on a node that exists only in memory.

mod configs;
mod restarts;
mod room;
mod simulation;
mod stopping;
mod transcripts;
mod world;
