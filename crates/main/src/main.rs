//! The binary `ekso`: parse arguments, call `app`.

fn main() -> std::process::ExitCode {
    app::main()
}
