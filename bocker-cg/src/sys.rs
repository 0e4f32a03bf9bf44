//! The one place of this crate with `unsafe`: `bpf(2)`, which nix and rustix do not wrap, and signals by number.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// One instruction, `struct bpf_insn` of <linux/bpf.h>: opcode, registers (source << 4 | target), offset, constant.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Insn {
    pub(crate) code: u8,
    pub(crate) regs: u8,
    pub(crate) off: i16,
    pub(crate) imm: i32,
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads; the kernel takes what is left out for zeros.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The same for BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

// <linux/bpf.h>
const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_DETACH: i32 = 9;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;

/// `kill(2)` by number: nix knows no real-time signals.
pub(crate) fn kill(pid: u32, signal: i32) -> nix::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: touches no memory of ours.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

fn bpf<T>(command: i32, attr: &T) -> nix::Result<i64> {
    // SAFETY: `attr` is one of the two structs above, lives through the call, and its size is passed; what it points to
    // is the caller's to keep alive.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) })
}

/// Loads a program that is asked at each open and mknod of a device, Linux 4.15. The kernel's verifier has read it then.
pub(crate) fn load_device_program(program: &[Insn]) -> nix::Result<OwnedFd> {
    let attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"bocker_devices\0\0",
    };
    let fd = bpf(BPF_PROG_LOAD, &attr)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches it to a cgroup. Without flags there is one at a time, so it takes the place of the one before in one step,
/// and those of the cgroups above, where they allow several (systemd's do), are asked as well.
pub(crate) fn attach_device_program(cgroup: &File, program: &OwnedFd) -> nix::Result<()> {
    let attr = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
    };
    bpf(BPF_PROG_ATTACH, &attr).map(drop)
}

/// Takes it away; ENOENT where there is none.
pub(crate) fn detach_device_program(cgroup: &File) -> nix::Result<()> {
    let attr = Attach {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: 0,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: 0,
    };
    bpf(BPF_PROG_DETACH, &attr).map(drop)
}
