//! A page of a list, read object by object: 500 objects with everything that the API says of them take some 20 MiB, and only
//! some fields are kept.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::answer::{InvalidAnswer, PageMetadata};

/// Reads a page, and hands each of its objects to `each`. The objects count when the page is read to its end.
pub(crate) fn read(
    text: &[u8],
    mut each: impl FnMut(Value) -> Result<(), InvalidAnswer>,
) -> Result<PageMetadata, InvalidAnswer> {
    // serde carries only its own errors, so ours is kept beside it.
    let mut refused = None;
    let mut note = |object| each(object).map_err(|error| refused = Some(error));
    let mut json = serde_json::Deserializer::from_slice(text);
    let read = Page(&mut note).deserialize(&mut json).and_then(|metadata| json.end().map(|()| metadata));
    match refused {
        Some(error) => Err(error),
        None => Ok(read?),
    }
}

/// Takes an object; an error ends the page.
type Each<'a> = &'a mut dyn FnMut(Value) -> Result<(), ()>;

struct Page<'a>(Each<'a>);

impl<'de> DeserializeSeed<'de> for Page<'_> {
    type Value = PageMetadata;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<PageMetadata, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Page<'_> {
    type Value = PageMetadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of the API")
    }

    // `metadata` comes before `items` or, for custom resources, after it.
    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<PageMetadata, M::Error> {
        let (mut metadata, mut has_items) = (None, false);
        while let Some(name) = fields.next_key::<String>()? {
            match name.as_str() {
                "metadata" => metadata = Some(fields.next_value()?),
                // One object at a time is a tree of JSON; the others are still text.
                "items" => {
                    fields.next_value_seed(Items(self.0))?;
                    has_items = true;
                }
                _ => {
                    let _: IgnoredAny = fields.next_value()?;
                }
            }
        }
        // An answer of something between here and the API server: taken for an empty list, it would remove every object.
        if !has_items {
            return Err(M::Error::missing_field("items"));
        }
        metadata.ok_or_else(|| M::Error::missing_field("metadata"))
    }
}

struct Items<'a>(Each<'a>);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    /// An API server may write an empty list so.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
        while let Some(object) = items.next_element::<Value>()? {
            (self.0)(object).map_err(|()| S::Error::custom("an object that cannot be used"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<(Vec<String>, String), InvalidAnswer> {
        let mut names = Vec::new();
        let metadata = read(text.as_bytes(), |object| {
            names.push(object["name"].as_str().ok_or(InvalidAnswer::Nameless)?.to_owned());
            Ok(())
        })?;
        Ok((names, metadata.resource_version))
    }

    #[test]
    fn metadata_may_come_before_the_objects_or_after_them() {
        let expected = (vec!["a".to_owned(), "b".to_owned()], "7".to_owned());
        let first = r#"{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[{"name":"a"},{"name":"b"}]}"#;
        let last = r#"{"apiVersion":"v1","items":[{"name":"a"},{"name":"b"}],"metadata":{"resourceVersion":"7"}}"#;

        assert_eq!(names(first).unwrap(), expected);
        assert_eq!(names(last).unwrap(), expected);
        assert_eq!(names(r#"{"metadata":{"resourceVersion":"7"},"items":null}"#).unwrap().0, [""; 0]);
    }

    #[test]
    fn a_page_is_whole_or_an_error() {
        for text in [
            r#"{"items":[{"name":"a"}]}"#,
            r#"{"kind":"PodList","metadata":{"resourceVersion":"7"}}"#,
            r#"{"metadata":{"resourceVersion":"7"},"items":[{"name":"a"}"#,
            r#"{"metadata":{"resourceVersion":"7"},"items":[{"name":"a"}]}}"#,
            r#"{"metadata":{"resourceVersion":"7"},"items":"text"}"#,
            "[]",
            "",
        ] {
            assert!(matches!(names(text), Err(InvalidAnswer::Json(_))), "{text}");
        }
        let nameless = r#"{"metadata":{"resourceVersion":"7"},"items":[{"name":"a"},{}]}"#;
        assert!(matches!(names(nameless), Err(InvalidAnswer::Nameless)));
    }
}
