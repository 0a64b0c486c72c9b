//! The fields that each kind has, and the types of their values: what an API server checks before it stores an object.
//! It does not know which of them have an effect here.

mod check;

use std::collections::HashMap;
use std::sync::LazyLock;

pub(crate) use check::check;

/// Type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    String,
    /// A string of which these are the only values.
    Choice(Vec<&'static str>),
    Int,
    Bool,
    Quantity,
    /// A number or a name.
    Port,
    Time,
    /// Text in base64.
    Bytes,
    /// A string that no message shows.
    Secret,
    /// A value that is not checked.
    Any,
    List(Box<Self>),
    Map(Box<Self>),
    /// Index of a [`Fields`].
    Object(usize),
}

/// Fields of an object type by name.
type Fields = HashMap<&'static str, Type>;

/// Every object type of the tables.
struct Schema {
    by_name: HashMap<&'static str, usize>,
    types: Vec<Fields>,
}

// Parsed at the first use: programs that read no manifests do not pay for it.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::parse(&TABLES));

const TABLES: [&str; 3] = [include_str!("kubernetes.txt"), include_str!("istio.txt"), include_str!("gateway.txt")];

impl Schema {
    fn parse(tables: &[&'static str]) -> Self {
        let lines = || tables.iter().flat_map(|table| table.lines()).filter(|line| !line.starts_with('#'));
        let entries = || lines().filter_map(|line| line.split_once(": "));
        // All names before any type: types refer to each other, also forwards and to themselves.
        let by_name: HashMap<_, _> = entries().enumerate().map(|(index, (name, _))| (name, index)).collect();
        let types = entries()
            .map(|(_, fields)| {
                let field = |field: &'static str| match (field.split_once(':'), field.split_once('=')) {
                    (Some((name, form)), _) => (name, parse_type(form, &by_name)),
                    (None, Some((name, values))) => (name, Type::Choice(values.split('|').collect())),
                    (None, None) => (field, Type::String),
                };
                fields.split_whitespace().map(field).collect()
            })
            .collect();
        Self { by_name, types }
    }

    fn fields(&self, name: &str) -> Option<&Fields> {
        self.types.get(*self.by_name.get(name)?)
    }
}

fn parse_type(form: &'static str, by_name: &HashMap<&'static str, usize>) -> Type {
    if let Some(item) = form.strip_prefix("[]") {
        return Type::List(Box::new(parse_type(item, by_name)));
    }
    if let Some(item) = form.strip_prefix("{}") {
        return Type::Map(Box::new(parse_type(item, by_name)));
    }
    match form {
        "string" => Type::String,
        "int" => Type::Int,
        "bool" => Type::Bool,
        "quantity" => Type::Quantity,
        "port" => Type::Port,
        "time" => Type::Time,
        "bytes" => Type::Bytes,
        "secret" => Type::Secret,
        // A test shows that every other name has a line of its own.
        name => by_name.get(name).map_or(Type::Any, |index| Type::Object(*index)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube_types::Kind;

    #[test]
    fn every_kind_and_every_type_that_a_field_names_is_in_the_tables() {
        for kind in Kind::ALL.iter().copied() {
            assert!(SCHEMA.fields(kind.name()).is_some(), "{kind}");
        }
        let tables = TABLES.concat();
        let mut lines = 0;
        for line in tables.lines().filter(|line| !line.starts_with('#')) {
            let (name, fields) = line.split_once(": ").unwrap();
            for form in fields.split_whitespace().filter_map(|field| field.split_once(':')).map(|(_, form)| form) {
                let form = form.trim_start_matches(['[', ']', '{', '}']);
                let is_basic =
                    ["string", "int", "bool", "quantity", "port", "time", "bytes", "secret", "any"].contains(&form);
                assert!(is_basic || SCHEMA.by_name.contains_key(form), "{name}: {form}");
            }
            lines += 1;
        }
        assert_eq!(lines, SCHEMA.by_name.len(), "a type has two lines");
    }
}
