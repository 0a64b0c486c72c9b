//! A directory source on real files.

mod files;
mod last_good;
mod roots;
mod support;
