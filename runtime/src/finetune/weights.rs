//! What happens to the weights besides the optimiser's update: the axis `[weights]`.

mod awp;
mod ema;

use serde::{Deserialize, Serialize};

pub use awp::WeightPerturbation;
pub(super) use ema::{AveragedWeights, live_tensors, restore_live};

use crate::error::{Error, Result};

/// The table `[weights]`. Nothing happens where a key is absent.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsConfig {
    /// Decay of an exponential moving average of the weights after each update, 0 to 1. The average is
    /// what is measured and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Length of the adversarial weight perturbation, as a part of the length of each weight tensor
    /// (gamma of AWP).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awp: Option<f32>,
    /// Epochs without that perturbation at the start. 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awp_warmup_epochs: Option<f64>,
}

impl WeightsConfig {
    pub(super) fn check(&self) -> Result<()> {
        let fault = |message: String| Err(Error::Config(message));
        if let Some(ema) = self.ema.filter(|d| !(0.0..1.0).contains(d)) {
            return fault(format!(
                "weights.ema = {ema}: a decay lies in [0, 1); leave it out for no average"
            ));
        }
        if let Some(awp) = self.awp.filter(|g| !(0.0..1.0).contains(g)) {
            return fault(format!("weights.awp = {awp}: a part of the weights' length lies in [0, 1)"));
        }
        match self.awp_warmup_epochs {
            Some(_) if self.awp.is_none() => {
                fault("weights.awp_warmup_epochs delays weights.awp; set that, or leave it out".into())
            }
            Some(epochs) if !(epochs.is_finite() && epochs >= 0.0) => {
                fault(format!("weights.awp_warmup_epochs = {epochs}: it is finite and not negative"))
            }
            _ => Ok(()),
        }
    }
}
