// What a kernel that is written for either handles at once: one channel.
alias T = f32;

