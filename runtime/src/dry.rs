//! An executor that runs nothing: to learn what a computation takes on a device before any of it is made.

use std::collections::HashMap;

use crate::graph::Variable;
use crate::plan::Limits;

/// Stands in for a device with these limits. What is read from it is zero.
pub(crate) struct Dry {
    pub limits: Limits,
    pub on_cpu: bool,
    /// Elements of each variable that was not released.
    variables: HashMap<u32, usize>,
    made: u32,
}

impl Dry {
    pub fn new(limits: Limits, on_cpu: bool) -> Self {
        Self { limits, on_cpu, variables: HashMap::new(), made: 0 }
    }

    pub fn variable(&mut self, len: usize) -> Variable {
        let id = self.made;
        self.variables.insert(id, len);
        self.made += 1;
        Variable { id, len }
    }

    pub fn variable_bytes(&self) -> u64 {
        // A GPU's buffers are read by four elements.
        let granule = if self.on_cpu { 1 } else { 4 };
        self.variables.values().map(|len| len.next_multiple_of(granule) as u64 * 4).sum()
    }

    pub fn release(&mut self, variable: Variable) {
        self.variables.remove(&variable.id);
    }
}
