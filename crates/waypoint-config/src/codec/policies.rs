//! Policies and rules for tokens. They travel as JSON: their types read and write it, and refuse fields that they do not know.

use proto::waypoint as wire;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Invalid, Problem, Within as _};
use crate::config::Policies;

/// `None` without any.
pub(super) fn encode(policies: &Policies) -> Option<wire::Policies> {
    let Policies { http, jwt } = policies;
    let encoded =
        || wire::Policies { http: http.iter().map(to_json).collect(), jwt: jwt.iter().map(to_json).collect() };
    (!policies.is_empty()).then(encoded)
}

pub(super) fn decode(policies: Option<wire::Policies>) -> Result<Policies, Invalid> {
    let Some(wire::Policies { http, jwt }) = policies else { return Ok(Policies::default()) };
    let read =
        || -> Result<_, Invalid> { Ok(Policies { http: from_json("http", &http)?, jwt: from_json("jwt", &jwt)? }) };
    read().within("policies")
}

/// Types whose keys are text always become JSON; an empty text would be refused by the reader.
pub(super) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn from_json<T: DeserializeOwned>(field: &str, texts: &[String]) -> Result<Vec<T>, Invalid> {
    let read = |(index, text): (usize, &String)| {
        serde_json::from_str(text).map_err(|error| Problem::Json(error.to_string())).within(format!("{field}[{index}]"))
    };
    texts.iter().enumerate().map(read).collect()
}
