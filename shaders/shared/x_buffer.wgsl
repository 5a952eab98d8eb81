// An activation, by elements of type T.

@group(0) @binding(0) var<storage, read> x: array<T>;

fn x_at(i: u32) -> T {
    return x[i];
}
