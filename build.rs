//! Finds OpenBLAS before the linker does, so that a missing library gives one message that says
//! what to do.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    let asked_for = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    // A static build brings its own; docs.rs links nothing; Windows and macOS have openblas-src's
    // own search.
    if !asked_for("OPENBLAS_SYSTEM") || asked_for("OPENBLAS_STATIC") || std::env::var_os("DOCS_RS").is_some() {
        return;
    }
    let found = pkg_config::Config::new().cargo_metadata(false).probe("openblas");
    if let Err(error) = found {
        // Homebrew keeps OpenBLAS out of pkg-config's path; openblas-src asks `brew` for it.
        let homebrew = std::path::Path::new("/opt/homebrew/opt/openblas").exists()
            || std::path::Path::new("/usr/local/opt/openblas").exists();
        if !homebrew {
            eprintln!("{}", missing(&error));
            std::process::exit(1);
        }
    }
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
