//! Which node a pod goes to: a table of filters, a table of scores. Pure.
