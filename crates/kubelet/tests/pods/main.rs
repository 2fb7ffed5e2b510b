//! Pods on a node that exists only in memory.

mod simulation;
mod transcripts;
mod world;
