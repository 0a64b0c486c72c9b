//! Finds a compiler that can build `core` for BPF, its LLVM, and bpf-linker. Installs nothing:
//! what is missing is an error that names the commands.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::Read,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

/// Minor version of the oldest rustc that `aya-ebpf` supports.
const OLDEST_RUSTC: u32 = 87;

const HOW_TO: &str = "\
    run scripts/setup.sh, or one of\n\
    \x20 rustup toolchain install nightly --component rust-src\n\
    \x20 rustup toolchain install stable --component rust-src\n\
    \x20 apt-get install rustc-web cargo-web rust-web-src          (Debian 12)\n\
    and\n\
    \x20 cargo install --locked bpf-linker --version 0.10.3\n\
    or point STRAKE_EBPF_RUSTC at a rustc that has its library sources, \
    or STRAKE_EBPF_OBJ_DIR at objects that were built elsewhere";

/// Programs and settings of the build.
pub(crate) struct Toolchain {
    compiler: Compiler,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    /// A directory with one library in it: bpf-linker opens the first `libLLVM*` that it finds, and must not
    /// find another version's.
    pub(crate) llvm: PathBuf,
    /// `PATH` on which bpf-linker is.
    pub(crate) path: OsString,
    linker: String,
}

struct Compiler {
    origin: String,
    release: String,
    llvm: String,
    sysroot: PathBuf,
}

/// The BPF target of this machine's byte order.
pub(crate) const fn target() -> &'static str {
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

impl Toolchain {
    /// The first usable compiler of: `STRAKE_EBPF_RUSTC`, rustup's nightly, rustup's stable, `/usr/bin`.
    pub(crate) fn find(out: &Path) -> anyhow::Result<Self> {
        let path = search_path();
        let mut tried = Vec::new();
        for (origin, candidate) in candidates(&mut tried) {
            // Each candidate is tried with all that belongs to it: a good compiler without a linker of its LLVM version
            // is of no use, and the next one may have it.
            let found = Compiler::look_at(&origin, &candidate).and_then(|compiler| {
                let cargo = cargo_for(&candidate, &path)?;
                let llvm = single_llvm(&compiler, out)?;
                let linker = linker(&path, &llvm)?;
                Ok(Self { compiler, cargo, rustc: candidate, llvm, path: path.clone(), linker })
            });
            match found {
                Ok(toolchain) => return Ok(toolchain),
                Err(err) => tried.push(format!("{origin}: {err:#}")),
            }
        }
        bail!("no toolchain can build the kernel programs:\n  {}\n{HOW_TO}", tried.join("\n  "))
    }

    pub(crate) fn describe(&self) -> String {
        let Compiler { origin, release, llvm, .. } = &self.compiler;
        format!("rustc {release} ({origin}), LLVM {llvm}, {}", self.linker)
    }
}

/// Compilers to look at, best first; those that are not there are noted in `tried`.
fn candidates(tried: &mut Vec<String>) -> Vec<(String, PathBuf)> {
    if let Some(given) = env::var_os("STRAKE_EBPF_RUSTC") {
        return vec![("STRAKE_EBPF_RUSTC".into(), given.into())];
    }
    let mut candidates = Vec::new();
    for name in ["nightly", "stable"] {
        // By name: the toolchain that runs this task is another matter.
        let mut rustup = Command::new("rustup");
        rustup
            .args(["which", "--toolchain", name, "rustc"])
            .env_remove("RUSTUP_TOOLCHAIN")
            .env("RUSTUP_AUTO_INSTALL", "0");
        match output_of(&mut rustup) {
            Ok(path) => candidates.push((format!("rustup {name}"), path.into())),
            Err(err) => tried.push(format!("rustup {name}: {err:#}")),
        }
    }
    // Last: a distribution's compiler is mostly older, and often lacks the sources.
    candidates.push(("/usr/bin".into(), "/usr/bin/rustc".into()));
    candidates
}

impl Compiler {
    /// Recent enough, and with the sources of `core`?
    fn look_at(origin: &str, rustc: &Path) -> anyhow::Result<Self> {
        let mut version = Command::new(rustc);
        let version = output_of(version.arg("-vV").env_remove("RUSTUP_TOOLCHAIN"))?;
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let release = field("release:").to_owned();
        // `1.90.0-nightly`: the first two numbers are enough.
        let minor = release.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0);
        if minor < OLDEST_RUSTC {
            bail!("rustc {release} is older than 1.{OLDEST_RUSTC}");
        }
        let mut sysroot = Command::new(rustc);
        let sysroot = PathBuf::from(output_of(sysroot.args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN"))?);
        // `-Z build-std` compiles `core` from its sources: no target `bpfel` is shipped.
        let sources = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if !sources.exists() {
            bail!("rustc {release} has no library sources (no {})", sources.display());
        }
        Ok(Self { origin: origin.to_owned(), release, llvm: field("LLVM version:").to_owned(), sysroot })
    }

    fn llvm_major(&self) -> &str {
        self.llvm.split('.').next().unwrap_or_default()
    }
}

/// The compiler's own cargo, or else any.
fn cargo_for(rustc: &Path, path: &OsString) -> anyhow::Result<PathBuf> {
    let sibling = rustc.with_file_name("cargo");
    if sibling.exists() { Ok(sibling) } else { on_path("cargo", path).context("no cargo beside it or on PATH") }
}

/// bpf-linker's version, run as the build will run it.
fn linker(path: &OsString, llvm: &Path) -> anyhow::Result<String> {
    let program = on_path("bpf-linker", path).context("bpf-linker is not on PATH nor in cargo's bin directory")?;
    let mut linker = Command::new(program);
    output_of(linker.arg("--version").env("LD_LIBRARY_PATH", llvm)).context("bpf-linker does not run")
}

/// `PATH` and after it the directory that `cargo install` fills.
fn search_path() -> OsString {
    let mut directories: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    directories.extend(cargo_home.map(|home| home.join("bin")));
    env::join_paths(directories).unwrap_or_default()
}

fn on_path(program: &str, path: &OsString) -> Option<PathBuf> {
    env::split_paths(path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Makes the directory with the compiler's LLVM alone.
fn single_llvm(compiler: &Compiler, out: &Path) -> anyhow::Result<PathBuf> {
    let major = compiler.llvm_major();
    let mut places = vec![
        compiler.sysroot.join("lib"),
        PathBuf::from(format!("/usr/lib/llvm-{major}/lib")),
        PathBuf::from("/usr/lib64"),
    ];
    let multiarch = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    places.extend(multiarch.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")));
    // The compiler's own LLVM comes first: bpf-linker must read the bitcode of exactly that version.
    let library = places
        .iter()
        .flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .find(|path| is_llvm(path, major))
        .with_context(|| format!("no libLLVM {major} found for rustc {}", compiler.release))?;
    let directory = out.join("llvm");
    fs::create_dir_all(&directory)?;
    let link = directory.join("libLLVM.so");
    if fs::read_link(&link).ok().as_ref() != Some(&library) {
        // A link to the library of another compiler, or none.
        let _ = fs::remove_file(&link);
        symlink(&library, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    Ok(directory)
}

/// `libLLVM.so.22.1`, `libLLVM-22.so` and the like; not the linker scripts of the same name.
fn is_llvm(path: &Path, major: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let named = ["libLLVM.so.", "libLLVM-"].iter().any(|start| {
        name.strip_prefix(start)
            .and_then(|rest| rest.strip_prefix(major))
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    let mut magic = [0; 4];
    // Debian's `libLLVM.so` may be a text file for the linker, which cannot be loaded.
    named && File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{}", complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or("failed").trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_compilers_own_llvm_is_taken() {
        let directory = env::temp_dir().join(format!("strake-xtask-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = directory.join(name);
            fs::write(&path, content).unwrap();
            path
        };

        assert!(is_llvm(&file("libLLVM.so.22.1", b"\x7fELF..."), "22"));
        assert!(is_llvm(&file("libLLVM-22.so.1", b"\x7fELF..."), "22"));
        assert!(!is_llvm(&file("libLLVM-22.so", b"INPUT(libLLVM.so.22.1)"), "22"));
        assert!(!is_llvm(&file("libLLVM-14.so.1", b"\x7fELF..."), "22"));
        assert!(!is_llvm(&file("libLLVM.so.2", b"\x7fELF..."), "22"));
        assert!(!is_llvm(&file("libLLVM.so.220", b"\x7fELF..."), "22"));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_missing_compiler_is_named_with_its_reason() {
        let err = Compiler::look_at("somewhere", Path::new("/nonexistent/rustc")).err().unwrap();

        assert!(format!("{err:#}").contains("/nonexistent/rustc"), "{err:#}");
    }
}
