//! What `adamant bench` found, for people.

use adamant::Workload;

use super::report::Report;
use crate::output::wrap;

pub fn text(report: &Report) -> String {
    let head = format!("{}, batch {}, {}", report.arch, report.batch, report.device);
    let mut text = wrap(&head, 2) + "\n\n";
    text += &format!("{:<26}{:>12}{:>12}{:>12}{:>14}\n", "", "median", "fastest", "GFLOP/s", "images/s");
    for r in &report.results {
        text += &format!(
            "{:<26}{:>9.1} ms{:>9.1} ms{:>12.1}{:>14.1}\n",
            r.name, r.median_ms, r.min_ms, r.gflops, r.images_per_second
        );
    }
    if let Some(overhead) = report.overhead {
        let name = Workload::Pgd10AdversarialStep.name();
        text += &format!("\n{name}, over ten PGD steps and a training step: {:+.1}%\n", 100.0 * overhead);
    }
    let startup = &report.startup;
    text += &format!(
        "\nfirst training step done {:.2} s after the start, device open after {:.2} s\n",
        startup.first_train_step_s, startup.device_s
    );
    scaling(report, &mut text);
    ops(report, &mut text);
    layers(report, &mut text);
    text
}

fn scaling(report: &Report, text: &mut String) {
    if report.scaling.is_empty() {
        return;
    }
    let title = format!("{} by batch", Workload::Pgd10AdversarialStep.name());
    *text += &format!("\n{title:<36}{:>12}{:>16}{:>12}\n", "median", "an image", "of first");
    for s in &report.scaling {
        *text += &format!(
            "{:<36}{:>9.1} ms{:>13.2} ms{:>12.2}\n",
            s.batch, s.median_ms, s.ms_per_image, s.relative
        );
    }
}

fn ops(report: &Report, text: &mut String) {
    for workload in Workload::ALL {
        let ops = || report.ops.iter().filter(|o| o.workload == workload.name());
        if ops().next().is_some() {
            *text += &format!(
                "\n{:<26}{:>8}{:>12}{:>8}{:>12}{:>10}\n",
                format!("{} by op", workload.name()),
                "steps",
                "time",
                "share",
                "GFLOP/s",
                "GB/s"
            );
        }
        for op in ops() {
            *text += &format!(
                "{:<26}{:>8}{:>9.2} ms{:>7.1}%{:>12.1}{:>10.1}\n",
                op.op,
                op.count,
                op.ms,
                100.0 * op.share,
                op.gflops,
                op.gigabytes_per_second
            );
        }
    }
}

fn layers(report: &Report, text: &mut String) {
    for workload in Workload::ALL {
        let steps = || report.layers.iter().filter(|l| l.workload == workload.name());
        if steps().next().is_some() {
            *text +=
                &format!("\n{:<50}{:>16}{:>14}\n", format!("{} by step", workload.name()), "time", "GFLOP/s");
        }
        for step in steps() {
            let name = format!("{:<28}{}", step.layer, step.op);
            *text += &format!("{name:<50}{:>13.3} ms{:>14.1}\n", step.ms, step.gflops);
        }
    }
}
