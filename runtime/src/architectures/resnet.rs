//! The ResNets for ImageNet, and their usual form for small images.
//!
//! He et al., "Deep residual learning for image recognition", 2015; names, start and the stride on
//! the 3x3 convolution of a bottleneck ("v1.5") as in `torchvision.models.resnet`. The wide form is
//! of Zagoruyko and Komodakis, "Wide residual networks", 2016.

use super::builder::{Builder, Draft};
use super::initial::{kaiming_normal_fan_out, pytorch_default};
use crate::error::Result;
use crate::network::Source;

/// The form for small images halves the size three times.
pub(super) const LEAST_SIZE: usize = 8;

/// From this size on the network begins with torchvision's stem, which leaves a quarter of it.
/// Smaller images keep their size: a quarter of 32 pixels is too few for four stages.
const LARGE_IMAGE: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Block {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3, 1x1, where the middle one is `width` times as wide as usual.
    Bottleneck { width: usize },
}

pub(super) fn draft(input: [usize; 3], classes: usize, block: Block, blocks: [usize; 4]) -> Result<Draft> {
    let mut b = Builder::new(input, kaiming_normal_fan_out);
    let mut x = stem(&mut b, input)?;
    for (stage, blocks) in (1..).zip(blocks) {
        let planes = 32 << stage;
        for i in 0..blocks {
            let stride = if stage > 1 && i == 0 { 2 } else { 1 };
            x = residual(&mut b, x, &format!("layer{stage}.{i}"), block, planes, stride)?;
        }
    }
    x = b.global_average(x, "avgpool")?;
    x = b.linear(x, "fc", classes, pytorch_default, pytorch_default)?;
    Ok(b.finish(x))
}

fn stem(b: &mut Builder, [_, height, width]: [usize; 3]) -> Result<Source> {
    let large = height.min(width) >= LARGE_IMAGE;
    let (kernel, stride) = if large { (7, 2) } else { (3, 1) };
    let mut x = b.conv(Source::Image, "conv1", 64, kernel, stride)?;
    x = b.batch_norm(x, "bn1")?;
    x = b.relu(x, "relu")?;
    if large { b.max_pool(x, "maxpool", 3, 2, 1) } else { Ok(x) }
}

fn residual(
    b: &mut Builder,
    x: Source,
    name: &str,
    block: Block,
    planes: usize,
    stride: usize,
) -> Result<Source> {
    let (y, last) = match block {
        Block::Basic => (basic(b, x, name, planes, stride)?, 2),
        Block::Bottleneck { width } => (bottleneck(b, x, name, [planes * width, planes * 4], stride)?, 3),
    };
    let shortcut = if b.shape(x) == b.shape(y) {
        x
    } else {
        let filters = b.shape(y).channels();
        let projected = b.conv(x, &format!("{name}.downsample.0"), filters, 1, stride)?;
        b.batch_norm(projected, &format!("{name}.downsample.1"))?
    };
    let sum = b.add(y, shortcut, &format!("{name}.add"))?;
    b.relu(sum, &format!("{name}.relu{last}"))
}

fn basic(b: &mut Builder, x: Source, name: &str, planes: usize, stride: usize) -> Result<Source> {
    let mut y = b.conv(x, &format!("{name}.conv1"), planes, 3, stride)?;
    y = b.batch_norm(y, &format!("{name}.bn1"))?;
    y = b.relu(y, &format!("{name}.relu1"))?;
    y = b.conv(y, &format!("{name}.conv2"), planes, 3, 1)?;
    b.batch_norm(y, &format!("{name}.bn2"))
}

fn bottleneck(
    b: &mut Builder,
    x: Source,
    name: &str,
    [inner, outer]: [usize; 2],
    stride: usize,
) -> Result<Source> {
    let mut y = b.conv(x, &format!("{name}.conv1"), inner, 1, 1)?;
    y = b.batch_norm(y, &format!("{name}.bn1"))?;
    y = b.relu(y, &format!("{name}.relu1"))?;
    y = b.conv(y, &format!("{name}.conv2"), inner, 3, stride)?;
    y = b.batch_norm(y, &format!("{name}.bn2"))?;
    y = b.relu(y, &format!("{name}.relu2"))?;
    y = b.conv(y, &format!("{name}.conv3"), outer, 1, 1)?;
    b.batch_norm(y, &format!("{name}.bn3"))
}
