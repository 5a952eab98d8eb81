//! What each step of a program takes on an adapter.

use std::time::Instant;

use super::{Bound, Gpu, GpuProgram};
use crate::error::Result;
use crate::plan::Step;
use crate::profile::StepTime;

/// Steps that are timed with one set of queries, of which WebGPU allows 4096, two each.
const STEPS_PER_CLOCK: usize = 2048;

impl Gpu {
    /// Whether steps are timed by the adapter's own clock.
    pub(crate) fn has_clock(&mut self) -> Result<bool> {
        if let Some(known) = self.clock {
            return Ok(known);
        }
        // Some drivers have the queries and leave zeros.
        let works = self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) && {
            let queries = self.queries(2);
            self.submit(&[], Some((&queries, 0)))?;
            let ticks = self.ticks(&queries, 2)?;
            0 < ticks[0] && ticks[0] <= ticks[1]
        };
        self.clock = Some(works);
        Ok(works)
    }

    /// Runs a program step by step and notes what each took.
    pub(super) fn run_timed(&mut self, program: &GpuProgram) -> Result<()> {
        let clock = self.has_clock()?;
        let mut rest = program.bound.as_slice();
        for steps in program.plan.steps.chunks(STEPS_PER_CLOCK) {
            let count = steps.iter().map(|s| s.launch.dispatches.len()).sum();
            let (now, later) = rest.split_at(count);
            rest = later;
            let seconds = if clock { self.clocked(steps, now)? } else { self.waited(steps, now)? };
            let times = steps.iter().zip(seconds).map(|(step, seconds)| StepTime::new(step, seconds));
            self.times.get_or_insert_default().extend(times);
        }
        Ok(())
    }

    /// The seconds of each step, which the host waits for; with what a submission takes.
    fn waited(&mut self, steps: &[Step], mut rest: &[Bound]) -> Result<Vec<f64>> {
        let mut seconds = Vec::with_capacity(steps.len());
        for step in steps {
            let (now, later) = rest.split_at(step.launch.dispatches.len());
            rest = later;
            self.finish()?;
            let start = Instant::now();
            self.submit(now, None)?;
            self.finish()?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }

    /// The seconds of each step on the adapter.
    fn clocked(&mut self, steps: &[Step], mut rest: &[Bound]) -> Result<Vec<f64>> {
        let count = 2 * steps.len() as u32;
        let queries = self.queries(count);
        for (step, first) in steps.iter().zip((0..).step_by(2)) {
            let (now, later) = rest.split_at(step.launch.dispatches.len());
            rest = later;
            self.submit(now, Some((&queries, first)))?;
        }
        let period = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        let ticks = self.ticks(&queries, count)?;
        Ok(ticks.chunks_exact(2).map(|t| t[1].saturating_sub(t[0]) as f64 * period).collect())
    }

    fn queries(&self, count: u32) -> wgpu::QuerySet {
        self.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("times"),
            ty: wgpu::QueryType::Timestamp,
            count,
        })
    }

    /// What was written to `queries`, when all work is done.
    fn ticks(&mut self, queries: &wgpu::QuerySet, count: u32) -> Result<Vec<u64>> {
        // Two words each.
        let len = 2 * count as usize;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let found = self.buffer("times", len, usage)?;
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.resolve_query_set(queries, 0..count, &found, 0);
        self.queue.submit([encoder.finish()]);
        let words = self.fetch(self.start_reading_buffer(&found, len)?)?;
        let tick = |word: &[f32]| u64::from(word[0].to_bits()) | u64::from(word[1].to_bits()) << 32;
        Ok(words.chunks_exact(2).map(tick).collect())
    }
}
