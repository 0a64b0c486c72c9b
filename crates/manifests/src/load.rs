//! Manifests of a directory, read once. [`crate::open`] follows changes.

use std::io;
use std::path::{Path, PathBuf};

use crate::source::disk::Progress;
use crate::source::read_file::{self, ReadError};
use crate::source::{file, walk};
use kube_types::{Code, InForce, Resource, Severity, SourceProblem};

/// One object of a manifest.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub resource: Resource,
    pub file: PathBuf,
    /// Line where the document begins, from 1.
    pub line: usize,
}

/// Contents of a directory of manifests, in the order of files and of documents in them. A document with a mistake has no
/// object here.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    pub objects: Vec<Loaded>,
    pub problems: Vec<SourceProblem>,
}

/// Reads every manifest below `path` (a directory or one file) once.
pub fn load_directory(path: &Path) -> io::Result<Manifests> {
    let mut manifests = Manifests::default();
    let (files, skipped) = texts(path)?;
    manifests.problems.extend(skipped);
    for (file, text) in files {
        let contents = match text {
            Ok(text) => file::parse(&file, &text),
            // Deleted since the directory was listed.
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => file::Contents::unreadable(SourceProblem::of_file(&file, error.code(), error.to_string())),
        };
        manifests.objects.extend(contents.objects.into_iter().map(|object| Loaded {
            resource: object.resource,
            file: file.clone(),
            line: object.line,
        }));
        let refused = contents.problems.into_iter().map(|mut problem| {
            if problem.severity == Severity::Error && problem.code != Code::Duplicate {
                problem.in_force = Some(InForce::Nothing);
            }
            problem
        });
        manifests.problems.extend(refused);
    }
    Ok(manifests)
}

/// A file of manifests and its text.
pub(crate) type FileText = (PathBuf, Result<String, ReadError>);

/// The files of manifests below `path` (a directory or one file) with their texts, each read when it is asked for, and
/// problems of what was not searched.
pub(crate) fn texts(path: &Path) -> io::Result<(impl Iterator<Item = FileText>, Vec<SourceProblem>)> {
    let found = walk::manifests(path, None, &Progress::default())?;
    let texts = found.files.into_iter().map(|file| {
        let text = read_file::read(&file).map(|text| text.text);
        (file, text)
    });
    Ok((texts, found.skipped))
}
