//! Pods on a node that exists only in memory.

mod configs;
mod simulation;
mod transcripts;
mod world;
