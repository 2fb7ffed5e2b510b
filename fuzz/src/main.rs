//! One target of `hostile`, fed by libFuzzer: `EKSO_FUZZ_TARGET=dns fuzz CORPUS`. `fuzz --list` names all.
#![no_main]

use std::sync::LazyLock;

use hostile::Target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("EKSO_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = hostile::target(&name) else {
        for target in hostile::TARGETS {
            println!("{}", target.name);
        }
        std::process::exit(2);
    };
    // What goes far is where it begins.
    if let Some(corpus) = std::env::args().nth(1) {
        for (number, example) in target.examples.iter().enumerate() {
            let _ = std::fs::write(format!("{corpus}/example-{number}"), example);
        }
    }
    target
});

libfuzzer_sys::fuzz_target!(init: { LazyLock::force(&TARGET); }, |bytes: &[u8]| {
    (TARGET.run)(bytes);
});
