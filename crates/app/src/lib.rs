//! Config → build → run(until told). Which components for which role.

mod account;
mod admin;
mod bootstrap;
mod census;
mod cli;
mod client;
mod clock;
mod cluster;
mod control_planes;
mod daemon;
mod deciders;
mod dial;
mod doctor;
mod doors;
mod ec2;
mod eks;
mod etcd;
mod exit;
mod image;
mod join;
mod kubeconfig;
mod login;
mod nodes;
mod on_fargate;
mod output;
mod owner;
mod pki;
mod process;
mod profile;
mod progress;
mod registries;
mod server;
mod server_files;
mod shape;
mod signer;
mod site;
mod systemd;
mod turns;
mod user_file;

use std::fmt::Display;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use output::Screen;

/// Runs what the command line says.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    // Processes that are small and single-threaded, and known to no user.
    match args.get(1).map(String::as_str) {
        Some("machine-idle") => return machines::init::idle(),
        Some("machine-init") => return machines::init::main(&args[2..]),
        Some("pod-monitor") => return runtime::monitor::main(std::env::args_os().skip(2)),
        _ => {}
    }
    let screen = Screen::new();
    match Cli::parse().command {
        Command::Up(args) if args.foreground => {
            end(&screen, server::foreground(&args, &screen), |_| exit::FAILED)
        }
        Command::Up(args) => end(&screen, client::up(&args, &screen), client::ClientError::exit_code),
        Command::Down(args) => end(&screen, client::down(&args, &screen), client::ClientError::exit_code),
        Command::Delete(args) => end(&screen, client::delete(&args, &screen), client::ClientError::exit_code),
        Command::List(args) => end(&screen, client::list(&args, &screen), client::ClientError::exit_code),
        Command::Status(args) => end(&screen, client::status(&args, &screen), client::ClientError::exit_code),
        Command::Aws(args) => end(&screen, client::aws(&args, &screen), client::ClientError::exit_code),
        Command::Cost(args) => end(&screen, client::cost(&args, &screen), client::ClientError::exit_code),
        Command::Why(cli::Why::Aws(args)) => {
            end(&screen, client::why_aws(&args, &screen), client::ClientError::exit_code)
        }
        Command::Image(command) => end(&screen, image::run(&command, &screen), image::ImageError::exit_code),
        Command::Server(args) => end(&screen, server::run(&args, &screen), |_| exit::FAILED),
        Command::Node(args) => end(&screen, join::run(&args), |_| exit::FAILED),
        Command::Doctor(args) => doctor::run(&args),
        Command::SystemdUnit(args) => {
            print!("{}", systemd::unit(&args.data_dir));
            ExitCode::SUCCESS
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "ekso", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

fn end<E: Display>(screen: &Screen, result: Result<(), E>, code: impl Fn(&E) -> u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.error(&failure.to_string());
            ExitCode::from(code(&failure))
        }
    }
}
