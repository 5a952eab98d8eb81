// The numbers of this thread and of its workgroup in their dispatch.
//
// A dispatch has at most 65,535 workgroups along an axis, so the workgroups of a long one are
// folded into rows: group = x + y * (workgroups in a row). The last row may have workgroups past
// the end of the work; every kernel returns at once from threads that have none.

const WORKGROUP: u32 = 64u;

fn workgroup_index(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

fn thread_index(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return workgroup_index(group, groups) * WORKGROUP + local;
}

// Which of elements 4i to 4i + 3 come before `len`. Past it another value may lie, which a kernel
// that takes four elements at a time has to leave alone.
fn inside(i: u32, len: u32) -> vec4<bool> {
    return vec4<u32>(4u * i, 4u * i + 1u, 4u * i + 2u, 4u * i + 3u) < vec4<u32>(len);
}
