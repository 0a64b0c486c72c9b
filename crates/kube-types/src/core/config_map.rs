//! ConfigMap, Secret, ServiceAccount, PersistentVolumeClaim: plain data and plain names.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::meta::{ObjectMeta, StringMap};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigMap {
    pub metadata: ObjectMeta,
    // The API refuses a key that is in `data` and in `binaryData`, so that neither has to win.
    pub data: StringMap,
    /// Base64 (RFC 4648).
    #[serde(skip_serializing_if = "StringMap::is_empty")]
    pub binary_data: StringMap,
}

/// Its values are shown nowhere: not by `Debug`, and not in what is said of a mistake in them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Secret {
    pub metadata: ObjectMeta,
    /// Base64 (RFC 4648).
    // Values are checked by the one who decodes them: the API server refuses what is not base64.
    #[serde(skip_serializing_if = "SecretMap::is_empty")]
    pub data: SecretMap,
    /// Plain text; wins over `data`.
    // Only in manifests: the API server moves it into `data` and never returns it.
    #[serde(skip_serializing_if = "SecretMap::is_empty")]
    pub string_data: SecretMap,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
}

/// Values of a Secret by key.
pub type SecretMap = std::collections::BTreeMap<String, SecretText>;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written by hand, so that a field added later is not shown by a derive.
        f.debug_struct("Secret").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

/// Text that `Debug` and errors do not show.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct SecretText(String);

impl SecretText {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // `deserialize_any` and not `deserialize_str`: a number in the place of text must come to the visitor, which
        // does not quote it.
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

/// Serde's own message for a wrong type has the value in it.
const NOT_TEXT: &str = "expected text: a number or a truth value of a Secret has to be in quotes";

impl Visitor<'_> for SecretVisitor {
    type Value = SecretText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(SecretText(value.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Err(E::custom(NOT_TEXT))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Err(E::custom(NOT_TEXT))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Err(E::custom(NOT_TEXT))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Err(E::custom(NOT_TEXT))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceAccount {
    pub metadata: ObjectMeta,
}

/// A volume that pods name. How much of what storage it asks for is not read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PersistentVolumeClaim {
    pub metadata: ObjectMeta,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_its_values_to_nobody_who_did_not_ask() {
        let secret: Secret = serde_json::from_str(
            r#"{"metadata": {"name": "s"}, "data": {"a": "aGlkZGVu"}, "stringData": {"b": "hidden"}}"#,
        )
        .unwrap();

        let shown = format!("{secret:?} {:?}", secret.string_data);

        assert!(!shown.contains("hidden") && !shown.contains("aGlkZGVu"), "{shown}");
        assert_eq!(secret.string_data["b"].expose(), "hidden");
    }

    #[test]
    fn a_mistake_in_a_secret_does_not_show_its_value() {
        for value in ["4711", "4711.5", "-4711", "true"] {
            let text = format!(r#"{{"stringData": {{"password": {value}}}}}"#);
            let said = serde_json::from_str::<Secret>(&text).unwrap_err().to_string();
            assert!(said.contains("in quotes") && !said.contains(value), "{said}");
        }
    }
}
