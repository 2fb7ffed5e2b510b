//! The ConfigMap `aws-auth` in kube-system: what mapped principals before there were access entries.
//! <https://docs.aws.amazon.com/eks/latest/userguide/auth-configmap.html>

use std::collections::BTreeMap;

use object::{Resource, Snapshot};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const CONFIG_MAPS: Resource = Resource::new("configmaps");

/// What the ConfigMap says. A part that cannot be read maps nobody; the others hold all the same, as with aws-iam-authenticator.
#[derive(Default)]
pub(crate) struct AwsAuth {
    roles: Vec<RoleMapping>,
    users: Vec<UserMapping>,
    accounts: Vec<String>,
}

#[derive(Deserialize)]
struct RoleMapping {
    #[serde(default)]
    rolearn: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    groups: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct UserMapping {
    #[serde(default)]
    userarn: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    groups: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct View {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// Whom a principal is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// A template.
    pub username: String,
    pub groups: Vec<String>,
}

impl AwsAuth {
    /// Of a cluster. Without the ConfigMap nobody is mapped.
    pub fn of(objects: &Snapshot) -> Self {
        let object = objects.find(CONFIG_MAPS, "kube-system", "aws-auth");
        let view: View = object.and_then(|object| object.decode().ok()).unwrap_or_default();
        Self::read(&view.data)
    }

    /// Whether a role is mapped by its canonical ARN, to whatever it may be.
    pub fn maps_role(&self, canonical: &str) -> bool {
        self.roles.iter().any(|role| role.rolearn.eq_ignore_ascii_case(canonical))
    }

    fn read(data: &BTreeMap<String, String>) -> Self {
        Self {
            roles: part(data, "mapRoles"),
            users: part(data, "mapUsers"),
            // With quotes or without: read as text, a number keeps its zeros.
            accounts: part(data, "mapAccounts"),
        }
    }

    /// By the principal's canonical ARN; its case does not count.
    pub fn find(&self, canonical: &str, account: &str) -> Option<Mapping> {
        let is_meant = |arn: &str| arn.eq_ignore_ascii_case(canonical);
        if let Some(role) = self.roles.iter().find(|role| is_meant(&role.rolearn)) {
            return Some(mapping(&role.username, role.groups.as_ref()));
        }
        if let Some(user) = self.users.iter().find(|user| is_meant(&user.userarn)) {
            return Some(mapping(&user.username, user.groups.as_ref()));
        }
        let is_mapped = self.accounts.iter().any(|known| known == account);
        is_mapped.then(|| Mapping { username: canonical.to_owned(), groups: Vec::new() })
    }
}

fn mapping(username: &str, groups: Option<&Vec<String>>) -> Mapping {
    Mapping { username: username.to_owned(), groups: groups.cloned().unwrap_or_default() }
}

/// One key of the ConfigMap: a list in YAML. An item that is not of its form spoils only itself, as with aws-iam-authenticator.
fn part<T: DeserializeOwned>(data: &BTreeMap<String, String>, key: &str) -> Vec<T> {
    let text = data.get(key).map(String::as_str).unwrap_or_default();
    if text.trim().is_empty() {
        return Vec::new();
    }
    if let Ok(all) = serde_saphyr::from_str(text) {
        return all;
    }
    let items = items_of(text).unwrap_or_default();
    items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect()
}

/// The text of `mapRoles` with one more role. People write comments there: what stands there stays as it is wherever it is a list in
/// lines. None if it cannot be read, since nothing can be added to that, or if an item has the role already: one that maps nobody because
/// something else in it is wrong is its author's to mend.
pub(crate) fn with_role(known: &str, arn: &str, username: &str, groups: &[&str]) -> Option<String> {
    let items = items_of(known)?;
    let is_same = |item: &Value| item["rolearn"].as_str().is_some_and(|one| one.eq_ignore_ascii_case(arn));
    if items.iter().any(is_same) {
        return None;
    }
    if items.is_empty() {
        return Some(lines_of(arn, username, groups, ""));
    }
    let gap = if known.ends_with('\n') { "" } else { "\n" };
    let indent = indent_of_items(known);
    let lines = indent.map(|indent| format!("{known}{gap}{}", lines_of(arn, username, groups, indent)));
    let is_whole = |text: &String| items_of(text).is_some_and(|all| all.len() == items.len() + 1);
    Some(lines.filter(is_whole).unwrap_or_else(|| {
        // A list in brackets, or whatever else: JSON is YAML.
        let new = json!({"groups": groups, "rolearn": arn, "username": username});
        items.iter().cloned().chain([new]).collect::<Value>().to_string()
    }))
}

/// The items of a list in YAML; none of what is none.
fn items_of(text: &str) -> Option<Vec<Value>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let items: Option<Vec<Value>> = serde_saphyr::from_str(text).ok()?;
    Some(items.unwrap_or_default())
}

fn lines_of(arn: &str, username: &str, groups: &[&str], indent: &str) -> String {
    let groups: String = groups.iter().map(|group| format!("{indent}  - {group}\n")).collect();
    format!("{indent}- groups:\n{groups}{indent}  rolearn: {arn}\n{indent}  username: {username}\n")
}

/// What stands before the items of a list in lines; none if it is no such list.
fn indent_of_items(text: &str) -> Option<&str> {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))?;
    let item = first.trim_start();
    (item == "-" || item.starts_with("- ")).then(|| &first[..first.len() - item.len()])
}

/// The text of `mapRoles` without the role, if it is mapped to that name alone in lines of its own; none if nothing is to be taken away.
pub(crate) fn without_role(known: &str, arn: &str, username: &str) -> Option<String> {
    let indent = indent_of_items(known)?;
    let is_item = |line: &str| {
        line.strip_prefix(indent).is_some_and(|rest| rest.trim_end() == "-" || rest.starts_with("- "))
    };
    let mut blocks: Vec<String> = vec![String::new()];
    for line in known.split_inclusive('\n') {
        if is_item(line) {
            blocks.push(String::new());
        }
        if let Some(last) = blocks.last_mut() {
            last.push_str(line);
        }
    }
    let is_meant = |block: &String| {
        let items: Vec<RoleMapping> = serde_saphyr::from_str(block).unwrap_or_default();
        matches!(&items[..], [one] if one.rolearn.eq_ignore_ascii_case(arn) && one.username == username)
    };
    // What is before the first item is none.
    let head = blocks.remove(0);
    let before = blocks.len();
    blocks.retain(|block| !is_meant(block));
    let gone = before - blocks.len();
    let rest = if blocks.is_empty() { "[]\n".to_owned() } else { blocks.concat() };
    let rest = format!("{head}{rest}");
    let is_whole = items_of(known)?.len() == items_of(&rest)?.len() + gone;
    (gone > 0 && is_whole).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE: &str = "arn:aws:iam::1:role/node";
    const NAME: &str = "system:node:{{EC2PrivateDNSName}}";
    const GROUPS: &[&str] = &["system:bootstrappers", "system:nodes"];
    const ITEM: &str = "- groups:\n  - system:bootstrappers\n  - system:nodes\n  rolearn: arn:aws:iam::1:role/node\n  username: system:node:{{EC2PrivateDNSName}}\n";

    /// What is added is read as it was meant, what was there before too, and what is taken away again leaves what was there.
    #[test]
    fn a_role_is_added_and_taken_away() {
        let jo = "- rolearn: arn:aws:iam::1:role/jo\n  username: jo\n";
        for (known, added, taken) in [
            ("", Some(ITEM.to_owned()), "[]\n"),
            ("[]\n", Some(ITEM.to_owned()), "[]\n"),
            (jo, Some(format!("{jo}{ITEM}")), jo),
            (jo.trim_end(), Some(format!("{jo}{ITEM}")), jo),
            (
                "# ours\n- rolearn: a\n  username: b\n",
                Some(format!("# ours\n- rolearn: a\n  username: b\n{ITEM}")),
                "# ours\n- rolearn: a\n  username: b\n",
            ),
            ("- rolearn: [", None, ""),
            ("a: b\n", None, ""),
        ] {
            let seen = with_role(known, NODE, NAME, GROUPS);
            assert_eq!(seen, added, "{known:?}");
            let Some(seen) = seen else { continue };
            assert_eq!(without_role(&seen, NODE, NAME).as_deref(), Some(taken), "{known:?}");
            assert_eq!(without_role(taken, NODE, NAME), None);
        }
    }

    #[test]
    fn lists_of_other_forms_are_added_to_as_well() {
        for known in [
            "  - rolearn: a\n    username: b\n",
            "[{rolearn: a, username: b}]",
            "-\n  rolearn: a\n  username: b\n",
        ] {
            let seen = with_role(known, NODE, NAME, GROUPS).expect("a list");
            let read = AwsAuth::read(&[("mapRoles".to_owned(), seen.clone())].into());
            for (arn, name) in [("a", "b"), (NODE, NAME)] {
                assert_eq!(read.find(arn, "1").map(|one| one.username).as_deref(), Some(name), "{seen}");
            }
        }
    }

    proptest! {
        /// Whatever somebody has written there, no item of it is lost, and what comes out can be read.
        #[test]
        fn nothing_that_stands_there_is_lost(
            text in "(( {0,2})(- |-\\n|)(rolearn: [ab]|username: b|groups: \\[x\\]|\\[\\]|# c|---|\\.\\.\\.|'|: )?\\n?){0,7}",
        ) {
            let Some(before) = items_of(&text) else {
                prop_assert_eq!(with_role(&text, NODE, NAME, GROUPS), None);
                return Ok(());
            };
            let all = with_role(&text, NODE, NAME, GROUPS).expect("a list");
            let after = items_of(&all).expect("a list");
            prop_assert_eq!(&after[..before.len()], &before[..]);
            prop_assert_eq!(after.len(), before.len() + 1);
            prop_assert_eq!(&after[before.len()]["rolearn"], NODE);
            if let Some(rest) = without_role(&all, NODE, NAME) {
                prop_assert_eq!(items_of(&rest).expect("a list"), before);
            }
        }
    }

    #[test]
    fn only_what_is_as_it_was_written_is_taken_away() {
        let own = "- rolearn: arn:aws:iam::1:role/node\n  username: mine\n";
        assert_eq!(without_role(own, NODE, NAME), None);
        assert_eq!(without_role("[{rolearn: 'arn:aws:iam::1:role/node'}]", NODE, NAME), None);
        let two = format!("{own}{ITEM}");
        assert_eq!(without_role(&two, NODE, NAME).as_deref(), Some(own));
    }

    #[test]
    fn a_principal_is_mapped_by_its_arn_or_its_account() {
        let data = [
            (
                "mapRoles",
                "- rolearn: arn:aws:iam::1:role/Node\n  username: system:node:{{EC2PrivateDNSName}}\n  groups:\n  - system:bootstrappers\n  - system:nodes\n",
            ),
            (
                "mapUsers",
                "- userarn: arn:aws:iam::1:user/ops/jo\n  username: jo\n  groups: [system:masters]\n",
            ),
            ("mapAccounts", "- \"222233334444\"\n- 012345678901\n"),
        ];
        let data: BTreeMap<String, String> =
            data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        let auth = AwsAuth::read(&data);
        let found = |arn: &str, account: &str| auth.find(arn, account).map(|one| (one.username, one.groups));
        let groups = |groups: &[&str]| groups.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found("arn:aws:iam::1:role/node", "1"),
            Some((
                "system:node:{{EC2PrivateDNSName}}".into(),
                groups(&["system:bootstrappers", "system:nodes"])
            ))
        );
        assert_eq!(
            found("arn:aws:iam::1:user/ops/jo", "1"),
            Some(("jo".into(), groups(&["system:masters"])))
        );
        let other = "arn:aws:iam::222233334444:user/x";
        assert_eq!(found(other, "222233334444"), Some((other.into(), Vec::new())));
        assert!(found("arn:aws:iam::012345678901:user/x", "012345678901").is_some());
        assert_eq!(found("arn:aws:iam::1:user/jo", "1"), None);
    }

    #[test]
    fn an_item_of_another_form_spoils_only_itself_and_is_not_added_again() {
        let jo = "- rolearn: arn:aws:iam::1:role/jo\n  username: jo\n";
        for (broken, is_there) in [
            ("- rolearn: arn:aws:iam::1:role/Node\n  username: n\n  groups: system:nodes\n", true),
            ("- rolearn: arn:aws:iam::1:role/node\n  username: [n]\n", true),
            ("- rolearn: arn:aws:iam::1:role/other\n  groups: system:masters\n", false),
            ("- just words\n", false),
        ] {
            let known = format!("{broken}{jo}");
            let auth = AwsAuth::read(&[("mapRoles".to_owned(), known.clone())].into());
            assert!(auth.maps_role("arn:aws:iam::1:role/jo"), "{broken}");
            assert!(!auth.maps_role(NODE), "{broken}");
            let Some(all) = with_role(&known, NODE, NAME, GROUPS) else {
                assert!(is_there, "{broken}");
                continue;
            };
            assert!(!is_there, "{broken}");
            let auth = AwsAuth::read(&[("mapRoles".to_owned(), all.clone())].into());
            assert!(auth.maps_role(NODE), "{all}: what is added counts, and so is added once");
            assert_eq!(with_role(&all, NODE, NAME, GROUPS), None);
        }
    }

    #[test]
    fn what_cannot_be_read_maps_nobody_and_spoils_nothing() {
        let data = [("mapRoles", "- rolearn: ["), ("mapUsers", "- userarn: a\n  username: u\n")];
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        let auth = AwsAuth::read(&data);
        assert!(auth.roles.is_empty());
        assert_eq!(auth.find("a", "1").map(|one| one.username), Some("u".into()));
    }
}
