#![no_main]

guestseal_fuzz::program!("qcow2");
