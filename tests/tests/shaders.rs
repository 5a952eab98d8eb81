//! The kernels and the launches that use them fit together: WGSL on one side, Rust on the other.

use std::collections::{BTreeMap, BTreeSet};

use adamant::op::{Argument, Dispatch, Kernel};
use adamant::{Limits, Step};
use adamant_tests::Failures;
use adamant_tests::cases;
use adamant_tests::run::plans;
use naga::valid::Capabilities;
use naga::{AddressSpace, Binding, ResourceBinding, ScalarKind, StorageAccess, TypeInner};

/// The devices that launches differ on: WebGPU's minimum first, and llvmpipe, with subgroups of eight lanes.
const DEVICES: [Limits; 2] =
    [Limits::WEBGPU, Limits { subgroup_lanes: Some(8), software: true, ..Limits::WEBGPU }];

/// The steps of every case on every device, with the case's name.
fn steps() -> Vec<(String, Step)> {
    let mut steps = Vec::new();
    for limits in DEVICES {
        for case in cases::all() {
            for plan in plans(&case, &limits).unwrap_or_else(|e| panic!("{}: {e}", case.name)) {
                steps.extend(plan.steps.into_iter().map(|step| (case.name.clone(), step)));
            }
        }
    }
    steps
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Bound {
    /// A buffer, or a texture, that it reads.
    Buffer,
    Texture,
    /// A buffer that it writes.
    Written,
}

/// A kernel as naga reads it.
struct Reflection {
    workgroup: [u32; 3],
    /// What a kernel does with each binding but the last, in binding order.
    bindings: Vec<Bound>,
    /// Names and types of the fields of `Params`, which is the last binding.
    params: Vec<(String, &'static str)>,
    params_size: u32,
}

/// What every WebGPU device has and naga asks for, and what a kernel may need beyond: only those that are
/// launched for it alone.
fn capabilities(kernel: &Kernel) -> Capabilities {
    // `unpack2x16float`
    let webgpu = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    if kernel.name.contains("_lanes8") { webgpu | Capabilities::SUBGROUP } else { webgpu }
}

fn reflect(kernel: &Kernel) -> Result<Reflection, String> {
    let source = kernel.sources.concat();
    let module = naga::front::wgsl::parse_str(&source).map_err(|e| e.emit_to_string(&source))?;
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities(kernel));
    let info = validator.validate(&module).map_err(|e| e.emit_to_string(&source))?;
    let [entry] = module.entry_points.as_slice() else {
        return Err(format!("{} entry points", module.entry_points.len()));
    };
    if entry.name != "main" || entry.stage != naga::ShaderStage::Compute {
        return Err(format!("the entry point is {:?} '{}'", entry.stage, entry.name));
    }
    // The thread index is made of the local index, so a workgroup has one dimension.
    let uses_local = entry
        .function
        .arguments
        .iter()
        .any(|a| matches!(a.binding, Some(Binding::BuiltIn(naga::BuiltIn::LocalInvocationIndex))));
    if !uses_local {
        return Err("does not ask for local_invocation_index".into());
    }
    let mut bindings: BTreeMap<u32, (AddressSpace, &naga::Type)> = BTreeMap::new();
    for (handle, variable) in module.global_variables.iter() {
        let Some(ResourceBinding { group, binding }) = variable.binding else { continue };
        if group != 0 {
            return Err(format!("binding {binding} is in group {group}"));
        }
        if info.get_entry_point(0)[handle].is_empty() {
            // A layout made from the shader leaves unused bindings out, and binding them fails.
            return Err(format!("binding {binding} is not used"));
        }
        bindings.insert(binding, (variable.space, &module.types[variable.ty]));
    }
    if bindings.keys().copied().ne(0..bindings.len() as u32) {
        return Err(format!("bindings are numbered {:?}", bindings.keys().collect::<Vec<_>>()));
    }
    let Some((_, (AddressSpace::Uniform, params))) = bindings.pop_last() else {
        return Err("the last binding is not a uniform".into());
    };
    let TypeInner::Struct { members, span } = &params.inner else {
        return Err("Params is not a struct".into());
    };
    if params.name.as_deref() != Some("Params") {
        return Err(format!("the last binding is of type {:?}", params.name));
    }
    let sampled = naga::ImageClass::Sampled { kind: ScalarKind::Float, multi: false };
    let bindings = bindings
        .values()
        .map(|(space, ty)| match (space, &ty.inner) {
            (AddressSpace::Storage { access }, _) if access.contains(StorageAccess::STORE) => {
                Ok(Bound::Written)
            }
            (AddressSpace::Storage { .. }, _) => Ok(Bound::Buffer),
            (
                AddressSpace::Handle,
                &TypeInner::Image { dim: naga::ImageDimension::D2, arrayed: false, class },
            ) if class == sampled => Ok(Bound::Texture),
            (other, inner) => Err(format!("a binding is {inner:?} in {other:?}")),
        })
        .collect::<Result<_, _>>()?;
    let fields = members
        .iter()
        .map(|member| {
            let kind = match &module.types[member.ty].inner {
                TypeInner::Scalar(scalar) if scalar.width == 4 => match scalar.kind {
                    ScalarKind::Uint => "u32",
                    ScalarKind::Sint => "i32",
                    ScalarKind::Float => "f32",
                    other => return Err(format!("a field of kind {other:?}")),
                },
                other => return Err(format!("a field of type {other:?}")),
            };
            Ok((member.name.clone().unwrap_or_default(), kind))
        })
        .collect::<Result<_, _>>()?;
    Ok(Reflection { workgroup: entry.workgroup_size, bindings, params: fields, params_size: *span })
}

/// The distinct kernels of all steps.
fn kernels(steps: &[(String, Step)]) -> BTreeMap<&'static str, Kernel> {
    steps.iter().flat_map(|(_, step)| &step.launch.dispatches).map(|d| (d.kernel.name, d.kernel)).collect()
}

fn reflections(steps: &[(String, Step)]) -> BTreeMap<&'static str, Result<Reflection, String>> {
    kernels(steps).into_iter().map(|(name, kernel)| (name, reflect(&kernel))).collect()
}

#[test]
fn kernels_are_valid_in_webgpu() {
    let mut failures = Failures::new();
    for (name, kernel) in kernels(&steps()) {
        let result = reflect(&kernel).and_then(|r| {
            let expected = [kernel.workgroup, 1, 1];
            if r.workgroup == expected {
                Ok(())
            } else {
                Err(format!("a workgroup of {:?}, the launch expects {expected:?}", r.workgroup))
            }
        });
        failures.check(name, result);
    }
    failures.report();
}

/// A kernel that no case launches is tested by nobody.
#[test]
fn every_shader_is_launched() {
    let used: BTreeSet<&str> = kernels(&steps()).values().flat_map(|k| k.sources.iter().copied()).collect();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shaders");
    let mut failures = Failures::new();
    for folder in [folder.join("shared"), folder] {
        for file in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = file.expect("the folder is readable").path();
            if path.extension().is_some_and(|e| e == "wgsl") {
                let source = std::fs::read_to_string(&path).expect("the file is readable");
                let found = used.contains(source.as_str());
                let result = if found { Ok(()) } else { Err("no case launches it".into()) };
                failures.check(&path.display().to_string(), result);
            }
        }
    }
    failures.report();
}

#[test]
fn bindings_match_arguments() {
    let steps = steps();
    let reflections = reflections(&steps);
    let mut failures = Failures::new();
    for (case, step) in &steps {
        let mut written = BTreeSet::new();
        for dispatch in &step.launch.dispatches {
            let name = format!("{case}: {}", dispatch.kernel.name);
            let result = match &reflections[dispatch.kernel.name] {
                Ok(reflection) => binds(dispatch, reflection, &mut written),
                Err(message) => Err(message.clone()),
            };
            failures.check(&name, result);
        }
        for i in 0..step.outputs.len() {
            let found = written.contains(&key(Argument::Output(i)));
            failures.check(case, if found { Ok(()) } else { Err(format!("nothing writes output {i}")) });
        }
    }
    failures.report();
}

/// WebGPU's minimum never gets a kernel that needs more.
#[test]
fn the_minimum_needs_no_subgroups() {
    let mut failures = Failures::new();
    for case in cases::all() {
        let plans = plans(&case, &Limits::WEBGPU).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let steps = plans.iter().flat_map(|plan| &plan.steps);
        for kernel in steps.flat_map(|s| &s.launch.dispatches).map(|d| d.kernel) {
            let plain = !capabilities(&kernel).contains(Capabilities::SUBGROUP);
            let result = if plain { Ok(()) } else { Err(format!("launches {}", kernel.name)) };
            failures.check(&case.name, result);
        }
    }
    failures.report();
}

/// An argument that can be sorted.
fn key(argument: Argument) -> (u8, usize) {
    match argument {
        Argument::Input(i) | Argument::Texture(i) => (0, i),
        Argument::Output(i) => (1, i),
        Argument::Scratch(i) => (2, i),
    }
}

fn binds(
    dispatch: &Dispatch,
    kernel: &Reflection,
    written: &mut BTreeSet<(u8, usize)>,
) -> Result<(), String> {
    let arguments = &dispatch.arguments;
    if kernel.bindings.len() != arguments.len() {
        return Err(format!("{} bindings for {} arguments", kernel.bindings.len(), arguments.len()));
    }
    if arguments.len() > Limits::WEBGPU.storage_buffers as usize {
        return Err(format!("{} storage buffers", arguments.len()));
    }
    let is_written = |b: &Bound| *b == Bound::Written;
    if !kernel.bindings.is_sorted_by_key(is_written) || !kernel.bindings.iter().any(is_written) {
        return Err(format!("it should read first and then write, but does {:?}", kernel.bindings));
    }
    let (mut reads, mut writes) = (BTreeSet::new(), BTreeSet::new());
    for (&argument, &bound) in arguments.iter().zip(&kernel.bindings) {
        match (argument, bound) {
            (Argument::Texture(_), Bound::Texture) => {}
            (Argument::Texture(_), _) | (_, Bound::Texture) => {
                return Err(format!("binds {argument:?} as {bound:?}"));
            }
            (Argument::Input(i), Bound::Written) => return Err(format!("writes input {i}")),
            (Argument::Scratch(i), Bound::Buffer) if !written.contains(&key(argument)) => {
                return Err(format!("reads scratch {i} before a dispatch has written it"));
            }
            (_, Bound::Buffer) => drop(reads.insert(key(argument))),
            (_, Bound::Written) if !writes.insert(key(argument)) => {
                return Err(format!("binds {argument:?} twice to write"));
            }
            (_, Bound::Written) => {}
        }
    }
    // WebGPU refuses a buffer that one dispatch binds both ways.
    if let Some(both) = reads.intersection(&writes).next() {
        return Err(format!("binds {both:?} to read and to write"));
    }
    written.extend(writes);
    Ok(())
}

#[test]
fn params_match_the_host() {
    let steps = steps();
    let mut failures = Failures::new();
    let mut seen = BTreeSet::new();
    for dispatch in steps.iter().flat_map(|(_, step)| &step.launch.dispatches) {
        // Fields and size are those of a type: one launch of each kernel tells them.
        if seen.insert((dispatch.kernel.name, dispatch.fields)) {
            failures.check(dispatch.kernel.name, params_match(dispatch));
        }
    }
    failures.report();
}

fn params_match(dispatch: &Dispatch) -> Result<(), String> {
    let kernel = reflect(&dispatch.kernel)?;
    let host: Vec<(String, &str)> =
        dispatch.fields.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    if host != kernel.params {
        return Err(format!("the host has {host:?}, the shader {:?}", kernel.params));
    }
    if kernel.params_size as usize != dispatch.parameters.len() {
        return Err(format!("{} bytes, the shader has {}", dispatch.parameters.len(), kernel.params_size));
    }
    Ok(())
}
