#![no_main]

guestseal_fuzz::program!("domain");
