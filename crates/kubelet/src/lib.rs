//! What a node should do next for its pods: desired + observed → ops. Pure.
