// Weights of a convolution to at most four channels on subgroups of exactly eight lanes: the sixteen of four input
// channels are loaded once by the eight lanes, two each, and handed round by broadcast.

// Input channel (of two, and the next two) and output channel of a lane's weights. Output channels past the last are
// the last one again, and are not stored.
fn own_weight(lane: u32) -> u32 {
    return lane / 4u * params.out_c + min(lane % 4u, params.out_c - 1u);
}

// The four weights that the first, or the last, four lanes hold.
fn share_low(mine: f32) -> vec4<f32> {
    return vec4<f32>(
        subgroupBroadcast(mine, 0u),
        subgroupBroadcast(mine, 1u),
        subgroupBroadcast(mine, 2u),
        subgroupBroadcast(mine, 3u),
    );
}

fn share_high(mine: f32) -> vec4<f32> {
    return vec4<f32>(
        subgroupBroadcast(mine, 4u),
        subgroupBroadcast(mine, 5u),
        subgroupBroadcast(mine, 6u),
        subgroupBroadcast(mine, 7u),
    );
}
