//! Nodes with weights, windows and arithmetic, as layers.

use super::constants::Constant;
use super::parameters::Layout;
use super::proto::{Step, damaged, extent, unsupported};
use super::walk::{Activation, CHANNELS, COLUMNS, FLAT, HEIGHT, IMAGE, Node, ROWS, Value, WIDTH, Walk};
use crate::network::{Role, Source};
use crate::ops::{Add, AvgPool, BatchNorm, ChannelAffine, Conv2d, MaxPool, Op, Relu, Window};

impl<'a> Walk<'a> {
    /// A node that depends on the image.
    pub(super) fn layer(&mut self, node: &Node<'a>) -> Step<Value<'a>> {
        let activation = match node.proto.op_type.as_str() {
            "Conv" => self.convolution(node),
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(node),
            "BatchNormalization" => self.batch_norm(node),
            "Relu" => self.relu(node, Relu::PLAIN),
            "Clip" => self.clip(node),
            "Add" | "Sum" => self.sum(node),
            "Sub" | "Mul" | "Div" => self.affine(node),
            "MaxPool" => self.max_pool(node),
            "AveragePool" => self.average_pool(node),
            "GlobalAveragePool" => {
                self.global_pool(node, |window| Op::AvgPool(AvgPool { window, count_include_pad: false }))
            }
            "GlobalMaxPool" => self.global_pool(node, |window| Op::MaxPool(MaxPool { window })),
            "ReduceMean" => self.reduce_mean(node),
            "Dropout" => self.dropout(node),
            "Shape" => return self.shape_of_activation(node).map(Value::Constant),
            "Cast" | "CastLike" => return self.cast(node),
            "Identity" => node.activation(0),
            "Flatten" => self.flatten(node),
            "Reshape" => self.reshape(node),
            "Squeeze" => self.squeeze(node),
            "Unsqueeze" => self.unsqueeze(node),
            "Transpose" => self.transpose(node),
            "Pad" => self.pad(node),
            "Slice" => self.slice(node),
            _ => unsupported("Adamant has no such operation"),
        };
        activation.map(Value::Activation)
    }

    /// Makes input `input` of the node a parameter.
    fn bind(&mut self, constant: &Constant<'a>, role: Role, layout: Layout, input: usize) -> Step<Source> {
        self.parameters.bind(constant, role, layout, (self.index, input))
    }

    /// The bias at `input`, if there is one. One that the file computes as zeros is none.
    fn bias(&mut self, node: &Node<'a>, input: usize) -> Step<Option<Constant<'a>>> {
        match node.optional(input)? {
            Some(bias) if bias.tensor.is_none() && bias.floats()?.iter().all(|&v| v == 0.0) => Ok(None),
            found => Ok(found),
        }
    }

    fn convolution(&mut self, node: &Node<'a>) -> Step<Activation> {
        let weight = node.constant(1)?;
        let &[filters, _, kernel_h, kernel_w] = weight.dims.as_slice() else {
            return match weight.dims.len() {
                rank @ (3 | 5) => {
                    unsupported(format!("{}-D convolution: only images are supported", rank - 2))
                }
                rank => damaged(format!("its weight '{}' has {rank} dimensions", weight.name)),
            };
        };
        let kernel = [kernel_h, kernel_w];
        if let Some(named) = node.attributes.pair("kernel_shape")?.filter(|&named| named != kernel) {
            return damaged(format!("kernel_shape is {named:?}, its weight {:?}", weight.dims));
        }
        let groups = extent(node.attributes.int_or("group", 1)?, "group")?;
        let window = self.window(node, kernel)?;
        let x = node.image(0)?;
        let conv = Conv2d { stride: window.stride, pads: window.pads(x), dilation: window.dilation, groups };
        let mut inputs = vec![x.source, self.bind(&weight, Role::Weight, Layout::Convolution, 1)?];
        if let Some(bias) = self.bias(node, 2)? {
            if bias.dims != [filters] {
                return damaged(format!(
                    "bias '{}' has the dimensions {:?}, not [{filters}]",
                    bias.name, bias.dims
                ));
            }
            inputs.push(self.bind(&bias, Role::Bias, Layout::VECTOR, 2)?);
        }
        self.push(node, Op::Conv2d(conv), inputs, IMAGE)
    }

    fn gemm(&mut self, node: &Node<'a>) -> Step<Activation> {
        let attributes = node.attributes;
        let alpha = attributes.float("alpha")?.unwrap_or(1.0);
        let beta = attributes.float("beta")?.unwrap_or(1.0);
        if attributes.int_or("transA", 0)? != 0 {
            return unsupported("transA");
        }
        if !alpha.is_normal() || !(beta == 0.0 || beta.is_normal()) {
            return unsupported(format!("alpha {alpha}, beta {beta}"));
        }
        let transposed = attributes.int_or("transB", 0)? != 0;
        let weight = node.constant(1)?;
        let x = self.linear_input(node)?;
        let layout = Layout::Linear { transposed, factor: alpha };
        let Some(outputs) = layout.shape(&weight.dims).map(|s| s.channels()) else {
            return damaged(format!("its weight '{}' has the dimensions {:?}", weight.name, weight.dims));
        };
        let mut inputs = vec![x.source, self.bind(&weight, Role::Weight, layout, 1)?];
        if let Some(mut bias) = self.bias(node, 2)?.filter(|_| beta != 0.0) {
            if bias.len() == 1 && outputs > 1 {
                bias = bias.repeated(outputs)?;
            }
            if bias.dims != [outputs] && bias.dims != [1, outputs] {
                return damaged(format!(
                    "bias '{}' has the dimensions {:?}, not [{outputs}]",
                    bias.name, bias.dims
                ));
            }
            inputs.push(self.bind(&bias, Role::Bias, Layout::Vector { factor: beta }, 2)?);
        }
        self.push(node, Op::Conv2d(Conv2d::LINEAR), inputs, FLAT)
    }

    fn matmul(&mut self, node: &Node<'a>) -> Step<Activation> {
        let weight = node.constant(1)?;
        let x = self.linear_input(node)?;
        let layout = Layout::Linear { transposed: false, factor: 1.0 };
        let inputs = vec![x.source, self.bind(&weight, Role::Weight, layout, 1)?];
        self.push(node, Op::Conv2d(Conv2d::LINEAR), inputs, FLAT)
    }

    fn linear_input(&self, node: &Node<'a>) -> Step<Activation> {
        let x = node.activation(0)?;
        match x.axes {
            FLAT => Ok(x),
            _ => unsupported(format!("its input has {} dimensions, two are expected", x.rank())),
        }
    }

    fn batch_norm(&mut self, node: &Node<'a>) -> Step<Activation> {
        let attributes = node.attributes;
        let epsilon = attributes.float("epsilon")?.unwrap_or(1e-5);
        if !(epsilon.is_finite() && epsilon >= 0.0) {
            return damaged(format!("epsilon is {epsilon}"));
        }
        if attributes.int_or("spatial", 1)? == 0 {
            return unsupported("spatial = 0: statistics for every pixel");
        }
        let kept = f64::from(attributes.float("momentum")?.unwrap_or(0.9));
        if !(0.0..=1.0).contains(&kept) {
            return damaged(format!("momentum is {kept}"));
        }
        // ONNX gives the weight of the old value. Six decimals turn its 0.9 into PyTorch's 0.1,
        // which 1 - 0.9 in f32 is not.
        let momentum = (((1.0 - kept) * 1e6).round() / 1e6) as f32;
        let roles = [Role::Scale, Role::Shift, Role::RunningMean, Role::RunningVariance];
        let mut inputs = Vec::with_capacity(5);
        let vectors = (1..5).map(|i| node.constant(i)).collect::<Step<Vec<_>>>()?;
        let x = node.activation(0)?;
        inputs.push(x.source);
        for (i, (vector, role)) in vectors.iter().zip(roles).enumerate() {
            inputs.push(self.bind(vector, role, Layout::VECTOR, i + 1)?);
        }
        // A file exported in training mode has the same running statistics; it is read as inference.
        // Before operator set 14 only the extra outputs told.
        if attributes.int_or("training_mode", 0)? != 0
            || node.proto.output.iter().skip(1).any(|o| !o.is_empty())
        {
            self.note_training_mode();
        }
        self.push(node, Op::BatchNorm(BatchNorm { epsilon, momentum }), inputs, x.axes)
    }

    fn relu(&mut self, node: &Node<'a>, relu: Relu) -> Step<Activation> {
        let x = node.activation(0)?;
        self.push(node, Op::Relu(relu), vec![x.source], x.axes)
    }

    /// Clip(x, 0, max) is a ReLU that saturates, such as ReLU6.
    fn clip(&mut self, node: &Node<'a>) -> Step<Activation> {
        let bound = |index: usize, name: &str| match node.optional(index)? {
            Some(constant) => constant.scalar().map(Some),
            None => node.attributes.float(name),
        };
        let (min, max) = (bound(1, "min")?, bound(2, "max")?);
        // Old files spell "no bound" as the largest f32.
        let max = max.filter(|&m| m < f32::MAX).unwrap_or(f32::INFINITY);
        if min != Some(0.0) || max.is_nan() || max <= 0.0 {
            let min = min.unwrap_or(f32::NEG_INFINITY);
            return unsupported(format!("clips to {min}..{max}; only 0 to a positive number is supported"));
        }
        self.relu(node, Relu { max })
    }

    fn dropout(&mut self, node: &Node<'a>) -> Step<Activation> {
        if let Some(training) = node.optional(2)?
            && training.ints()?.iter().any(|&v| v != Some(0))
        {
            self.notes.push(format!("Dropout '{}' is in training mode: it is left out", node.output()));
        }
        node.activation(0)
    }

    /// Add and Sum: of activations, or of one activation and a constant for each channel.
    fn sum(&mut self, node: &Node<'a>) -> Step<Activation> {
        let is_constant = |i: usize| matches!(node.value(i), Some(Value::Constant(_)));
        if node.input_count() == 2 && (is_constant(0) || is_constant(1)) {
            let constant = usize::from(is_constant(1));
            return match self.as_bias(node, constant)? {
                Some(found) => Ok(found),
                None => self.affine(node),
            };
        }
        let mut total = node.activation(0)?;
        for i in 1..node.input_count() {
            let x = node.activation(i)?;
            if (x.shape, x.axes) != (total.shape, total.axes) {
                return unsupported(format!("adds {:?} to {:?}", x.dims(), total.dims()));
            }
            total = self.push(node, Op::Add(Add), vec![total.source, x.source], x.axes)?;
        }
        Ok(total)
    }

    /// A constant added right after a convolution or linear layer without a bias is its bias.
    fn as_bias(&mut self, node: &Node<'a>, constant: usize) -> Step<Option<Activation>> {
        let x = node.activation(1 - constant)?;
        let Source::Layer(index) = x.source else {
            return Ok(None);
        };
        let name = node.input_name(1 - constant);
        let without_bias =
            matches!(self.layers[index].op, Op::Conv2d(_)) && self.layers[index].inputs.len() == 2;
        if !without_bias || self.outputs[index] != name || self.uses.get(name) != Some(&1) {
            return Ok(None);
        }
        let bias = node.constant(constant)?;
        if bias.len() != x.shape.channels() || !is_per_channel(&bias, &x) {
            return Ok(None);
        }
        let source = self.bind(&bias, Role::Bias, Layout::VECTOR, constant)?;
        self.layers[index].inputs.push(source);
        Ok(Some(x))
    }

    /// Arithmetic of an activation and a constant for each channel, as `x * scale + shift`.
    fn affine(&mut self, node: &Node<'a>) -> Step<Activation> {
        let op = node.proto.op_type.as_str();
        let position = (0..2).find(|&i| matches!(node.value(i), Some(Value::Constant(_))));
        let Some(position) = position else {
            return unsupported("of two activations");
        };
        let constant = node.constant(position)?;
        let x = node.activation(1 - position)?;
        if !is_per_channel(&constant, &x) {
            return unsupported(format!(
                "its constant '{}' of dimensions {:?} is not one number a channel",
                constant.name, constant.dims
            ));
        }
        let channels = x.shape.channels();
        let mut values = constant.floats()?.into_owned();
        values.resize(channels, values[0]);
        let negated = |values: &[f32]| values.iter().map(|v| -v).collect::<Vec<_>>();
        let fill = |value: f32| vec![value; channels];
        let (scale, shift) = match (op, position) {
            ("Add" | "Sum", _) => (fill(1.0), values),
            ("Sub", 1) => (fill(1.0), negated(&values)),
            ("Sub", _) => (fill(-1.0), values),
            ("Mul", _) => (values, fill(0.0)),
            ("Div", 1) => (values.iter().map(|v| v.recip()).collect(), fill(0.0)),
            _ => return unsupported("divides by an activation"),
        };
        if !scale.iter().chain(&shift).all(|v| v.is_finite()) {
            return damaged(format!("'{}' leads to a NaN or an infinity", constant.name));
        }
        self.parameters.read.extend(constant.tensor);
        let scale = self.parameters.derived(node.output(), scale);
        let shift = self.parameters.derived(node.output(), shift);
        self.push(node, Op::ChannelAffine(ChannelAffine), vec![x.source, scale, shift], x.axes)
    }

    fn max_pool(&mut self, node: &Node<'a>) -> Step<Activation> {
        let window = self.pool_window(node)?;
        let x = node.image(0)?;
        let window = Window { pads: window.pads(x), ..window.shape };
        self.push(node, Op::MaxPool(MaxPool { window }), vec![x.source], IMAGE)
    }

    fn average_pool(&mut self, node: &Node<'a>) -> Step<Activation> {
        let count_include_pad = node.attributes.int_or("count_include_pad", 0)? != 0;
        let window = self.pool_window(node)?;
        let x = node.image(0)?;
        let window = Window { pads: window.pads(x), ..window.shape };
        self.push(node, Op::AvgPool(AvgPool { window, count_include_pad }), vec![x.source], IMAGE)
    }

    fn global_pool(&mut self, node: &Node<'a>, op: impl Fn(Window) -> Op) -> Step<Activation> {
        let x = node.image(0)?;
        let window = Window::global(x.shape.height(), x.shape.width());
        self.push(node, op(window), vec![x.source], IMAGE)
    }

    /// The mean over height, width or both.
    fn reduce_mean(&mut self, node: &Node<'a>) -> Step<Activation> {
        let axes = match node.optional(1)? {
            Some(axes) => axes.known_ints()?,
            None => node.attributes.ints("axes")?.unwrap_or_default().to_vec(),
        };
        let keep = node.attributes.int_or("keepdims", 1)? != 0;
        let x = node.activation(0)?;
        let mut kernel = [1, 1];
        let mut reduced = [false; 4];
        for axis in axes {
            let axis = super::constants::axis(axis, x.rank())?;
            let physical = if axis == 0 { 0 } else { x.axes[axis - 1] };
            match physical {
                HEIGHT | WIDTH => kernel[physical - HEIGHT] = x.shape.0[physical],
                _ => return unsupported("over the batch or the channels"),
            }
            reduced[physical] = true;
        }
        let axes = match (keep, reduced[HEIGHT], reduced[WIDTH]) {
            (_, false, false) => return unsupported("over all axes"),
            (true, ..) => x.axes,
            (false, h, w) => {
                let left: Vec<_> =
                    x.axes.iter().copied().filter(|&a| !(a == HEIGHT && h || a == WIDTH && w)).collect();
                seen_axes(&left)?
            }
        };
        let window = Window::global(kernel[0], kernel[1]);
        let op = Op::AvgPool(AvgPool { window, count_include_pad: false });
        self.push(node, op, vec![x.source], axes)
    }

    fn pool_window(&self, node: &Node<'a>) -> Step<Padded> {
        let Some(kernel) = node.attributes.pair("kernel_shape")? else {
            return match node.attributes.ints("kernel_shape")? {
                None => damaged("it has no kernel_shape"),
                Some(kernel) => unsupported(format!("{}-D pooling: only images are supported", kernel.len())),
            };
        };
        self.window(node, kernel)
    }

    /// Strides, dilations and padding of a convolution or pooling.
    fn window(&self, node: &Node<'a>, kernel: [usize; 2]) -> Step<Padded> {
        let attributes = node.attributes;
        let stride = attributes.pair("strides")?.unwrap_or([1, 1]);
        let dilation = attributes.pair("dilations")?.unwrap_or([1, 1]);
        let padding = match attributes.text_or("auto_pad", "NOTSET")? {
            "NOTSET" | "" => Padding::Explicit(match attributes.ints("pads")? {
                None => [0; 4],
                Some(&[top, left, bottom, right]) => {
                    let mut pads = [0; 4];
                    for (to, from) in pads.iter_mut().zip([top, left, bottom, right]) {
                        if from < 0 {
                            return unsupported("negative pads");
                        }
                        *to = extent(from, "a pad")?;
                    }
                    pads
                }
                Some(other) => return damaged(format!("pads are {other:?}")),
            }),
            "VALID" => Padding::Explicit([0; 4]),
            "SAME_UPPER" => Padding::Same { more_after: true },
            "SAME_LOWER" => Padding::Same { more_after: false },
            other => return damaged(format!("auto_pad is '{other}'")),
        };
        // "Same" output sizes are rounded up already; ceil_mode has nothing left to do there.
        let ceil = attributes.int_or("ceil_mode", 0)? != 0 && matches!(padding, Padding::Explicit(_));
        Ok(Padded { shape: Window { kernel, stride, pads: [0; 4], dilation, ceil }, padding })
    }
}

/// A window whose padding may depend on the input's size.
struct Padded {
    shape: Window,
    padding: Padding,
}

impl std::ops::Deref for Padded {
    type Target = Window;

    fn deref(&self) -> &Window {
        &self.shape
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Padding {
    /// Top, left, bottom, right.
    Explicit([usize; 4]),
    /// As much as makes the output as large as the input divided by the stride, rounded up; an
    /// odd pixel goes after the image or before it.
    Same { more_after: bool },
}

impl Padded {
    /// Top, left, bottom, right for an input.
    fn pads(&self, x: Activation) -> [usize; 4] {
        let more_after = match self.padding {
            Padding::Explicit(pads) => return pads,
            Padding::Same { more_after } => more_after,
        };
        let along = |axis: usize| {
            let size = x.shape.0[axis + HEIGHT];
            let (kernel, stride, dilation) =
                (self.shape.kernel[axis], self.shape.stride[axis], self.shape.dilation[axis]);
            let covered = (size.div_ceil(stride) - 1) * stride + (kernel - 1) * dilation + 1;
            let total = covered.saturating_sub(size);
            let (less, more) = (total / 2, total - total / 2);
            if more_after { (less, more) } else { (more, less) }
        };
        let ((top, bottom), (left, right)) = (along(0), along(1));
        [top, left, bottom, right]
    }
}

/// The list of axes that ONNX sees, if it is one that [`Activation`] can hold.
pub(super) fn seen_axes(axes: &[usize]) -> Step<&'static [usize]> {
    match [IMAGE, ROWS, COLUMNS, FLAT].into_iter().find(|&known| known == axes) {
        Some(known) => Ok(known),
        None => unsupported("an order of dimensions other than batch, channels, height, width"),
    }
}

/// Whether a constant broadcasts over `x` as one number, or one number a channel.
fn is_per_channel(constant: &Constant<'_>, x: &Activation) -> bool {
    let Some(missing) = x.rank().checked_sub(constant.dims.len()) else {
        return false;
    };
    let channels = x.shape.channels();
    let at_channels = |axis: usize| axis > 0 && x.axes[axis - 1] == CHANNELS;
    constant.len() > 0
        && constant
            .dims
            .iter()
            .enumerate()
            .all(|(i, &d)| d == 1 || (d == channels && at_channels(i + missing)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Shape;

    fn same(size: usize, kernel: usize, stride: usize, dilation: usize, more_after: bool) -> [usize; 4] {
        let shape = Window {
            kernel: [kernel, 1],
            stride: [stride, 1],
            pads: [0; 4],
            dilation: [dilation, 1],
            ceil: false,
        };
        let x = Activation { source: Source::Image, shape: Shape([1, size, 5, 3]), axes: IMAGE };
        Padded { shape, padding: Padding::Same { more_after } }.pads(x)
    }

    #[test]
    fn same_padding_puts_the_odd_pixel_where_it_is_told() {
        assert_eq!(same(8, 3, 1, 1, true), [1, 0, 1, 0]);
        assert_eq!(same(8, 3, 2, 1, true), [0, 0, 1, 0]);
        assert_eq!(same(8, 3, 2, 1, false), [1, 0, 0, 0]);
        assert_eq!(same(7, 3, 2, 1, true), [1, 0, 1, 0]);
        assert_eq!(same(8, 2, 1, 1, true), [0, 0, 1, 0]);
        assert_eq!(same(8, 3, 1, 2, true), [2, 0, 2, 0]);
        // A stride beyond the kernel needs no padding.
        assert_eq!(same(8, 1, 2, 1, true), [0; 4]);
    }

    #[test]
    fn only_constants_along_the_channels_are_per_channel() {
        let shape = Shape([1, 3, 3, 3]);
        let constant = |dims: &[usize]| Constant {
            name: "c",
            dims: dims.to_vec(),
            data: super::super::constants::Data::Float(vec![0.0; dims.iter().product()]),
            tensor: None,
        };
        let image = Activation { source: Source::Image, shape, axes: IMAGE };
        for dims in [&[1, 3, 1, 1][..], &[3, 1, 1], &[], &[1], &[1, 1, 1, 1]] {
            assert!(is_per_channel(&constant(dims), &image), "{dims:?}");
        }
        for dims in [&[3][..], &[3, 1], &[1, 1, 3, 1], &[3, 1, 1, 1], &[1, 1, 3, 1, 1], &[0]] {
            assert!(!is_per_channel(&constant(dims), &image), "{dims:?}");
        }
        let flat = Activation { axes: FLAT, shape: Shape([1, 1, 1, 3]), ..image };
        assert!(is_per_channel(&constant(&[3]), &flat));
    }
}
