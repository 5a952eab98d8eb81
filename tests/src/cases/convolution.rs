//! Convolution and its two gradients, all over the same geometries.

use adamant::op::{
    Activation, Conv2d, Conv2dGradInput, Conv2dGradWeight, FoldBatchNorm, FusedConv2d, Op, TransposeWeight,
};
use adamant::{Shape, Tensor};

use super::{Case, Input, PAST_ONE_GRID_ROW, normal, positive, shape, vector};
use crate::compare::Tolerance;

/// The shapes and attributes of one convolution.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub name: &'static str,
    pub x: Shape,
    /// Kernel height, kernel width, input channels of a group, output channels.
    pub w: Shape,
    pub conv: Conv2d,
    /// Whether the CPU adds up other products than those of the definition: Winograd's, of tiles of 2x2 outputs.
    pub in_tiles: bool,
}

impl Geometry {
    /// Stride 1, no padding, one group.
    const fn new(name: &'static str, x: [usize; 4], w: [usize; 4]) -> Self {
        Self { name, x: Shape(x), w: Shape(w), conv: Conv2d::LINEAR, in_tiles: false }
    }

    const fn in_tiles(mut self) -> Self {
        self.in_tiles = true;
        self
    }

    const fn stride(mut self, stride: [usize; 2]) -> Self {
        self.conv.stride = stride;
        self
    }

    const fn pads(mut self, pads: [usize; 4]) -> Self {
        self.conv.pads = pads;
        self
    }

    const fn dilation(mut self, dilation: [usize; 2]) -> Self {
        self.conv.dilation = dilation;
        self
    }

    const fn groups(mut self, groups: usize) -> Self {
        self.conv.groups = groups;
        self
    }

    /// The output's shape, from the definition.
    pub fn y(&self) -> Shape {
        let [top, left, bottom, right] = self.conv.pads;
        let size = |size: usize, pads: usize, axis: usize| {
            (size + pads - (self.w.0[axis] - 1) * self.conv.dilation[axis] - 1) / self.conv.stride[axis] + 1
        };
        let height = size(self.x.height(), top + bottom, 0);
        let width = size(self.x.width(), left + right, 1);
        shape(self.x.batch(), height, width, self.w.channels())
    }

    fn weight(&self) -> Input {
        Input::Normal(self.w, self.deviation())
    }

    /// Of weights whose sums are around 1.
    pub fn deviation(&self) -> f32 {
        let terms = self.w.0[0] * self.w.0[1] * self.w.0[2];
        1.0 / (terms as f32).sqrt()
    }
}

/// Geometries that every kernel is tested on.
pub const GEOMETRIES: &[Geometry] = &[
    Geometry::new("3x3", [2, 8, 8, 8], [3, 3, 8, 8]).pads([1; 4]),
    Geometry::new("3x3 without padding", [2, 7, 9, 4], [3, 3, 4, 8]),
    Geometry::new("stride 2, odd sizes", [2, 9, 7, 8], [3, 3, 8, 12]).stride([2, 2]).pads([1; 4]),
    Geometry::new("stride 2, even sizes", [2, 8, 10, 8], [3, 3, 8, 8]).stride([2, 2]).pads([1; 4]),
    Geometry::new("stride 2, three channels", [2, 9, 10, 3], [3, 3, 3, 6]).stride([2, 2]).pads([1; 4]),
    Geometry::new("stride 2 by 1", [2, 9, 10, 4], [3, 3, 4, 4]).stride([2, 1]).pads([1; 4]),
    Geometry::new("stride 1 by 3", [1, 6, 14, 5], [3, 3, 5, 3]).stride([1, 3]).pads([1; 4]),
    Geometry::new("1x1", [2, 5, 6, 16], [1, 1, 16, 8]),
    Geometry::new("1x1, odd channels", [2, 5, 6, 7], [1, 1, 7, 9]),
    Geometry::new("1x1, stride 2, odd sizes", [2, 7, 5, 8], [1, 1, 8, 16]).stride([2, 2]),
    Geometry::new("1x1, stride 2, even sizes", [2, 6, 8, 6], [1, 1, 6, 10]).stride([2, 2]),
    Geometry::new("1x1 with padding", [2, 4, 5, 4], [1, 1, 4, 4]).pads([1, 2, 0, 1]),
    Geometry::new("7x7, stride 2", [1, 23, 19, 3], [7, 7, 3, 8]).stride([2, 2]).pads([3; 4]),
    Geometry::new("5x3 kernel", [2, 9, 8, 4], [5, 3, 4, 8]).pads([2, 1, 2, 1]),
    Geometry::new("1x7 kernel", [2, 4, 12, 4], [1, 7, 4, 4]).pads([0, 3, 0, 3]),
    Geometry::new("even kernel", [2, 7, 8, 4], [2, 4, 4, 4]).pads([1, 1, 0, 2]),
    Geometry::new("2 groups", [2, 6, 7, 8], [3, 3, 4, 8]).pads([1; 4]).groups(2),
    Geometry::new("3 groups, stride 2", [2, 7, 6, 9], [3, 3, 3, 15]).stride([2, 2]).pads([1; 4]).groups(3),
    Geometry::new("1x1, 2 groups", [2, 4, 5, 6], [1, 1, 3, 10]).groups(2),
    Geometry::new("depthwise", [2, 6, 7, 6], [3, 3, 1, 6]).pads([1; 4]).groups(6),
    Geometry::new("depthwise, two filters a channel", [2, 6, 5, 5], [3, 3, 1, 10]).pads([1; 4]).groups(5),
    Geometry::new("dilation 2", [2, 9, 8, 4], [3, 3, 4, 4]).pads([2; 4]).dilation([2, 2]),
    Geometry::new("dilation 3 by 1", [2, 9, 8, 3], [3, 3, 3, 4]).pads([3, 1, 3, 1]).dilation([3, 1]),
    Geometry::new("dilation 2, stride 2", [2, 10, 9, 4], [3, 3, 4, 8])
        .stride([2, 2])
        .pads([2; 4])
        .dilation([2, 2]),
    Geometry::new("dilation 2, stride 3, 2 groups", [1, 11, 12, 4], [3, 2, 2, 6])
        .stride([3, 3])
        .pads([2, 1, 0, 1])
        .dilation([2, 2])
        .groups(2),
    Geometry::new("asymmetric pads", [2, 6, 5, 4], [3, 3, 4, 4]).pads([1, 0, 2, 1]),
    Geometry::new("asymmetric pads, stride 2", [2, 6, 5, 3], [3, 3, 3, 4]).stride([2, 2]).pads([0, 2, 1, 0]),
    Geometry::new("3 to 5 channels", [2, 5, 6, 3], [3, 3, 3, 5]).pads([1; 4]),
    Geometry::new("12 to 20 channels", [2, 5, 9, 12], [3, 3, 12, 20]).pads([1; 4]),
    Geometry::new("4 to 4 channels", [2, 5, 9, 4], [3, 3, 4, 4]).pads([1; 4]),
    Geometry::new("4 to 6 channels", [2, 5, 9, 4], [3, 3, 4, 6]).pads([1; 4]),
    Geometry::new("one channel to one", [2, 9, 9, 1], [3, 3, 1, 1]).pads([1; 4]),
    Geometry::new("width 13", [1, 6, 13, 8], [3, 3, 8, 8]).pads([1; 4]),
    Geometry::new("width 17, three channels", [1, 6, 17, 3], [3, 3, 3, 7]).pads([1; 4]),
    Geometry::new("width 1", [2, 9, 1, 4], [3, 3, 4, 8]).pads([1; 4]),
    Geometry::new("height 1", [2, 1, 9, 4], [3, 3, 4, 8]).pads([1; 4]),
    Geometry::new("batch 1", [1, 8, 8, 8], [3, 3, 8, 8]).pads([1; 4]),
    Geometry::new("batch 5", [5, 6, 6, 4], [3, 3, 4, 4]).pads([1; 4]),
    Geometry::new("kernel as large as the image", [2, 5, 6, 4], [5, 6, 4, 8]),
    Geometry::new("stride 3", [2, 10, 11, 4], [3, 3, 4, 4]).stride([3, 3]).pads([1; 4]),
    Geometry::new("stride larger than the kernel", [2, 11, 10, 4], [2, 2, 4, 4]).stride([3, 3]),
    Geometry::new("stride larger than the kernel, odd channels", [2, 11, 10, 3], [1, 2, 3, 5]).stride([4, 3]),
    Geometry::new("more padding than needed", [2, 5, 6, 4], [3, 3, 4, 4]).pads([4; 4]),
    Geometry::new("more padding than needed, stride 2", [2, 5, 6, 3], [3, 3, 3, 2])
        .stride([2, 2])
        .pads([4, 5, 3, 4]),
    Geometry::new("a layer of a ResNet", [4, 16, 16, 32], [3, 3, 32, 64]).stride([2, 2]).pads([1; 4]),
    Geometry::new("16 to 16 channels", [2, 8, 8, 16], [3, 3, 16, 16]).pads([1; 4]),
    Geometry::new("16 to 32 channels, stride 2, odd sizes", [3, 7, 9, 16], [3, 3, 16, 32])
        .stride([2, 2])
        .pads([1; 4]),
    Geometry::new("48 to 16 channels, width 13", [1, 5, 13, 48], [3, 3, 48, 16]).pads([1; 4]),
    Geometry::new("16 to 16 channels, 5x3, asymmetric", [2, 9, 6, 16], [5, 3, 16, 16]).pads([1, 0, 2, 1]),
    Geometry::new("16 to 16 channels, dilation 2, stride 3", [2, 11, 10, 16], [3, 3, 16, 16])
        .stride([3, 3])
        .pads([2; 4])
        .dilation([2, 2]),
    Geometry::new("16 to 16 channels, width 1", [2, 5, 1, 16], [3, 3, 16, 16]).pads([1; 4]),
    // Squares of outputs: more to a row than a subgroup has lanes, rows and columns left over, every padding.
    Geometry::new("8 to 24 channels, width 38", [2, 6, 38, 8], [3, 3, 8, 24]).pads([1; 4]),
    Geometry::new("4 to 8 channels, width 45 without padding", [2, 7, 45, 4], [3, 3, 4, 8]),
    Geometry::new("12 to 8 channels, width 19, asymmetric", [3, 5, 19, 12], [3, 3, 12, 8]).pads([2, 0, 0, 2]),
    Geometry::new("12 to 20 channels, stride 2, width 75 without padding", [2, 9, 75, 12], [3, 3, 12, 20])
        .stride([2, 2]),
    Geometry::new("4 to 16 channels, stride 2, more padding", [3, 7, 18, 4], [3, 3, 4, 16])
        .stride([2, 2])
        .pads([3, 1, 0, 4]),
    // Squares of inputs at a stride of 2: odd padding, sizes that leave rows and columns over.
    Geometry::new("8 to 12 channels, stride 2, width 39", [2, 6, 39, 8], [3, 3, 8, 12])
        .stride([2, 2])
        .pads([1; 4]),
    Geometry::new("24 to 4 channels, stride 2, more padding", [3, 7, 9, 24], [3, 3, 24, 4])
        .stride([2, 2])
        .pads([3, 1, 0, 4]),
    Geometry::new("8 to 8 channels, stride 2, one row", [3, 1, 70, 8], [3, 3, 8, 8])
        .stride([2, 2])
        .pads([1; 4]),
    Geometry::new("16 to 3 channels, width 38", [2, 6, 38, 16], [3, 3, 16, 3]).pads([1; 4]),
    Geometry::new("8 to 1 channel, width 41, asymmetric", [3, 5, 41, 8], [3, 3, 8, 1]).pads([2, 0, 1, 2]),
    Geometry::new("12 to 2 channels without padding", [2, 9, 35, 12], [3, 3, 12, 2]),
    Geometry::new("4 to 16 channels, more padding than needed", [3, 5, 9, 4], [3, 3, 4, 16])
        .pads([7, 6, 8, 9]),
    Geometry::new("8 to 8 channels, one square an image", [19, 4, 3, 8], [3, 3, 8, 8]).pads([1; 4]),
    Geometry::new("1x1, 32 to 16 channels, stride 2", [2, 7, 6, 32], [1, 1, 32, 16]).stride([2, 2]),
    Geometry::new("16 to 16 channels, 7x7, more padding than needed", [1, 6, 5, 16], [7, 7, 16, 16])
        .pads([6, 8, 7, 6]),
    Geometry::new("3 to 16 channels, width 13", [2, 5, 13, 3], [3, 3, 3, 16]).pads([1; 4]),
    Geometry::new("3 to 16 channels, 7x7, stride 2", [2, 11, 9, 3], [7, 7, 3, 16])
        .stride([2, 2])
        .pads([3; 4]),
    Geometry::new("5 to 32 channels, asymmetric", [1, 6, 7, 5], [3, 2, 5, 32]).pads([1, 0, 2, 1]),
    Geometry::new("one to 16 channels", [2, 9, 10, 1], [5, 5, 1, 16]),
    // What a kernel reads from textures: four rows of texels and a part of a fifth.
    Geometry::new("16 to 16 channels, 35x61", [2, 35, 61, 16], [3, 3, 16, 16]).pads([1; 4]),
    // More than one block of every size, none of them full.
    Geometry::new("12 to 68 channels, 299 pixels", [1, 13, 23, 12], [3, 3, 12, 68]).pads([1; 4]),
    Geometry::new("20 to 36 channels, 1x1, 270 pixels", [3, 9, 10, 20], [1, 1, 20, 36]),
    Geometry::new("32 to 72 channels, stride 2, one pixel an image", [70, 2, 2, 32], [3, 3, 32, 72])
        .stride([2, 2])
        .pads([1; 4]),
    Geometry::new("16 to 3 channels, width 13", [2, 5, 13, 16], [3, 3, 16, 3]).pads([1; 4]),
    Geometry::new("8 to 2 channels, 5x3, stride 2", [2, 9, 11, 8], [5, 3, 8, 2])
        .stride([2, 2])
        .pads([2, 1, 2, 1]),
    Geometry::new("4 to one channel", [3, 6, 9, 4], [3, 3, 4, 1]).pads([1; 4]),
    // So many channels that the CPU sets pixels apart, takes weights in chunks and shares them out.
    Geometry::new("256 to 40 channels", [1, 3, 5, 256], [3, 3, 256, 40]).pads([1; 4]),
    Geometry::new("40 to 288 channels, stride 2", [2, 5, 6, 40], [3, 3, 40, 288]).stride([2, 2]).pads([1; 4]),
    Geometry::new("2 groups of 256 channels", [1, 3, 4, 512], [3, 3, 256, 80]).pads([1; 4]).groups(2),
    Geometry::new("1x1, 1568 to 12 channels", [1, 2, 3, 1568], [1, 1, 1568, 12]),
    // Tiles: rows and columns left over, every padding, more than one task and panel of
    // output channels, a last block of fewer.
    Geometry::new("32 to 32 channels, 9x11, 5 images", [5, 9, 11, 32], [3, 3, 32, 32])
        .pads([1; 4])
        .in_tiles(),
    Geometry::new("32 to 48 channels, 8x8", [2, 8, 8, 32], [3, 3, 32, 48]).pads([1; 4]).in_tiles(),
    Geometry::new("48 to 80 channels, 11x12 without padding", [2, 11, 12, 48], [3, 3, 48, 80]).in_tiles(),
    Geometry::new("80 to 32 channels, 7x10, asymmetric", [1, 7, 10, 80], [3, 3, 80, 32])
        .pads([2, 0, 1, 2])
        .in_tiles(),
    Geometry::new("32 to 144 channels, more padding", [1, 5, 9, 32], [3, 3, 32, 144])
        .pads([4, 3, 2, 5])
        .in_tiles(),
    Geometry::new("256 to 32 channels, 8x9", [1, 8, 9, 256], [3, 3, 256, 32]).pads([1; 4]).in_tiles(),
    Geometry::new("linear, 64 to 32", [5, 1, 1, 64], [1, 1, 64, 32]),
    Geometry::new("linear, 1000 classes", [3, 1, 1, 64], [1, 1, 64, 1000]),
    Geometry::new("linear, 10 classes", [128, 1, 1, 64], [1, 1, 64, 10]),
    Geometry::new("linear, 33 to 17", [3, 1, 1, 33], [1, 1, 33, 17]),
    Geometry::new("linear, one image", [1, 1, 1, 12], [1, 1, 12, 2]),
];

/// A thread for each element, and more of them than one grid row has.
const LONG: Geometry =
    Geometry::new("past one grid row", [1, PAST_ONE_GRID_ROW / 2000 + 1, 1, 2000], [1, 1, 1, 2000])
        .groups(2000);

/// More weights than one grid row has threads.
const WIDE: Geometry = Geometry::new("linear, past one grid row", [1, 1, 1, 4099], [1, 1, 4099, 4099]);

pub fn forward() -> Vec<Case> {
    let mut cases = Vec::new();
    for geometry in GEOMETRIES.iter().chain([&LONG]) {
        let op = Op::Conv2d(geometry.conv);
        let inputs = [normal(geometry.x), geometry.weight()];
        cases.push(Case::new(geometry.name, op.clone(), inputs.clone()));
        let with_bias = [&inputs[..], &[vector(geometry.w.channels())]].concat();
        cases.push(Case::new(&format!("{}, with bias", geometry.name), op, with_bias));
    }
    cases
}

/// Every epilogue, over the geometries that lead to different kernels.
pub fn fused() -> Vec<Case> {
    let names = [
        "3x3",
        "stride 2, three channels",
        "3 groups, stride 2",
        "12 to 20 channels",
        "width 17, three channels",
        "16 to 16 channels",
        "8 to 24 channels, width 38",
        "48 to 16 channels, width 13",
        "3 to 16 channels, width 13",
        "16 to 3 channels, width 13",
        "4 to 4 channels",
        "16 to 32 channels, stride 2, odd sizes",
        "linear, 33 to 17",
        "256 to 40 channels",
        "32 to 32 channels, 9x11, 5 images",
    ];
    let activations = [
        Activation::None,
        Activation::Relu { max: f32::INFINITY },
        Activation::Relu { max: 0.5 },
        Activation::ReluGrad { max: f32::INFINITY },
        Activation::ReluGrad { max: 0.5 },
    ];
    let mut cases = Vec::new();
    for geometry in GEOMETRIES.iter().filter(|g| names.contains(&g.name)) {
        for (bias, residual) in [(true, true), (false, true), (true, false)] {
            for activation in activations {
                let op = FusedConv2d { conv: geometry.conv, bias, residual, activation };
                let mut inputs = vec![normal(geometry.x), geometry.weight()];
                inputs.extend(bias.then(|| vector(geometry.w.channels())));
                inputs.extend(residual.then(|| normal(geometry.y())));
                inputs.extend(
                    matches!(activation, Activation::ReluGrad { .. })
                        .then(|| Input::Given(geometry.y(), vec![0.0, 0.25, -1.0, 0.5, 0.75])),
                );
                let name = format!("{}, bias {bias}, residual {residual}, {activation:?}", geometry.name);
                cases.push(Case::new(&name, Op::FusedConv2d(op), inputs));
            }
        }
    }
    cases
}

/// Weights that are folded or turned.
pub fn weights() -> Vec<Case> {
    let mut cases = Vec::new();
    for geometry in GEOMETRIES.iter().chain([&WIDE]) {
        let turn = Op::TransposeWeight(TransposeWeight { groups: geometry.conv.groups });
        cases.push(Case::new(geometry.name, turn, [geometry.weight()]).within(Tolerance::Exact));
    }
    for geometry in [&GEOMETRIES[0], &GEOMETRIES[3], &GEOMETRIES[27], &WIDE] {
        let channels = geometry.w.channels();
        let fold = Op::FoldBatchNorm(FoldBatchNorm { epsilon: 1e-5 });
        let mut inputs = vec![geometry.weight(), vector(channels), vector(channels), vector(channels)];
        inputs.push(positive(channels));
        cases.push(Case::new(geometry.name, fold.clone(), inputs.clone()));
        inputs.push(vector(channels));
        cases.push(Case::new(&format!("{}, with bias", geometry.name), fold, inputs));
    }
    cases
}

pub fn grad_input() -> Vec<Case> {
    let case = |geometry: &Geometry| {
        let [_, height, width, channels] = geometry.x.0;
        let op = Conv2dGradInput { conv: geometry.conv, input: [height, width, channels] };
        Case::new(geometry.name, Op::Conv2dGradInput(op), [normal(geometry.y()), geometry.weight()])
    };
    GEOMETRIES.iter().chain([&LONG]).map(case).collect()
}

pub fn grad_weight() -> Vec<Case> {
    let case = |geometry: &Geometry| {
        let y = geometry.y();
        let op = Conv2dGradWeight { conv: geometry.conv, weight: geometry.w };
        // The sum runs over all pixels; keep it around 1.
        let dy = Input::Normal(y, 1.0 / ((y.len() / y.channels()) as f32).sqrt());
        Case::new(geometry.name, Op::Conv2dGradWeight(op), [normal(geometry.x), dy])
    };
    let many_pixels = Geometry::new("many pixels", [16, 32, 32, 8], [3, 3, 8, 8]).pads([1; 4]);
    let odd_pixels = Geometry::new("many pixels, odd channels", [8, 31, 33, 3], [3, 3, 3, 5]).pads([1; 4]);
    let mut cases: Vec<Case> = GEOMETRIES.iter().map(case).collect();
    cases.extend([&many_pixels, &odd_pixels, &WIDE].map(case));
    cases
}

/// The convolution by its definition, in f64.
pub fn reference(conv: &Conv2d, x: &Tensor, w: &Tensor, y: Shape) -> Tensor {
    let [kernel_h, kernel_w, channels, filters] = w.shape.0;
    let at = |t: &Tensor, n: usize, i: usize, j: usize, c: usize| {
        let [_, height, width, channels] = t.shape.0;
        f64::from(t.data[((n * height + i) * width + j) * channels + c])
    };
    let mut out = Tensor::zeros(y);
    for (index, value) in out.data.iter_mut().enumerate() {
        let o = index % filters;
        let q = index / filters % y.width();
        let p = index / filters / y.width() % y.height();
        let n = index / y.per_batch();
        let first = o / (filters / conv.groups) * channels;
        let mut sum = 0.0;
        for (r, s) in (0..kernel_h * kernel_w).map(|k| (k / kernel_w, k % kernel_w)) {
            let i = (p * conv.stride[0] + r * conv.dilation[0]).checked_sub(conv.pads[0]);
            let j = (q * conv.stride[1] + s * conv.dilation[1]).checked_sub(conv.pads[1]);
            let inside = |at: Option<usize>, size: usize| at.filter(|&at| at < size);
            if let (Some(i), Some(j)) = (inside(i, x.shape.height()), inside(j, x.shape.width())) {
                sum += (0..channels).map(|c| at(x, n, i, j, first + c) * at(w, r, s, c, o)).sum::<f64>();
            }
        }
        *value = sum as f32;
    }
    out
}

/// The tolerance that the CPU twin keeps to the definition.
pub const REFERENCE: Tolerance = Tolerance::Approximate;
