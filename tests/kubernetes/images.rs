//! Images that are made without a daemon or registry.

use std::{collections::BTreeMap, path::Path, process::Command};

use testkit::prerequisites;

use crate::stage::{CLUSTER, eventually, expect_equal, mesh::IMAGES};

/// No container engine builds the Dockerfile here: that it names the same images, users and no registry is all that is seen.
#[test]
fn the_dockerfile_has_the_images_of_the_tests_and_names_no_registry() {
    let script = include_str!("../../scripts/images.sh");
    let dockerfile = include_str!("../../Dockerfile");

    let in_script = script.lines().filter_map(|line| line.strip_prefix("image ")?.split_once(' '));
    let in_script: BTreeMap<_, _> =
        in_script.map(|(user, programs)| (programs.split(' ').next().unwrap(), user)).collect();
    let in_dockerfile = dockerfile.split("\nFROM ").skip(1).filter_map(|stage| {
        let name = stage.lines().next()?.split_once(" AS ")?.1;
        let user = stage.lines().find_map(|line| line.strip_prefix("USER ")?.split(':').next())?;
        assert!(stage.contains(&format!("COPY --from=build /images/{name} /\n")), "{name}");
        assert!(stage.contains(&format!("ENTRYPOINT [\"/usr/local/bin/{name}\"]")), "{name}");
        Some((name, user))
    });

    assert_eq!(in_dockerfile.collect::<BTreeMap<_, _>>(), in_script);
    assert_eq!(in_script.keys().copied().collect::<Vec<_>>(), IMAGES);
    let bases = dockerfile.lines().filter_map(|line| line.strip_prefix("ARG ")?.split_once("_IMAGE="));
    for (name, base) in bases {
        assert!(!base.contains('/'), "{name} names a registry: {base}");
    }
}

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
