//! How much work is handed to an adapter at a time.

use std::collections::VecDeque;
use std::time::Instant;

/// Submissions that may wait in the queue before the host waits for the oldest.
const SUBMITS_IN_FLIGHT: usize = 8;

/// How much work a submission takes, so that it takes about as long on every device: drivers kill what
/// runs for seconds, and a display that shares the GPU should not stutter.
pub(super) struct Pace {
    in_flight: VecDeque<(wgpu::SubmissionIndex, u64)>,
    /// When the device last finished a submission, or was given one with nothing else to do. A browser has no such
    /// clock: there submissions stay short.
    busy_since: Option<Instant>,
    flops_per_second: f64,
}

impl Pace {
    /// Seconds that a submission should take.
    const SECONDS: f64 = 0.05;

    fn now() -> Option<Instant> {
        (!cfg!(target_arch = "wasm32")).then(Instant::now)
    }

    pub(super) fn new() -> Self {
        // Slower than any device that is worth using: the first submissions are short.
        Self { in_flight: VecDeque::new(), busy_since: Self::now(), flops_per_second: 20e9 }
    }

    pub(super) fn flops_per_submit(&self) -> u64 {
        (self.flops_per_second * Self::SECONDS) as u64
    }

    pub(super) fn submitted(&mut self, index: wgpu::SubmissionIndex, flops: u64) {
        if self.in_flight.is_empty() {
            self.busy_since = Self::now();
        }
        self.in_flight.push_back((index, flops));
    }

    /// The oldest submission, where there are enough behind it to keep the device busy.
    pub(super) fn too_many(&mut self) -> Option<(wgpu::SubmissionIndex, u64)> {
        if self.in_flight.len() > SUBMITS_IN_FLIGHT { self.in_flight.pop_front() } else { None }
    }

    /// The device has done the oldest submission and went on with the next.
    pub(super) fn done(&mut self, flops: u64) {
        let seconds = self.busy_since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        self.busy_since = Self::now();
        // Half the old value, so that one odd measurement does not count for all. What was done before
        // the host looked took no time to wait for: such a measurement says nothing.
        if seconds > 1e-4 && flops > 0 {
            let measured = (flops as f64 / seconds).clamp(1e9, 1e14);
            self.flops_per_second = 0.5 * self.flops_per_second + 0.5 * measured;
        }
    }

    /// The device has nothing left to do.
    pub(super) fn idle(&mut self) {
        self.in_flight.clear();
    }
}
