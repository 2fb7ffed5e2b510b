//! What may be written, and how it is completed: the plugins. Pure.
