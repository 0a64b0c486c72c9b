//! One pod's `sk_lookup` program: the instructions of the embedded object with the pod's cookie, on the pinned maps.
//!
//! Not loaded through [`aya::EbpfLoader`], which parses the type information of the whole kernel for each object (25 MiB and
//! 20 ms) although this one refers to no kernel type.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::EbpfError;
use aya_obj::{EbpfSectionKind, Map, Object};
use ebpf_common::names;

use crate::{LoadError, kernel, pins::Pins};

/// Verifies the program `name` of the object `bytes` with the global `constant`; its maps are the pinned ones.
///
/// # Errors
/// [`LoadError::Object`] and [`LoadError::Mismatch`] for an object that is not as expected; kernel errors; the verifier's.
pub(crate) fn load(
    object: &'static str,
    bytes: &[u8],
    pins: &Pins,
    name: &'static str,
    constant: (&'static str, u64),
) -> Result<OwnedFd, LoadError> {
    let broken = |source: EbpfError| LoadError::Object { object, source: Box::new(source) };
    let mut parsed = Object::parse(bytes).map_err(|err| broken(err.into()))?;
    let value = constant.1.to_ne_bytes();
    let globals = HashMap::from([(constant.0, (value.as_slice(), true))]);
    // The order is that of the parser: constants before maps are made from them, maps before instructions refer to
    // their descriptors, and calls last, because that copies the instructions together.
    parsed.patch_map_data(globals).map_err(|err| broken(err.into()))?;

    let mut maps: Vec<(String, OwnedFd, Map)> = Vec::new();
    for (map_name, map) in parsed.maps.drain() {
        let fd = open(&map_name, &map, pins)?;
        maps.push((map_name, fd, map));
    }
    let sections: HashSet<usize> = parsed.functions.keys().map(|(section, _)| *section).collect();
    let opened = maps.iter().map(|(name, fd, map)| (name.as_str(), fd.as_raw_fd(), map));
    parsed.relocate_maps(opened, &sections).map_err(|err| broken(err.into()))?;
    parsed.relocate_calls(&sections).map_err(|err| broken(err.into()))?;

    let mismatch = || LoadError::Mismatch { object, what: format!("no program {name}") };
    let program = parsed.programs.get(name).ok_or_else(mismatch)?;
    let function = parsed.functions.get(&program.function_key()).ok_or_else(mismatch)?;
    let called = CString::new(name).map_err(|_| mismatch())?;
    kernel::load_sk_lookup(&called, &program.license, &function.instructions)
        .map_err(|source| LoadError::Program { program: name.to_owned(), source: Box::new(source) })
}

/// The pinned map of this name, or a new one with the object's constants.
fn open(name: &str, map: &Map, pins: &Pins) -> Result<OwnedFd, LoadError> {
    let failed = |action| LoadError::kernel(action, name);
    if map.section_kind() != EbpfSectionKind::Rodata {
        let known = names::MAPS.contains(&name);
        let mismatch = || LoadError::Mismatch { object: "sk_lookup", what: format!("unknown map {name}") };
        return if known { kernel::get(&pins.map(name)).map_err(failed("open the map")) } else { Err(mismatch()) };
    }
    let fd = kernel::constants(map.data()).map_err(failed("make the map"))?;
    kernel::freeze(fd.as_fd()).map_err(failed("freeze the map"))?;
    Ok(fd)
}
