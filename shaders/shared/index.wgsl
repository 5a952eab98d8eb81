// The number of this thread in its dispatch.
//
// A dispatch has at most 65,535 workgroups along an axis, so the workgroups of a long one are
// folded into rows: group = x + y * (workgroups in a row). The last row may have workgroups past
// the end of the work; every kernel returns at once from threads that have none.

const WORKGROUP: u32 = 64u;

fn thread_index(group: vec3<u32>, groups: vec3<u32>, local: u32) -> u32 {
    return (group.y * groups.x + group.x) * WORKGROUP + local;
}
