//! Writes `daemonset/manifests` from the chart `daemonset/chart`, with Helm. Custom resources come from `strake crds` instead;
//! tests compare both with what is in the repository.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};

/// Helm, as `make cluster-build` makes it.
const HELM: &str = "target/kubernetes/bin/helm";
const CHART: &str = "daemonset/chart";
const DIRECTORY: &str = "daemonset/manifests";

/// Line with which Helm names the template of each object.
const SOURCE: &str = "# Source: strake/templates/";

/// Renders the chart and writes a file for each component: a template, or a directory of templates.
///
/// # Errors
/// When Helm is missing or refuses the chart, or a file cannot be written.
pub(crate) fn write(workspace: &Path) -> Result<()> {
    for (component, objects) in components(&render(workspace)?)? {
        let path = workspace.join(DIRECTORY).join(format!("{component}.yaml"));
        let head = format!("# Written by `cargo xtask manifests` from {CHART}.\n");
        fs::write(&path, head + &objects.join("---\n")).with_context(|| path.display().to_string())?;
        println!("{}", path.display());
    }
    Ok(())
}

fn render(workspace: &Path) -> Result<String> {
    let helm = workspace.join(HELM);
    let output = Command::new(&helm)
        .args(["template", "strake", CHART, "--namespace=istio-system", "--no-hooks", "--kube-version=1.31"])
        .args(["--values", &format!("{CHART}/ci/manifests-values.yaml"), "--set=admission.enabled=true"])
        .current_dir(workspace)
        .output()
        .with_context(|| format!("failed to start {}: make cluster-build makes it", helm.display()))?;
    if !output.status.success() {
        bail!("helm template: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The objects of each component, in Helm's order of kinds: what others need comes first.
fn components(rendered: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let mut components: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for object in rendered.split("---\n").filter(|object| !object.trim().is_empty()) {
        let (source, text) = object.split_once('\n').unwrap_or_default();
        let template =
            source.strip_prefix(SOURCE).with_context(|| format!("expected {SOURCE}..., found {source:?}"))?;
        let component = template.split(['/', '.']).next().unwrap_or_default();
        ensure!(!component.is_empty(), "no component in {source:?}");
        components.entry(component.to_owned()).or_default().push(tidy(text));
    }
    Ok(components)
}

/// Without the blank lines that conditions of templates leave.
fn tidy(text: &str) -> String {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_grouped_by_their_template_or_its_directory() {
        let rendered = "---\n# Source: strake/templates/a/x.yaml\nkind: A\n   \n\nb: c\n\
                        ---\n# Source: strake/templates/b.yaml\nkind: B\n---\n# Source: strake/templates/a/y.yaml\n# Why.\nkind: C\n";

        let found = components(rendered).unwrap();

        let objects = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let expected: BTreeMap<String, Vec<String>> = [
            ("a".to_owned(), objects(&["kind: A\nb: c\n", "# Why.\nkind: C\n"])),
            ("b".to_owned(), objects(&["kind: B\n"])),
        ]
        .into();
        assert_eq!(found, expected);
        assert!(components("---\nkind: A\n").is_err());
    }
}
