//! The one way in for a write: default → mutate → validate → admit → commit. API requests and controllers alike pass it.
