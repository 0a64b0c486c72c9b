//! Compiles `proto/*.proto` with protox: no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: &[&str] = &[
        "proto/workload.proto",
        "proto/authorization.proto",
        "proto/discovery.proto",
        "proto/status.proto",
        "proto/ca.proto",
        "proto/replica.proto",
        "proto/zds.proto",
        "proto/waypoint.proto",
    ];
    // Each file, not the directory: copying a checkout gives the directory a new modification time, and everything that
    // depends on this crate would be built again.
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["proto"])?;
    #[cfg(feature = "grpc")]
    tonic_prost_build::configure().compile_fds(descriptors)?;
    #[cfg(not(feature = "grpc"))]
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
