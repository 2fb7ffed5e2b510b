//! Which objects a request selects.

use std::borrow::Cow;
use std::sync::Arc;

use object::{FieldSelector, LabelSelector, Object, Status, Table};
use schema::Kind;

use crate::query::ListOptions;

/// Label and field selectors of one kind, ready to be asked of many objects.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Empty: every namespace.
    namespace: String,
    labels: LabelSelector,
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    source: Source,
    equal: bool,
    value: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Name,
    Namespace,
    /// Place in the kind's row of selectable fields.
    Field(usize),
    /// Where the field of a custom resource stands: what may be selected by depends on the version, so nothing is kept beside the object.
    Path(&'static str),
}

impl Selection {
    /// Fails with upstream's 400 if a field cannot be selected by.
    pub(crate) fn new(
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &ListOptions,
    ) -> Result<Self, Status> {
        let mut terms = terms(kind, &options.fields)?;
        if !name.is_empty() {
            terms.push(Term { source: Source::Name, equal: true, value: name.into() });
        }
        Ok(Self { namespace: namespace.to_owned(), labels: options.labels.clone(), terms })
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || *self.namespace == *object.key.namespace) && self.matches_within(object)
    }

    /// The same of an object that is known to be of the namespace.
    pub(crate) fn matches_within(&self, object: &Object) -> bool {
        self.labels.matches(&object.meta.labels) && self.fields_match(object)
    }

    fn fields_match(&self, object: &Object) -> bool {
        self.terms.iter().all(|term| (value(object, term.source) == *term.value) == term.equal)
    }

    /// What is selected of a table behind an exclusive (namespace, name), as many as are wanted, if its labels lead there faster than
    /// going through the namespace.
    pub(crate) fn look_up<'a>(
        &self,
        table: &'a Table,
        after: Option<(&str, &str)>,
        most: usize,
    ) -> Option<Vec<&'a Arc<Object>>> {
        table.look_up(&self.namespace, &self.labels, after, most, |object| self.fields_match(object))
    }

    /// Whether names and namespaces alone tell what is selected.
    pub(crate) fn is_by_key(&self) -> bool {
        let is_key = |term: &Term| matches!(term.source, Source::Name | Source::Namespace);
        self.labels.is_everything() && self.terms.iter().all(is_key)
    }

    /// What of it names and namespaces tell: it selects that and more.
    pub(crate) fn by_key(&self) -> Self {
        let is_key = |term: &&Term| matches!(term.source, Source::Name | Source::Namespace);
        let terms = self.terms.iter().filter(is_key).cloned().collect();
        Self { namespace: self.namespace.clone(), labels: LabelSelector::default(), terms }
    }

    /// Whether only a look at each object of the namespace tells which are selected.
    pub(crate) fn needs_scan(&self, kind: &Kind) -> bool {
        let is_one = self.name().is_some() && (!self.namespace.is_empty() || !kind.namespaced);
        !is_one && self.indexed().is_none()
    }

    /// Whether every object of the namespace is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.terms.is_empty()
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The one name that is selected, if the selector says so.
    pub(crate) fn name(&self) -> Option<&str> {
        self.required(Source::Name)
    }

    /// The value that the kind's indexed field must have.
    pub(crate) fn indexed(&self) -> Option<&str> {
        self.required(Source::Field(0)).filter(|value| !value.is_empty())
    }

    fn required(&self, source: Source) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.source == source).map(|term| &*term.value)
    }
}

fn terms(kind: &Kind, fields: &FieldSelector) -> Result<Vec<Term>, Status> {
    let term = |term: &object::selector::FieldTerm| {
        let source = match &*term.path {
            "metadata.name" => Source::Name,
            path @ "metadata.namespace" if !kind.namespaced && own_words(kind).is_some() => {
                return Err(unsupported(kind, path));
            }
            "metadata.namespace" => Source::Namespace,
            path => {
                // The one alias of the API: `spec.host` was the name of a pod's node.
                let is_alias = kind.resource == kinds::PODS && path == "spec.host";
                let path = if is_alias { "spec.nodeName" } else { path };
                let place = kind.selectable.iter().position(|field| *field == path);
                let place = place.ok_or_else(|| unsupported(kind, path))?;
                if kind.custom.is_some() {
                    Source::Path(kind.selectable[place])
                } else {
                    Source::Field(place)
                }
            }
        };
        Ok(Term { source, equal: term.equal, value: term.value.clone() })
    };
    fields.0.iter().map(term).collect()
}

/// How upstream says that a field cannot be selected by: kinds with fields of their own have words of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    /// `field label not supported: spec.x`
    Plain,
    /// `field label "spec.x" not supported for Job`
    OfKind,
    /// `field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.x`
    OfType,
}

/// The resources with such words, and whether they are selected by their namespace (those of the cluster are by none).
const OWN_WORDS: &[(&str, Words)] = &[
    ("certificatesigningrequests.certificates.k8s.io", Words::Plain),
    ("events", Words::Plain),
    ("events.events.k8s.io", Words::Plain),
    ("jobs.batch", Words::OfKind),
    ("namespaces", Words::Plain),
    ("nodes", Words::Plain),
    ("pods", Words::Plain),
    ("replicationcontrollers", Words::Plain),
    ("resourceslices.resource.k8s.io", Words::OfType),
    ("secrets", Words::Plain),
    ("services", Words::Plain),
];

fn own_words(kind: &Kind) -> Option<Words> {
    if kind.custom.is_some() {
        return Some(Words::Plain);
    }
    let is_it = |name: &str| {
        let (plural, group) = name.split_once('.').unwrap_or((name, ""));
        plural == kind.resource.plural() && group == kind.group
    };
    OWN_WORDS.iter().find(|(name, _)| is_it(name)).map(|(_, words)| *words)
}

fn unsupported(kind: &Kind, path: &str) -> Status {
    Status::bad_request(match own_words(kind) {
        Some(Words::Plain) => format!("field label not supported: {path}"),
        Some(Words::OfKind) => format!("field label \"{path}\" not supported for {}", kind.kind),
        Some(Words::OfType) => {
            format!("field label not supported for {}, Kind={}: {path}", kind.api_version(), kind.kind)
        }
        None => format!(
            "\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        ),
    })
}

fn value(object: &Object, source: Source) -> Cow<'_, str> {
    match source {
        Source::Name => Cow::Borrowed(&object.key.name),
        Source::Namespace => Cow::Borrowed(&object.key.namespace),
        Source::Field(place) => Cow::Borrowed(object.fields.get(place).map_or("", |value| value)),
        Source::Path(path) => {
            Cow::Owned(schema::selected(&object.to_value().unwrap_or_default(), path).into())
        }
    }
}
