//! Images that are made without a daemon or registry.

use std::{path::Path, process::Command};

use testkit::prerequisites;

use crate::stage::{CLUSTER, eventually, expect_equal};

#[test]
fn an_image_of_a_dynamic_program_runs_on_every_node_and_is_the_same_each_time() {
    CLUSTER.run(|cluster| {
        let dir = tempfile::tempdir().unwrap();
        let program = prerequisites::bin_dir().join("strake");
        let make = |file: &str| {
            let out = dir.path().join(file);
            let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kubernetes/bin/mkimage");
            let made = Command::new(tool)
                .args(["--name", "localhost/strake:test", "--libraries", "--user", "65532", "--out"])
                .arg(&out)
                .arg(format!("{}=/usr/bin/strake", program.display()))
                .status()
                .unwrap();
            assert!(made.success());
            out
        };
        let (first, second) = (make("first.tar"), make("second.tar"));
        assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "two images of one program differ");

        cluster.command(&["import", &first.display().to_string()]).unwrap();

        for node in ["node-1", "node-2"] {
            let name = format!("version-{node}");
            let overrides =
                format!("{{\"spec\": {{\"nodeName\": \"{node}\", \"securityContext\": {{\"runAsNonRoot\": true}}}}}}");
            let run = ["run", &name, "--image=localhost/strake:test", "--restart=Never", "--overrides", &overrides];
            cluster.kubectl(&[&run[..], &["--", "--version"]].concat()).unwrap();
            eventually("the program has ended well", || {
                expect_equal(cluster.field("default", &format!("pod/{name}"), ".status.phase")?, "Succeeded".to_owned())
            });
            let printed = cluster.kubectl(&["logs", &name]).unwrap();
            assert!(printed.contains("strake "), "{printed}");
        }
    });
}
