//! Types of the `http` crate in dumps.

use http::{HeaderName, HeaderValue};
use serde::Serializer;
use serde::ser::SerializeSeq as _;

pub(crate) fn name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

pub(crate) fn names<S: Serializer>(names: &[HeaderName], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(HeaderName::as_str))
}

pub(crate) fn lines<S: Serializer>(lines: &[(HeaderName, HeaderValue)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut sequence = serializer.serialize_seq(Some(lines.len()))?;
    for (name, value) in lines {
        sequence.serialize_element(&format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))?;
    }
    sequence.end()
}
