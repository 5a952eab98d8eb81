//! What happens to the weights besides the optimiser's update: the axis `[weights]`.

mod average;
mod awp;

use serde::{Deserialize, Serialize};

pub(super) use average::{AveragedWeights, live_tensors, restore_live};
pub use awp::WeightPerturbation;

use crate::error::{Error, Result};

/// The table `[weights]`. Nothing happens where a key is absent.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsConfig {
    /// Decay of an exponential moving average of the weights after each update, 0 to 1. The average is
    /// what is measured and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// The part of the run after which the weights of each epoch go into a plain average, 0 to 1 (SWA, Izmailov
    /// et al., 2018); `batchnorm.recalibrate` says how its running statistics are estimated. The average is what
    /// is measured and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swa: Option<f64>,
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
        if let Some(swa) = self.swa.filter(|s| !(0.0..=1.0).contains(s)) {
            return fault(format!("weights.swa = {swa}: a part of the run lies between 0 and 1"));
        }
        if self.swa.is_some() && self.ema.is_some() {
            return fault(
                "weights.ema and weights.swa are two averages of the same weights; choose one".into(),
            );
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
