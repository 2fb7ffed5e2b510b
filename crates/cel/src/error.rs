use std::fmt;

/// Why a text is no valid expression: what is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub message: String,
    /// Characters from the start of the text.
    pub at: usize,
}

impl Issue {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), at }
    }

    /// As cel-go prints it, with the line and a mark under the place:
    ///
    /// ```text
    /// ERROR: <input>:1:6: undefined field 'x'
    ///  | self.x
    ///  | .....^
    /// ```
    pub fn render(&self, source: &str) -> String {
        if source.is_empty() {
            // Upstream's parser has no place and no line to show.
            return format!("ERROR: <input>:1:0: {}", self.message);
        }
        let before: Vec<char> = source.chars().take(self.at).collect();
        let line = before.iter().filter(|&&c| c == '\n').count();
        let column = before.iter().rev().take_while(|&&c| c != '\n').count();
        let text = source.split('\n').nth(line).unwrap_or_default();
        let marks = ".".repeat(column);
        format!("ERROR: <input>:{}:{}: {}\n | {text}\n | {marks}^", line + 1, column + 1, self.message)
    }
}

/// All issues of a text, one under the other.
pub fn render(issues: &[Issue], source: &str) -> String {
    issues.iter().map(|issue| issue.render(source)).collect::<Vec<_>>().join("\n")
}

/// Why an evaluation gave no value. An error is a value of CEL: `false && error` is false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// `no such key: name`
    Failed(String),
    /// The budget is used up: nothing absorbs this one.
    OverBudget,
}

impl EvalError {
    pub fn new(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub(crate) fn no_such_key(key: impl fmt::Display) -> Self {
        Self::Failed(format!("no such key: {key}"))
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::Failed("no such overload".into())
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) => f.write_str(message),
            Self::OverBudget => f.write_str("operation cancelled: actual cost limit exceeded"),
        }
    }
}

impl std::error::Error for EvalError {}
