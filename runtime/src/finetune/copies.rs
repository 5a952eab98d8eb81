//! Further values of a network's parameters on its device: those of a teacher, or of what trains beside the network.

use crate::error::{Error, Result};
use crate::graph::{ValueId, Variable};
use crate::network::Parameter;
use crate::session::{ModelGraph, Session};
use crate::shape::Tensor;

/// Copies of some of the parameters, as they were when it was made.
pub(super) struct Copies {
    /// Before a parameter's name in a checkpoint.
    prefix: &'static str,
    /// For each of the network's parameters; none where there is no copy.
    own: Vec<Option<Variable>>,
}

impl Copies {
    /// Copies those of the network's parameters that `which` names by `true`.
    pub fn new(prefix: &'static str, which: &[bool], session: &mut Session) -> Result<Self> {
        let values = session.read_parameters()?;
        let copy = |(value, copied): (&Tensor, &bool)| {
            copied.then(|| session.device().variable_from(&value.data)).transpose()
        };
        let own = values.iter().zip(which).map(copy).collect::<Result<_>>()?;
        Ok(Self { prefix, own })
    }

    /// A value for each of the network's parameters: the copy, or the network's where there is none.
    pub fn values(&self, m: &mut ModelGraph) -> Vec<ValueId> {
        let shared = m.parameters.clone().into_iter().zip(&m.network.parameters);
        let value = |(own, (shared, of)): (&Option<Variable>, (ValueId, &Parameter))| {
            own.map_or(shared, |own| m.graph.variable(own, of.shape))
        };
        self.own.iter().zip(shared).map(value).collect()
    }

    fn named(&self, session: &Session) -> Vec<(String, Variable)> {
        let parameters = session.network().parameters.iter().zip(&self.own);
        parameters.filter_map(|(of, own)| Some((format!("{}{}", self.prefix, of.name), (*own)?))).collect()
    }

    /// The copies by name, for a checkpoint.
    pub fn read(&self, session: &mut Session) -> Result<Vec<(String, Vec<f32>)>> {
        let named = self.named(session).into_iter();
        named.map(|(name, variable)| Ok((name, session.device().read(variable)?))).collect()
    }

    /// Restores what [`Copies::read`] gave.
    pub fn restore(&self, session: &mut Session, tensors: &[(String, Vec<f32>)]) -> Result<()> {
        for (name, variable) in self.named(session) {
            let (_, values) = tensors
                .iter()
                .find(|(n, v)| *n == name && v.len() == variable.len())
                .ok_or_else(|| Error::Config(format!("the checkpoint has no '{name}'")))?;
            session.device().write(variable, values);
        }
        Ok(())
    }
}
