//! Listeners that outlive a control plane: who comes while it starts anew with another version waits at the door, and is not turned away.

use std::net::{SocketAddr, TcpListener};

#[derive(Debug, Default)]
pub struct Doors(Vec<TcpListener>);

impl Doors {
    /// Keeps one open, whatever becomes of who serves it.
    pub fn keep(&mut self, listener: &TcpListener) -> std::io::Result<()> {
        self.0.push(listener.try_clone()?);
        Ok(())
    }

    /// The one at an address, if it is open.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let found = self.0.iter().position(|door| door.local_addr().is_ok_and(|its| its == address))?;
        Some(self.0.swap_remove(found))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn who_comes_between_two_servers_is_answered_by_the_second() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = first.local_addr().expect("an address");
        let mut doors = Doors::default();
        doors.keep(&first).expect("a second handle");
        drop(first);
        let mut visitor = TcpStream::connect(address).expect("nobody is turned away");
        let second = doors.take(address).expect("it is open");
        assert!(doors.take(address).is_none());
        second.accept().expect("the visitor").0.write_all(b"welcome").expect("an answer");
        let mut heard = String::new();
        visitor.read_to_string(&mut heard).expect("an answer");
        assert_eq!(heard, "welcome");
        drop(second);
        assert!(TcpStream::connect(address).is_err(), "it is shut");
    }
}
