//! What the network should be: service rulesets and DNS answers. Pure.
