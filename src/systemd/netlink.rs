//! Closes netlink but for one protocol. The kernel's other protocols are for administration (audit, netfilter, crypto, device events), and
//! most of them have been a way in; `RestrictAddressFamilies=` knows the family alone, so this is a filter of system calls of our own
//! (seccomp(2)). Nothing takes it away again, and programs that are executed have it too.

use nix::errno::Errno;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// Of socket(2).
const AF_NETLINK: u64 = 16;

/// A protocol of netlink(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Addresses and routes: NETLINK_ROUTE.
    Route = 0,
    /// Whose a socket is: NETLINK_SOCK_DIAG.
    Sockets = 4,
}

/// Whether the filter can be built for the processor this program was built for.
pub(super) const fn can_be_closed() -> bool {
    cfg!(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    ))
}

/// From now on this thread, those it starts, and whatever program it becomes make netlink sockets of this protocol alone; others fail with
/// EPROTONOSUPPORT. Privileges cannot be gained either (PR_SET_NO_NEW_PRIVS).
///
/// # Errors
/// When the filter cannot be built for this processor, or the kernel refuses it: a sentence.
pub fn keep_only(protocol: Protocol) -> Result<(), String> {
    let filter = filter(protocol)?;
    seccompiler::apply_filter(&filter).map_err(|error| error.to_string())
}

pub(super) fn filter(protocol: Protocol) -> Result<BpfProgram, String> {
    let word = SeccompCmpArgLen::Dword;
    let rule = SeccompCondition::new(0, word.clone(), SeccompCmpOp::Eq, AF_NETLINK)
        .and_then(|family| {
            let other = SeccompCondition::new(2, word, SeccompCmpOp::Ne, protocol as u64)?;
            SeccompRule::new(vec![family, other])
        })
        .map_err(|error| error.to_string())?;
    let refuse = SeccompAction::Errno(Errno::EPROTONOSUPPORT as u32);
    let calls = [(nix::libc::SYS_socket, vec![rule])].into();
    let architecture = std::env::consts::ARCH
        .try_into()
        .map_err(|error: BackendError| error.to_string())?;
    SeccompFilter::new(calls, SeccompAction::Allow, refuse, architecture)
        .and_then(TryInto::try_into)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};

    use super::*;

    #[test]
    fn the_filter_can_be_built_for_this_processor() {
        assert_eq!(filter(Protocol::Route).is_ok(), can_be_closed());
    }

    #[test]
    fn of_netlink_one_protocol_is_left() {
        if !can_be_closed() {
            return;
        }
        let open = |protocol| {
            let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
            socket_with(family, kind, SocketFlags::CLOEXEC, protocol).map(drop)
        };
        // The filter goes with its thread.
        let tried = std::thread::spawn(move || {
            keep_only(Protocol::Sockets).unwrap();
            // NETLINK_ROUTE is 0, which is "none".
            let others = [Some(netlink::GENERIC), Some(netlink::AUDIT), None].map(open);
            (open(Some(netlink::SOCK_DIAG)), others)
        });
        let (kept, closed) = tried.join().unwrap();
        assert_eq!(kept, Ok(()));
        assert_eq!(closed, [Err(rustix::io::Errno::PROTONOSUPPORT); 3]);
    }
}
