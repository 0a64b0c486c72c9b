//! The end of a snapshot, said by our server to our client.
//!
//! Delta xDS does not say when the first answer to a subscription is complete. Istio's control plane sends it in one
//! response, and Istio's proxy takes the first response for all of it. Our server splits large answers, so that neither
//! side holds a whole mesh in one message. Both sides therefore agree on an extension that other peers ignore:
//!
//! - A client that understands it says so in `node.client_features`, the field of xDS for this purpose.
//! - To such a client the server sends the answer in parts. Each part has a [`Mark`] in `system_version_info`, which the
//!   protocol keeps for debugging and which no client compares.
//! - To every other client the server sends the answer in one response.
//! - A server that marks parts also answers for single names of a type to which the client is subscribed as a whole. A client
//!   asks no other server for them: Istio's answers with all resources, or removes all others.
//! - The client takes a response without a mark for a complete answer, as Istio's proxy does.
//!
//! The nonce was no place for the mark, because a client must not look into it, and a marker resource would be refused by
//! clients that do not know its type.

use std::fmt;
use std::str::FromStr;

/// Name of the extension in `node.client_features`.
pub const FEATURE: &str = "dev.strake.xds.snapshot-parts";

const PREFIX: &str = "strake.snapshot/";
const MORE: &str = "more";
const END: &str = "end";

/// Position of a response in a snapshot: `strake.snapshot/<part>/more` or `strake.snapshot/<part>/end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Number of the part, from 1, in the order of sending.
    pub part: u32,
    /// No part follows.
    pub is_last: bool,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}/{}", self.part, if self.is_last { END } else { MORE })
    }
}

/// `system_version_info` of another server, which says nothing about snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMark;

impl FromStr for Mark {
    type Err = NoMark;

    fn from_str(text: &str) -> Result<Self, NoMark> {
        let (part, position) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')).ok_or(NoMark)?;
        let part = part.parse().map_err(|_| NoMark)?;
        match position {
            MORE => Ok(Self { part, is_last: false }),
            END => Ok(Self { part, is_last: true }),
            _ => Err(NoMark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for mark in [Mark { part: 1, is_last: true }, Mark { part: 17, is_last: false }] {
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
    }

    #[test]
    fn versions_of_other_servers_are_no_marks() {
        for text in ["", "2026-11-30T10:00:00Z/14", "strake.snapshot/x/end", "strake.snapshot/1/late"] {
            assert_eq!(text.parse::<Mark>(), Err(NoMark), "{text}");
        }
    }
}
