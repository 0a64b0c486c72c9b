//! The reader's handling of the user's manifests: what is in force of each, and its copy for the next process.

use std::path::Path;
use std::time::SystemTime;

use super::file;
use super::reader::{Reader, Seen};
use super::roots::RootChange;
use super::store::Tier;
use kube_types::{Code, Severity, SourceProblem};

impl Reader {
    /// Applies a file of manifests. Valid objects of the user are saved as last-good copies; for an invalid one that was
    /// not read before, its last-good copy is used.
    pub(super) fn put_manifest(&mut self, path: &Path, tier: Tier, read: Result<String, Box<SourceProblem>>) {
        let contents = match read {
            Ok(text) => file::parse(path, &text),
            Err(problem) => file::Contents::unreadable(*problem),
        };
        self.put_contents(path, tier, contents);
    }

    fn put_contents(&mut self, path: &Path, tier: Tier, contents: file::Contents) {
        let copy = self.last_good.path(path);
        let mut problems = Vec::new();
        // Of a file that this process has read, the store knows the good objects itself.
        let copies = if tier == Tier::User && !self.store.knows(path) {
            // Only now, at the first reading: the copy is that of an earlier process.
            self.last_good.load(path).unwrap_or_else(|error| {
                // A good manifest does not need its copy, which is written anew.
                if !contents.is_good() {
                    let message = format!("failed to read last-good copy: {error}");
                    problems.push(SourceProblem::of_file(&copy, Code::LastGoodInvalid, message));
                }
                Vec::new()
            })
        } else {
            Vec::new()
        };
        let unusable = self.store.put_file(path, tier, contents, copies, SystemTime::now());
        problems.extend(unusable.into_iter().map(|problem| SourceProblem { file: copy.clone(), ..problem }));
        // A copy that could not be read may be the only good state of an object: it is not overwritten.
        if tier == Tier::User && problems.is_empty() {
            problems.extend(self.save_copy(path));
        }
        if tier == Tier::User {
            let notes = problems.into_iter().map(|problem| problem.with_severity(Severity::Note)).collect::<Vec<_>>();
            if notes.is_empty() { self.store.solve(&copy) } else { self.store.put_problems(&copy, notes) }
        }
    }

    fn save_copy(&mut self, manifest: &Path) -> Option<SourceProblem> {
        let error = self.last_good.keep(manifest, &self.store.copies(manifest)).err()?;
        let message = format!(
            "failed to save last-good copy: {error}; if a manifest is invalid at the next start, its objects will be missing"
        );
        Some(SourceProblem::of_file(&self.last_good.path(manifest), Code::LastGoodNotSaved, message))
    }

    /// Brings back everything below a directory that is gone at the start.
    pub(super) fn restore_copies(&mut self, change: &RootChange) {
        let RootChange::Gone(SourceProblem { file, .. }) = change else {
            return;
        };
        // Without a list of copies nothing can be brought back; the directory is reported as gone already.
        for manifest in self.last_good.manifests(file).unwrap_or_default() {
            // Any object of the copy may still be in the file.
            let nothing_known = file::Contents { has_unknown: true, ..file::Contents::default() };
            self.put_contents(&manifest, Tier::User, nothing_known);
            self.seen.insert(manifest, Seen::UNREAD);
        }
    }

    /// Forgets what was deleted while no reader ran. Of a directory that is gone nothing is known, nor of one that is not
    /// read this time.
    pub(super) fn forget_deleted(&mut self) {
        // Before anything is forgotten: the next process has to know which directories were read, even if this one is
        // killed here.
        self.keep_roots();
        for manifest in self.last_good.manifests(Path::new("/")).unwrap_or_default() {
            if !self.seen.contains_key(&manifest)
                && !self.skipped.iter().any(|skipped| manifest.starts_with(skipped))
                && self.roots.is_there(&manifest, &mut self.disk)
            {
                self.forget(&manifest);
            }
        }
    }

    /// The file is gone, and so are its objects.
    pub(super) fn forget(&mut self, path: &Path) {
        self.unsettled.remove(path);
        if self.seen.remove(path).is_some() {
            self.store.remove(path);
        }
        let copy = self.last_good.path(path);
        // After the objects: a copy that is left brings them back only if the manifest comes back invalid.
        match self.last_good.forget(path) {
            Ok(()) => self.store.solve(&copy),
            Err(error) => {
                let message = format!(
                    "failed to delete last-good copy: {error}; an invalid manifest of this name would bring its objects back"
                );
                let problem = SourceProblem::of_file(&copy, Code::LastGoodNotSaved, message);
                self.store.put_problems(&copy, vec![problem.with_severity(Severity::Note)]);
            }
        }
    }
}
