//! Applies rulesets, links and routes through netlink; serves DNS.
