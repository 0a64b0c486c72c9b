//! The bearer token that a client of the control plane shows. Checking it is the server's business.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a bearer token comes from. `Debug` does not show a literal.
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
    /// As `AUTH_TOKEN` means it: an existing path is a file, an empty text no token, anything else the token.
    /// What begins as a path does (`/`, `./`) is a file even when there is none yet: a path must not be sent as a token.
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
