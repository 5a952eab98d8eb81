//! ResNet-18 for CIFAR whose blocks normalise and activate before they convolve.
//!
//! He et al., "Identity mappings in deep residual networks", 2016. The form of the robust-training
//! literature (Rice et al., "Overfitting in adversarially robust deep learning", 2020; Wu et al.,
//! "Adversarial weight perturbation", 2020): kuangliu's `PreActResNet18` and a BatchNorm and ReLU
//! after the last block.

use super::builder::{Builder, Draft};
use super::initial::pytorch_default;
use crate::error::Result;
use crate::network::Source;

/// The size is halved three times.
pub(super) const LEAST_SIZE: usize = 8;

const BLOCKS: usize = 2;

pub(super) fn draft(input: [usize; 3], classes: usize) -> Result<Draft> {
    let mut b = Builder::new(input, pytorch_default);
    let mut x = b.conv(Source::Image, "conv1", 64, 3, 1)?;
    for (stage, filters) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for i in 0..BLOCKS {
            let stride = if stage > 1 && i == 0 { 2 } else { 1 };
            x = block(&mut b, x, &format!("layer{stage}.{i}"), filters, stride)?;
        }
    }
    x = b.batch_norm(x, "bn")?;
    x = b.relu(x, "relu")?;
    x = b.global_average(x, "avgpool")?;
    x = b.linear(x, "linear", classes, pytorch_default, pytorch_default)?;
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
        b.conv(active, &format!("{name}.shortcut.0"), filters, 1, stride)?
    };
    b.add(y, shortcut, &format!("{name}.add"))
}
