//! What a label selector finds by looking up is what going through all objects finds: in every version, whichever was asked before.

use object::{Change, Draft, Key, LabelSelector, Object, Resource, Snapshot, body};
use proptest::prelude::*;

const PODS: Resource = Resource::new("pods");
/// More than are gone through without a look at what is known.
const OBJECTS: usize = 700;
const NAMESPACES: [&str; 4] = ["", "a", "a-b", "b"];
const SELECTORS: [&str; 14] = [
    "app=v0",
    "app=v1",
    "app in (v1, v2)",
    "app in (v2, v9, v0)",
    "app",
    "app=",
    "app!=v1",
    "!app",
    "number=7",
    "number>650",
    "number<20,app=v2",
    "number,app notin (v0)",
    "rare=yes",
    "none=none",
];

#[derive(Clone, Debug)]
enum Step {
    Put {
        nth: usize,
        app: Option<u8>,
        number: Option<u16>,
        rare: bool,
    },
    Remove {
        nth: usize,
    },
    /// Remember this version, to be asked again later.
    Keep,
    /// Go on from a remembered version: from now on there are two histories.
    Back {
        kept: usize,
    },
    Ask {
        selector: usize,
        namespace: usize,
        kept: Option<usize>,
        after: usize,
        most: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0..OBJECTS, prop::option::of(0u8..5), prop::option::of(0u16..700), any::<bool>())
        .prop_map(|(nth, app, number, rare)| Step::Put { nth, app, number, rare });
    let asked = (0..SELECTORS.len(), 0..NAMESPACES.len(), prop::option::of(0usize..8));
    let ask = (asked, 0..2 * OBJECTS, 0usize..40).prop_map(|((selector, namespace, kept), after, most)| {
        Step::Ask { selector, namespace, kept, after, most }
    });
    let step = prop_oneof![
        6 => put,
        2 => (0..OBJECTS).prop_map(|nth| Step::Remove { nth }),
        1 => Just(Step::Keep),
        1 => (0usize..8).prop_map(|kept| Step::Back { kept }),
        8 => ask,
    ];
    prop::collection::vec(step, 0..60)
}

fn key(nth: usize) -> Key {
    Key::new(PODS, NAMESPACES[1 + nth % 3], format!("pod-{nth:04}"))
}

fn put(snapshot: &mut Snapshot, nth: usize, app: Option<u8>, number: Option<u16>, rare: bool) {
    let mut labels = serde_json::Map::new();
    labels.extend(app.map(|app| ("app".into(), format!("v{app}").into())));
    labels.extend(number.map(|number| ("number".into(), number.to_string().into())));
    labels.extend(rare.then(|| ("rare".into(), "yes".into())));
    let text = serde_json::json!({"metadata": {"labels": labels}});
    let draft = Draft::read(key(nth), [].into(), body::encode(&text)).expect("a draft");
    let revision = snapshot.revision() + 1;
    snapshot.put(draft.at(revision));
}

fn full() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for nth in 0..OBJECTS {
        put(&mut snapshot, nth, Some((nth % 4) as u8), Some(nth as u16), nth % 100 == 0);
    }
    snapshot
}

fn names<'a>(objects: impl IntoIterator<Item = &'a std::sync::Arc<Object>>) -> Vec<String> {
    objects.into_iter().map(|object| object.key.path()).collect()
}

/// Compares what is looked up with what is there.
fn check(snapshot: &Snapshot, selector: &str, namespace: &str, after: &Key, most: usize) {
    let labels = LabelSelector::parse(selector).expect("a selector");
    let matches = |object: &&std::sync::Arc<Object>| labels.matches(&object.meta.labels);
    let all: Vec<_> = snapshot.list(PODS, namespace).filter(matches).collect();
    let selected = names(snapshot.select(PODS, namespace, &labels));
    assert_eq!(selected, names(all.iter().copied()), "{selector} in {namespace:?}");
    let Some(table) = snapshot.table(PODS) else { return };
    let behind = Some((&*after.namespace, &*after.name));
    if let Some(found) = table.look_up(namespace, &labels, behind, most, |_| true) {
        let path = |key: &Key| (key.namespace.clone(), key.name.clone());
        let rest = all.iter().filter(|object| path(&object.key) > path(after)).take(most);
        assert_eq!(names(found), names(rest.copied()), "{selector} in {namespace:?} behind {after}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn looking_up_finds_what_is_there(steps in steps()) {
        let mut now = full();
        let mut kept: Vec<Snapshot> = Vec::new();
        for step in steps {
            match step {
                Step::Put { nth, app, number, rare } => put(&mut now, nth, app, number, rare),
                Step::Remove { nth } => {
                    let revision = now.revision() + 1;
                    now.remove(&key(nth), revision);
                }
                Step::Keep => kept.push(now.clone()),
                Step::Back { kept: at } => now = kept.get(at).cloned().unwrap_or(now),
                Step::Ask { selector, namespace, kept: at, after, most } => {
                    let asked = at.and_then(|at| kept.get(at)).unwrap_or(&now);
                    check(asked, SELECTORS[selector], NAMESPACES[namespace], &key(after), most);
                }
            }
        }
        for selector in SELECTORS {
            check(&now, selector, "", &key(0), usize::MAX);
        }
    }

    #[test]
    fn versions_differ_in_what_was_changed(steps in steps()) {
        let before = full();
        let mut now = before.clone();
        for step in steps {
            match step {
                Step::Put { nth, app, number, rare } => put(&mut now, nth, app, number, rare),
                Step::Remove { nth } => {
                    let revision = now.revision() + 1;
                    now.remove(&key(nth), revision);
                }
                _ => {}
            }
        }
        let (old, new) = (before.table(PODS).expect("objects"), now.table(PODS).expect("objects"));
        // What differs, carried over, makes the one of the other.
        let mut followed = before.clone();
        for (was, is) in new.changes_since(old) {
            let key = &was.or(is).expect("one of both").key;
            prop_assert_eq!(before.get(key).map(|object| object.revision), was.map(|object| object.revision));
            match is {
                Some(is) => {
                    let stored = body::without_revision(&is.body);
                    let draft = Draft::read(key.clone(), [].into(), stored).expect("a draft");
                    followed.put(draft.at(is.revision));
                }
                None => {
                    let change = followed.remove(key, 1).map(|event| event.change);
                    prop_assert_eq!(change, Some(Change::Deleted));
                }
            }
        }
        let said = |snapshot: &Snapshot| -> Vec<(String, u64)> {
            snapshot.list(PODS, "").map(|object| (object.key.path(), object.revision)).collect()
        };
        prop_assert_eq!(said(&followed), said(&now));
    }
}

#[test]
fn what_is_rare_is_looked_up_and_what_is_common_is_gone_through() {
    let mut now = full();
    let found = |snapshot: &Snapshot, namespace: &str, selector: &str| {
        let labels = LabelSelector::parse(selector).expect("a selector");
        let table = snapshot.table(PODS).expect("objects");
        table.look_up(namespace, &labels, None, usize::MAX, |_| true).map(|found| found.len())
    };
    for (namespace, selector, expected) in [
        ("", "rare=yes", Some(7)),
        ("", "none", Some(0)),
        ("", "app=v1,number=5", Some(1)),
        ("", "number", None),
        ("", "app in (v0, v1, v2, v3)", None),
        ("", "app!=v1", None),
        ("", "", None),
        // A namespace of few objects is gone through.
        ("a", "rare=yes", None),
    ] {
        assert_eq!(found(&now, namespace, selector), expected, "{selector} in {namespace:?}");
    }
    let before = now.clone();
    put(&mut now, 1, None, None, true);
    assert_eq!(found(&now, "", "rare=yes"), Some(8));
    assert_eq!(found(&before, "", "rare=yes"), None, "an older version than is known is gone through");
    assert_eq!(found(&now, "", "rare=yes"), Some(8));
}
