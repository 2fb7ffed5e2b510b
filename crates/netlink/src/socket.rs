//! A netlink socket in the calling thread's network namespace: requests, dumps and nfnetlink batches.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
    sockopt,
};

use crate::wire::{self, Message};
use crate::{Error, Result};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// A dump's datagram is 32 KiB at most (the kernel's own limit on its buffers).
const DATAGRAM: usize = 64 * 1024;

pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub fn route() -> Result<Self> {
        Self::open(None, "open a route netlink socket")
    }

    pub fn netfilter() -> Result<Self> {
        Self::open(Some(netlink::NETFILTER), "open a netfilter netlink socket")
    }

    /// No protocol is number 0: the route family.
    fn open(protocol: Option<Protocol>, operation: &str) -> Result<Self> {
        let fail = |errno| Error::refused(operation, errno);
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(fail)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0)).map_err(fail)?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// Sends one request (with the acknowledgement flag set by the caller) and waits for its verdict.
    pub fn request(&mut self, message: Message, operation: impl Fn() -> String) -> Result<()> {
        let sequence = self.send(message, &operation)?;
        loop {
            let length = self.receive(RecvFlags::empty(), &operation)?;
            for received in wire::messages(&self.buffer[..length]) {
                if received.sequence == sequence && received.kind == NLMSG_ERROR {
                    return verdict(received.payload, &operation);
                }
            }
        }
    }

    /// Sends a dump request and collects what `read` makes of each message's payload. A list that changed while it was
    /// read may lack things that were there all along, so it is read again.
    pub fn dump<T>(
        &mut self,
        request: impl Fn() -> Message,
        operation: impl Fn() -> String,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        const TRIES: u32 = 20;
        for _ in 0..TRIES {
            let mut items = Vec::new();
            if self.dump_once(request(), &operation, &mut |payload| items.extend(read(payload)))? {
                return Ok(items);
            }
        }
        Err(Error::refused(operation(), Errno::AGAIN))
    }

    /// Whether the list is whole.
    fn dump_once(
        &mut self,
        request: Message,
        operation: &impl Fn() -> String,
        each: &mut impl FnMut(&[u8]),
    ) -> Result<bool> {
        let sequence = self.send(request, operation)?;
        let mut whole = true;
        loop {
            let length = self.receive(RecvFlags::empty(), operation)?;
            for received in wire::messages(&self.buffer[..length]) {
                if received.sequence != sequence {
                    continue;
                }
                whole &= received.flags & wire::DUMP_INTERRUPTED == 0;
                match received.kind {
                    NLMSG_DONE => return Ok(whole),
                    NLMSG_ERROR => return verdict(received.payload, operation).map(|()| whole),
                    _ => each(received.payload),
                }
            }
        }
    }

    /// Sends whole messages in one datagram, which nfnetlink takes as one transaction. The kernel has worked it off
    /// when `send` returns, so that every error lies in the queue by then: `explain` names the message it is about.
    pub fn transact(&mut self, datagram: &[u8], explain: impl Fn(u32) -> String) -> Result<()> {
        let operation = || "send an nftables transaction".to_owned();
        let fail = |errno| Error::refused(operation(), errno);
        // The kernel refuses a datagram that does not fit the send buffer; an error quotes the message it is about.
        sockopt::set_socket_send_buffer_size_force(&self.fd, datagram.len() + DATAGRAM).map_err(fail)?;
        sockopt::set_socket_recv_buffer_size_force(&self.fd, datagram.len() + DATAGRAM).map_err(fail)?;
        send(&self.fd, datagram, SendFlags::empty()).map_err(fail)?;
        let mut first = Ok(());
        loop {
            let length = match recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => length,
                Err(Errno::AGAIN) => return first,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(fail(errno)),
            };
            for received in wire::messages(&self.buffer[..length]) {
                if received.kind == NLMSG_ERROR && first.is_ok() {
                    first = verdict(received.payload, &|| explain(received.sequence));
                }
            }
        }
    }

    fn send(&mut self, message: Message, operation: &impl Fn() -> String) -> Result<u32> {
        self.sequence += 1;
        let bytes = message.finish(self.sequence);
        send(&self.fd, &bytes, SendFlags::empty()).map_err(|errno| Error::refused(operation(), errno))?;
        Ok(self.sequence)
    }

    fn receive(&mut self, flags: RecvFlags, operation: &impl Fn() -> String) -> Result<usize> {
        loop {
            match recv(&self.fd, &mut self.buffer[..], flags) {
                Ok((_, length)) => return Ok(length),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::refused(operation(), errno)),
            }
        }
    }
}

/// An error message starts with a negative errno, or zero for an acknowledgement.
fn verdict(payload: &[u8], operation: &impl Fn() -> String) -> Result<()> {
    let Some(code) = wire::u32_at(payload, 0) else {
        return Err(Error::Malformed { operation: operation() });
    };
    match code as i32 {
        0 => Ok(()),
        code => Err(Error::refused(operation(), Errno::from_raw_os_error(-code))),
    }
}
