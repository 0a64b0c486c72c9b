//! Structural schema (OpenAPI 3, as the API server wants it in a CustomResourceDefinition) of a type, from the way in which it
//! is deserialized: a deserializer that has no data, but records which fields, values and numbers a type asks for.

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer as _, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde_json::{Map, Value, json};

/// Text that is given to a type that asks for some: it is a number, too, for types that parse it.
const TEXT: &str = "1";

/// A type whose form cannot be seen from its deserialization.
pub type SchemaError = de::value::Error;

/// Returns the schema of a type. None of its fields is required.
///
/// # Errors
/// When the type accepts several forms, or refuses `1` where it asks for a text or number.
pub(crate) fn of<T: DeserializeOwned>() -> Result<Value, SchemaError> {
    let mut schema = Value::Null;
    T::deserialize(Recorder { schema: &mut schema })?;
    Ok(schema)
}

/// Writes down what a type asks for.
struct Recorder<'a> {
    schema: &'a mut Value,
}

impl Recorder<'_> {
    fn integer<'de, V: Visitor<'de>>(self, minimum: i64, maximum: u64, visitor: V) -> Result<V::Value, SchemaError> {
        *self.schema = json!({"type": "integer", "minimum": minimum, "maximum": maximum});
        visitor.visit_u64(1)
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        *self.schema = json!({"type": "string"});
        visitor.visit_str(TEXT)
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
            // No field of a resource is wider than this on both sides.
            self.integer(i64::try_from(<$type>::MIN).unwrap_or(i64::MIN), u64::try_from(<$type>::MAX).unwrap_or(u64::MAX), visitor)
        })*
    };
}

macro_rules! unsupported {
    ($($method:ident,)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, SchemaError> {
            Err(SchemaError::custom(concat!(stringify!($method), ": a form that no resource has")))
        })*
    };
}

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = SchemaError;

    integers! {
        deserialize_i32: i32,
        deserialize_i64: i64,
        deserialize_u16: u16,
        deserialize_u32: u32,
    }

    unsupported! {
        deserialize_any, deserialize_i8, deserialize_i16, deserialize_u8, deserialize_f32,
        deserialize_char, deserialize_bytes, deserialize_byte_buf, deserialize_unit, deserialize_ignored_any,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        *self.schema = json!({"type": "boolean"});
        visitor.visit_bool(false)
    }

    /// An API server reads integers as signed ones.
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        self.integer(0, i64::MAX.unsigned_abs(), visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        *self.schema = json!({"type": "number"});
        visitor.visit_f64(1.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        self.text(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, SchemaError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, _: V) -> Result<V::Value, SchemaError> {
        Err(SchemaError::custom(format!("{name} has no fields")))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        let mut items = Value::Null;
        let list = visitor.visit_seq(OneItem { item: Some(&mut items) })?;
        *self.schema = json!({"type": "array", "items": items});
        Ok(list)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, SchemaError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, SchemaError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, SchemaError> {
        let mut values = Value::Null;
        let map = visitor.visit_map(OneEntry { has_entry: true, values: &mut values })?;
        *self.schema = json!({"type": "object", "additionalProperties": values});
        Ok(map)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SchemaError> {
        let mut properties = Map::new();
        let found = visitor.visit_map(Fields { left: fields, name: "", properties: &mut properties })?;
        *self.schema = json!({"type": "object", "properties": properties});
        Ok(found)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, SchemaError> {
        let Some(first) = variants.first() else { return Err(SchemaError::custom(format!("{name} has no values"))) };
        *self.schema = json!({"type": "string", "enum": variants});
        visitor.visit_enum(Variant(first))
    }
}

/// The items of a list: one.
struct OneItem<'a> {
    item: Option<&'a mut Value>,
}

impl<'de> SeqAccess<'de> for OneItem<'_> {
    type Error = SchemaError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, SchemaError> {
        self.item.take().map(|schema| seed.deserialize(Recorder { schema })).transpose()
    }
}

/// The entries of a map: one.
struct OneEntry<'a> {
    has_entry: bool,
    values: &'a mut Value,
}

impl<'de> MapAccess<'de> for OneEntry<'_> {
    type Error = SchemaError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, SchemaError> {
        let has_entry = std::mem::take(&mut self.has_entry);
        // Keys are text in JSON, whatever their type makes of it.
        has_entry.then(|| seed.deserialize(text(TEXT))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, SchemaError> {
        seed.deserialize(Recorder { schema: self.values })
    }
}

/// The fields of a struct: each of them.
struct Fields<'a> {
    left: &'static [&'static str],
    name: &'static str,
    properties: &'a mut Map<String, Value>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = SchemaError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, SchemaError> {
        let Some((name, left)) = self.left.split_first() else { return Ok(None) };
        (self.name, self.left) = (name, left);
        seed.deserialize(text(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, SchemaError> {
        let schema = self.properties.entry(self.name).or_insert(Value::Null);
        seed.deserialize(Recorder { schema })
    }
}

/// A value of an enumeration, which has no data.
struct Variant(&'static str);

impl<'de> EnumAccess<'de> for Variant {
    type Error = SchemaError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), SchemaError> {
        Ok((seed.deserialize(text(self.0))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = SchemaError;

    fn unit_variant(self) -> Result<(), SchemaError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, SchemaError> {
        Err(SchemaError::custom(format!("{} has data", self.0)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, SchemaError> {
        Err(SchemaError::custom(format!("{} has data", self.0)))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, SchemaError> {
        Err(SchemaError::custom(format!("{} has data", self.0)))
    }
}

fn text(text: &'static str) -> StrDeserializer<'static, SchemaError> {
    text.into_deserializer()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Outer {
        some_text: String,
        port: Option<u16>,
        on: bool,
        share: f64,
        size: u64,
        list: Vec<Inner>,
        by_name: BTreeMap<String, i64>,
    }

    #[derive(Deserialize)]
    struct Inner {
        #[expect(dead_code, reason = "only its form matters")]
        mode: Mode,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "UPPERCASE")]
    enum Mode {
        On,
        Off,
    }

    #[test]
    fn a_schema_has_the_fields_values_and_bounds_of_the_type() {
        assert_eq!(
            of::<Outer>().unwrap(),
            json!({"type": "object", "properties": {
                "someText": {"type": "string"},
                "port": {"type": "integer", "minimum": 0, "maximum": 65535},
                "on": {"type": "boolean"},
                "share": {"type": "number"},
                "size": {"type": "integer", "minimum": 0, "maximum": i64::MAX},
                "list": {"type": "array", "items": {"type": "object", "properties": {
                    "mode": {"type": "string", "enum": ["ON", "OFF"]},
                }}},
                "byName": {"type": "object", "additionalProperties":
                    {"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}},
            }})
        );
    }

    #[test]
    fn a_type_of_several_forms_has_no_schema() {
        assert!(of::<Value>().is_err());
        assert!(of::<Vec<u8>>().is_err());
    }
}
