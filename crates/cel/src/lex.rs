//! A text as tokens.

use crate::error::Issue;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    Ident(String),
    /// A field's name in back quotes: `a.`b-c``.
    Quoted(String),
    /// An operator or bracket, by its text.
    Mark(&'static str),
    End,
}

/// Operators and brackets, longer ones first.
const MARKS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "(", ")", "[", "]", "{", "}", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%",
];

/// Each token with the place of its first character.
pub fn tokens(source: &str) -> Result<Vec<(Token, usize)>, Issue> {
    let mut lexer = Lexer { text: source.chars().collect(), at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let token = lexer.token()?;
        let ended = token == Token::End;
        tokens.push((token, at));
        if ended {
            return Ok(tokens);
        }
    }
}

struct Lexer {
    text: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn starts_with(&self, what: &str) -> bool {
        what.chars().enumerate().all(|(index, c)| self.peek(index) == Some(c))
    }

    fn skip_blanks(&mut self) {
        while let Some(c) = self.peek(0) {
            if matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}') {
                self.at += 1;
            } else if self.starts_with("//") {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else {
                return;
            }
        }
    }

    fn token(&mut self) -> Result<Token, Issue> {
        let Some(c) = self.peek(0) else { return Ok(Token::End) };
        if let Some(quoted) = self.quoted()? {
            return Ok(quoted);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            return Ok(Token::Ident(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_')));
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        if c == '`' {
            return self.back_quoted();
        }
        for mark in MARKS {
            if self.starts_with(mark) {
                self.at += mark.len();
                return Ok(Token::Mark(mark));
            }
        }
        Err(Issue::new(self.at, format!("Syntax error: token recognition error at: '{c}'")))
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(&fits) {
            self.at += 1;
        }
        self.text[start..self.at].iter().collect()
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let start = self.at;
        let wrong = |message: &str| Issue::new(start, message.to_owned());
        if self.starts_with("0x") || self.starts_with("0X") {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            return self.integer(&digits, 16, start);
        }
        let mut text = self.take_while(|c| c.is_ascii_digit());
        let mut is_double = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            is_double = true;
            self.at += 1;
            text = format!("{text}.{}", self.take_while(|c| c.is_ascii_digit()));
        }
        let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
        if matches!(self.peek(0), Some('e' | 'E')) && self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit())
        {
            is_double = true;
            let exponent: String = self.text[self.at..=self.at + sign].iter().collect();
            self.at += 1 + sign;
            text = format!("{text}{exponent}{}", self.take_while(|c| c.is_ascii_digit()));
        }
        if !is_double {
            return self.integer(&text, 10, start);
        }
        text.parse().map(Token::Double).map_err(|_| wrong("invalid double literal"))
    }

    fn integer(&mut self, digits: &str, radix: u32, start: usize) -> Result<Token, Issue> {
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            let read = u64::from_str_radix(digits, radix);
            return read.map(Token::Uint).map_err(|_| Issue::new(start, "invalid uint literal"));
        }
        // The smallest integer is written with a sign, which is not part of this token: the parser asks for its magnitude.
        match u64::from_str_radix(digits, radix) {
            Ok(number) if number == 1 << 63 => Ok(Token::Int(i64::MIN)),
            Ok(number) => {
                i64::try_from(number).map(Token::Int).map_err(|_| Issue::new(start, "invalid int literal"))
            }
            Err(_) => Err(Issue::new(start, "invalid int literal")),
        }
    }

    fn back_quoted(&mut self) -> Result<Token, Issue> {
        let start = self.at;
        self.at += 1;
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' '));
        if self.peek(0) != Some('`') || name.is_empty() {
            return Err(Issue::new(start, "Syntax error: token recognition error at: '`'"));
        }
        self.at += 1;
        Ok(Token::Quoted(name))
    }

    /// A string or bytes, if one starts here: a prefix of `r` and `b` in any case and order, then quotes.
    fn quoted(&mut self) -> Result<Option<Token>, Issue> {
        let start = self.at;
        let (mut raw, mut bytes, mut skip) = (false, false, 0);
        while let Some(c) = self.peek(skip) {
            match c {
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                _ => break,
            }
            skip += 1;
        }
        let Some(quote @ ('"' | '\'')) = self.peek(skip) else { return Ok(None) };
        self.at += skip;
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        self.at += if triple { 3 } else { 1 };
        let mut content = Content { text: String::new(), bytes: Vec::new(), is_bytes: bytes };
        loop {
            let Some(c) = self.peek(0) else {
                return Err(Issue::new(start, "Syntax error: unterminated string"));
            };
            if c == quote && (!triple || (self.peek(1) == Some(quote) && self.peek(2) == Some(quote))) {
                self.at += if triple { 3 } else { 1 };
                break;
            }
            if c == '\n' && !triple {
                return Err(Issue::new(start, "Syntax error: unterminated string"));
            }
            self.at += 1;
            if c == '\\' && !raw {
                self.escape(&mut content)?;
            } else {
                content.push(c);
            }
        }
        Ok(Some(if bytes { Token::Bytes(content.bytes) } else { Token::String(content.text) }))
    }

    /// What stands behind a backslash.
    fn escape(&mut self, content: &mut Content) -> Result<(), Issue> {
        let at = self.at;
        let wrong = || Issue::new(at.saturating_sub(1), "unable to unescape string");
        let c = self.peek(0).ok_or_else(wrong)?;
        self.at += 1;
        let plain = match c {
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            '\\' | '\'' | '"' | '`' | '?' => Some(c),
            _ => None,
        };
        if let Some(plain) = plain {
            content.push(plain);
            return Ok(());
        }
        let (digits, radix, skip) = match c {
            'x' | 'X' => (2, 16, 0),
            'u' => (4, 16, 0),
            'U' => (8, 16, 0),
            '0'..='3' => (3, 8, 1),
            _ => return Err(wrong()),
        };
        self.at -= skip;
        let text: String = (0..digits).map_while(|index| self.peek(index)).collect();
        let code = u32::from_str_radix(&text, radix).map_err(|_| wrong())?;
        self.at += digits;
        if content.is_bytes && !matches!(c, 'u' | 'U') {
            content.bytes.push(u8::try_from(code).map_err(|_| wrong())?);
        } else {
            content.push(char::from_u32(code).ok_or_else(wrong)?);
        }
        Ok(())
    }
}

/// What a literal holds so far.
struct Content {
    text: String,
    bytes: Vec<u8>,
    is_bytes: bool,
}

impl Content {
    fn push(&mut self, c: char) {
        if self.is_bytes {
            self.bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            self.text.push(c);
        }
    }
}
