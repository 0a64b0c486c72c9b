//! The bearer token that a client of the control plane shows. Checking it is the server's business.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use http::Uri;

/// Source of a bearer token. `Debug` does not show a literal.
#[derive(Clone, Default)]
pub enum Token {
    /// No `authorization` header is sent.
    #[default]
    None,
    /// Read again for every call: kubelet replaces the file when it renews the token.
    File(PathBuf),
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
            Self::File(path)
        } else {
            Self::Literal(setting.to_owned())
        }
    }

    /// Is the token sent in clear to this address, across a network?
    pub fn is_readable(&self, address: &Uri) -> bool {
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
            Self::File(path) => Ok(Some(bearer(&tokio::fs::read_to_string(path).await?))),
        }
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {}", token.trim_end())
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Literal(_) => f.write_str("Literal(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
