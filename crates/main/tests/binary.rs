//! What the binary says before it needs any rights. That this needs the binary also makes `cargo test` build it for the stories.

use std::process::Command;

fn check(words: &str, code: i32, says: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_ekso"))
        .args(words.split_whitespace())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "ekso {words}: {said}");
    assert!(said.contains(says), "ekso {words} should say {says:?}, and says {said}");
}

#[test]
fn words_and_exit_codes() {
    for (words, code, says) in [
        ("--version", 0, concat!("ekso ", env!("CARGO_PKG_VERSION"))),
        ("--help", 0, "Exit codes: 0 done"),
        ("", 2, "Usage: ekso"),
        ("upp", 2, "tip: a similar subcommand exists: 'up'"),
        ("up --nodes many", 2, "invalid value 'many'"),
        ("up --name Upper", 2, "use lower-case letters"),
        ("completion bash", 0, "_ekso()"),
        ("completion zsh", 0, "#compdef ekso"),
        ("completion fish", 0, "complete -c ekso"),
        ("systemd-unit", 0, "[Install]"),
    ] {
        check(words, code, says);
    }
}
