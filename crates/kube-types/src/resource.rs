//! One object of any kind that is read.

use std::hash::{DefaultHasher, Hasher as _};
use std::io;

use serde_json::Value;

use crate::address;
use crate::kind::ObjectRef;
use crate::kinds::{Kind, Resource};

impl Resource {
    pub fn key(&self) -> ObjectRef {
        let meta = self.meta();
        ObjectRef::new(self.kind(), meta.namespace.clone(), meta.name.clone())
    }

    /// The object as a manifest, with `apiVersion` and `kind`: only the fields that are read.
    pub fn to_value(&self) -> Value {
        let kind = self.kind();
        // Types whose keys are text always become JSON.
        let mut value = self.fields().unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.insert("apiVersion".to_owned(), kind.api_version().into());
            fields.insert("kind".to_owned(), kind.name().into());
        }
        value
    }

    /// Hash of the fields that are read. Equal objects have equal ones, in this process; two that differ have equal ones
    /// once in 2^64.
    pub fn fingerprint(&self) -> u64 {
        // Hashed while it is written, without a copy of the object as text.
        let mut hashed = Hashed(DefaultHasher::new());
        // A writer that cannot fail, and types whose keys are text.
        let written = self.write_fields(&mut hashed);
        debug_assert!(written.is_ok(), "{written:?}");
        hashed.0.finish()
    }

    /// Reads an object of a kind that is known. Fields that nobody reads are skipped, those that are
    /// `null` count as absent. `manifests` names mistakes better.
    pub fn from_value(kind: Kind, mut value: Value) -> Result<Self, serde_json::Error> {
        strip_nulls(&mut value);
        Self::complete(kind, &mut value);
        Self::read(kind, &value)
    }

    /// Fills in what an API server fills in before it stores an object, as far as it is read here: `serviceAccountName`
    /// from its former name `serviceAccount`. Addresses become canonical.
    pub fn complete(kind: Kind, value: &mut Value) {
        let pod = kind.pod_spec().and_then(|path| path.iter().try_fold(&mut *value, |value, name| value.get_mut(name)));
        if let Some(Value::Object(spec)) = pod
            // The API server keeps both fields equal; a manifest may have only the former one, which is deprecated.
            && let Some(former) = spec.remove("serviceAccount")
            // The current name wins if a manifest has both.
            && spec.get("serviceAccountName").is_none_or(|name| name == "")
        {
            spec.insert("serviceAccountName".to_owned(), former);
        }
        address::canonicalise(kind, value);
    }
}

/// Bytes that are hashed instead of kept.
struct Hashed(DefaultHasher);

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes entries that are `null`: Kubernetes treats them as absent.
pub fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fingerprint_differs_with_the_fields_that_are_read_and_with_no_other() {
        let pod = |change: Value| {
            let mut pod = json!({"metadata": {"name": "web", "uid": "1"}, "spec": {"nodeName": "n1"}});
            pod.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            Resource::from_value(Kind::Pod, pod).unwrap().fingerprint()
        };

        assert_eq!(pod(json!({})), pod(json!({"status": {"startTime": "2026-01-02T03:04:05Z"}})));
        assert_ne!(pod(json!({})), pod(json!({"status": {"phase": "Running"}})));
        assert_ne!(pod(json!({})), pod(json!({"metadata": {"name": "web", "uid": "2"}})));
    }
}
