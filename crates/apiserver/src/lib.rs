//! HTTP over the store: routing from kinds, list, watch, patch, discovery, streams.
