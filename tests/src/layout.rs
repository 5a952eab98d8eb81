//! From the layouts of PyTorch and ONNX to those of the graph, and back.

use adamant::{Shape, Tensor};

/// Moves element `[i, j, k, l]` of `dims` to where `to` puts it.
fn permute(dims: [usize; 4], data: &[f32], to: impl Fn([usize; 4]) -> usize) -> Vec<f32> {
    let [a, b, c, d] = dims;
    assert_eq!(a * b * c * d, data.len(), "values do not fill {dims:?}");
    let mut out = vec![0.0; data.len()];
    for (index, &value) in data.iter().enumerate() {
        out[to([index / (b * c * d), index / (c * d) % b, index / d % c, index % d])] = value;
    }
    out
}

/// Batch x channels x height x width to batch x height x width x channels.
pub fn nchw_to_nhwc(dims: [usize; 4], data: &[f32]) -> Tensor {
    let [batch, channels, height, width] = dims;
    let data = permute(dims, data, |[n, c, h, w]| ((n * height + h) * width + w) * channels + c);
    Tensor::new(Shape([batch, height, width, channels]), data)
}

/// The inverse of [`nchw_to_nhwc`]; the result's shape is batch x channels x height x width.
pub fn nhwc_to_nchw(tensor: &Tensor) -> Tensor {
    let [batch, height, width, channels] = tensor.shape.0;
    let data =
        permute(tensor.shape.0, &tensor.data, |[n, h, w, c]| ((n * channels + c) * height + h) * width + w);
    Tensor::new(Shape([batch, channels, height, width]), data)
}

/// Weights: output channels x input channels x height x width to height x width x input x output.
pub fn oihw_to_hwio(dims: [usize; 4], data: &[f32]) -> Tensor {
    let [outputs, inputs, height, width] = dims;
    let data = permute(dims, data, |[o, i, h, w]| ((h * width + w) * inputs + i) * outputs + o);
    Tensor::new(Shape([height, width, inputs, outputs]), data)
}

/// The inverse of [`oihw_to_hwio`]; the result's shape is output x input x height x width.
pub fn hwio_to_oihw(tensor: &Tensor) -> Tensor {
    let [height, width, inputs, outputs] = tensor.shape.0;
    let data =
        permute(tensor.shape.0, &tensor.data, |[h, w, i, o]| ((o * inputs + i) * height + h) * width + w);
    Tensor::new(Shape([outputs, inputs, height, width]), data)
}
