//! Work that depends on the weights alone is done once, for as long as they stay what they are: folding
//! BatchNorms, turning weights for gradients. An attack then does it once a batch, inference once.

use crate::error::Result;
use crate::graph::{Graph, Storage, Variable};

/// A graph in two parts.
pub(crate) struct Split {
    /// What depends on the constants alone; writes `made`.
    pub prologue: Graph,
    /// The rest, which reads `made`.
    pub main: Graph,
    /// The buffers between them.
    #[cfg_attr(not(feature = "train"), expect(dead_code, reason = "only who predicts memory asks"))]
    pub made: Vec<Variable>,
}

/// Splits `graph` at what depends on `constants` alone; `variable` makes a device buffer of so many
/// elements. A constant that the graph itself writes is none.
pub(crate) fn split(
    graph: &Graph,
    constants: &[Variable],
    mut variable: impl FnMut(usize) -> Result<Variable>,
) -> Result<Split> {
    let written = |v: Variable| {
        let is_it = |o: &crate::graph::ValueId| graph.values[o.index()].storage == Storage::Variable(v);
        graph.nodes.iter().any(|n| n.outputs.iter().any(is_it))
    };
    let constants: Vec<Variable> = constants.iter().copied().filter(|&c| !written(c)).collect();
    let mut is_constant: Vec<bool> = graph
        .values
        .iter()
        .map(|v| matches!(v.storage, Storage::Variable(variable) if constants.contains(&variable)))
        .collect();
    let mut main = graph.clone();
    let mut prologue = Graph::new();
    main.nodes.clear();
    for node in &graph.nodes {
        let depends = !node.inputs.is_empty() && node.inputs.iter().all(|v| is_constant[v.index()]);
        let defines = node.outputs.iter().all(|v| graph.values[v.index()].storage == Storage::Temporary);
        if !(depends && defines) {
            main.nodes.push(node.clone());
            continue;
        }
        node.outputs.iter().for_each(|output| is_constant[output.index()] = true);
        prologue.nodes.push(node.clone());
    }
    let mut crosses = vec![false; graph.values.len()];
    main.nodes.iter().flat_map(|n| &n.inputs).for_each(|v| crosses[v.index()] = true);
    let mut made = Vec::new();
    for output in prologue.nodes.iter().flat_map(|n| &n.outputs).filter(|v| crosses[v.index()]) {
        let variable = variable(graph.shape(*output).len())?;
        made.push(variable);
        main.values[output.index()].storage = Storage::Variable(variable);
    }
    prologue.values.clone_from(&main.values);
    Ok(Split { prologue, main, made })
}
