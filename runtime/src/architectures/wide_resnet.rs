//! Wide residual networks for CIFAR: WRN-D-K has D layers, K times as wide as a thin ResNet.
//!
//! Zagoruyko and Komodakis, "Wide residual networks", 2016. Names and start as in the
//! `WideResNet` of github.com/yaodongyu/TRADES, without the `sub_block1` that it never uses.

use super::builder::{Builder, Draft};
use super::initial::{kaiming_normal_fan_out, pytorch_default, zero};
use crate::error::{Error, Result};
use crate::network::Source;

/// The size is halved twice.
pub(super) const LEAST_SIZE: usize = 4;

/// Depth and width of `wrn-D-K`, or `None` for a name of another form.
///
/// 16 bits are far more than any network needs and keep the arithmetic on channels from
/// overflowing.
pub(super) fn parse(name: &str) -> Option<(u16, u16)> {
    let (depth, width) = name.strip_prefix("wrn-")?.split_once('-')?;
    Some((depth.parse().ok()?, width.parse().ok()?))
}

/// Blocks a group. Zagoruyko's depth, 6n+4, counts the three 1x1 convolutions of the shortcuts;
/// Madry's, 6n+2, does not: WRN-32-10 there is the network of WRN-34-10 here.
pub(super) fn blocks(depth: u16, width: u16) -> Result<usize> {
    match (depth % 6, depth / 6) {
        (2 | 4, n @ 1..) if width > 0 => Ok(n.into()),
        _ => Err(Error::Config(format!(
            "wrn-{depth}-{width}: a wide ResNet has a depth of 6n+4 (10, 16, 28, 34, 70, ...) \
             or 6n+2 (32) and a width of at least 1"
        ))),
    }
}

pub(super) fn draft(input: [usize; 3], classes: usize, blocks: usize, width: usize) -> Result<Draft> {
    let mut b = Builder::new(input, kaiming_normal_fan_out);
    let mut x = b.conv(Source::Image, "conv1", 16, 3, 1)?;
    for (group, filters) in [(1, 16 * width), (2, 32 * width), (3, 64 * width)] {
        for i in 0..blocks {
            let stride = if group > 1 && i == 0 { 2 } else { 1 };
            x = block(&mut b, x, &format!("block{group}.layer.{i}"), filters, stride)?;
        }
    }
    x = b.batch_norm(x, "bn1")?;
    x = b.relu(x, "relu")?;
    x = b.global_average(x, "avgpool")?;
    x = b.linear(x, "fc", classes, pytorch_default, zero)?;
    Ok(b.finish(x))
}

fn block(b: &mut Builder, x: Source, name: &str, filters: usize, stride: usize) -> Result<Source> {
    let active = b.batch_norm(x, &format!("{name}.bn1"))?;
    let active = b.relu(active, &format!("{name}.relu1"))?;
    let mut y = b.conv(active, &format!("{name}.conv1"), filters, 3, stride)?;
    y = b.batch_norm(y, &format!("{name}.bn2"))?;
    y = b.relu(y, &format!("{name}.relu2"))?;
    y = b.conv(y, &format!("{name}.conv2"), filters, 3, 1)?;
    // An identity passes the block's raw input on; a projection sees it activated.
    let shortcut = if b.shape(x) == b.shape(y) {
        x
    } else {
        b.conv(active, &format!("{name}.convShortcut"), filters, 1, stride)?
    };
    b.add(y, shortcut, &format!("{name}.add"))
}
