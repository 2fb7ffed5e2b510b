//! Another host: a network namespace behind a link of its own. Machines reach other hosts, and not the one that they are on.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::clients::{run, tool};

pub struct Elsewhere {
    name: String,
    link: String,
    pub address: Ipv4Addr,
}

impl Elsewhere {
    /// One of a range for documentation, which no network has. `number` tells those of one process apart: 0 or 1.
    pub fn new(number: u8) -> Result<Self> {
        let id = std::process::id();
        // Four addresses each.
        let block = (id * 2 + u32::from(number)) % 64;
        let network = u32::from(Ipv4Addr::new(203, 0, 113, 0)) + block * 4;
        let (here, there) = (Ipv4Addr::from(network + 1), Ipv4Addr::from(network + 2));
        let one =
            Self { name: format!("e2e-{id}-{number}"), link: format!("e2e{id}-{number}"), address: there };
        let (name, link) = (&one.name, &one.link);
        for words in [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name eth0 netns {name}"),
            format!("addr add {here}/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} addr add {there}/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} route add default via {here}"),
        ] {
            run(Command::new(tool("ip")?).args(words.split(' ')), "")?.ok()?;
        }
        Ok(one)
    }

    /// A program that runs there.
    pub fn command(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(tool("ip")?);
        command.args(["netns", "exec", &self.name]).arg(program);
        Ok(command)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        for words in [["link", "del", &self.link], ["netns", "del", &self.name]] {
            let _ = tool("ip").and_then(|ip| run(Command::new(ip).args(words), ""));
        }
    }
}
