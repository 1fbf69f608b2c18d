//! libFuzzer on the target that the variable `CALM_FUZZ_TARGET` names.

#![no_main]

use std::sync::LazyLock;

use calm_fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("CALM_FUZZ_TARGET").expect("the variable CALM_FUZZ_TARGET names a target");
    Target::named(&name).expect("there is such a target")
});

fuzz_target!(init: { LazyLock::force(&TARGET); }, |input: &[u8]| {
    // What is no file of this kind is an error, as it should be.
    let _ = TARGET.read(input);
});
