// Sums over the classes of an image, by a workgroup of 64 threads: each takes every 64th class, and then all of them
// put together what each has, in the same order.

var<workgroup> found: array<f32, 64>;

// As many of the threads as there are have a class.
fn threads_of(classes: u32) -> u32 {
    return min(classes, 64u);
}

fn share(own: f32, local: u32) {
    // Nobody still reads what was shared before.
    workgroupBarrier();
    found[local] = own;
    workgroupBarrier();
}

fn total(own: f32, classes: u32, local: u32) -> f32 {
    share(own, local);
    var sum = 0.0;
    for (var i = 0u; i < threads_of(classes); i++) {
        sum += found[i];
    }
    return sum;
}

// Written so that NaN stays NaN where it comes last, and elsewhere in the sum of what is taken from it.
fn larger(a: f32, b: f32) -> f32 {
    return select(b, a, a >= b);
}

fn largest(own: f32, classes: u32, local: u32) -> f32 {
    share(own, local);
    var most = found[0];
    for (var i = 1u; i < threads_of(classes); i++) {
        most = larger(most, found[i]);
    }
    return most;
}
