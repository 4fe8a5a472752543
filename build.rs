//! Links a BLAS of the system. It is looked for before the linker does, so that a missing library
//! gives one message that says what to do.

use std::env::var_os;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Some tests need files that the package on a registry is without.
    println!("cargo::rustc-check-cfg=cfg(repository)");
    if Path::new("docs").exists() {
        println!("cargo::rustc-cfg=repository");
    }
    let asked_for = |feature: &str| var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    // docs.rs links nothing.
    if var_os("DOCS_RS").is_some() {
        return;
    }
    if asked_for("MPI") {
        mpi();
    }
    // A static build brings its own.
    if asked_for("OPENBLAS_SYSTEM") && !asked_for("OPENBLAS_STATIC") {
        openblas();
    }
    if asked_for("NETLIB_SYSTEM") {
        // Some systems have CBLAS in a library of its own, others in that of BLAS.
        let _ = pkg_config::probe_library("cblas");
        link("blas");
        if asked_for("CURVATURE") {
            link("lapack");
        }
    }
    if asked_for("INTEL_MKL_SYSTEM") {
        // Its single dynamic library: the linker would drop those that only each other refer to.
        link("mkl-sdl");
    }
}

/// Says what to install if there is no MPI. The crate `mpi` needs it, and says less.
fn mpi() {
    println!("cargo::rerun-if-env-changed=MPICC");
    let compiler = var_os("MPICC").unwrap_or("mpicc".into());
    let has_compiler = Command::new(compiler).arg("-show").output().is_ok_and(|shown| shown.status.success());
    let is_found = |name: &&str| pkg_config::Config::new().cargo_metadata(false).probe(name).is_ok();
    if !cfg!(windows) && !has_compiler && !["mpich", "ompi"].iter().any(is_found) {
        fail(
            "
gemmprop trains on the ranks of MPI with the feature mpi, and finds neither the compiler wrapper mpicc
nor mpich or ompi by pkg-config.

  Debian, Ubuntu    sudo apt-get install libopenmpi-dev openmpi-bin libclang-dev
  Fedora            sudo dnf install openmpi-devel clang-devel, and module load mpi
  Arch              sudo pacman -S openmpi clang
  macOS             brew install open-mpi llvm
",
        );
    }
}

fn openblas() {
    #[cfg(windows)]
    if vcpkg::find_package("openblas").is_ok() {
        return;
    }
    let Err(error) = pkg_config::probe_library("openblas") else { return };
    // Homebrew keeps OpenBLAS out of pkg-config's path.
    let homebrew = ["/opt/homebrew/opt/openblas/lib", "/usr/local/opt/openblas/lib"];
    match homebrew.into_iter().find(|folder| Path::new(folder).exists()) {
        Some(folder) => {
            println!("cargo::rustc-link-search=native={folder}");
            println!("cargo::rustc-link-lib=openblas");
        }
        None => fail(&missing(&error)),
    }
}

/// Links the library that pkg-config has by this name.
fn link(name: &str) {
    if let Err(error) = pkg_config::probe_library(name) {
        fail(&format!("\ngemmprop is to link the library that pkg-config calls {name}: {error}"));
    }
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(1);
}

fn missing(error: &pkg_config::Error) -> String {
    let reason = error.to_string();
    let reason = reason.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    format!(
        "
gemmprop links the system's OpenBLAS, and pkg-config does not find it ({reason}).

  Debian, Ubuntu    sudo apt-get install libopenblas-dev pkg-config
  Fedora            sudo dnf install openblas-devel pkgconf-pkg-config
  Arch              sudo pacman -S openblas pkgconf
  macOS             brew install openblas pkg-config

Without any C library:   --no-default-features                                 (the crate's own kernels)
OpenBLAS from source:    --no-default-features --features openblas-static      (takes minutes to build)
"
    )
}
