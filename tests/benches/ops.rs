//! The time of single operations, over the cases that the tests check: `cargo bench --bench ops`, and a part of
//! a name to choose. A kernel's result is compared with the CPU twin's before it is timed.

use adamant::{Device, DeviceChoice};
use adamant_tests::cases::{self, Case};
use adamant_tests::compare;
use adamant_tests::run::{run, single};
use divan::Bencher;

fn main() {
    divan::main();
}

/// Below so many elements a case takes as long as its launch.
const ELEMENTS: usize = 4096;

fn worth_timing() -> impl Iterator<Item = Case> {
    let elements = |case: &Case| case.inputs.iter().map(|input| input.shape().len()).sum::<usize>();
    cases::all().into_iter().filter(move |case| elements(case) >= ELEMENTS)
}

fn names() -> Vec<String> {
    worth_timing().map(|case| case.name).collect()
}

#[divan::bench(args = names())]
fn cpu(bencher: Bencher, name: &str) {
    time(bencher, name, Device::cpu());
}

#[divan::bench(args = names())]
fn gpu(bencher: Bencher, name: &str) {
    time(bencher, name, Device::open(&DeviceChoice::Gpu).expect("there is an adapter"));
}

fn time(bencher: Bencher, name: &str, mut device: Device) {
    let case = worth_timing().find(|case| case.name == name).expect("it is one of them");
    let found = run(&case, &mut device).expect("it runs");
    for (found, expected) in found.iter().zip(run(&case, &mut Device::cpu()).expect("it runs")) {
        compare(&found.data, &expected.data, case.tolerance).expect("it computes what the CPU twin does");
    }
    let single = single(&case, &mut device).expect("it fits");
    let mut program = device.compile(&single.graph).expect("it fits");
    bencher.bench_local(|| {
        device.run(&mut program).expect("it runs");
        device.finish().expect("it runs");
    });
}
