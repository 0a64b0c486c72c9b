//! The bearer token that a client of the control plane shows. Checking it is the server's business.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Uri;
use parking_lot::Mutex;

/// Bytes of the shortest signature of a JWT, in base64url: 32 of HS256.
const LEAST_SIGNATURE: usize = 43;

/// Source of a bearer token. `Debug` does not show a literal.
#[derive(Clone, Default)]
pub enum Token {
    /// No `authorization` header is sent.
    #[default]
    None,
    /// Read again for every call: kubelet replaces the file when it renews the token.
    File(TokenFile),
    /// The token itself.
    Literal(String),
}

impl Token {
    /// As `AUTH_TOKEN` means it: an existing path is a file, an empty text no token, anything else the token. Anything
    /// that begins as a path does (`/`, `./`) is a file even when there is none yet: a path must not be sent as a
    /// token.
    pub fn from_setting(setting: &str) -> Self {
        let path = PathBuf::from(setting);
        if setting.is_empty() {
            Self::None
        } else if path.exists() || setting.starts_with('/') || setting.starts_with("./") {
            Self::file(path)
        } else {
            Self::Literal(setting.to_owned())
        }
    }

    /// A token that is read from `path`.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(TokenFile { path: path.into(), last: Arc::default() })
    }

    /// Is the token sent in clear to this address, across a network?
    pub fn is_readable(&self, address: &Uri) -> bool {
        // A URI has IPv6 hosts in brackets.
        let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        !matches!(self, Self::None) && address.scheme_str() == Some("http") && !is_local
    }

    /// Logs a warning when the token is sent in clear. Istio's proxy allows `http` for tests, so it is not refused.
    pub fn warn_if_readable(&self, address: &Uri, purpose: &str) {
        if self.is_readable(address) {
            tracing::warn!(
                %address, code = "token_in_clear",
                "the bearer token for {purpose} is sent in clear over http: everybody on the way can use it; set an https \
                 address",
            );
        }
    }

    /// The value of the `authorization` header, `Bearer <token>`; white space after the token is cut off.
    pub async fn bearer(&self) -> io::Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Literal(token) => Ok(Some(bearer(token))),
            Self::File(file) => Ok(Some(bearer(&file.read().await?))),
        }
    }
}

/// A file that holds a token, with the last one that was read from it.
///
/// Not everybody replaces the file at once, as kubelet does: one that is empty or ends early is being written. Until it is
/// whole, or while it cannot be read, the last token is used; the control plane still decides whether it is valid.
#[derive(Clone)]
pub struct TokenFile {
    path: PathBuf,
    last: Arc<Mutex<Option<String>>>,
}

impl TokenFile {
    async fn read(&self) -> io::Result<String> {
        let text = tokio::fs::read_to_string(&self.path).await;
        let read = text.and_then(|text| match flaw(text.trim_end()) {
            None => Ok(text),
            Some(flaw) => Err(io::Error::new(io::ErrorKind::InvalidData, flaw)),
        });
        let mut last = self.last.lock();
        match (read, &*last) {
            (Ok(text), _) => Ok(last.insert(text).clone()),
            // The old token is mostly still valid: the kubelet replaces it long before it expires.
            (Err(error), Some(kept)) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, code = "token_file", "failed to read auth token; keeping the old one");
                Ok(kept.clone())
            }
            (Err(error), None) => Err(named(&self.path, &error)),
        }
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Returns the reason for which `token` cannot be a whole one. The characters are those of RFC 6750, section 2.1; one that
/// begins as a JWT does (RFC 7519: the base64url of `{"`) must have its three parts. A cut within the signature is not
/// always noticed.
fn flaw(token: &str) -> Option<&'static str> {
    let is_base64url = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    // A sextet alone is less than a byte.
    let is_whole = |part: &str| !part.is_empty() && part.len() % 4 != 1 && is_base64url(part);
    if token.is_empty() {
        return Some("the file is empty");
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Some("not a bearer token: it has characters that a header cannot carry");
    }
    // Not a JWT, so its form says nothing more.
    if !token.starts_with("eyJ") {
        return None;
    }
    let parts: Vec<&str> = token.split('.').collect();
    match parts.as_slice() {
        [header, claims, signature]
            if [header, claims, signature].iter().all(|part| is_whole(part)) && signature.len() >= LEAST_SIGNATURE =>
        {
            None
        }
        _ => Some("not a whole JWT: expected header, claims and signature"),
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {}", token.trim_end())
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(file) => f.debug_tuple("File").field(&file.path).finish(),
            Self::Literal(_) => f.write_str("Literal(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_ends_early_is_known_by_its_form() {
        let signature = "c2ln".repeat(11);
        let jwt = format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.{signature}");

        assert_eq!(flaw(&jwt), None);
        for whole in ["0123abcd", "first", "a-b.c~d+e/f=="] {
            assert_eq!(flaw(whole), None, "{whole}");
        }
        for end in [0, 3, 20, 21, 30, 36, 37, 40, jwt.len() - 4] {
            assert!(flaw(&jwt[..end]).is_some(), "{}", &jwt[..end]);
        }
        for broken in ["two words", "nul\0", "gr\u{fc}n", &jwt.replace('.', "..")] {
            assert!(flaw(broken).is_some(), "{broken}");
        }
    }

    #[test]
    fn a_token_over_http_beyond_this_machine_can_be_read_by_others() {
        let token = Token::Literal("secret".to_owned());
        let is_readable = |token: &Token, address: &str| token.is_readable(&address.parse().unwrap());

        assert!(is_readable(&token, "http://istiod.istio-system.svc:15010"));
        assert!(is_readable(&token, "http://10.0.0.1:15010"));
        for local in
            ["https://istiod.istio-system.svc:15012", "http://localhost:1", "http://127.0.0.9:1", "http://[::1]:1"]
        {
            assert!(!is_readable(&token, local), "{local}");
        }
        assert!(!is_readable(&Token::None, "http://10.0.0.1:15010"));
    }
}
