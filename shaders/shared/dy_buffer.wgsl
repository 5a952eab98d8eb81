// The gradient by the output, by elements of type T. The kernel says which binding that is.

@group(0) @binding(DY) var<storage, read> dy: array<T>;

fn dy_at(i: u32) -> T {
    return dy[i];
}
