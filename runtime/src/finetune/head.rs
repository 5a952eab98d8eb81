//! How sure the network is of its answers when training starts: the table `[head]`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::session::Session;

/// The table `[head]`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// Before the first step, weight and bias of the last layer are divided by this, above 0, where that layer
    /// trains: the same answers, and logits as a softmax of this temperature has them (Guo et al., "On calibration of
    /// modern neural networks", 2017). A network that was trained on these images until it was sure of them all
    /// has logits so large that under attack the cross-entropy is of images that are lost anyway. 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
}

impl HeadConfig {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.temperature.filter(|t| !(t.is_finite() && *t > 0.0)) {
            Some(temperature) => {
                Err(Error::Config(format!("head.temperature = {temperature}: it is finite and above 0")))
            }
            None => Ok(()),
        }
    }

    /// Divides weight and bias of the last layer, where the weight is `trained`.
    pub(super) fn apply(&self, trained: &[bool], session: &mut Session) -> Result<()> {
        let Some(temperature) = self.temperature else { return Ok(()) };
        let head = session.network().head();
        let head = head.ok_or_else(|| {
            Error::Config("head.temperature: the model's last layer is not linear; leave it out".into())
        })?;
        if !trained[head.weight] {
            return Ok(());
        }
        let mut parameters = session.read_parameters()?;
        for part in [head.weight, head.bias] {
            parameters[part].data.iter_mut().for_each(|value| *value /= temperature);
        }
        session.write_parameters(&parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architectures::Architecture;
    use crate::device::Device;
    use crate::finetune::{Recipe, TrainedLayers};

    fn session() -> Session {
        let model = Architecture::build("resnet8", [3, 8, 8], 4, 0).expect("it is known");
        let mut session = Session::new(Device::cpu(), &model, 3).expect("it fits");
        // Pixels of all kinds, so that logits differ.
        let images: Vec<f32> = (0..3 * 192).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
        session.load(&images, &[0, 1, 2], &[0, 1, 2]).expect("it fits");
        session
    }

    fn logits(session: &mut Session, config: &HeadConfig, layers: TrainedLayers) -> Vec<f32> {
        let trained = layers.of(session.network()).expect("there is enough to train").trained;
        config.apply(&trained, session).expect("the model has a head");
        session.logits(3, crate::session::Images::Clean).expect("it runs")
    }

    #[test]
    fn logits_are_divided() {
        let plain = logits(&mut session(), &HeadConfig::default(), TrainedLayers::All);
        assert!(plain.iter().any(|z| z.abs() > 0.01), "{plain:?}");
        let softer = HeadConfig { temperature: Some(4.0) };
        let found = logits(&mut session(), &softer, TrainedLayers::All);
        // A power of two changes exponents alone.
        assert_eq!(found, plain.iter().map(|z| z / 4.0).collect::<Vec<_>>());
        let same = HeadConfig { temperature: Some(1.0) };
        assert_eq!(logits(&mut session(), &same, TrainedLayers::All), plain);
        // What does not train stays as it is.
        assert_eq!(logits(&mut session(), &softer, TrainedLayers::BiasNorm), plain);
    }

    #[test]
    fn a_temperature_is_above_zero() {
        for wrong in ["0", "-1", "nan", "inf"] {
            let message = Recipe::load("madry", &[format!("head.temperature={wrong}")]).unwrap_err();
            assert!(message.to_string().contains("above 0"), "{message}");
        }
        let recipe = Recipe::load("madry", &["head.temperature=3".into()]).expect("it is well formed");
        assert_eq!(recipe.head.temperature, Some(3.0));
        assert!(!Recipe::load("madry", &[]).expect("it is there").to_toml().contains("head"));
    }
}
