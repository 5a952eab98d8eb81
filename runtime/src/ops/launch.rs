//! How an operation runs on the GPU, as data.

use crate::plan::Limits;
use crate::shape::Shape;

/// A WGSL kernel with the entry point `main`: the files that are concatenated, and its label.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    pub name: &'static str,
    pub sources: &'static [&'static str],
    /// Threads in a workgroup, equal to `@workgroup_size` in the source.
    pub workgroup: u32,
}

/// A kernel that handles one channel at a time, and the same kernel for four.
pub(crate) struct ByFour {
    pub one: Kernel,
    pub four: Kernel,
}

impl ByFour {
    /// The kernel for activations of `channels`, and how many of them it handles at once.
    pub const fn pick(&self, channels: usize) -> (Kernel, usize) {
        if channels.is_multiple_of(4) { (self.four, 4) } else { (self.one, 1) }
    }
}

/// Makes a [`ByFour`] of a source that is written for the type `T`.
macro_rules! by_four {
    ($name:literal, $($source:ident),+) => {
        $crate::ops::launch::ByFour {
            one: $crate::ops::launch::Kernel {
                name: $name,
                sources: &[adamant_shaders::ONE, adamant_shaders::INDEX, $(adamant_shaders::$source),+],
                workgroup: 64,
            },
            four: $crate::ops::launch::Kernel {
                name: concat!($name, "_by_four"),
                sources: &[adamant_shaders::FOUR, adamant_shaders::INDEX, $(adamant_shaders::$source),+],
                workgroup: 64,
            },
        }
    };
}
pub(crate) use by_four;

/// Makes a [`Textured`] of a kernel's name without `_textured`, its arguments that are textures, and its sources.
macro_rules! textured {
    ($name:literal, $arguments:expr, $($source:ident),+ $(,)?) => {
        $crate::ops::launch::Textured {
            kernel: $crate::ops::launch::Kernel {
                name: concat!($name, "_textured"),
                sources: &[adamant_shaders::INDEX, adamant_shaders::TEXEL, $(adamant_shaders::$source),+],
                workgroup: 64,
            },
            arguments: $arguments,
        }
    };
}
pub(crate) use textured;

/// A buffer of a dispatch, in binding order. Kernels bind what they read first, then what they
/// write, then their `Params`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    Input(usize),
    /// An input, copied before the dispatch into a texture with four elements a texel: see [`TEXELS`].
    Texture(usize),
    Output(usize),
    /// Working memory of this one operation: an index into [`Launch::scratch`].
    Scratch(usize),
}

/// Texels in a row of an [`Argument::Texture`], as in shaders/shared/texel.wgsl: element group i is texel
/// (i % TEXELS, i / TEXELS).
pub const TEXELS: usize = 4096;

/// Rows of a texture that every WebGPU device allows.
const TEXTURE_ROWS: usize = 8192;

impl Dispatch {
    /// The inputs that are textures, each once, in the order of [`crate::Temporaries::textures`].
    pub fn textured_inputs(&self) -> Vec<usize> {
        let mut inputs = Vec::new();
        for argument in &self.arguments {
            match *argument {
                Argument::Texture(i) if !inputs.contains(&i) => inputs.push(i),
                _ => {}
            }
        }
        inputs
    }
}

/// A kernel that reads some of its arguments, all of them inputs, as textures. It is called as the one that reads buffers,
/// with `_textured` behind.
#[derive(Clone, Copy)]
pub(crate) struct Textured {
    pub kernel: Kernel,
    pub arguments: &'static [usize],
}

#[derive(Clone, PartialEq, Debug)]
pub struct Dispatch {
    pub kernel: Kernel,
    pub arguments: Vec<Argument>,
    /// The bytes of the kernel's `Params`.
    pub parameters: Vec<u8>,
    /// The names and types of its fields, which have to be those of the WGSL struct.
    pub fields: &'static [(&'static str, &'static str)],
    /// Number of threads that have work; the last workgroup may be partly idle.
    pub threads: u64,
}

#[derive(Clone, PartialEq, Default, Debug)]
pub struct Launch {
    pub dispatches: Vec<Dispatch>,
    /// Elements of each scratch buffer.
    pub scratch: Vec<usize>,
}

impl Launch {
    pub(crate) fn single(
        kernel: Kernel,
        arguments: &[Argument],
        parameters: &impl Parameters,
        threads: usize,
    ) -> Self {
        Self::default().then(kernel, arguments, parameters, threads)
    }

    /// Adds a dispatch that runs after the ones before it.
    pub(crate) fn then(
        mut self,
        kernel: Kernel,
        arguments: &[Argument],
        parameters: &impl Parameters,
        threads: usize,
    ) -> Self {
        self.dispatches.push(Dispatch {
            kernel,
            arguments: arguments.to_vec(),
            parameters: bytemuck::bytes_of(parameters).to_vec(),
            fields: fields(parameters),
            threads: threads as u64,
        });
        self
    }

    /// This launch and, on a processor, where there are kernels in `textured` for some of its dispatches and their inputs
    /// fit into textures, the same with these; the one first that is likely to be faster.
    pub(crate) fn or_textured(self, textured: &[Textured], inputs: &[Shape], limits: &Limits) -> Vec<Self> {
        if !limits.software {
            return vec![self];
        }
        let mut other = self.clone();
        for dispatch in &mut other.dispatches {
            let name = dispatch.kernel.name;
            let Some(textured) =
                textured.iter().find(|t| t.kernel.name.strip_suffix("_textured") == Some(name))
            else {
                continue;
            };
            dispatch.kernel = textured.kernel;
            for &position in textured.arguments {
                match dispatch.arguments[position] {
                    Argument::Input(i) if inputs[i].len().div_ceil(4 * TEXELS) <= TEXTURE_ROWS => {
                        dispatch.arguments[position] = Argument::Texture(i);
                    }
                    _ => return vec![self],
                }
            }
        }
        match limits.slow_buffers {
            _ if other == self => vec![self],
            true => vec![other, self],
            false => vec![self, other],
        }
    }

    /// Adds a scratch buffer and returns its argument.
    pub fn scratch(&mut self, len: usize) -> Argument {
        self.scratch.push(len);
        Argument::Scratch(self.scratch.len() - 1)
    }
}

/// The host side of a kernel's `Params`.
pub(crate) trait Parameters: bytemuck::NoUninit {
    const FIELDS: &'static [(&'static str, &'static str)];
}

fn fields<P: Parameters>(_: &P) -> &'static [(&'static str, &'static str)] {
    P::FIELDS
}

/// Defines [`Parameters`]: four-byte fields in the order of the WGSL struct. A test compares names,
/// order and types with the shader.
macro_rules! params {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        $vis struct $name { $($vis $field: $type,)* }

        impl super::launch::Parameters for $name {
            const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), stringify!($type)),)*];
        }
    };
}
pub(crate) use params;
