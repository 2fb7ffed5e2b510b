//! The services' models: what may be said to them, and how. Read from `data/models`, each when it is first needed.
//!
//! ```text
//! service eks 2017-11-01 rest-json
//! operation DescribeCluster GET /clusters/{name} in=DescribeClusterRequest out=DescribeClusterResponse
//! structure DescribeClusterRequest
//!  name! String in=uri as=name
//! list Subnets String as=item max=16 flat
//! string ClusterName min=1 max=100 pattern=^[0-9A-Za-z][A-Za-z0-9\-_]*
//! enum AMITypes AL2023_x86_64_STANDARD|CUSTOM
//! ```
//!
//! A line is an operation, a shape, or (indented) a member of the structure above it; `!` marks what is required.
//! `cargo run -p xtask -- import models` makes the files.

mod read;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex_lite::Regex;

/// A service's model.
pub struct Model {
    /// The name in a signature's scope.
    pub signing_name: &'static str,
    pub api_version: &'static str,
    pub protocol: Protocol,
    /// Of XML answers.
    pub namespace: &'static str,
    /// What stands before an operation's name in `X-Amz-Target`.
    pub target_prefix: &'static str,
    /// In alphabetical order.
    pub operations: Vec<OperationModel>,
    shapes: Vec<Shape>,
    /// By the code that goes over the wire, and by the shape's own name.
    errors: BTreeMap<&'static str, (u16, ShapeId)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    RestJson,
    RestXml,
    Json10,
    Json11,
    Query,
    Ec2,
}

pub struct OperationModel {
    pub name: &'static str,
    pub method: &'static str,
    /// `/clusters/{name}/tags/{key+}?list`
    pub uri: &'static str,
    pub input: Option<ShapeId>,
    pub output: Option<ShapeId>,
    pub status: u16,
    /// What an awsQuery answer is wrapped in: `CreateUserResult`.
    pub wrapper: Option<&'static str>,
    /// Nobody signs it.
    pub is_unsigned: bool,
    pub page: Option<Page>,
}

/// How an operation's list is cut into pages: names of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub input_token: &'static str,
    pub output_token: &'static str,
    pub limit: &'static str,
    pub list: &'static str,
    /// A boolean that says whether there is more.
    pub more: Option<&'static str>,
}

/// A shape's place in its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeId(u16);

pub struct Shape {
    pub name: &'static str,
    pub kind: Kind,
    /// Of lengths, or of values.
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// As the model has it.
    pub pattern: Option<&'static str>,
    pub is_sensitive: bool,
    regex: OnceLock<Option<Regex>>,
}

pub enum Kind {
    Structure {
        members: Vec<Member>,
        /// The member that is the whole body.
        payload: Option<&'static str>,
    },
    List {
        of: ShapeId,
        wire: Option<&'static str>,
        is_flat: bool,
    },
    Map {
        key: ShapeId,
        value: ShapeId,
        key_wire: Option<&'static str>,
        value_wire: Option<&'static str>,
        is_flat: bool,
    },
    String,
    /// `a|b|c`
    Enum(&'static str),
    /// Integer and long.
    Integer,
    /// Float and double.
    Double,
    Boolean,
    Timestamp(Option<TimestampFormat>),
    Blob,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampFormat {
    Iso8601,
    Unix,
    Rfc822,
}

pub struct Member {
    pub name: &'static str,
    pub of: ShapeId,
    pub is_required: bool,
    pub location: Location,
    /// Its name on the wire, if that is another.
    pub wire: Option<&'static str>,
    /// Its name in an ec2Query request, if that is yet another.
    pub query: Option<&'static str>,
    pub is_flat: bool,
}

/// Where in a REST message a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    Body,
    Uri,
    Query,
    Header,
    /// All headers with the prefix that is the wire name.
    Headers,
    Status,
}

/// File and text of every model, by signing name.
const MODELS: &[(&str, &str)] = &[
    ("autoscaling", include_str!("../../data/models/autoscaling.txt")),
    ("ec2", include_str!("../../data/models/ec2.txt")),
    ("eks", include_str!("../../data/models/eks.txt")),
    ("eks-auth", include_str!("../../data/models/eks-auth.txt")),
    ("iam", include_str!("../../data/models/iam.txt")),
    ("ssm", include_str!("../../data/models/ssm.txt")),
    ("sts", include_str!("../../data/models/sts.txt")),
];

/// The model of a service, if there is one of that signing name.
pub fn of(signing_name: &str) -> Option<&'static Model> {
    static READ: [OnceLock<Model>; MODELS.len()] = [const { OnceLock::new() }; MODELS.len()];
    let place = MODELS.iter().position(|(name, _)| *name == signing_name)?;
    Some(READ[place].get_or_init(|| read::model(MODELS[place].1)))
}

/// A model made for a test.
#[cfg(test)]
pub(crate) fn of_text(text: &'static str) -> Model {
    read::model(text)
}

/// Every signing name that has a model.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

impl Model {
    pub fn operation(&self, name: &str) -> Option<&OperationModel> {
        let place = self.operations.binary_search_by(|operation| operation.name.cmp(name)).ok()?;
        self.operations.get(place)
    }

    pub fn shape(&self, id: ShapeId) -> &Shape {
        &self.shapes[usize::from(id.0)]
    }

    /// The status and the shape of an error, by its code.
    pub fn error(&self, code: &str) -> Option<(u16, &Shape)> {
        self.errors.get(code).map(|(status, id)| (*status, self.shape(*id)))
    }

    /// All shapes, for tests over the tables.
    pub fn shapes(&self) -> &[Shape] {
        &self.shapes
    }
}

impl Shape {
    pub fn members(&self) -> &[Member] {
        match &self.kind {
            Kind::Structure { members, .. } => members,
            _ => &[],
        }
    }

    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members().iter().find(|member| member.name == name)
    }

    /// Whether a text is one that the pattern allows, from its first character to its last. What the engine cannot express (a look-ahead)
    /// is not looked at.
    pub fn matches(&self, text: &str) -> bool {
        let Some(pattern) = self.pattern else { return true };
        let regex = self.regex.get_or_init(|| Regex::new(&translate(pattern)).ok());
        regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

/// A pattern of the models in the words of our engine. They are Java's, and mean the whole text.
///
/// Categories of characters are wider here than there: letters and digits beyond ASCII are all that is beyond ASCII.
fn translate(pattern: &str) -> String {
    const WORDS: &[(&str, &str)] = &[
        // Surrogates, and what was meant for them.
        (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF"),
        (r"\u10000-\u10FFFF", r"\U00010000-\U0010FFFF"),
        (r"\p{L}", r"a-zA-Z\u00AA-\U0010FFFF"),
        (r"\p{N}", r"0-9"),
        (r"\p{Z}", r" "),
        (r"\p{ASCII}", r"\x00-\x7F"),
    ];
    let text = WORDS.iter().fold(pattern.to_owned(), |text, (from, to)| text.replace(from, to));
    format!("^(?:{text})$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_is_whole() {
        for name in names() {
            let model = of(name).expect("a model");
            assert_eq!(model.signing_name, name);
            assert!(model.operations.is_sorted_by(|a, b| a.name < b.name));
            for operation in &model.operations {
                if let Some(page) = operation.page {
                    let input = operation.input.map(|id| model.shape(id)).expect("an input");
                    let output = operation.output.map(|id| model.shape(id)).expect("an output");
                    assert!(input.member(page.input_token).is_some(), "{name} {}", operation.name);
                    for member in [Some(page.output_token), Some(page.list), page.more].into_iter().flatten()
                    {
                        assert!(output.member(member).is_some(), "{name} {} {member}", operation.name);
                    }
                }
            }
        }
    }

    #[test]
    fn all_patterns_are_understood_but_look_aheads() {
        for name in names() {
            for shape in of(name).expect("a model").shapes() {
                let Some(pattern) = shape.pattern else { continue };
                let compiled = Regex::new(&translate(pattern));
                assert!(compiled.is_ok() || pattern.contains("(?!"), "{name} {}: {pattern}", shape.name);
            }
        }
    }

    #[test]
    fn a_pattern_means_the_whole_text() {
        let shape = |service: &str, name: &str| {
            let model = of(service).expect("a model");
            model.shapes().iter().find(|shape| shape.name == name).expect("a shape")
        };
        let cluster = shape("eks", "ClusterName");
        assert!(cluster.matches("shop_1-a") && !cluster.matches("-shop") && !cluster.matches("shop!"));
        let tag = shape("iam", "tagKeyType");
        assert!(tag.matches("größe/β 1") && !tag.matches("a#b") && !tag.matches(""));
    }
}
