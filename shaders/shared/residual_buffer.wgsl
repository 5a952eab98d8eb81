// What is added to a normalised activation, of its shape, by elements of type T.

@group(0) @binding(5) var<storage, read> residual: array<T>;

fn residual_at(i: u32) -> T {
    return residual[i];
}
