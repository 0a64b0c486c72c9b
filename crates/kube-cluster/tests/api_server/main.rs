//! The crate against an API server that is faithful and can be made to fail: its answers come late, cut, twice, split or not
//! at all. Transport is memory and time is paused, so that an hour takes milliseconds and nothing depends on the machine.

#![allow(unreachable_pub)]

mod access;
mod consumer;
mod election;
mod fake;
mod histories;
mod objects;
mod source;
mod status;
