//! Free addresses. Whoever takes one also writes the subnet's, or the pool's, record, so that of two that take the same at once one
//! decides again.

use std::net::Ipv4Addr;

use object::Snapshot;
use plan::net::Cidr;

use super::record::{Address, NetworkInterface, POOL, PublicPool, Subnet};
use crate::Fault;
use crate::state::{self, Changes, Kept};

/// The addresses of a subnet that nobody gets: the network's, the router's, the resolver's and one more, and the broadcast's.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html>
pub const RESERVED: u32 = 5;

/// The addresses of one subnet, while a call takes some.
pub struct Addresses {
    range: Cidr,
    taken: Vec<Cidr>,
}

impl Addresses {
    pub fn of(state: &Snapshot, subnet: &Subnet) -> Self {
        let interfaces = state::list::<NetworkInterface>(state, "").into_iter().map(|kept| kept.record);
        let interfaces = interfaces.filter(|one| one.subnet_id == subnet.subnet_id);
        Self { range: subnet.cidr_block, taken: interfaces.flat_map(|one| of_interface(&one)).collect() }
    }

    fn is_free(&self, range: Cidr) -> bool {
        let (first, last) = (u32::from(self.range.address()), u32::from(self.range.last()));
        let (low, high) = (u32::from(range.address()), u32::from(range.last()));
        low >= first + RESERVED - 1 && high < last && !self.taken.iter().any(|one| one.overlaps(range))
    }

    /// How many are left.
    pub fn left(&self) -> u32 {
        let all = 1u32.checked_shl(32 - u32::from(self.range.prefix())).unwrap_or(u32::MAX);
        let taken: u32 = self.taken.iter().map(|one| 1 << (32 - u32::from(one.prefix()))).sum();
        all.saturating_sub(RESERVED).saturating_sub(taken)
    }

    /// The lowest free address, a few small ones aside that people like to choose themselves.
    pub fn take(&mut self) -> Result<Ipv4Addr, Fault> {
        let (first, last) = (u32::from(self.range.address()), u32::from(self.range.last()));
        let low = (first + 10).min(last);
        let found = (low..last).chain(first + RESERVED - 1..low).map(Ipv4Addr::from);
        let found = found.map(Cidr::from).find(|one| self.is_free(*one)).ok_or_else(is_full)?;
        self.taken.push(found);
        Ok(found.address())
    }

    /// An address that the caller chose.
    pub fn take_this(&mut self, address: Ipv4Addr) -> Result<(), Fault> {
        if !self.range.contains(address) {
            return Err(super::noun::invalid("Address does not fall within the subnet's address range"));
        }
        if self.taken.iter().any(|one| one.contains(address)) {
            return Err(Fault::new("InvalidIPAddress.InUse", format!("Address {address} is in use.")));
        }
        if !self.is_free(address.into()) {
            let message = format!("Address {address} is in subnet's reserved address range");
            return Err(super::noun::invalid(message));
        }
        self.taken.push(address.into());
        Ok(())
    }

    /// A free range of that length, at a multiple of its size.
    pub fn take_range(&mut self, prefix: u8) -> Result<Cidr, Fault> {
        let size = 1u32.checked_shl(32 - u32::from(prefix)).ok_or_else(is_full)?;
        let (first, last) = (u32::from(self.range.address()), u32::from(self.range.last()));
        let found = (first..=last).step_by(size as usize).map(|start| Cidr::new(start.into(), prefix));
        let found = { found }.find(|one| self.is_free(*one)).ok_or_else(is_full)?;
        self.taken.push(found);
        Ok(found)
    }
}

fn of_interface(interface: &NetworkInterface) -> Vec<Cidr> {
    let addresses = std::iter::once(&interface.private_ip).chain(&interface.secondary);
    addresses.map(|address| Cidr::from(*address)).chain(interface.prefix).collect()
}

fn is_full() -> Fault {
    let message = "The specified subnet does not have enough free addresses to satisfy the request.";
    Fault::new("InsufficientFreeAddressesInSubnet", message)
}

/// The public addresses, while a call takes some.
pub struct Public {
    pool: Kept<PublicPool>,
    taken: Vec<Ipv4Addr>,
}

impl Public {
    pub fn of(state: &Snapshot) -> Result<Self, Fault> {
        let pool = state::get::<PublicPool>(state, "", POOL).ok_or_else(none_left)?;
        let elastic = state::list::<Address>(state, "").into_iter().map(|kept| kept.record.public_ip);
        let given =
            state::list::<NetworkInterface>(state, "").into_iter().filter_map(|kept| kept.record.public_ip);
        Ok(Self { pool, taken: elastic.chain(given).collect() })
    }

    pub fn take(&mut self) -> Result<Ipv4Addr, Fault> {
        let PublicPool { first, last } = self.pool.record;
        let all = (u32::from(first)..=u32::from(last)).map(Ipv4Addr::from);
        let found = { all }.find(|address| !self.taken.contains(address)).ok_or_else(none_left)?;
        self.taken.push(found);
        Ok(found)
    }

    /// Makes sure that nobody takes the same at once.
    pub fn commit(&self, changes: &mut Changes) {
        changes.update(&self.pool);
    }
}

fn none_left() -> Fault {
    Fault::new("InsufficientAddressCapacity", "There are not enough public addresses to satisfy the request.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_used_up_and_nothing_is_given_twice() {
        let range: Cidr = "10.0.0.0/28".parse().unwrap();
        let mut addresses = Addresses { range, taken: Vec::new() };
        assert_eq!(addresses.left(), 11);
        addresses.take_this([10, 0, 0, 7].into()).unwrap();
        let taken: Vec<u8> = (0..10).map(|_| addresses.take().unwrap().octets()[3]).collect();
        assert_eq!(taken, [10, 11, 12, 13, 14, 4, 5, 6, 8, 9]);
        assert_eq!(addresses.take().unwrap_err().code, "InsufficientFreeAddressesInSubnet");
        assert_eq!(addresses.left(), 0);
        let mut addresses = Addresses { range, taken: Vec::new() };
        assert_eq!(addresses.take_this([10, 0, 0, 3].into()).unwrap_err().code, "InvalidParameterValue");
        assert_eq!(addresses.take_this([10, 0, 1, 3].into()).unwrap_err().code, "InvalidParameterValue");
        assert_eq!(addresses.take_range(30).unwrap().to_string(), "10.0.0.4/30");
        assert_eq!(addresses.take_this([10, 0, 0, 5].into()).unwrap_err().code, "InvalidIPAddress.InUse");
        assert_eq!(addresses.take_range(30).unwrap().to_string(), "10.0.0.8/30");
        assert!(addresses.take_range(30).is_err(), "the last has the broadcast address");
    }
}
