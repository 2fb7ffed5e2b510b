use std::fmt;

/// A place in an object, for messages: `spec.containers[0].ports[1].name`, `data[key]`.
///
/// It is a chain of borrowed steps, so that a walk that finds nothing wrong allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// A path from the top of the object: `metadata.labels`.
    pub const fn root(path: &'a str) -> Self {
        Self { parent: None, step: Step::Field(path) }
    }

    /// A member, or a path of several: `resources.limits`.
    pub const fn field(&'a self, name: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Field(name) }
    }

    pub const fn index(&'a self, index: usize) -> At<'a> {
        At { parent: Some(self), step: Step::Index(index) }
    }

    /// An entry of a map.
    pub const fn key(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_some_and(|parent| !parent.is_empty()) => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

impl At<'_> {
    fn is_empty(&self) -> bool {
        matches!(self.step, Step::Field("")) && self.parent.is_none_or(At::is_empty)
    }
}
