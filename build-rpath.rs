//! Build script of every crate that has binaries or tests on libtorch: lets them find it at run time without
//! LD_LIBRARY_PATH (which still has precedence, as on a machine with a libtorch of its own).

fn main() {
    println!("cargo:rerun-if-changed=../build-rpath.rs");
    // Set by torch-sys, and only for its direct dependents.
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
