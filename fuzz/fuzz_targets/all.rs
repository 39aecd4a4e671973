//! Every target in one program: GUESTSEAL_FUZZ_TARGET names the one to run.

#![no_main]

guestseal_fuzz::program!();
