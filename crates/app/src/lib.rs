//! Config → build → run(until told). Which components for which role.
