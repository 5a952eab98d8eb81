//! Tensors of the file as parameters of the network, and back.
//!
//! ONNX stores a convolution weight as output channels x input channels x height x width; here
//! the output channels come last. Both directions live side by side, so that one is always the
//! inverse of the other.

use std::collections::HashSet;

use super::constants::{Constant, Data, TensorId};
use super::proto::{self, Step, damaged};
use crate::network::{Parameter, Role, Source};
use crate::shape::{Shape, Tensor};

/// How a tensor of the file is laid out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Layout {
    /// One value a channel, whatever dimensions of size 1 surround it; multiplied by `factor`.
    Vector { factor: f32 },
    /// A convolution weight: O x I x H x W.
    Convolution,
    /// A linear weight: inputs x outputs, or outputs x inputs when `transposed`; multiplied by
    /// `factor`, which is the alpha of a `Gemm`.
    Linear { transposed: bool, factor: f32 },
}

impl Layout {
    pub(crate) const VECTOR: Self = Self::Vector { factor: 1.0 };

    /// Whether writing gives back exactly what was read. Dividing by a factor may round.
    pub(super) fn is_exact(self) -> bool {
        match self {
            Self::Vector { factor } | Self::Linear { factor, .. } => factor == 1.0,
            Self::Convolution => true,
        }
    }

    /// The parameter's shape for a tensor of `dims`; `None` when the number of dimensions is wrong.
    pub(super) fn shape(self, dims: &[usize]) -> Option<Shape> {
        match (self, dims) {
            (Self::Vector { .. }, dims) => Some(Shape::vector(dims.iter().product())),
            (Self::Convolution, &[o, i, h, w]) => Some(Shape([h, w, i, o])),
            (Self::Linear { transposed: false, .. }, &[i, o])
            | (Self::Linear { transposed: true, .. }, &[o, i]) => Some(Shape([1, 1, i, o])),
            _ => None,
        }
    }

    /// The parameter's values from the tensor's.
    pub(super) fn read(self, shape: Shape, values: &[f32]) -> Tensor {
        let [h, w, i, o] = shape.0;
        let data = match self {
            Self::Vector { factor } | Self::Linear { transposed: false, factor } => scaled(values, factor),
            Self::Linear { transposed: true, factor } => scaled(&transposed(values, o, i), factor),
            Self::Convolution => swap_blocks(&transposed(values, o, i * h * w), i, h * w, o),
        };
        Tensor::new(shape, data)
    }

    /// The tensor's values from the parameter's: the inverse of [`Layout::read`].
    pub(crate) fn write(self, parameter: &Tensor) -> Vec<f32> {
        let [h, w, i, o] = parameter.shape.0;
        let values = &parameter.data;
        match self {
            Self::Vector { factor } | Self::Linear { transposed: false, factor } => {
                scaled(values, factor.recip())
            }
            Self::Linear { transposed: true, factor } => scaled(&transposed(values, i, o), factor.recip()),
            Self::Convolution => transposed(&swap_blocks(values, h * w, i, o), i * h * w, o),
        }
    }
}

fn scaled(values: &[f32], factor: f32) -> Vec<f32> {
    if factor == 1.0 { values.to_vec() } else { values.iter().map(|v| v * factor).collect() }
}

/// A row-major matrix with its axes swapped.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}

/// From `a` x `b` blocks of `block` values to `b` x `a`.
fn swap_blocks(values: &[f32], a: usize, b: usize, block: usize) -> Vec<f32> {
    let at = |i: usize, j: usize| &values[(i * b + j) * block..][..block];
    (0..b).flat_map(|j| (0..a).map(move |i| (i, j))).flat_map(|(i, j)| at(i, j).iter().copied()).collect()
}

/// Where an export writes a parameter.
#[derive(Clone, Debug)]
pub(super) enum Home {
    /// Into the tensor that it was read from.
    Tensor(TensorId),
    /// Into an initialiser of its own, which the inputs `users` (node, input) then read; only
    /// when it differs from what they read now. Such a parameter was computed by nodes of the
    /// file, or shares a tensor with another one: exporters merge tensors that happen to be
    /// equal, as those of fresh BatchNorms are.
    Own { dims: Vec<usize>, users: Vec<(usize, usize)>, shared: Option<TensorId> },
    /// Nowhere: it is a constant, which never changes.
    Nowhere,
}

/// A parameter and its way back into the file.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub parameter: Parameter,
    pub layout: Layout,
    pub home: Home,
    /// Its values; `None` for a stored tensor of a file without values.
    pub value: Option<Tensor>,
}

struct Entry<'a> {
    name: &'a str,
    tensor: Option<TensorId>,
    dims: Vec<usize>,
    users: Vec<(usize, usize)>,
    role: Role,
    layout: Layout,
    shape: Shape,
    value: Option<Tensor>,
}

/// The parameters found so far.
#[derive(Default)]
pub(super) struct Parameters<'a> {
    entries: Vec<Entry<'a>>,
    /// Tensors whose values the importer itself used: they must stay as they are.
    pub read: HashSet<TensorId>,
}

impl<'a> Parameters<'a> {
    /// Makes `constant`, the input `user` (node, input) of the file, a parameter.
    pub(super) fn bind(
        &mut self,
        constant: &Constant<'a>,
        role: Role,
        layout: Layout,
        user: (usize, usize),
    ) -> Step<Source> {
        // One tensor that several layers read under one name is one parameter. Running statistics
        // belong to one layer each.
        let tied = self.entries.iter().position(|e| {
            role.trains()
                && e.tensor.is_some()
                && (e.tensor, e.name, e.role, e.layout) == (constant.tensor, constant.name, role, layout)
        });
        if let Some(index) = tied {
            self.entries[index].users.push(user);
            return Ok(Source::Parameter(index));
        }
        let Some(shape) = layout.shape(&constant.dims).filter(|s| !s.is_empty()) else {
            return damaged(format!("'{}' has the dimensions {:?}", constant.name, constant.dims));
        };
        let value = match &constant.data {
            Data::Stored(tensor) if proto::is_stripped(tensor) => None,
            _ => Some(layout.read(shape, &constant.floats()?)),
        };
        if value.as_ref().is_some_and(|v| v.data.iter().any(|x| !x.is_finite())) {
            return damaged(format!("'{}' holds a NaN or an infinity", constant.name));
        }
        self.entries.push(Entry {
            name: constant.name,
            tensor: constant.tensor,
            dims: constant.dims.clone(),
            users: vec![user],
            role,
            layout,
            shape,
            value,
        });
        Ok(Source::Parameter(self.entries.len() - 1))
    }

    pub(super) fn shape(&self, index: usize) -> Shape {
        self.entries[index].shape
    }

    /// The name of the value that a parameter was read from.
    pub(super) fn name(&self, index: usize) -> &'a str {
        self.entries[index].name
    }

    /// A per-channel constant that the importer derived from the file.
    pub(super) fn derived(&mut self, name: &'a str, values: Vec<f32>) -> Source {
        let shape = Shape::vector(values.len());
        self.entries.push(Entry {
            name,
            tensor: None,
            dims: vec![],
            users: vec![],
            role: Role::Constant,
            layout: Layout::VECTOR,
            shape,
            value: Some(Tensor::new(shape, values)),
        });
        Source::Parameter(self.entries.len() - 1)
    }

    /// Names every parameter and decides where each is written back.
    ///
    /// `taken` are the names of the graph; `name_of` the name of a stored tensor.
    pub(super) fn finish(self, taken: &HashSet<&str>, name_of: impl Fn(TensorId) -> &'a str) -> Vec<Binding> {
        let mut owned = self.read;
        let mut used: HashSet<String> = HashSet::new();
        self.entries
            .into_iter()
            .map(|entry| {
                let fresh = |used: &HashSet<String>| {
                    (2u32..)
                        .map(|n| format!("{}_{n}", entry.name))
                        .find(|name| !used.contains(name) && !taken.contains(name.as_str()))
                        .expect("there are fewer parameters than numbers")
                };
                let (name, home) = match entry.tensor {
                    _ if entry.role == Role::Constant => (fresh(&used), Home::Nowhere),
                    Some(id) if owned.insert(id) => (name_of(id).to_owned(), Home::Tensor(id)),
                    shared => (fresh(&used), Home::Own { dims: entry.dims, users: entry.users, shared }),
                };
                used.insert(name.clone());
                Binding {
                    parameter: Parameter { name, shape: entry.shape, role: entry.role },
                    layout: entry.layout,
                    home,
                    value: entry.value,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| i as f32).collect()
    }

    #[test]
    fn convolution_weights_go_from_oihw_to_hwio() {
        let [o, i, h, w] = [4, 3, 2, 5];
        let values = numbers(o * i * h * w);
        let shape = Layout::Convolution.shape(&[o, i, h, w]).unwrap();
        assert_eq!(shape, Shape([h, w, i, o]));
        let tensor = Layout::Convolution.read(shape, &values);
        let at = |o_: usize, i_: usize, h_: usize, w_: usize| values[((o_ * i + i_) * h + h_) * w + w_];
        for (index, &value) in tensor.data.iter().enumerate() {
            let (o_, rest) = (index % o, index / o);
            let (i_, rest) = (rest % i, rest / i);
            assert_eq!(value, at(o_, i_, rest / w, rest % w));
        }
    }

    #[test]
    fn writing_is_the_inverse_of_reading() {
        let linear = |transposed| Layout::Linear { transposed, factor: 1.0 };
        let cases: [(Layout, &[usize]); 5] = [
            (Layout::Convolution, &[4, 3, 2, 5]),
            (linear(true), &[3, 7]),
            (linear(false), &[3, 7]),
            (Layout::VECTOR, &[1, 6, 1, 1]),
            (Layout::Linear { transposed: true, factor: 0.5 }, &[3, 7]),
        ];
        for (layout, dims) in cases {
            let values = numbers(dims.iter().product());
            let shape = layout.shape(dims).unwrap();
            assert_eq!(layout.write(&layout.read(shape, &values)), values, "{layout:?}");
        }
    }

    #[test]
    fn linear_weights_end_as_inputs_by_outputs() {
        let layout = Layout::Linear { transposed: true, factor: 2.0 };
        let tensor = layout.read(layout.shape(&[2, 3]).unwrap(), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(tensor.shape, Shape([1, 1, 3, 2]));
        assert_eq!(tensor.data, [2.0, 8.0, 4.0, 10.0, 6.0, 12.0]);
    }
}
