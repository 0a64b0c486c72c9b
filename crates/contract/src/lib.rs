//! Types of what programs of a node say to each other. Nothing here sends, receives or decides.

pub mod cni;
