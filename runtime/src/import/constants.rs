//! Values of the graph that do not depend on the image, and the rules of ONNX for naming axes,
//! shapes and slices of them.

use std::borrow::Cow;

use tract_onnx::pb::{NodeProto, TensorProto};

use super::proto::{self, Attributes, Step, damaged, unsupported};

/// Where in the file a tensor is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum TensorId {
    Initializer(usize),
    /// The value of the `Constant` node at this index.
    Node(usize),
}

/// The values of a constant.
#[derive(Clone, Debug)]
pub(super) enum Data<'a> {
    Int(Vec<Option<i64>>),
    Float(Vec<f32>),
    /// f32 values of the file, decoded when they are asked for.
    Stored(&'a TensorProto),
    /// Halves or eight bits of the file: read only where a node makes f32 of them.
    Compact(&'a TensorProto),
    /// Values of a type that Adamant does not read.
    Other(String),
}

/// A value of the graph that does not depend on the image.
#[derive(Clone, Debug)]
pub(super) struct Constant<'a> {
    pub name: &'a str,
    pub dims: Vec<usize>,
    pub data: Data<'a>,
    /// The tensor whose values these are, in the same order; `None` when they were computed.
    pub tensor: Option<TensorId>,
}

impl<'a> Constant<'a> {
    pub(super) fn from_tensor(name: &'a str, tensor: &'a TensorProto, id: TensorId) -> Step<Self> {
        let dims = proto::dims(tensor)?;
        let data = if proto::is_float(tensor) {
            Data::Stored(tensor)
        } else if proto::is_compact(tensor) {
            Data::Compact(tensor)
        } else {
            match proto::ints(tensor)? {
                Some(values) => Data::Int(values.into_iter().map(Some).collect()),
                None => Data::Other(proto::type_name(tensor.data_type)),
            }
        };
        Ok(Self { name, dims, data, tensor: Some(id) })
    }

    pub(super) fn from_ints(name: &'a str, values: Vec<Option<i64>>) -> Self {
        Self { name, dims: vec![values.len()], data: Data::Int(values), tensor: None }
    }

    pub(super) fn computed(name: &'a str, dims: Vec<usize>, data: Data<'a>) -> Self {
        Self { name, dims, data, tensor: None }
    }

    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    pub(super) fn is_float(&self) -> bool {
        matches!(self.data, Data::Float(_) | Data::Stored(_))
    }

    /// The integers; `None` where one depends on the batch size.
    pub(super) fn ints(&self) -> Step<&[Option<i64>]> {
        match &self.data {
            Data::Int(values) => Ok(values),
            Data::Other(kind) => self.wrong_type(kind),
            Data::Compact(tensor) => self.wrong_type(&proto::type_name(tensor.data_type)),
            Data::Float(_) | Data::Stored(_) => {
                damaged(format!("'{}' holds floats where integers belong", self.name))
            }
        }
    }

    /// The integers, none of which may depend on the batch size.
    pub(super) fn known_ints(&self) -> Step<Vec<i64>> {
        match self.ints()?.iter().copied().collect() {
            Some(values) => Ok(values),
            None => unsupported(format!("'{}' depends on the batch size", self.name)),
        }
    }

    pub(super) fn floats(&self) -> Step<Cow<'_, [f32]>> {
        match &self.data {
            Data::Float(values) => Ok(Cow::Borrowed(values)),
            Data::Stored(tensor) => proto::floats(tensor).map(Cow::Owned),
            Data::Other(kind) => self.wrong_type(kind),
            Data::Compact(tensor) => self.wrong_type(&proto::type_name(tensor.data_type)),
            Data::Int(_) => damaged(format!("'{}' holds integers where floats belong", self.name)),
        }
    }

    /// The same numbers as floats.
    pub(super) fn to_floats(&self, name: &'a str) -> Step<Self> {
        let values = self.known_ints()?.into_iter().map(|v| v as f32).collect();
        Ok(Self::computed(name, self.dims.clone(), Data::Float(values)))
    }

    /// The one number of a scalar.
    pub(super) fn scalar(&self) -> Step<f32> {
        match self.floats()?.as_ref() {
            &[value] => Ok(value),
            _ => damaged(format!("'{}' of dimensions {:?} is not one number", self.name, self.dims)),
        }
    }

    pub(super) fn wrong_type<T>(&self, kind: &str) -> Step<T> {
        unsupported(format!("'{}' is {kind}; export the model in float32", self.name))
    }

    /// The same values in the same order under other dimensions.
    pub(super) fn reshaped(&self, name: &'a str, dims: Vec<usize>) -> Self {
        Self { name, dims, ..self.clone() }
    }

    /// The one number of this constant as a vector of `count`.
    pub(super) fn repeated(&self, count: usize) -> Step<Self> {
        let value = self.scalar()?;
        Ok(Self::computed(self.name, vec![count], Data::Float(vec![value; count])))
    }

    /// Values of this constant by their index.
    pub(super) fn pick(&self, name: &'a str, dims: Vec<usize>, indices: &[usize]) -> Step<Self> {
        let data = match &self.data {
            Data::Int(values) => Data::Int(indices.iter().map(|&i| values[i]).collect()),
            _ => {
                let values = self.floats()?;
                Data::Float(indices.iter().map(|&i| values[i]).collect())
            }
        };
        Ok(Self::computed(name, dims, data))
    }
}

/// The value of a `Constant` node.
pub(super) fn constant_node<'a>(node: &'a NodeProto, index: usize) -> Step<Constant<'a>> {
    let attributes = Attributes(node);
    let name = node.output.first().map_or("", String::as_str);
    if let Some(tensor) = attributes.tensor("value")? {
        return Constant::from_tensor(name, tensor, TensorId::Node(index));
    }
    let (dims, data) = if let Some(v) = attributes.int("value_int")? {
        (vec![], Data::Int(vec![Some(v)]))
    } else if let Some(v) = attributes.float("value_float")? {
        (vec![], Data::Float(vec![v]))
    } else if let Some(v) = attributes.ints("value_ints")? {
        (vec![v.len()], Data::Int(v.iter().copied().map(Some).collect()))
    } else if let Some(v) = attributes.floats("value_floats")? {
        (vec![v.len()], Data::Float(v.to_vec()))
    } else {
        return unsupported("only dense tensors and numbers");
    };
    Ok(Constant::computed(name, dims, data))
}

/// A non-negative axis from one that may count from the end.
pub(super) fn axis(value: i64, rank: usize) -> Step<usize> {
    let rank = rank as i64;
    if !(-rank..rank).contains(&value) {
        return damaged(format!("axis {value} of a value of {rank} dimensions"));
    }
    Ok((if value < 0 { value + rank } else { value }) as usize)
}

/// Start and number of steps of a slice along an axis of `size`, by the rules of ONNX.
pub(super) fn slice_range(size: usize, start: i64, end: i64, step: i64) -> Step<(usize, usize)> {
    if step == 0 {
        return damaged("a step of 0");
    }
    let size = size as i64;
    let from_end = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
    let (start, end) = if step > 0 {
        (from_end(start).clamp(0, size), from_end(end).clamp(0, size))
    } else {
        (from_end(start).clamp(0, (size - 1).max(0)), from_end(end).clamp(-1, size - 1))
    };
    // In i128 because a step may be any i64, and its sign turns the division around.
    let (span, step) = (i128::from(end - start), i128::from(step));
    let len = if span.signum() == step.signum() { (span.abs() + step.abs() - 1) / step.abs() } else { 0 };
    Ok((start as usize, len as usize))
}

/// The part of a shape that `Shape` returns: all of it, or from `start` to `end`.
pub(super) fn shape_range(attributes: Attributes<'_>, rank: usize) -> Step<std::ops::Range<usize>> {
    let (start, end) = (attributes.int_or("start", 0)?, attributes.int_or("end", i64::MAX)?);
    let (first, len) = slice_range(rank, start, end, 1)?;
    Ok(first..first + len)
}

/// The bounds of a `Slice` along one axis; `None` where one depends on the batch size.
pub(super) struct SliceBounds {
    pub axis: usize,
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub step: i64,
}

impl SliceBounds {
    /// Reads the bounds from attributes (before operator set 10) or from inputs.
    pub(super) fn read<'a>(
        attributes: Attributes<'a>,
        input: impl Fn(usize) -> Step<Option<Constant<'a>>>,
        rank: usize,
    ) -> Step<Vec<Self>> {
        let ints = |index: usize, name: &str| -> Step<Option<Vec<Option<i64>>>> {
            match input(index)? {
                Some(constant) => Ok(Some(constant.ints()?.to_vec())),
                None => Ok(attributes.ints(name)?.map(|v| v.iter().copied().map(Some).collect())),
            }
        };
        let (Some(starts), Some(ends)) = (ints(1, "starts")?, ints(2, "ends")?) else {
            return damaged("it has no starts or no ends");
        };
        let axes = ints(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).map(Some).collect());
        let steps = ints(4, "steps")?.unwrap_or_else(|| vec![Some(1); starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return damaged("starts, ends, axes and steps differ in number");
        }
        let mut bounds: Vec<Self> = Vec::with_capacity(starts.len());
        for i in 0..starts.len() {
            let (Some(at), Some(step)) = (axes[i], steps[i]) else {
                return unsupported("its axes or steps depend on the batch size");
            };
            let axis = axis(at, rank)?;
            if bounds.iter().any(|b| b.axis == axis) {
                return damaged(format!("axis {axis} is named twice"));
            }
            bounds.push(Self { axis, start: starts[i], end: ends[i], step });
        }
        Ok(bounds)
    }
}
