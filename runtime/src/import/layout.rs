//! Nodes that move values without computing: reshaping, slicing, padding.

use tract_onnx::pb::tensor_proto::DataType;

use super::constants::{Constant, SliceBounds, axis, shape_range, slice_range};
use super::layers::seen_axes;
use super::proto::{Fault, Step, damaged, extent, unsupported};
use super::walk::{Activation, CHANNELS, COLUMNS, FLAT, HEIGHT, IMAGE, Node, ROWS, Value, WIDTH, Walk};
use crate::ops::{Flatten, Op, Pad, Slice};

/// Index of an axis of a shape in the attributes of [`Pad`] and [`Slice`].
fn attribute_index(axis: usize) -> usize {
    axis - HEIGHT
}

impl<'a> Walk<'a> {
    /// `Shape` of an activation. The batch counts as unknown even where the file fixes it, because
    /// Adamant chooses its own.
    pub(super) fn shape_of_activation(&self, node: &Node<'a>) -> Step<Constant<'a>> {
        let x = node.activation(0)?;
        let mut dims = vec![None];
        dims.extend(x.dims().into_iter().map(|d| Some(d as i64)));
        let range = shape_range(node.attributes, dims.len())?;
        Ok(Constant::from_ints(node.output(), dims[range].to_vec()))
    }

    /// A cast to float32 of what is float32 already.
    pub(super) fn cast(&self, node: &Node<'a>) -> Step<Value<'a>> {
        if node.proto.op_type == "Cast" {
            let to = i32::try_from(node.attributes.int_or("to", 0)?).unwrap_or(0);
            if to != DataType::Float as i32 {
                return unsupported(format!("to {}", super::proto::type_name(to)));
            }
            return node.activation(0).map(Value::Activation);
        }
        // CastLike: the second input only lends its type, and every activation is float32.
        match node.value(0) {
            Some(Value::Constant(constant)) => {
                node.activation(1)?;
                if constant.is_float() {
                    return Ok(Value::Constant(Constant { name: node.output(), ..constant.clone() }));
                }
                constant.to_floats(node.output()).map(Value::Constant)
            }
            _ => {
                let like_float = match node.value(1) {
                    Some(Value::Constant(like)) => like.is_float(),
                    _ => true,
                };
                if like_float {
                    node.activation(0).map(Value::Activation)
                } else {
                    unsupported("to integers")
                }
            }
        }
    }

    pub(super) fn flatten(&mut self, node: &Node<'a>) -> Step<Activation> {
        let x = node.activation(0)?;
        let at = node.attributes.int_or("axis", 1)?;
        if at != 1 && at != 1 - x.rank() as i64 {
            return unsupported(format!("axis {at}; only 1 keeps the batch apart"));
        }
        self.flattened(node, x, FLAT)
    }

    /// All values of an image as channels, in ONNX's order.
    fn flattened(&mut self, node: &Node<'a>, x: Activation, axes: &'static [usize]) -> Step<Activation> {
        if x.shape.height() == 1 && x.shape.width() == 1 {
            return Ok(Activation { axes, ..x });
        }
        self.push(node, Op::Flatten(Flatten), vec![x.source], axes)
    }

    pub(super) fn reshape(&mut self, node: &Node<'a>) -> Step<Activation> {
        let keep_zero = node.attributes.int_or("allowzero", 0)? != 0;
        // Before operator set 5 the target was an attribute; those files are refused earlier.
        let target = node.constant(1)?.ints()?.to_vec();
        let x = node.activation(0)?;
        let from = x.dims();
        let Some((&batch, rest)) = target.split_first() else {
            return unsupported("to one number");
        };
        let total: usize = x.shape.per_batch();
        let refusal = || {
            Fault::Unsupported(format!(
                "{from:?} to {target:?}; after the batch only flattening is supported"
            ))
        };
        // The sizes after the batch, one of which may be left to be inferred.
        let mut sizes = Vec::with_capacity(rest.len());
        let mut inferred = (batch == Some(-1)).then_some(None);
        for (i, &size) in rest.iter().enumerate() {
            sizes.push(match size {
                Some(0) if !keep_zero => match from.get(i) {
                    Some(&d) => d,
                    None => return damaged("a 0 past the dimensions of its input"),
                },
                Some(-1) if inferred.is_none() => {
                    inferred = Some(Some(i));
                    1
                }
                Some(size @ 1..) => extent(size, "a dimension").map_err(|_| refusal())?,
                _ => return Err(refusal()),
            });
        }
        let keeps_batch = match batch {
            None | Some(-1) => true,
            Some(0) => !keep_zero,
            Some(n) => self.batch.is_some_and(|b| b as i64 == n),
        };
        if !keeps_batch {
            return unsupported(format!(
                "to {target:?}, which fixes the batch size; export with a dynamic batch"
            ));
        }
        let known = sizes.iter().try_fold(1usize, |a, &d| a.checked_mul(d));
        if let (Some(Some(i)), Some(known)) = (inferred, known) {
            sizes[i] = total / known;
        }
        if sizes.iter().try_fold(1usize, |a, &d| a.checked_mul(d)) != Some(total) {
            return Err(refusal());
        }
        if sizes == from {
            return Ok(x);
        }
        match sizes[..] {
            [_] => self.flattened(node, x, FLAT),
            [_, 1] => self.flattened(node, x, ROWS),
            [_, 1, 1] => self.flattened(node, x, IMAGE),
            _ => Err(refusal()),
        }
    }

    pub(super) fn squeeze(&mut self, node: &Node<'a>) -> Step<Activation> {
        let axes = match node.optional(1)? {
            Some(axes) => Some(axes.known_ints()?),
            None => node.attributes.ints("axes")?.map(<[i64]>::to_vec),
        };
        let x = node.activation(0)?;
        let mut removed = [false; 4];
        match axes {
            None => (HEIGHT..=CHANNELS).for_each(|a| removed[a] = x.shape.0[a] == 1),
            Some(axes) => {
                for at in axes {
                    let at = axis(at, x.rank())?;
                    let physical = if at == 0 { 0 } else { x.axes[at - 1] };
                    if physical == 0 || x.shape.0[physical] != 1 {
                        return unsupported(format!("axis {at} of {:?}", x.dims()));
                    }
                    removed[physical] = true;
                }
            }
        }
        let left: Vec<usize> = x.axes.iter().copied().filter(|&a| !removed[a]).collect();
        Ok(Activation { axes: seen_axes(&left)?, ..x })
    }

    pub(super) fn unsqueeze(&mut self, node: &Node<'a>) -> Step<Activation> {
        let axes = match node.optional(1)? {
            Some(axes) => axes.known_ints()?,
            None => node.attributes.ints("axes")?.unwrap_or_default().to_vec(),
        };
        let x = node.activation(0)?;
        let rank = x.rank() + axes.len();
        let added = axes.iter().map(|&a| axis(a, rank)).collect::<Step<Vec<_>>>()?;
        let seen = match (x.axes, added.as_slice()) {
            (FLAT, [2]) => ROWS,
            (FLAT, [2, 3] | [3, 2]) | (ROWS, [3]) | (COLUMNS, [2]) => IMAGE,
            _ => {
                return unsupported(format!("adds the axes {added:?} to {} dimensions", x.rank()));
            }
        };
        Ok(Activation { axes: seen, ..x })
    }

    /// A transposition that moves no value: of axes of size 1, or of none.
    pub(super) fn transpose(&mut self, node: &Node<'a>) -> Step<Activation> {
        let x = node.activation(0)?;
        let rank = x.rank();
        let order = match node.attributes.ints("perm")? {
            Some(perm) => perm.iter().map(|&p| axis(p, rank)).collect::<Step<Vec<_>>>()?,
            None => (0..rank).rev().collect(),
        };
        if order.iter().copied().eq(0..rank) {
            return Ok(x);
        }
        unsupported(format!(
            "perm {order:?}; export the model with images as batch x channels x height x width"
        ))
    }

    pub(super) fn slice(&mut self, node: &Node<'a>) -> Step<Activation> {
        let rank = match node.value(0) {
            Some(Value::Activation(x)) => x.rank(),
            // The attributes are still checked when the input is unknown.
            _ => 4,
        };
        let bounds = SliceBounds::read(node.attributes, |i| node.optional(i), rank)?;
        let x = node.activation(0)?;
        let [_, h, w, c] = x.shape.0;
        let mut slice = Slice { start: [0; 3], step: [1; 3], len: [h, w, c] };
        for SliceBounds { axis, start, end, step } in bounds {
            let Some(at) = axis.checked_sub(1) else {
                if batch_is_whole(start, end, step, self.batch) {
                    continue;
                }
                return unsupported("it slices the batch");
            };
            let (Some(start), Some(end)) = (start, end) else {
                return unsupported("its bounds depend on the batch size");
            };
            if step < 0 {
                return unsupported("a negative step");
            }
            let physical = x.axes[at];
            let (first, len) = slice_range(x.shape.0[physical], start, end, step)?;
            if len == 0 {
                return damaged(format!("leaves nothing of an axis of {}", x.shape.0[physical]));
            }
            let i = attribute_index(physical);
            // With one value left along the axis, the step is never taken.
            let step = if len == 1 { 1 } else { extent(step, "a step")? };
            (slice.start[i], slice.step[i], slice.len[i]) = (first, step, len);
        }
        if slice.len == [h, w, c] {
            return Ok(x);
        }
        self.push(node, Op::Slice(slice), vec![x.source], x.axes)
    }

    pub(super) fn pad(&mut self, node: &Node<'a>) -> Step<Activation> {
        let mode = node.attributes.text_or("mode", "constant")?;
        if mode != "constant" {
            return unsupported(format!("mode '{mode}'; only 'constant' is supported"));
        }
        let value = match node.optional(2)? {
            Some(value) => value.scalar()?,
            None => node.attributes.float("value")?.unwrap_or(0.0),
        };
        if !value.is_finite() {
            return unsupported(format!("with {value}"));
        }
        let amounts = match node.optional(1)? {
            Some(amounts) => amounts.known_ints()?,
            None => match node.attributes.ints("pads")? {
                Some(amounts) => amounts.to_vec(),
                None => return damaged("it has no pads"),
            },
        };
        let named = node.optional(3)?.map(|axes| axes.known_ints()).transpose()?;
        if amounts.iter().any(|&a| a < 0) {
            return unsupported(format!("negative pads {amounts:?}"));
        }
        let x = node.activation(0)?;
        let axes = match named {
            Some(axes) => axes.iter().map(|&a| axis(a, x.rank())).collect::<Step<Vec<_>>>()?,
            None => (0..x.rank()).collect(),
        };
        if amounts.len() != 2 * axes.len() {
            return damaged(format!("pads are {amounts:?} for {} axes", axes.len()));
        }
        let mut pad = Pad { before: [0; 3], after: [0; 3], interior: [0; 3], value };
        for (&at, amounts) in axes.iter().zip(amounts.iter().zip(&amounts[axes.len()..])) {
            let (before, after) = (extent(*amounts.0, "a pad")?, extent(*amounts.1, "a pad")?);
            if (before, after) == (0, 0) {
                continue;
            }
            let Some(at) = at.checked_sub(1) else {
                return unsupported("it pads the batch");
            };
            let i = attribute_index(x.axes[at]);
            (pad.before[i], pad.after[i]) = (before, after);
        }
        if pad.before == [0; 3] && pad.after == [0; 3] {
            return Ok(x);
        }
        self.push(node, Op::Pad(pad), vec![x.source], x.axes)
    }
}

/// Whether a slice of the batch axis keeps every image, for every batch size.
fn batch_is_whole(start: Option<i64>, end: Option<i64>, step: i64, batch: Option<usize>) -> bool {
    let whole_end = match (end, batch) {
        // An end computed from the batch is the batch itself in every exporter's output.
        (None, _) => true,
        (Some(end), Some(batch)) => end >= batch as i64,
        (Some(end), None) => end >= i64::from(i32::MAX),
    };
    start == Some(0) && step == 1 && whole_end
}

// The order of the axes of a shape is what `attribute_index` relies on.
const _: () = assert!(WIDTH == HEIGHT + 1 && CHANNELS == WIDTH + 1);
