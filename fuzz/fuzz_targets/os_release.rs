#![no_main]

guestseal_fuzz::program!("os_release");
