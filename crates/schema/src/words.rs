//! What the types of the API are, in words: for `kubectl explain`.
//!
//! The table stays a text in the binary, whose pages are not even read until somebody asks for a document; then it is taken apart for as long
//! as that document takes to make.

use std::collections::HashMap;

/// A table of descriptions, taken apart. Its form is told in the table's own head.
#[derive(Debug, Default)]
pub struct Words {
    types: HashMap<&'static str, About>,
    /// For types whose name ends so, in the order in which they are asked.
    endings: Vec<(&'static str, About)>,
}

/// What is said of a type.
#[derive(Debug, Default)]
struct About {
    text: &'static str,
    /// The type whose words hold for fields that have none here.
    like: Option<&'static str>,
    /// Sorted by name.
    fields: Vec<(&'static str, &'static str)>,
}

impl Words {
    pub fn parse(text: &'static str) -> Self {
        let mut words = Self::default();
        let mut lines = text.lines().filter(|line| !line.starts_with('#')).peekable();
        while let Some(line) = lines.next() {
            let mut columns = line.split('\t');
            let name = columns.next().unwrap_or_default();
            let mut about = About { text: columns.next().unwrap_or_default(), ..About::default() };
            about.like = columns.next().and_then(|like| like.strip_prefix('<'));
            while let Some(field) = lines.next_if(|line| line.starts_with('\t')) {
                about.fields.extend(field[1..].split_once('\t'));
            }
            match name.strip_prefix('*') {
                Some(ending) => words.endings.push((ending, about)),
                None => {
                    words.types.insert(name, about);
                }
            }
        }
        words
    }

    /// What a type is; empty if nothing is said of it.
    pub fn of_type(&self, name: &str) -> &'static str {
        let own = self.types.get(name).map(|about| about.text);
        own.or_else(|| self.ending(name).next().map(|about| about.text)).unwrap_or_default()
    }

    /// What a field of a type is; empty if nothing is said of it.
    pub fn of_field(&self, type_name: &str, field: &str) -> &'static str {
        let mut next = self.types.get(type_name);
        // What a type points to may point on; so many steps are enough for any that does not go round.
        for _ in 0..4 {
            let Some(about) = next else { break };
            if let Some(text) = about.field(field) {
                return text;
            }
            next = about.like.and_then(|like| self.types.get(like));
        }
        self.ending(type_name).find_map(|about| about.field(field)).unwrap_or_default()
    }

    fn ending(&self, type_name: &str) -> impl Iterator<Item = &About> {
        self.endings.iter().filter(move |(ending, _)| type_name.ends_with(ending)).map(|(_, about)| about)
    }

    /// Everything that is described: types, each with the fields that have words of their own.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, impl Iterator<Item = &'static str>)> {
        self.types.iter().map(|(name, about)| (*name, about.fields.iter().map(|(field, _)| *field)))
    }
}

impl About {
    fn field(&self, name: &str) -> Option<&'static str> {
        let at = self.fields.binary_search_by(|(held, _)| (*held).cmp(name)).ok()?;
        Some(self.fields[at].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_near_first() {
        let words = Words::parse(
            "# head\n*Status\tA state.\n\tphase\tWhere it is.\n*\tSomething.\n\tkind\tIts kind.\nA\tAn A.\n\tx\tIts x.\nB\tA B.\t<A\n\ty\tIts y.\nBStatus\tHow B is.",
        );
        let texts = ["A", "B", "BStatus", "CStatus", "D"].map(|name| words.of_type(name));
        assert_eq!(texts, ["An A.", "A B.", "How B is.", "A state.", "Something."]);
        let fields = [("A", "x"), ("B", "x"), ("B", "y"), ("BStatus", "phase"), ("B", "kind"), ("A", "y")];
        let texts = fields.map(|(owner, field)| words.of_field(owner, field));
        assert_eq!(texts, ["Its x.", "Its x.", "Its y.", "Where it is.", "Its kind.", ""]);
    }
}
