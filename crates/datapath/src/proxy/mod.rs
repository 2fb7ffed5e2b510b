//! The service proxy: keeps one nftables table as a [`Ruleset`] says.

mod apply;
mod compile;
mod connections;
mod frame;
mod packet;

use plan::net::Ruleset;

use crate::Result;
use compile::Compiled;

/// The rules of one node, in the table `ip <name>`. What was applied is remembered, so that a change costs what
/// changed.
pub struct Proxy {
    table: String,
    applied: Option<(Ruleset, Compiled)>,
    /// A table with the right fingerprint is taken for what it says.
    trusting: bool,
}

impl Proxy {
    /// A proxy that has applied nothing yet. The table may exist: the first [`Proxy::apply`] adopts or replaces it.
    pub fn new(table: impl Into<String>) -> Self {
        Self { table: table.into(), applied: None, trusting: true }
    }

    /// Makes the kernel's rules those of `ruleset`, in one transaction; connections that are established go on.
    /// Then forgets UDP flows towards endpoints that are gone: UDP has no end that would do it.
    pub fn apply(&mut self, ruleset: &Ruleset) -> Result<()> {
        let next = compile::compile(ruleset);
        match &self.applied {
            Some((_, now)) if *now == next => {}
            Some((_, now)) => {
                if let Err(error) = apply::change(&self.table, now, &next) {
                    // Somebody else changed our table: ours again, whole.
                    tracing::warn!(table = self.table, %error, "service rules are replaced as a whole");
                    apply::replace(&self.table, &next)?;
                }
            }
            None if self.trusting && apply::is_in_place(&self.table, &next)? => {}
            None => apply::replace(&self.table, &next)?,
        }
        let before = self.applied.take().map(|(ruleset, _)| ruleset);
        self.applied = Some((ruleset.clone(), next));
        connections::forget_stale(before.as_ref(), ruleset)
    }

    /// Forgets what was applied, so that the next [`Proxy::apply`] replaces all of it, whatever the kernel has.
    pub fn distrust(&mut self) {
        self.applied = None;
        self.trusting = false;
    }

    /// Deletes the table.
    pub fn remove(&mut self) -> Result<()> {
        self.applied = None;
        apply::delete(&self.table)
    }
}
