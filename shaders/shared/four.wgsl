// What a kernel that is written for either handles at once: four neighbouring channels. Its `Params` then
// count channels in fours.
alias T = vec4<f32>;

