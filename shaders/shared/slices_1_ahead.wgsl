// A thread goes through the whole sum of its results, two units at a time, and fetches the next ones while it computes.
const SLICES = 1u;
const UNITS = 2u;
const AHEAD = true;
