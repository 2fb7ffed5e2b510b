//! Tokens as an expression. The grammar is that of the specification; operators are calls by cel-go's names (`_+_`).

use crate::ast::{Expr, Kind, Select};
use crate::error::Issue;
use crate::lex::{Token, tokens};
use crate::macros;
use crate::value::Value;

/// Characters of an expression: Kubernetes' limit is the object's size; cel-go's is this one.
const LENGTH_LIMIT: usize = 100_000;
/// How deep brackets may nest, and how high the tree of operators and members may become: everything that walks it recurses.
const DEPTH_LIMIT: usize = 100;
const HEIGHT_LIMIT: usize = 250;

/// Words that no variable or field may be.
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];

pub fn parse(source: &str) -> Result<Expr, Vec<Issue>> {
    if source.chars().count() > LENGTH_LIMIT {
        return Err(vec![Issue::new(0, format!("expression code point size exceeds limit: {LENGTH_LIMIT}"))]);
    }
    let mut parser = tokens(source)
        .map(|tokens| Parser { tokens, next: 0, ids: 0, depth: 0, too_high: None, or_else: (0, &[]) })
        .map_err(one)?;
    let expr = parser.expr().map_err(one)?;
    if let Some(at) = parser.too_high {
        return Err(one(Issue::new(at, format!("expression recursion limit exceeded: {HEIGHT_LIMIT}"))));
    }
    if *parser.peek() != Token::End {
        return Err(one(parser.unexpected()));
    }
    Ok(expr)
}

fn one(issue: Issue) -> Vec<Issue> {
    vec![issue]
}

pub struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    ids: usize,
    depth: usize,
    /// Where the tree became higher than it may.
    too_high: Option<usize>,
    /// What may stand at a token besides an expression: the end of a list that has just begun.
    or_else: (usize, &'static [&'static str]),
}

/// What an expression can begin with, and what may stand in its place, in the order in which the grammar's tokens are told.
const BEGINNINGS: [(&str, bool); 20] = [
    ("'['", true),
    ("']'", false),
    ("'{'", true),
    ("'}'", false),
    ("'('", true),
    ("')'", false),
    ("'.'", true),
    ("','", false),
    ("'-'", true),
    ("'!'", true),
    ("'?'", false),
    ("'true'", true),
    ("'false'", true),
    ("'null'", true),
    ("NUM_FLOAT", true),
    ("NUM_INT", true),
    ("NUM_UINT", true),
    ("STRING", true),
    ("BYTES", true),
    ("IDENTIFIER", true),
];

type Parsed = Result<Expr, Issue>;

impl Parser {
    pub fn make(&mut self, at: usize, kind: Kind) -> Expr {
        let id = self.ids;
        self.ids += 1;
        let height = 1 + kind.parts().iter().map(|part| part.height).max().unwrap_or(0);
        if height > HEIGHT_LIMIT {
            self.too_high = self.too_high.or(Some(at));
        }
        Expr { id, at, height, kind }
    }

    pub fn call(&mut self, at: usize, function: &str, args: Vec<Expr>) -> Expr {
        self.make(at, Kind::Call { target: None, function: function.to_owned(), args })
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.next].0
    }

    fn at(&self) -> usize {
        self.tokens[self.next].1
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.next].0.clone();
        // The last token is the end, and stays.
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    /// Takes a mark if it is next.
    fn takes(&mut self, mark: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Mark(next) if *next == mark);
        if is_next {
            self.advance();
        }
        is_next
    }

    fn needs(&mut self, mark: &str) -> Result<(), Issue> {
        if self.takes(mark) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Issue {
        let what = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Mark(mark) => (*mark).to_owned(),
            Token::Ident(name) | Token::Quoted(name) => name.clone(),
            Token::String(text) => format!("\"{text}\""),
            Token::Int(number) => number.to_string(),
            Token::Uint(number) => format!("{number}u"),
            Token::Double(number) => number.to_string(),
            Token::Bytes(_) => "bytes".to_owned(),
        };
        Issue::new(self.at(), format!("Syntax error: mismatched input '{what}'"))
    }

    /// As [`Self::unexpected`], where an expression should begin: what could stand there is told.
    fn no_expression(&self) -> Issue {
        let (token, more) = self.or_else;
        let more = if token == self.next { more } else { &[] };
        let fits = BEGINNINGS.iter().filter(|(told, begins)| *begins || more.contains(told));
        let fits: Vec<&str> = fits.map(|(told, _)| *told).collect();
        let Issue { at, message } = self.unexpected();
        Issue::new(at, format!("{message} expecting {{{}}}", fits.join(", ")))
    }

    /// Stops before a chain has become much too high, so that not even dropping it recurses too deep.
    fn bounded(&self, expr: &Expr) -> Result<(), Issue> {
        if expr.height <= HEIGHT_LIMIT {
            return Ok(());
        }
        Err(Issue::new(expr.at, format!("expression recursion limit exceeded: {HEIGHT_LIMIT}")))
    }

    fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T, Issue>) -> Result<T, Issue> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            let message = format!("expression recursion limit exceeded: {DEPTH_LIMIT}");
            return Err(Issue::new(self.at(), message));
        }
        let result = inside(self);
        self.depth -= 1;
        result
    }

    pub fn expr(&mut self) -> Parsed {
        self.deeper(|parser| {
            let condition = parser.or()?;
            let at = parser.at();
            if !parser.takes("?") {
                return Ok(condition);
            }
            let yes = parser.or()?;
            parser.needs(":")?;
            let no = parser.expr()?;
            Ok(parser.call(at, "_?_:_", vec![condition, yes, no]))
        })
    }

    fn or(&mut self) -> Parsed {
        self.chain(Self::and, &[("||", "_||_")])
    }

    fn and(&mut self) -> Parsed {
        self.chain(Self::relation, &[("&&", "_&&_")])
    }

    fn relation(&mut self) -> Parsed {
        let mut left = self.sum()?;
        loop {
            let at = self.at();
            let function = match self.peek() {
                Token::Mark("==") => "_==_",
                Token::Mark("!=") => "_!=_",
                Token::Mark("<=") => "_<=_",
                Token::Mark(">=") => "_>=_",
                Token::Mark("<") => "_<_",
                Token::Mark(">") => "_>_",
                Token::Ident(word) if word == "in" => "@in",
                _ => return Ok(left),
            };
            self.advance();
            let right = self.sum()?;
            left = self.call(at, function, vec![left, right]);
        }
    }

    fn sum(&mut self) -> Parsed {
        self.chain(Self::product, &[("+", "_+_"), ("-", "_-_")])
    }

    fn product(&mut self) -> Parsed {
        self.chain(Self::unary, &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")])
    }

    /// Operands with left-associative operators between them.
    fn chain(&mut self, operand: fn(&mut Self) -> Parsed, operators: &[(&str, &str)]) -> Parsed {
        let mut left = operand(self)?;
        'more: loop {
            for (mark, function) in operators {
                let at = self.at();
                if self.takes(mark) {
                    self.bounded(&left)?;
                    let right = operand(self)?;
                    left = self.call(at, function, vec![left, right]);
                    continue 'more;
                }
            }
            return Ok(left);
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        if self.takes("!") {
            let operand = self.deeper(Self::unary)?;
            return Ok(self.call(at, "!_", vec![operand]));
        }
        if !self.takes("-") {
            return self.member();
        }
        match self.peek().clone() {
            Token::Int(number) => {
                self.advance();
                let literal = self.make(at, Kind::Literal(Value::Int(number.wrapping_neg())));
                self.members(literal)
            }
            Token::Double(number) => {
                self.advance();
                let literal = self.make(at, Kind::Literal(Value::Double(-number)));
                self.members(literal)
            }
            _ => {
                let operand = self.deeper(Self::unary)?;
                Ok(self.call(at, "-_", vec![operand]))
            }
        }
    }

    fn member(&mut self) -> Parsed {
        let primary = self.primary()?;
        self.members(primary)
    }

    fn members(&mut self, mut expr: Expr) -> Parsed {
        loop {
            let at = self.at();
            self.bounded(&expr)?;
            if self.takes(".") {
                let optional = self.takes("?");
                let field = self.field_name()?;
                if !optional && self.takes("(") {
                    let args = self.arguments(")")?;
                    expr = macros::member(self, at, expr, field, args)?;
                    continue;
                }
                let how = if optional { Select::Optional } else { Select::Value };
                expr = self.make(at, Kind::Select { operand: Box::new(expr), field, how });
            } else if self.takes("[") {
                let optional = self.takes("?");
                let index = self.expr()?;
                self.needs("]")?;
                let function = if optional { "_[?_]" } else { "_[_]" };
                expr = self.call(at, function, vec![expr, index]);
            } else {
                return Ok(expr);
            }
        }
    }

    /// Behind a dot, any word is a name but those that the grammar itself uses.
    fn field_name(&mut self) -> Result<String, Issue> {
        match self.peek().clone() {
            Token::Quoted(name) => {
                self.advance();
                Ok(name)
            }
            Token::Ident(name) if !matches!(name.as_str(), "in" | "true" | "false" | "null") => {
                self.advance();
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn arguments(&mut self, end: &str) -> Result<Vec<Expr>, Issue> {
        let mut args = Vec::new();
        self.or_else = (self.next, &["')'"]);
        while !self.takes(end) {
            args.push(self.expr()?);
            if !self.takes(",") {
                self.needs(end)?;
                break;
            }
        }
        Ok(args)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let literal = match self.peek().clone() {
            // Only behind a minus is this one an integer.
            Token::Int(i64::MIN) => return Err(Issue::new(at, "invalid int literal")),
            Token::Int(number) => Value::Int(number),
            Token::Uint(number) => Value::Uint(number),
            Token::Double(number) => Value::Double(number),
            Token::String(text) => Value::from(text),
            Token::Bytes(bytes) => Value::Bytes(bytes.into()),
            Token::Ident(word) if word == "true" => Value::Bool(true),
            Token::Ident(word) if word == "false" => Value::Bool(false),
            Token::Ident(word) if word == "null" => Value::Null,
            Token::Ident(_) => return self.named(at, false),
            Token::Mark("(") => {
                self.advance();
                let inner = self.expr()?;
                self.needs(")")?;
                return Ok(inner);
            }
            Token::Mark("[") => {
                self.advance();
                return self.list(at);
            }
            Token::Mark("{") => {
                self.advance();
                return self.map(at);
            }
            Token::Mark(".") => {
                self.advance();
                return self.named(at, true);
            }
            _ => return Err(self.no_expression()),
        };
        self.advance();
        Ok(self.make(at, Kind::Literal(literal)))
    }

    /// A variable, a call or a message by name.
    fn named(&mut self, at: usize, absolute: bool) -> Parsed {
        let Token::Ident(word) = self.peek().clone() else { return Err(self.unexpected()) };
        if RESERVED.contains(&word.as_str()) {
            return Err(Issue::new(at, format!("reserved identifier: {word}")));
        }
        self.advance();
        if self.takes("(") {
            let args = self.arguments(")")?;
            return macros::global(self, at, word, args);
        }
        if let Some(name) = self.message_name(&word) {
            return self.message(at, name);
        }
        let name = if absolute { format!(".{word}") } else { word };
        Ok(self.make(at, Kind::Ident(name)))
    }

    /// `a.b.C` if a brace follows: then it names a message.
    fn message_name(&mut self, first: &str) -> Option<String> {
        let mut name = first.to_owned();
        let mut ahead = self.next;
        loop {
            match (&self.tokens[ahead].0, self.tokens.get(ahead + 1).map(|next| &next.0)) {
                (Token::Mark("{"), _) => {
                    self.next = ahead + 1;
                    return Some(name);
                }
                (Token::Mark("."), Some(Token::Ident(word))) => {
                    name = format!("{name}.{word}");
                    ahead += 2;
                }
                _ => return None,
            }
        }
    }

    fn message(&mut self, at: usize, name: String) -> Parsed {
        let mut fields = Vec::new();
        while !self.takes("}") {
            let optional = self.takes("?");
            let field = self.field_name()?;
            self.needs(":")?;
            fields.push((field, self.expr()?, optional));
            if !self.takes(",") {
                self.needs("}")?;
                break;
            }
        }
        Ok(self.make(at, Kind::Struct { name, fields }))
    }

    fn list(&mut self, at: usize) -> Parsed {
        let mut elements = Vec::new();
        self.or_else = (self.next, &["']'", "','", "'?'"]);
        while !self.takes("]") {
            let optional = self.takes("?");
            elements.push((self.expr()?, optional));
            if !self.takes(",") {
                self.needs("]")?;
                break;
            }
        }
        Ok(self.make(at, Kind::List(elements)))
    }

    fn map(&mut self, at: usize) -> Parsed {
        let mut entries = Vec::new();
        self.or_else = (self.next, &["'}'", "','", "'?'"]);
        while !self.takes("}") {
            let optional = self.takes("?");
            let key = self.expr()?;
            self.needs(":")?;
            entries.push((key, self.expr()?, optional));
            if !self.takes(",") {
                self.needs("}")?;
                break;
            }
        }
        Ok(self.make(at, Kind::Map(entries)))
    }
}
