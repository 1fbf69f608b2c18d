//! Build script of every crate that has binaries or tests on libtorch: lets them find it at run time without
//! LD_LIBRARY_PATH (which still has precedence, as on a machine with a libtorch of its own).

// Cargo is told by standard output.
#[allow(clippy::print_stdout)]
pub(crate) fn main() {
    println!("cargo:rerun-if-changed=../build-rpath.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // The first one is set by torch-sys, and only for its direct dependents. A crate that has libtorch by way
    // of others finds the folder that torch-sys is told to take.
    let folder = std::env::var("LIBTORCH").map(|folder| folder + "/lib");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB").or(folder) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
