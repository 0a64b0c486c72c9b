//! A directory source on real files.

mod files;
mod labels;
mod last_good;
mod roots;
mod support;
