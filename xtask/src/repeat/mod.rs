//! Runs the kernel and netns suites many times beside labs that start and stop, and counts which test failed how often.
//! It builds nothing: `make test-repeat` does that first.

mod neighbour;
mod outcome;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use cargo_metadata::Message;
use clap::Args;

use self::{neighbour::Neighbours, outcome::Outcome};

/// Test programs that are repeated: the ones that share the machine's kernel with everything else.
const SUITES: [&str; 2] = ["kernel", "netns"];

/// Directory, below the target directory, for the output of failed runs.
const OUTPUT_DIR: &str = "test-repeat";

/// Options of `cargo xtask test-repeat`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Number of runs of each suite
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Number of labs that are started and stopped meanwhile
    #[arg(long, default_value_t = 2)]
    labs: usize,
    /// Tests of one suite that run at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    test_threads: u32,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// Runs the suites and prints a table of failures.
///
/// # Errors
/// When a suite cannot be found or started, or when any test or neighbouring lab failed.
pub(crate) fn run(workspace: &Path, options: &Options) -> Result<()> {
    let suites = executables(workspace)?;
    let bin_dir = suites.values().next().and_then(|suite| bin_dir(suite)).context("no directory of programs")?;
    let output_dir = bin_dir.with_file_name(OUTPUT_DIR);
    fs::create_dir_all(&output_dir).with_context(|| format!("failed to create {}", output_dir.display()))?;

    let neighbours = Neighbours::start(&bin_dir, workspace, options.labs);
    let mut failures: BTreeMap<String, u32> = BTreeMap::new();
    let began = Instant::now();
    let mut passed = 0;
    for run in 1..=options.runs {
        // The suites take turns, so that a machine that gets slower shows in both.
        for (name, executable) in &suites {
            let text = run_suite(workspace, executable, &bin_dir, options)?;
            // With a filter, one of the suites may have no test of that name.
            let outcome = Outcome::parse(&text, options.filter.is_some());
            passed += outcome.passed();
            println!("run {run}/{}, {name}: {outcome} ({} s so far)", options.runs, began.elapsed().as_secs());
            if !outcome.is_success() {
                let file = output_dir.join(format!("{name}-{run}.log"));
                fs::write(&file, &text).with_context(|| format!("failed to write {}", file.display()))?;
                println!("  output: {}", file.display());
            }
            for test in outcome.failures() {
                *failures.entry(format!("{name}::{test}")).or_default() += 1;
            }
        }
    }
    let labs = neighbours.stop();
    println!("labs beside the tests: {} started and stopped, {} failed", labs.completed, labs.failures.len());
    for failure in &labs.failures {
        println!("  {failure}");
    }
    report(&failures, options.runs);
    if !failures.is_empty() || !labs.failures.is_empty() {
        bail!("{} tests and {} labs failed at least once", failures.len(), labs.failures.len());
    }
    if passed == 0 {
        bail!("no test ran: no name of a test contains {:?}", options.filter.as_deref().unwrap_or_default());
    }
    Ok(())
}

fn report(failures: &BTreeMap<String, u32>, runs: u32) {
    if failures.is_empty() {
        println!("no test failed in {runs} runs");
        return;
    }
    println!("{:>8}  test", "failed");
    for (test, count) in failures {
        println!("{:>8}  {test}", format!("{count}/{runs}"));
    }
}

/// The test programs by name, as cargo built them for the whole workspace: another selection of packages would unify
/// features differently and build everything anew.
fn executables(workspace: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut cargo = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"])
        .current_dir(workspace)
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start cargo")?;
    let stdout = cargo.stdout.take().context("no output of cargo")?;
    let mut found = BTreeMap::new();
    for message in Message::parse_stream(std::io::BufReader::new(stdout)) {
        let Message::CompilerArtifact(artifact) = message.context("unreadable output of cargo")? else { continue };
        if let (Some(executable), true) = (artifact.executable, SUITES.contains(&artifact.target.name.as_str())) {
            found.insert(artifact.target.name, executable.into_std_path_buf());
        }
    }
    let status = cargo.wait().context("failed to wait for cargo")?;
    if !status.success() {
        bail!("cargo test --no-run: {status}");
    }
    match SUITES.iter().find(|suite| !found.contains_key(**suite)) {
        Some(missing) => bail!("cargo built no test program named {missing}"),
        None => Ok(found),
    }
}

/// Directory of the programs under test: a test program is `<profile>/deps/<name>-<hash>`.
fn bin_dir(test_program: &Path) -> Option<PathBuf> {
    Some(test_program.parent()?.parent()?.to_path_buf())
}

/// Runs a suite to its end and returns all that it printed.
fn run_suite(workspace: &Path, executable: &Path, bin_dir: &Path, options: &Options) -> Result<String> {
    let mut command = Command::new(executable);
    // `args` of an `Option` adds nothing when there is none.
    command.args(&options.filter).arg(format!("--test-threads={}", options.test_threads));
    // Tests find their files relative to their package, as under `cargo test`. A skipped test proves nothing.
    command.current_dir(workspace.join("tests")).env("STRAKE_BIN_DIR", bin_dir).env("CI", "true");
    let output = command.output().with_context(|| format!("failed to start {}", executable.display()))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(format!("{stdout}\n{stderr}"))
}
