//! The defaults that the table of types can say: a value where a field is absent, and what Go writes where nothing is set.

use serde_json::{Map, Value};

use crate::Quantity;
use crate::decode::is_left_out;
use crate::types::{Expr, Field, Types};

impl Types {
    /// Fills the absent fields of an object of the named type. Doing it again changes nothing.
    pub fn default(&self, type_name: &str, value: &mut Value) {
        if let Some(expr) = self.expr_of(type_name) {
            self.default_value(&expr, value);
        }
    }

    /// Drops what Go leaves out of an object of the named type: builds that did not know of it have stored it.
    pub fn omit(&self, type_name: &str, value: &mut Value) {
        if let Some(expr) = self.expr_of(type_name) {
            self.omit_in(&expr, value);
        }
    }

    fn omit_in(&self, expr: &Expr, value: &mut Value) {
        match (expr, value) {
            (Expr::Struct(index), Value::Object(members)) => {
                for field in &self.at(*index).fields {
                    let Some(value) = members.get_mut(field.name) else { continue };
                    self.omit_in(&field.expr, value);
                    if !field.is_kept_empty() && is_left_out(field, value) {
                        members.remove(field.name);
                    }
                }
            }
            (Expr::List(item), Value::Array(items)) if item.innermost().is_some() => {
                items.iter_mut().for_each(|one| self.omit_in(item, one));
            }
            (Expr::Map(item), Value::Object(members)) if item.innermost().is_some() => {
                members.iter_mut().for_each(|(_, one)| self.omit_in(item, one));
            }
            _ => {}
        }
    }

    /// What Go writes of an object of the named type that says nothing.
    pub fn zero(&self, type_name: &str) -> Value {
        self.index(type_name).map_or(Value::Null, |index| self.zero_at(index))
    }

    fn zero_at(&self, index: usize) -> Value {
        let written = self.at(index).fields.iter().filter_map(|field| {
            let zero = match (&field.expr, field.written()?) {
                (Expr::Struct(inner), _) => self.zero_at(*inner),
                (_, zero) => zero.clone(),
            };
            Some((field.name.to_owned(), zero))
        });
        Value::Object(written.collect())
    }

    fn default_value(&self, expr: &Expr, value: &mut Value) {
        match (expr, value) {
            (Expr::Struct(index), Value::Object(members)) => self.default_members(*index, members),
            (Expr::List(item), Value::Array(items)) if self.reaches(item) => {
                items.iter_mut().for_each(|one| self.default_value(item, one));
            }
            (Expr::Map(item), Value::Object(members)) if self.reaches(item) => {
                members.iter_mut().for_each(|(_, one)| self.default_value(item, one));
            }
            (Expr::ResourceList, Value::Object(members)) => {
                members.iter_mut().for_each(|(_, one)| round_to_milli(one));
            }
            _ => {}
        }
    }

    fn default_members(&self, index: usize, members: &mut Map<String, Value>) {
        let owner = self.at(index);
        if !owner.has_defaults {
            return;
        }
        for field in &owner.fields {
            if let Some(default) = &field.default
                && !(field.omits_zero && *default == "")
                && !members.get(field.name).is_some_and(|value| is_set(field, value))
            {
                members.insert(field.name.to_owned(), default.clone());
            }
            if let Some(zero) = field.written()
                && members.get(field.name).is_none_or(Value::is_null)
            {
                members.insert(field.name.to_owned(), zero.clone());
            }
            if self.reaches(&field.expr)
                && let Some(value) = members.get_mut(field.name)
            {
                self.default_value(&field.expr, value);
            }
        }
    }

    fn reaches(&self, expr: &Expr) -> bool {
        *expr == Expr::ResourceList || expr.innermost().is_some_and(|index| self.at(index).has_defaults)
    }
}

/// Whether a value stands against its field's default.
fn is_set(field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Number(number) => !(field.default_for_zero && number.as_i64() == Some(0)),
        _ => true,
    }
}

/// Resource lists hold nothing finer than a thousandth: upstream rounds up when it decodes.
fn round_to_milli(value: &mut Value) {
    let Some(quantity) = value.as_str().and_then(|text| text.parse::<Quantity>().ok()) else {
        return;
    };
    let rounded = quantity.round_up_to_milli();
    if rounded != quantity {
        *value = rounded.to_string().into();
    }
}
