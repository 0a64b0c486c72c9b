//! Response flags: Envoy's short names for what happened to a request, as access logs and metrics show them.

use std::fmt;

macro_rules! flags {
    ($($(#[doc = $doc:literal])* $flag:ident = $name:literal,)*) => {
        /// One response flag.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Flag {
            $($(#[doc = $doc])* $flag,)*
        }

        impl Flag {
            /// Short name, as Envoy's `%RESPONSE_FLAGS%`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$flag => $name,)*
                }
            }
        }
    };
}

flags! {
    /// No route.
    NoRoute = "NR",
    /// The route names a service, port or subset that does not exist.
    NoCluster = "NC",
    /// No endpoint.
    NoHealthyUpstream = "UH",
    /// No connection to an endpoint.
    UpstreamFailure = "UF",
    /// The endpoint closed the connection.
    UpstreamTermination = "UC",
    /// A limit of connections or requests to the service is reached.
    UpstreamOverflow = "UO",
    /// The endpoint did not answer in time.
    UpstreamTimeout = "UT",
    /// The endpoint reset the stream.
    UpstreamReset = "UR",
    /// The endpoint broke the protocol, or off in the middle of an answer.
    UpstreamProtocol = "UPE",
    /// All retries are used.
    RetryLimit = "URX",
    /// An external authorizer denied the request, or could not be asked.
    ExternalDenial = "UAEX",
    /// The client went away.
    DownstreamGone = "DC",
    /// The client broke the protocol.
    DownstreamProtocol = "DPE",
    /// A delay of a fault.
    DelayInjected = "DI",
    /// An answer of a fault.
    FaultInjected = "FI",
    /// Drained away: the process ended before the request did.
    LocalReset = "LR",
}

/// Number of flags that one request can have: a delay, the end of its retries, its failure, and a client that went away.
const MOST: usize = 4;

/// Flags of a request in the order in which they were raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags([Option<Flag>; MOST]);

impl Flags {
    /// Adds a flag, unless it is there.
    pub fn raise(&mut self, flag: Flag) {
        for place in &mut self.0 {
            if place.is_none_or(|found| found == flag) {
                *place = Some(flag);
                return;
            }
        }
    }

    /// Returns true if the flag is there.
    pub fn has(&self, flag: Flag) -> bool {
        self.0.contains(&Some(flag))
    }
}

impl fmt::Display for Flags {
    /// Names with commas between; `-` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.0.iter().flatten().map(|flag| flag.name());
        f.write_str(names.next().unwrap_or("-"))?;
        names.try_for_each(|name| write!(f, ",{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_in_the_order_in_which_they_were_raised() {
        let mut flags = Flags::default();
        assert_eq!(flags.to_string(), "-");
        for flag in [Flag::RetryLimit, Flag::UpstreamTimeout, Flag::RetryLimit] {
            flags.raise(flag);
        }
        assert_eq!(flags.to_string(), "URX,UT");
        assert!(flags.has(Flag::UpstreamTimeout) && !flags.has(Flag::NoRoute));
    }

    #[test]
    fn more_flags_than_a_request_can_have_lose_the_last() {
        let mut flags = Flags::default();
        for flag in [Flag::DelayInjected, Flag::RetryLimit, Flag::UpstreamTimeout, Flag::DownstreamGone, Flag::NoRoute]
        {
            flags.raise(flag);
        }
        assert_eq!(flags.to_string(), "DI,URX,UT,DC");
    }
}
