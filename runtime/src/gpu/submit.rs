//! How a program's dispatches reach the adapter: in submissions of which none runs long, as passes between copies.

use super::{Bound, Gpu, GpuProgram};
use crate::error::Result;

/// Dispatches of one submission.
const DISPATCHES_PER_SUBMIT: usize = 512;

impl Gpu {
    pub(crate) fn run(&mut self, program: &mut GpuProgram) -> Result<()> {
        self.healthy()?;
        if program.generation != self.generation {
            self.bind(program)?;
        }
        if self.times.is_some() {
            return self.run_timed(program);
        }
        let mut rest = program.bound.as_slice();
        while !rest.is_empty() {
            let (mut flops, most) = (0, self.pace.flops_per_submit());
            let count = rest
                .iter()
                .take(DISPATCHES_PER_SUBMIT)
                .take_while(|b| {
                    let fits = flops < most;
                    flops += b.flops;
                    fits
                })
                .count();
            let (now, later) = rest.split_at(count);
            rest = later;
            self.submit(now, None)?;
        }
        Ok(())
    }

    /// Waits until all work is done.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.wait(wgpu::PollType::wait_indefinitely())?;
        self.pace.idle();
        self.healthy()
    }

    /// Hands dispatches to the adapter, which writes when they began and ended to `times` from that index on.
    pub(super) fn submit(
        &mut self,
        dispatches: &[Bound],
        times: Option<(&wgpu::QuerySet, u32)>,
    ) -> Result<()> {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        // Copies lie between passes.
        let mut passes: Vec<&[Bound]> = dispatches.chunk_by(|_, next| next.copies.is_empty()).collect();
        let begins_with_copies = passes.first().is_none_or(|pass| !pass[0].copies.is_empty());
        if times.is_some() && begins_with_copies {
            // Its beginning is theirs.
            passes.insert(0, &[]);
        }
        let last = passes.len().saturating_sub(1);
        for (i, dispatches) in passes.into_iter().enumerate() {
            dispatches.iter().flat_map(|d| &d.copies).for_each(|copy| copy.encode(&mut encoder));
            let timestamp_writes = times.map(|(query_set, first)| wgpu::ComputePassTimestampWrites {
                query_set,
                beginning_of_pass_write_index: (i == 0).then_some(first),
                end_of_pass_write_index: (i == last).then_some(first + 1),
            });
            let timestamp_writes = timestamp_writes.filter(|_| i == 0 || i == last);
            let mut pass =
                encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            for dispatch in dispatches {
                pass.set_pipeline(&dispatch.pipeline);
                pass.set_bind_group(0, &dispatch.group, &[]);
                let [x, y] = dispatch.workgroups;
                pass.dispatch_workgroups(x, y, 1);
            }
        }
        let index = self.queue.submit([encoder.finish()]);
        self.pace.submitted(index, dispatches.iter().map(|d| d.flops).sum());
        if let Some((oldest, flops)) = self.pace.too_many() {
            self.wait(wgpu::PollType::Wait { submission_index: Some(oldest), timeout: None })?;
            self.pace.done(flops);
        }
        Ok(())
    }
}
