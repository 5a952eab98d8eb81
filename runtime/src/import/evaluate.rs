//! The constant evaluator.
//!
//! Exporters write a number such as the padding of a shortcut as a small sub-graph: `Shape`,
//! `Gather`, `Concat`, `Slice` and arithmetic over a few integers. This module computes it. The
//! batch size may be unknown; an integer that depends on it is `None`.

use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;

use super::constants::{Constant, Data, SliceBounds, TensorId, axis, shape_range, slice_range};
use super::proto::{self, Attributes, Step, damaged, unsupported};

/// Elements that the evaluator may still compute: bounds memory whatever the file says.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    /// What a file of so many bytes may compute: each of its bytes twice over, and a million more for
    /// files whose numbers are elsewhere.
    pub(super) fn of(bytes: usize) -> Self {
        Self((1 << 20) + bytes.saturating_mul(2))
    }

    /// The number of elements of `dims`, taken from the budget.
    fn take(&mut self, dims: &[usize]) -> Step<usize> {
        let count = proto::element_count(dims).filter(|&n| n <= self.0);
        let Some(count) = count else {
            return damaged(format!("computes a constant of dimensions {dims:?}, which is too large"));
        };
        // An empty or tiny result still costs something, so that no chain of nodes is free.
        self.0 -= count;
        Ok(count)
    }
}

/// Whether [`evaluate`] knows the operation.
pub(super) fn can_evaluate(op_type: &str) -> bool {
    matches!(
        op_type,
        "ConstantOfShape"
            | "Shape"
            | "Size"
            | "Gather"
            | "Concat"
            | "Unsqueeze"
            | "Squeeze"
            | "Slice"
            | "Cast"
            | "Reshape"
            | "Flatten"
            | "Transpose"
            | "Add"
            | "Sub"
            | "Mul"
            | "Div"
            | "Identity"
            | "Neg"
            | "Sqrt"
            | "Reciprocal"
            | "Range"
            | "Expand"
            | "CastLike"
            | "DequantizeLinear"
    )
}

/// Computes a node whose inputs are all constant.
pub(super) fn evaluate<'a>(
    node: &'a NodeProto,
    inputs: &[Option<&Constant<'a>>],
    budget: &mut Budget,
) -> Step<Constant<'a>> {
    let name = node.output.first().map_or("", String::as_str);
    let evaluation = Evaluation { attributes: Attributes(node), name, inputs };
    let found = evaluation.run(node.op_type.as_str(), budget)?;
    // What is passed on under another name is a copy, too.
    if matches!(found.data, Data::Int(_) | Data::Float(_)) {
        budget.take(&found.dims)?;
    }
    Ok(found)
}

/// Row-major strides.
fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i];
    }
    strides
}

/// The flat index `base + sum(position[axis] * stride[axis])` for every position in `dims`,
/// in row-major order.
fn indices(dims: &[usize], base: usize, stride: &[isize], count: usize) -> Vec<usize> {
    let mut position = vec![0usize; dims.len()];
    let mut found = Vec::with_capacity(count);
    let mut index = base as isize;
    for _ in 0..count {
        found.push(index as usize);
        for axis in (0..dims.len()).rev() {
            position[axis] += 1;
            index += stride[axis];
            if position[axis] < dims[axis] {
                break;
            }
            index -= stride[axis] * dims[axis] as isize;
            position[axis] = 0;
        }
    }
    found
}

/// Dimensions that two arrays broadcast to.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Strides that walk `dims` along the broadcast dimensions `out`.
fn broadcast_strides(dims: &[usize], out: &[usize]) -> Vec<isize> {
    let own = strides(dims);
    let missing = out.len() - dims.len();
    (0..out.len())
        .map(|i| if i < missing || dims[i - missing] == 1 { 0 } else { own[i - missing] as isize })
        .collect()
}

/// One node under evaluation.
struct Evaluation<'a, 'i> {
    attributes: Attributes<'a>,
    /// The name of its output.
    name: &'a str,
    inputs: &'i [Option<&'i Constant<'a>>],
}

impl<'a> Evaluation<'a, '_> {
    fn run(&self, op_type: &str, budget: &mut Budget) -> Step<Constant<'a>> {
        match op_type {
            "Identity" => Ok(self.input(0)?.reshaped(self.name, self.input(0)?.dims.clone())),
            "Shape" => self.shape(),
            "Size" => {
                let count = self.input(0)?.len() as i64;
                Ok(Constant::computed(self.name, vec![], Data::Int(vec![Some(count)])))
            }
            "ConstantOfShape" => self.constant_of_shape(budget),
            "Gather" => self.gather(budget),
            "Concat" => self.concat(budget),
            "Unsqueeze" => self.unsqueeze(),
            "Squeeze" => self.squeeze(),
            "Slice" => self.slice(budget),
            "Cast" => self.cast(budget),
            "Reshape" => self.reshape(),
            "Flatten" => self.flatten(),
            "Transpose" => self.transpose(budget),
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(budget),
            "Neg" | "Sqrt" | "Reciprocal" => self.unary(budget),
            "Range" => self.range(budget),
            "Expand" => self.expand(budget),
            "CastLike" => self.cast_like(budget),
            "DequantizeLinear" => self.dequantize(),
            _ => unsupported("on constants"),
        }
    }

    fn input(&self, index: usize) -> Step<&Constant<'a>> {
        match self.optional(index) {
            Some(found) => Ok(found),
            None => damaged(format!("input {index} is missing")),
        }
    }

    fn optional(&self, index: usize) -> Option<&Constant<'a>> {
        self.inputs.get(index).copied().flatten()
    }

    /// Axes come as an attribute in old operator sets, as an input in new ones.
    fn axes(&self, index: usize) -> Step<Option<Vec<i64>>> {
        match self.optional(index) {
            Some(axes) => axes.known_ints().map(Some),
            None => Ok(self.attributes.ints("axes")?.map(<[i64]>::to_vec)),
        }
    }

    fn shape(&self) -> Step<Constant<'a>> {
        let dims: Vec<_> = self.input(0)?.dims.iter().map(|&d| Some(d as i64)).collect();
        let range = shape_range(self.attributes, dims.len())?;
        Ok(Constant::from_ints(self.name, dims[range].to_vec()))
    }

    fn constant_of_shape(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let mut dims = Vec::new();
        for d in self.input(0)?.known_ints()? {
            match usize::try_from(d) {
                Ok(d) => dims.push(d),
                Err(_) => return damaged(format!("a dimension of {d}")),
            }
        }
        let count = budget.take(&dims)?;
        let data = match self.attributes.tensor("value")? {
            None => Data::Float(vec![0.0; count]),
            Some(value) => {
                let value = Constant::from_tensor(self.name, value, TensorId::Node(0))?;
                match &value.data {
                    Data::Int(v) if v.len() == 1 => Data::Int(vec![v[0]; count]),
                    Data::Int(_) => return damaged("its value is not one number"),
                    _ => Data::Float(vec![value.scalar()?; count]),
                }
            }
        };
        Ok(Constant::computed(self.name, dims, data))
    }

    fn gather(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let (data, chosen) = (self.input(0)?, self.input(1)?);
        let axis = axis(self.attributes.int_or("axis", 0)?, data.dims.len())?;
        let size = data.dims[axis];
        let inner: usize = data.dims[axis + 1..].iter().product();
        let outer: usize = data.dims[..axis].iter().product();
        let mut rows = Vec::new();
        for i in chosen.known_ints()? {
            let row = if i < 0 { i.saturating_add(size as i64) } else { i };
            match usize::try_from(row) {
                Ok(row) if row < size => rows.push(row),
                _ => return damaged(format!("index {i} of an axis of {size}")),
            }
        }
        let dims = [&data.dims[..axis], &chosen.dims, &data.dims[axis + 1..]].concat();
        let mut found = Vec::with_capacity(budget.take(&dims)?);
        for o in 0..outer {
            for &row in &rows {
                let first = (o * size + row) * inner;
                found.extend(first..first + inner);
            }
        }
        data.pick(self.name, dims, &found)
    }

    fn concat(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let parts = (0..self.inputs.len()).map(|i| self.input(i)).collect::<Step<Vec<_>>>()?;
        let Some(&first) = parts.first() else {
            return damaged("it has no inputs");
        };
        let axis = axis(self.attributes.int_or("axis", 0)?, first.dims.len())?;
        let mut dims = first.dims.clone();
        dims[axis] = 0;
        for part in &parts {
            let fits = part.dims.len() == dims.len()
                && (0..dims.len()).all(|i| i == axis || part.dims[i] == dims[i])
                && part.is_float() == first.is_float();
            let Some(size) =
                dims[axis].checked_add(part.dims.get(axis).copied().unwrap_or(0)).filter(|_| fits)
            else {
                return damaged(format!(
                    "'{}' of dimensions {:?} does not fit the rest",
                    part.name, part.dims
                ));
            };
            dims[axis] = size;
        }
        let count = budget.take(&dims)?;
        let outer: usize = dims[..axis].iter().product();
        let chunk = |part: &Constant<'_>| part.dims[axis..].iter().product::<usize>();
        let data = if first.is_float() {
            let values = parts.iter().map(|p| p.floats()).collect::<Step<Vec<_>>>()?;
            let mut joined = Vec::with_capacity(count);
            for o in 0..outer {
                for (part, values) in parts.iter().zip(&values) {
                    joined.extend_from_slice(&values[o * chunk(part)..(o + 1) * chunk(part)]);
                }
            }
            Data::Float(joined)
        } else {
            let mut joined = Vec::with_capacity(count);
            for o in 0..outer {
                for part in &parts {
                    joined.extend_from_slice(&part.ints()?[o * chunk(part)..(o + 1) * chunk(part)]);
                }
            }
            Data::Int(joined)
        };
        Ok(Constant::computed(self.name, dims, data))
    }

    fn unsqueeze(&self) -> Step<Constant<'a>> {
        let x = self.input(0)?;
        let Some(axes) = self.axes(1)? else {
            return damaged("it has no axes");
        };
        let rank = x.dims.len() + axes.len();
        let mut added = vec![false; rank];
        for a in axes {
            added[axis(a, rank)?] = true;
        }
        let mut old = x.dims.iter();
        let dims: Option<Vec<usize>> =
            added.iter().map(|&new| if new { Some(1) } else { old.next().copied() }).collect();
        match dims {
            Some(dims) if old.next().is_none() => Ok(x.reshaped(self.name, dims)),
            _ => damaged("an axis is named twice"),
        }
    }

    fn squeeze(&self) -> Step<Constant<'a>> {
        let x = self.input(0)?;
        let mut removed = vec![false; x.dims.len()];
        match self.axes(1)? {
            None => removed.iter_mut().zip(&x.dims).for_each(|(r, &d)| *r = d == 1),
            Some(axes) => {
                for a in axes {
                    let a = axis(a, x.dims.len())?;
                    if x.dims[a] != 1 {
                        return damaged(format!("axis {a} has a size of {}", x.dims[a]));
                    }
                    removed[a] = true;
                }
            }
        }
        let dims = x.dims.iter().zip(&removed).filter(|(_, r)| !**r).map(|(&d, _)| d).collect();
        Ok(x.reshaped(self.name, dims))
    }

    fn slice(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let x = self.input(0)?;
        let bounds = SliceBounds::read(self.attributes, |i| Ok(self.optional(i).cloned()), x.dims.len())?;
        let own = strides(&x.dims);
        let mut dims = x.dims.clone();
        let mut step: Vec<isize> = own.iter().map(|&s| s as isize).collect();
        let mut base = 0;
        for SliceBounds { axis, start, end, step: by } in bounds {
            let (Some(start), Some(end)) = (start, end) else {
                return unsupported("its bounds depend on the batch size");
            };
            let (first, len) = slice_range(x.dims[axis], start, end, by)?;
            base += first * own[axis];
            dims[axis] = len;
            // With at most one element along the axis its step is never taken.
            step[axis] = if len > 1 { own[axis] as isize * by as isize } else { 0 };
        }
        let count = budget.take(&dims)?;
        x.pick(self.name, dims.clone(), &indices(&dims, base, &step, count))
    }

    fn cast(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let x = self.input(0)?;
        let to = self.attributes.int_or("to", 0)?;
        let target = i32::try_from(to).ok().and_then(|t| DataType::try_from(t).ok());
        if let Data::Other(kind) = &x.data {
            return x.wrong_type(kind);
        }
        let data = match (target, &x.data) {
            (Some(DataType::Float), Data::Compact(tensor)) => {
                let values = proto::compact(tensor)?;
                return Ok(Constant::computed(self.name, x.dims.clone(), Data::Float(values)));
            }
            (Some(DataType::Float), Data::Float(_) | Data::Stored(_))
            | (Some(DataType::Int64 | DataType::Int32), Data::Int(_)) => {
                return Ok(x.reshaped(self.name, x.dims.clone()));
            }
            (Some(DataType::Bool), Data::Int(values)) => {
                Data::Int(values.iter().map(|v| v.map(|v| i64::from(v != 0))).collect())
            }
            (Some(DataType::Float), Data::Int(_)) => x.to_floats(self.name)?.data,
            (Some(DataType::Int64 | DataType::Int32), _) => {
                Data::Int(x.floats()?.iter().map(|&v| Some(v as i64)).collect())
            }
            _ => {
                return unsupported(format!("to {}", i32::try_from(to).map_or("?".into(), proto::type_name)));
            }
        };
        budget.take(&x.dims)?;
        Ok(Constant::computed(self.name, x.dims.clone(), data))
    }

    /// `(x - zero point) * scale`, with one scale or one for each place along `axis`.
    fn dequantize(&self) -> Step<Constant<'a>> {
        let x = self.input(0)?;
        let Data::Compact(tensor) = &x.data else { return unsupported("of other than eight bits") };
        if tensor.data_type == DataType::Float16 as i32 {
            return unsupported("of halves");
        }
        let scales = self.input(1)?.floats()?;
        let zeros = match self.optional(2) {
            None => vec![0.0; scales.len()],
            Some(Constant { data: Data::Compact(zeros), .. }) if zeros.data_type == tensor.data_type => {
                proto::compact(zeros)?
            }
            Some(_) => return damaged("its zero point is not of the type of its input"),
        };
        let at = match self.input(1)?.dims.as_slice() {
            [] | [1] => None,
            [_] => Some(axis(self.attributes.int_or("axis", 1)?, x.dims.len())?),
            _ => return unsupported("in blocks"),
        };
        let places = at.map_or(1, |at| x.dims[at]);
        if scales.len() != places || zeros.len() != places {
            let (scales, zeros) = (scales.len(), zeros.len());
            return damaged(format!("{scales} scales and {zeros} zero points for {places} places"));
        }
        let after = at.map_or(1, |at| x.dims[at + 1..].iter().product::<usize>()).max(1);
        let mut values = proto::compact(tensor)?;
        for (i, value) in values.iter_mut().enumerate() {
            let place = i / after % places.max(1);
            *value = (*value - zeros[place]) * scales[place];
        }
        Ok(Constant::computed(self.name, x.dims.clone(), Data::Float(values)))
    }

    fn cast_like(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let (x, like) = (self.input(0)?, self.input(1)?);
        if x.is_float() == like.is_float() {
            return Ok(x.reshaped(self.name, x.dims.clone()));
        }
        budget.take(&x.dims)?;
        if like.is_float() { x.to_floats(self.name) } else { unsupported("to integers") }
    }

    fn expand(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let x = self.input(0)?;
        let target = self.input(1)?.known_ints()?;
        let target: Result<Vec<usize>, _> = target.into_iter().map(usize::try_from).collect();
        let Some(dims) = target.ok().and_then(|target| broadcast(&x.dims, &target)) else {
            return damaged(format!("{:?} cannot be expanded", x.dims));
        };
        let count = budget.take(&dims)?;
        x.pick(self.name, dims.clone(), &indices(&dims, 0, &broadcast_strides(&x.dims, &dims), count))
    }

    fn reshape(&self) -> Step<Constant<'a>> {
        let x = self.input(0)?;
        let keep_zero = self.attributes.int_or("allowzero", 0)? != 0;
        let target = self.input(1)?.known_ints()?;
        let mut dims = Vec::with_capacity(target.len());
        let mut inferred = None;
        for (i, &d) in target.iter().enumerate() {
            dims.push(match d {
                -1 if inferred.replace(i).is_none() => 1,
                0 if !keep_zero => match x.dims.get(i) {
                    Some(&d) => d,
                    None => return damaged("a 0 past the dimensions of its input"),
                },
                0.. => d as usize,
                _ => return damaged(format!("to the dimensions {target:?}")),
            });
        }
        let known = proto::element_count(&dims);
        if let (Some(i), Some(known @ 1..)) = (inferred, known) {
            dims[i] = x.len() / known;
        }
        if proto::element_count(&dims) != Some(x.len()) {
            return damaged(format!("{:?} cannot become {target:?}", x.dims));
        }
        Ok(x.reshaped(self.name, dims))
    }

    fn flatten(&self) -> Step<Constant<'a>> {
        let x = self.input(0)?;
        let rank = x.dims.len() as i64;
        let at = self.attributes.int_or("axis", 1)?;
        let at = if at < 0 { at.saturating_add(rank) } else { at };
        if !(0..=rank).contains(&at) {
            return damaged(format!("axis {at} of a value of {rank} dimensions"));
        }
        let (outer, inner) = x.dims.split_at(at as usize);
        Ok(x.reshaped(self.name, vec![outer.iter().product(), inner.iter().product()]))
    }

    fn transpose(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let x = self.input(0)?;
        let rank = x.dims.len();
        let order: Vec<usize> = match self.attributes.ints("perm")? {
            None => (0..rank).rev().collect(),
            Some(perm) => perm.iter().map(|&p| axis(p, rank)).collect::<Step<_>>()?,
        };
        if order.len() != rank || (0..rank).any(|a| !order.contains(&a)) {
            return damaged(format!("perm is {order:?}"));
        }
        let own = strides(&x.dims);
        let dims: Vec<usize> = order.iter().map(|&a| x.dims[a]).collect();
        let step: Vec<isize> = order.iter().map(|&a| own[a] as isize).collect();
        let count = budget.take(&dims)?;
        x.pick(self.name, dims.clone(), &indices(&dims, 0, &step, count))
    }

    fn arithmetic(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let (a, b) = (self.input(0)?, self.input(1)?);
        let op = self.attributes.0.op_type.as_str();
        let Some(dims) = broadcast(&a.dims, &b.dims) else {
            return damaged(format!("{:?} and {:?} do not fit", a.dims, b.dims));
        };
        let count = budget.take(&dims)?;
        let at_a = indices(&dims, 0, &broadcast_strides(&a.dims, &dims), count);
        let at_b = indices(&dims, 0, &broadcast_strides(&b.dims, &dims), count);
        let pairs = at_a.into_iter().zip(at_b);
        let data = if a.is_float() || b.is_float() {
            let (a, b) = (a.floats()?, b.floats()?);
            let apply = |x: f32, y: f32| match op {
                "Add" => x + y,
                "Sub" => x - y,
                "Mul" => x * y,
                _ => x / y,
            };
            Data::Float(pairs.map(|(i, j)| apply(a[i], b[j])).collect())
        } else {
            let (a, b) = (a.ints()?, b.ints()?);
            let apply = |x: i64, y: i64| match op {
                "Add" => x.checked_add(y),
                "Sub" => x.checked_sub(y),
                "Mul" => x.checked_mul(y),
                _ => x.checked_div(y),
            };
            let mut values = Vec::with_capacity(count);
            for (i, j) in pairs {
                values.push(match (a[i], b[j]) {
                    (Some(x), Some(y)) => match apply(x, y) {
                        Some(v) => Some(v),
                        None => return damaged(format!("{op} of {x} and {y} overflows")),
                    },
                    _ => None,
                });
            }
            Data::Int(values)
        };
        Ok(Constant::computed(self.name, dims, data))
    }

    fn unary(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let x = self.input(0)?;
        budget.take(&x.dims)?;
        let data = match (self.attributes.0.op_type.as_str(), &x.data) {
            ("Neg", Data::Int(v)) => Data::Int(v.iter().map(|v| v.map(i64::wrapping_neg)).collect()),
            ("Neg", _) => Data::Float(x.floats()?.iter().map(|v| -v).collect()),
            ("Sqrt", _) => Data::Float(x.floats()?.iter().map(|v| v.sqrt()).collect()),
            _ => Data::Float(x.floats()?.iter().map(|v| v.recip()).collect()),
        };
        Ok(Constant::computed(self.name, x.dims.clone(), data))
    }

    fn range(&self, budget: &mut Budget) -> Step<Constant<'a>> {
        let mut numbers = [0; 3];
        for (i, number) in numbers.iter_mut().enumerate() {
            let input = self.input(i)?;
            if input.is_float() {
                return unsupported("over floats");
            }
            match input.known_ints()?[..] {
                [value] => *number = value,
                _ => return damaged(format!("'{}' is not one number", input.name)),
            }
        }
        let [start, limit, delta] = numbers.map(i128::from);
        if delta == 0 {
            return damaged("a step of 0");
        }
        let span = limit - start;
        let steps =
            if span.signum() == delta.signum() { (span.abs() + delta.abs() - 1) / delta.abs() } else { 0 };
        let count = budget.take(&[usize::try_from(steps).unwrap_or(usize::MAX)])? as i128;
        let values = (0..count).map(|i| Some((start + i * delta) as i64)).collect();
        Ok(Constant::from_ints(self.name, values))
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
