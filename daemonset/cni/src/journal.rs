//! Lines about pods that did not start, or started unasked: on standard error, and in a file on the node that outlives the call.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Size from which the file is set aside, under its name with `.1`, for a new one.
const MAX_BYTES: u64 = 1 << 20;

/// Writes a line. A journal that cannot be written keeps no pod from anything: standard error says so.
pub(crate) fn write(file: Option<&Path>, text: &str) {
    let now = OffsetDateTime::from(SystemTime::now()).format(&Rfc3339).unwrap_or_default();
    let line = format!("{now} {}\n", text.replace('\n', " "));
    eprint!("{line}");
    if let Some(file) = file
        && let Err(error) = append(file, &line)
    {
        eprintln!("failed to write {}: {error}", file.display());
    }
}

fn append(file: &Path, line: &str) -> std::io::Result<()> {
    if fs::metadata(file).is_ok_and(|metadata| metadata.len() > MAX_BYTES) {
        // Of two calls that set it aside at once one finds nothing to rename.
        let _: std::io::Result<()> = fs::rename(file, file.with_added_extension("1"));
    }
    // One write for each line: those of calls at the same time do not mix.
    OpenOptions::new().create(true).append(true).mode(0o600).open(file)?.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("strake-cni.log");
        fs::write(&file, vec![b'x'; 1 + MAX_BYTES as usize]).unwrap();

        write(Some(&file), "two\nlines");

        let text = fs::read_to_string(&file).unwrap();
        assert!(text.ends_with(" two lines\n") && text.lines().count() == 1, "{text}");
        assert!(dir.path().join("strake-cni.log.1").exists());
    }
}
