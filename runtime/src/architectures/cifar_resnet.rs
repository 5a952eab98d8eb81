//! The thin ResNets for CIFAR: 6n+2 layers in three stages of 16, 32 and 64 channels.
//!
//! He et al., "Deep residual learning for image recognition", 2015, section 4.2, with its
//! parameter-free shortcuts ("option A"). Names and start as in
//! github.com/akamaster/pytorch_resnet_cifar10.

use super::builder::{Builder, Draft};
use super::initial::{kaiming_normal_fan_in, pytorch_default};
use crate::error::Result;
use crate::network::Source;

/// The size is halved twice.
pub(super) const LEAST_SIZE: usize = 4;

/// `blocks` is the n of 6n+2: blocks a stage.
pub(super) fn draft(input: [usize; 3], classes: usize, blocks: usize) -> Result<Draft> {
    let mut b = Builder::new(input, kaiming_normal_fan_in);
    let mut x = b.conv(Source::Image, "conv1", 16, 3, 1)?;
    x = b.batch_norm(x, "bn1")?;
    x = b.relu(x, "relu")?;
    for (stage, filters) in [(1, 16), (2, 32), (3, 64)] {
        for i in 0..blocks {
            let stride = if stage > 1 && i == 0 { 2 } else { 1 };
            x = block(&mut b, x, &format!("layer{stage}.{i}"), filters, stride)?;
        }
    }
    x = b.global_average(x, "avgpool")?;
    x = b.linear(x, "linear", classes, kaiming_normal_fan_in, pytorch_default)?;
    Ok(b.finish(x))
}

fn block(b: &mut Builder, x: Source, name: &str, filters: usize, stride: usize) -> Result<Source> {
    let mut y = b.conv(x, &format!("{name}.conv1"), filters, 3, stride)?;
    y = b.batch_norm(y, &format!("{name}.bn1"))?;
    y = b.relu(y, &format!("{name}.relu1"))?;
    y = b.conv(y, &format!("{name}.conv2"), filters, 3, 1)?;
    y = b.batch_norm(y, &format!("{name}.bn2"))?;
    let shortcut = if stride == 1 { x } else { option_a(b, x, &format!("{name}.shortcut"), filters)? };
    y = b.add(y, shortcut, &format!("{name}.add"))?;
    b.relu(y, &format!("{name}.relu2"))
}

/// Halves the size and doubles the channels, without parameters.
fn option_a(b: &mut Builder, x: Source, name: &str, filters: usize) -> Result<Source> {
    let half = b.every_second_pixel(x, &format!("{name}.slice"))?;
    b.pad_channels(half, &format!("{name}.pad"), filters / 4)
}
