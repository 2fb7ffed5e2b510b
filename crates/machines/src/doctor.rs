//! What must be right on the host for machines to work, each with how to mend it.
