//! A token in its compact form (RFC 7515 section 3.1): parts, header and claims. Nothing of it is trusted before `verify`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::TokenError;
use crate::algorithm::Algorithm;

/// Longest token in bytes.
const MAX_TOKEN_BYTES: usize = 32_768;

const FORM: TokenError =
    TokenError::Malformed("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections");

/// A token that is well-formed. It has no `Debug`: tokens are not logged.
pub(crate) struct Token<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    /// The payload as it was sent, in base64url.
    pub(crate) payload: &'a str,
    /// An object.
    pub(crate) claims: Value,
    pub(crate) issuer: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) audiences: Vec<String>,
    /// Seconds since 1970.
    pub(crate) not_before: Option<u64>,
    pub(crate) expires: Option<u64>,
    /// Bytes that were signed.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(FORM);
        };
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(FORM);
        }
        let (algorithm, key_id) = read_header(header)?;
        let claims = object(payload, "Jwt payload is an invalid Base64url encoded", "Jwt payload is an invalid JSON")?;
        let text_of = |name, message| claim_text(&claims, name, message);
        let issuer = text_of("iss", "Jwt payload [iss] field is not a string")?;
        let subject = text_of("sub", "Jwt payload [sub] field is not a string")?;
        text_of("jti", "Jwt payload [jti] field is not a string")?;
        time(
            &claims,
            "iat",
            "Jwt payload [iat] field is not an integer",
            "Jwt payload [iat] field is not a positive 64 bit integer",
        )?;
        let not_before = time(
            &claims,
            "nbf",
            "Jwt payload [nbf] field is not an integer",
            "Jwt payload [nbf] field is not a positive 64 bit integer",
        )?;
        let expires = time(
            &claims,
            "exp",
            "Jwt payload [exp] field is not an integer",
            "Jwt payload [exp] field is not a positive 64 bit integer",
        )?;
        let audiences = audiences(&claims)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| TokenError::Malformed("Jwt signature is an invalid Base64url encoded"))?;
        let signed = text.as_bytes().get(..header.len() + 1 + payload.len()).ok_or(FORM)?;
        let claims = Value::Object(claims);
        Ok(Self {
            algorithm,
            key_id,
            payload,
            claims,
            issuer,
            subject,
            audiences,
            not_before,
            expires,
            signed,
            signature,
        })
    }
}

fn read_header(text: &str) -> Result<(Algorithm, Option<String>), TokenError> {
    let header = object(text, "Jwt header is an invalid Base64url encoded", "Jwt header is an invalid JSON")?;
    let algorithm = header
        .get("alg")
        .and_then(Value::as_str)
        .ok_or(TokenError::Malformed("Jwt header [alg] field is required and must be a string"))?;
    let algorithm = Algorithm::by_name(algorithm).ok_or(TokenError::UnsupportedAlgorithm)?;
    // Whatever the extensions are: they change what the signature means (`b64`, RFC 7797), and nobody here knows them.
    if header.contains_key("crit") {
        return Err(TokenError::CriticalExtension);
    }
    let key_id = claim_text(&header, "kid", "Jwt header [kid] field is not a string")?;
    // Keys that come with the token (`jwk`, `jku`, `x5c`, `x5u`) say nothing about the issuer: they are not looked at.
    Ok((algorithm, key_id))
}

fn object(text: &str, not_base64: &'static str, not_json: &'static str) -> Result<Map<String, Value>, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed(not_base64))?;
    // An object, and nothing behind it.
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed(not_json))
}

fn claim_text(claims: &Map<String, Value>, name: &str, message: &'static str) -> Result<Option<String>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(TokenError::Malformed(message)),
    }
}

/// Reads a time. A fraction of a second is cut off (`NumericDate`, RFC 7519 section 2).
fn time(
    claims: &Map<String, Value>,
    name: &str,
    not_a_number: &'static str,
    out_of_range: &'static str,
) -> Result<Option<u64>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if !value.is_number() {
        return Err(TokenError::Malformed(not_a_number));
    }
    let whole = value.as_u64().or_else(|| {
        // Below 2^53 every whole number is exact.
        let seconds = value.as_f64().filter(|seconds| (0.0..9_007_199_254_740_992.0).contains(seconds));
        seconds.map(|seconds| seconds as u64)
    });
    whole.map(Some).ok_or(TokenError::Malformed(out_of_range))
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, TokenError> {
    const MESSAGE: TokenError = TokenError::Malformed("Jwt payload [aud] field is not a string or string list");
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(audience)) => Ok(vec![audience.clone()]),
        Some(Value::Array(list)) => {
            list.iter().map(|item| item.as_str().map(ToOwned::to_owned).ok_or(MESSAGE)).collect()
        }
        Some(_) => Err(MESSAGE),
    }
}
