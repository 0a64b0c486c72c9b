//! The root's two files. Neither is ever replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use identity::TrustDomain;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use time::{Duration, OffsetDateTime};

use super::sign::{BACKDATED, serial};
use super::{IssuerError, Material};

const KEY_FILE: &str = "root-key.pem";
const CERTIFICATE_FILE: &str = "root-cert.pem";
const TRUSTED_FILE: &str = "trusted-roots.pem";
/// Ten years.
const VALIDITY: Duration = Duration::days(3650);

/// Certificate and key as PEM.
pub(super) fn open_or_create(dir: &Path, trust_domain: &TrustDomain) -> Result<(String, String), IssuerError> {
    let (key, certificate) = (dir.join(KEY_FILE), dir.join(CERTIFICATE_FILE));
    let missing = |found: &Path, missing: &Path| {
        Err(IssuerError::HalfAPair { found: found.to_owned(), missing: missing.to_owned() })
    };
    match (exists(&key)?, exists(&certificate)?) {
        (true, true) => Ok((read(&certificate)?, read_key(&key)?)),
        (true, false) => missing(&key, &certificate),
        (false, true) => missing(&certificate, &key),
        (false, false) => create(dir, &key, &certificate, trust_domain),
    }
}

/// The file of roots that are trusted besides, if there is one.
pub(super) fn trusted_roots(dir: &Path) -> Result<Option<(PathBuf, String)>, IssuerError> {
    let path = dir.join(TRUSTED_FILE);
    if !exists(&path)? {
        return Ok(None);
    }
    let pem = read(&path)?;
    Ok(Some((path, pem)))
}

fn create(
    dir: &Path,
    key_path: &Path,
    certificate_path: &Path,
    trust_domain: &TrustDomain,
) -> Result<(String, String), IssuerError> {
    fs::create_dir_all(dir).map_err(at(dir))?;
    let Material { certificate, key, .. } = Material::generate(trust_domain)?;
    // The key first: a certificate may be handed out as soon as it is there, and without its key it could never sign
    // again.
    write(key_path, &key, 0o600)?;
    write(certificate_path, &certificate, 0o644)?;
    // The names too must be on disk: a root that was handed out and is gone after a power failure cannot be made again.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))?;
    tracing::info!(path = %certificate_path.display(), "new root certificate");
    Ok((certificate, key))
}

/// A self-signed root for `key`, PEM.
pub(crate) fn root(key: &KeyPair, trust_domain: &TrustDomain) -> Result<String, rcgen::Error> {
    let now = OffsetDateTime::from(SystemTime::now());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Clocks of nodes that are behind would not accept it yet.
    params.not_before = now - BACKDATED;
    params.not_after = now + VALIDITY;
    params.serial_number = Some(serial()?);
    Ok(params.self_signed(key)?.pem())
}

fn exists(path: &Path) -> Result<bool, IssuerError> {
    path.try_exists().map_err(at(path))
}

fn read_key(path: &Path) -> Result<String, IssuerError> {
    let mode = fs::metadata(path).map_err(at(path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IssuerError::KeyIsOpen { path: path.to_owned(), mode });
    }
    read(path)
}

fn read(path: &Path) -> Result<String, IssuerError> {
    fs::read_to_string(path).map_err(at(path))
}

/// All or nothing, and never over a file that exists.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), IssuerError> {
    let unfinished = path.with_extension("pem.new");
    let written = || -> io::Result<()> {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
        // The umask may have taken bits away.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // A link and not a rename: it fails where the name exists already.
        fs::hard_link(&unfinished, path)?;
        fs::remove_file(&unfinished)
    };
    written().map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> IssuerError {
    let path: PathBuf = path.to_owned();
    |cause| IssuerError::File { path, cause }
}
