//! Directories and tokens of the mesh's programs in a lab.

use std::{collections::BTreeSet, fs, io, os::unix::fs::OpenOptionsExt as _, path::Path, path::PathBuf};

use serde_json::json;

use super::{Mesh, SYSTEM_NAMESPACE, SystemNode};

/// Bytes of a node token before it is written in hexadecimal.
const TOKEN_BYTES: usize = 32;

impl Mesh {
    /// Makes the directories and tokens that a node's programs and the waypoints with these ServiceAccounts (namespace, name)
    /// need. A token that is there stays.
    pub(crate) fn prepare(&self, nodes: &[SystemNode], waypoints: &BTreeSet<(String, String)>) -> io::Result<()> {
        fs::create_dir_all(self.authority())?;
        let mut known = Vec::new();
        for node in nodes {
            for part in ["zds", "ztunnel", "agent"] {
                fs::create_dir_all(self.run.node(&node.name).join(part))?;
            }
            let digest = token_digest(&self.run.node(&node.name).join("ztunnel").join("token"))?;
            known.push(json!({
                "node": node.name, "namespace": SYSTEM_NAMESPACE, "serviceAccount": "ztunnel", "sha256": digest,
            }));
        }
        for (namespace, account) in waypoints {
            let path = self.waypoint_token(namespace, account);
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            let digest = token_digest(&path)?;
            // Of no node: it is good for the identity of its account alone, and a list by node has no place for it.
            known.push(json!({"node": "", "namespace": namespace, "serviceAccount": account, "sha256": digest}));
        }
        write_secret(&self.node_tokens(), &serde_saphyr::to_string(&known).map_err(io::Error::other)?)
    }

    /// The token of the waypoints with this ServiceAccount.
    pub(super) fn waypoint_token(&self, namespace: &str, account: &str) -> PathBuf {
        self.run.control().join("waypoints").join(namespace).join(account).join("token")
    }

    /// The directory of the certificate authority.
    pub(super) fn authority(&self) -> PathBuf {
        self.run.control().join("ca")
    }

    /// The list of tokens that the control plane accepts.
    pub(super) fn node_tokens(&self) -> PathBuf {
        self.run.control().join("node-tokens")
    }

    /// A program's file.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.options.bin_dir.join(name)
    }
}

/// Digest of the token in a file, which is made when it is not there.
fn token_digest(path: &Path) -> io::Result<String> {
    let token = match fs::read_to_string(path) {
        Ok(token) => token,
        // A new token replaces one that is absent or unreadable: the list of all tokens is written afterwards.
        Err(_) => {
            let token = hex(&rand::random::<[u8; TOKEN_BYTES]>());
            write_secret(path, &token)?;
            token
        }
    };
    // The control plane gets digests only: whoever reads its list cannot act as a node.
    Ok(hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Replaces the file as a whole, and only when it changes: the control plane reads it again at any time, and half a list of
/// tokens would lock out node proxies.
fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let draft = path.with_extension("draft");
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_secrets_is_replaced_as_a_whole_and_only_when_it_changes() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node-tokens");
        let inode = || fs::metadata(&path).unwrap().ino();
        write_secret(&path, "first").unwrap();
        let (first, reader) = (inode(), fs::File::open(&path).unwrap());

        write_secret(&path, "first").unwrap();
        assert_eq!(inode(), first);
        write_secret(&path, "second").unwrap();

        assert_eq!(io::read_to_string(reader).unwrap(), "first", "a reader saw a file that was being written");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
