//! Reasons for which a token is refused, in the words of Envoy 1.40, and the answer that a client gets.

/// Reason for which a token is refused. `Display` is the body of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// A part of the token that is missing or has another form. The text is the whole message.
    #[error("{0}")]
    Malformed(&'static str),
    /// `none`, an algorithm with shared keys, or one that nobody knows.
    #[error("Jwt header [alg] is not supported")]
    UnsupportedAlgorithm,
    /// The header asks for an extension (`crit`, RFC 7515 section 4.1.11). None is supported.
    #[error("Jwt header [crit] names an extension that is not supported")]
    CriticalExtension,
    #[error("Jwt is longer than 32768 bytes")]
    TooLong,
    #[error("The request has more than 8 tokens")]
    TooMany,
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    #[error("Jwt not yet valid")]
    NotYetValid,
    #[error("Jwt is expired")]
    Expired,
    #[error("Audiences in Jwt are not allowed")]
    AudienceNotAllowed,
    /// No key for the token's `kid` and `alg`, or no keys at all.
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoMatchingKey,
    #[error("Jwt verification fails")]
    BadSignature,
}

impl TokenError {
    /// Stable: log key, metric label.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "token_malformed",
            Self::UnsupportedAlgorithm => "token_algorithm",
            Self::CriticalExtension => "token_extension",
            Self::TooLong => "token_too_long",
            Self::TooMany => "token_too_many",
            Self::UnknownIssuer => "token_issuer",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Expired => "token_expired",
            Self::AudienceNotAllowed => "token_audience",
            Self::NoMatchingKey => "token_no_key",
            Self::BadSignature => "token_signature",
        }
    }

    /// HTTP status of the answer: 403 for a token that is valid elsewhere, else 401.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::AudienceNotAllowed => 403,
            Self::Malformed(_)
            | Self::UnsupportedAlgorithm
            | Self::CriticalExtension
            | Self::TooLong
            | Self::TooMany
            | Self::UnknownIssuer
            | Self::NotYetValid
            | Self::Expired
            | Self::NoMatchingKey
            | Self::BadSignature => 401,
        }
    }

    /// Response details for the access log, as Envoy writes them.
    #[must_use]
    pub fn response_details(&self) -> String {
        format!("jwt_authn_access_denied{{{}}}", self.to_string().replace(' ', "_"))
    }
}

/// Longest path in a realm, in bytes.
const MAX_REALM_PATH_BYTES: usize = 256;

/// Value of `www-authenticate` (RFC 6750 section 3) for a request whose token is refused. The query is not repeated: a token
/// may be in it.
#[must_use]
pub fn www_authenticate(scheme: &str, authority: &str, target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let mut end = path.len().min(MAX_REALM_PATH_BYTES);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    let realm = format!("{scheme}://{authority}{}", &path[..end]);
    // Neither belongs into a host or a normalised path; in a quoted string they would end it.
    let realm: String = realm.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).collect();
    format!("Bearer realm=\"{realm}\", error=\"invalid_token\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_one_measured_on_envoy() {
        for (error, status, body, details) in [
            (TokenError::Expired, 401, "Jwt is expired", "jwt_authn_access_denied{Jwt_is_expired}"),
            (
                TokenError::AudienceNotAllowed,
                403,
                "Audiences in Jwt are not allowed",
                "jwt_authn_access_denied{Audiences_in_Jwt_are_not_allowed}",
            ),
            (
                TokenError::UnsupportedAlgorithm,
                401,
                "Jwt header [alg] is not supported",
                "jwt_authn_access_denied{Jwt_header_[alg]_is_not_supported}",
            ),
        ] {
            assert_eq!((error.status(), error.to_string().as_str()), (status, body));
            assert_eq!(error.response_details(), details);
        }
        assert_eq!(
            www_authenticate("http", "echo", "/jwt/required?access_token=secret"),
            "Bearer realm=\"http://echo/jwt/required\", error=\"invalid_token\""
        );
    }

    #[test]
    fn a_realm_is_short_and_does_not_end_early() {
        let long = format!("/{}", "é".repeat(200));
        assert!(www_authenticate("http", "a\"b\\", &long).len() < 320);
        assert!(www_authenticate("http", "a\"b\\", "/").starts_with("Bearer realm=\"http://ab/\", "));
    }
}
