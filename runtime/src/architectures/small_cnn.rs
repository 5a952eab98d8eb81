//! The MNIST network of TRADES: four convolutions and three linear layers.
//!
//! Zhang et al., "Theoretically principled trade-off between robustness and accuracy", 2019
//! (`SmallCNN` of github.com/yaodongyu/TRADES, without its dropout).

use super::builder::{Builder, Draft};
use super::initial::{kaiming_normal_fan_in, pytorch_default, zero};
use crate::error::Result;
use crate::network::Source;

/// Two times: two unpadded 3x3 convolutions, then a halving. 16 pixels leave exactly one.
pub(super) const LEAST_SIZE: usize = 16;

pub(super) fn draft(input: [usize; 3], classes: usize) -> Result<Draft> {
    let mut b = Builder::new(input, kaiming_normal_fan_in);
    let mut x = Source::Image;
    for (stage, filters) in [(1, 32), (2, 64)] {
        for conv in [2 * stage - 1, 2 * stage] {
            x = b.conv_unpadded(x, &format!("feature_extractor.conv{conv}"), filters, 3)?;
            x = b.relu(x, &format!("feature_extractor.relu{conv}"))?;
        }
        x = b.max_pool(x, &format!("feature_extractor.maxpool{stage}"), 2, 2, 0)?;
    }
    x = b.flatten(x, "flatten")?;
    for layer in [1, 2] {
        x = b.linear(x, &format!("classifier.fc{layer}"), 200, pytorch_default, pytorch_default)?;
        x = b.relu(x, &format!("classifier.relu{layer}"))?;
    }
    // TRADES starts with equal logits for every image.
    x = b.linear(x, "classifier.fc3", classes, zero, zero)?;
    Ok(b.finish(x))
}
