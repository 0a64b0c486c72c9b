//! The file of node tokens: who is let in, and what is refused as a file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ca_server::{NodeTokens, TokensError};
use identity::TrustDomain;

/// SHA-256 of "alpha" and "beta".
const ALPHA: &str = "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8";
const BETA: &str = "f44e64e75f3948e9f73f8dfa94721c4ce8cbb4f265c4790c702b2d41cfbf2753";

fn write(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}

fn row(node: &str, hash: &str) -> String {
    format!("- {{node: {node}, namespace: istio-system, serviceAccount: ztunnel, sha256: {hash}}}\n")
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node-tokens");
    (dir, path)
}

fn open(path: &Path) -> Result<NodeTokens, TokensError> {
    NodeTokens::open(path, TrustDomain::default())
}

#[test]
fn a_token_names_its_node_and_identity() {
    let (_dir, path) = file();
    write(&path, &(row("node-1", ALPHA) + &row("node-2", &BETA.to_uppercase())), 0o600);
    let tokens = open(&path).unwrap();

    let caller = tokens.caller("beta").unwrap().unwrap();

    assert_eq!(caller.node, "node-2");
    assert_eq!(caller.identity.principal(), "cluster.local/ns/istio-system/sa/ztunnel");
    assert_eq!(tokens.caller("alpha").unwrap().unwrap().node, "node-1");
    for wrong in ["", "alph", "alpha ", ALPHA] {
        assert_eq!(tokens.caller(wrong).unwrap(), None, "{wrong}");
    }
}

#[test]
fn a_changed_file_counts_at_once() {
    let (_dir, path) = file();
    write(&path, &row("node-1", ALPHA), 0o600);
    let tokens = open(&path).unwrap();

    write(&path, &row("node-1", BETA), 0o600);

    assert_eq!(tokens.caller("alpha").unwrap(), None);
    assert!(tokens.caller("beta").unwrap().is_some());
}

#[test]
fn while_the_file_is_missing_or_wrong_nobody_is_let_in() {
    let (_dir, path) = file();
    write(&path, &row("node-1", ALPHA), 0o600);
    let tokens = open(&path).unwrap();

    fs::remove_file(&path).unwrap();
    assert_eq!(tokens.caller("alpha").unwrap_err().code(), "tokens_file");
    for text in ["{", "", "\n", &row("node-1", ALPHA)[..90]] {
        write(&path, text, 0o600);
        assert_eq!(tokens.caller("alpha").unwrap_err().code().split('_').next(), Some("tokens"), "{text:?}");
    }
    write(&path, &row("node-1", ALPHA), 0o644);
    assert_eq!(tokens.caller("alpha").unwrap_err().code(), "tokens_open");
    write(&path, &row("node-1", ALPHA), 0o600);

    assert!(tokens.caller("alpha").unwrap().is_some());
}

#[test]
fn mistakes_in_the_file_are_named() {
    let (_dir, path) = file();
    for (text, code) in [
        (row("node-1", "abc"), "tokens_hash"),
        (row("node-1", &"g".repeat(64)), "tokens_hash"),
        (row("node-1", ALPHA).replace("ztunnel", "'a/b'"), "tokens_identity"),
        (row("node-1", ALPHA).replace("sha256", "sha512"), "tokens_syntax"),
        ("just text".to_owned(), "tokens_syntax"),
    ] {
        write(&path, &text, 0o600);
        let error = open(&path).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains("node-tokens"), "{error}");
    }
}

#[test]
fn an_empty_list_is_a_file_too() {
    let (_dir, path) = file();
    write(&path, "[]", 0o600);

    assert_eq!(open(&path).unwrap().caller("alpha").unwrap(), None);
}
