/* What a container can do, asked of the kernel directly. Built static by tests/system/posture.sh.
 *   probe refused        each call that the default filter has no door for: `name errno`
 *   probe abi            int 0x80 and x32: what getpid answers there
 *   probe sockets        what each family and protocol answers
 *   probe work           what ordinary programs need: `ok`, or what does not work
 *   probe key COMMAND…   puts a key into a session keyring of its own, executes COMMAND
 *   probe find           whether that key can be found
 *   probe climb PATH     out of the root with chroot(2) and an open directory, as root may; what PATH is then
 *   probe user           the effective user
 *   probe mknod KIND MAJOR MINOR PATH
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALL(name) { #name, SYS_##name }
static const struct { const char *name; long number; } refused[] = {
  CALL(acct), CALL(add_key), CALL(bpf), CALL(clock_settime), CALL(delete_module), CALL(fanotify_init), CALL(finit_module),
  CALL(fsconfig), CALL(fsmount), CALL(fsopen), CALL(fspick), CALL(get_mempolicy), CALL(init_module), CALL(io_uring_enter),
  CALL(io_uring_register), CALL(io_uring_setup), CALL(ioperm), CALL(iopl), CALL(kcmp), CALL(kexec_file_load),
  CALL(kexec_load), CALL(keyctl), CALL(lookup_dcookie), CALL(mbind), CALL(migrate_pages), CALL(mount), CALL(mount_setattr),
  CALL(move_mount), CALL(move_pages), CALL(nfsservctl), CALL(open_by_handle_at), CALL(open_tree), CALL(perf_event_open),
  CALL(pidfd_getfd), CALL(pivot_root), CALL(process_madvise), CALL(quotactl), CALL(quotactl_fd), CALL(reboot),
  CALL(request_key), CALL(set_mempolicy), CALL(set_mempolicy_home_node), CALL(setdomainname), CALL(sethostname), CALL(setns),
  CALL(settimeofday), CALL(swapoff), CALL(swapon), CALL(syslog), CALL(umount2), CALL(unshare), CALL(userfaultfd),
  CALL(vmsplice), CALL(_sysctl), CALL(uselib), CALL(ustat), CALL(sysfs), CALL(clone3), { "470", 470 }, { "9999", 9999 },
};

static const char *said(long result) {
  static char text[32];
  if (result >= 0) return "success";
  const char *name = strerrorname_np(errno);
  snprintf(text, sizeof text, "%s", name ? name : "?");
  return text;
}

static void *thread(void *argument) { *(int *)argument = 1; return NULL; }

static void need(int works, const char *what) {
  if (!works) { printf("%s: %s\n", what, strerror(errno)); exit(1); }
}

static void work(void) {
  pthread_t one;
  int ran = 0, status, pair[2];
  need(pthread_create(&one, NULL, thread, &ran) == 0 && pthread_join(one, NULL) == 0 && ran, "thread");
  pid_t child = fork();
  if (child == 0) { _exit(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0 ? 7 : 8); }
  need(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7, "fork, ptrace, wait");
  need(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
  need(socket(AF_INET, SOCK_STREAM, 0) >= 0, "AF_INET");
  need(socket(AF_INET6, SOCK_DGRAM, 0) >= 0, "AF_INET6");
  need(socket(AF_NETLINK, SOCK_RAW, 0) >= 0, "NETLINK_ROUTE");
  need(epoll_create1(0) >= 0 && inotify_init1(0) >= 0 && timerfd_create(CLOCK_MONOTONIC, 0) >= 0, "epoll, inotify, timerfd");
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  need(signalfd(-1, &set, 0) >= 0, "signalfd");
  need(memfd_create("x", 0) >= 0, "memfd");
  need(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED, "mmap");
  need(personality(0xffffffff) >= 0 && personality(PER_LINUX32) >= 0 && personality(PER_LINUX) >= 0, "personality");
  need(mkfifo("/tmp/fifo", 0600) == 0 && unlink("/tmp/fifo") == 0, "mkfifo");
  need(chroot("/tmp") == 0, "chroot");
  puts("ok");
}

int main(int count, char **words) {
  const char *what = count > 1 ? words[1] : "";
  if (!strcmp(what, "refused")) {
    for (unsigned i = 0; i < sizeof refused / sizeof *refused; i++)
      printf("%s %s\n", refused[i].name, said(syscall(refused[i].number, -1, -1, -1, -1, -1, -1)));
    long flags[] = { CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWCGROUP };
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
      long child = syscall(SYS_clone, flags[i] | SIGCHLD, 0, 0, 0, 0);
      if (child == 0) _exit(0);
      printf("clone+%lx %s\n", flags[i], said(child));
    }
    printf("personality+400000 %s\n", said(personality(READ_IMPLIES_EXEC)));
  } else if (!strcmp(what, "abi")) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
    printf("i386 %s\n", result > 0 ? "success" : result == -ENOSYS ? "ENOSYS" : "?");
#endif
    printf("x32 %s\n", said(syscall(SYS_getpid | 0x40000000)));
  } else if (!strcmp(what, "sockets")) {
    static const struct { const char *name; int family, kind, protocol; } all[] = {
      { "unix", AF_UNIX, SOCK_STREAM, 0 }, { "inet", AF_INET, SOCK_STREAM, 0 }, { "inet6", AF_INET6, SOCK_STREAM, 0 },
      { "route", AF_NETLINK, SOCK_RAW, 0 }, { "generic", AF_NETLINK, SOCK_RAW, 16 }, { "xfrm", AF_NETLINK, SOCK_RAW, 6 },
      { "audit", AF_NETLINK, SOCK_RAW, 9 }, { "packet", AF_PACKET, SOCK_RAW, 0 }, { "vsock", AF_VSOCK, SOCK_STREAM, 0 },
      { "alg", 38, SOCK_SEQPACKET, 0 }, { "rxrpc", 33, SOCK_DGRAM, 0 }, { "tipc", 30, SOCK_STREAM, 0 },
    };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
      printf("%s %s\n", all[i].name, said(socket(all[i].family, all[i].kind, all[i].protocol)));
  } else if (!strcmp(what, "work")) {
    work();
  } else if (!strcmp(what, "key") && count > 2) {
    need(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) >= 0, "keyring");
    need(syscall(SYS_add_key, "user", "probe", "secret", 6L, KEY_SPEC_SESSION_KEYRING) >= 0, "add_key");
    execvp(words[2], words + 2);
    need(0, words[2]);
  } else if (!strcmp(what, "find")) {
    long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "probe", 0);
    puts(said(key));
  } else if (!strcmp(what, "climb") && count > 2) {
    int before = open("/", O_RDONLY | O_DIRECTORY);
    mkdir("/tmp/climb", 0700);
    need(before >= 0 && chroot("/tmp/climb") == 0 && fchdir(before) == 0, "chroot");
    for (int i = 0; i < 64; i++) need(chdir("..") == 0, "..");
    need(chroot(".") == 0, "chroot");
    rmdir("/tmp/climb");
    puts(said(access(words[2], F_OK)));
  } else if (!strcmp(what, "user")) {
    printf("%d\n", geteuid());
  } else if (!strcmp(what, "mknod") && count > 5) {
    mode_t kind = words[2][0] == 'b' ? S_IFBLK : S_IFCHR;
    puts(said(mknod(words[5], kind | 0600, makedev(atoi(words[3]), atoi(words[4])))));
  } else {
    return 2;
  }
  return 0;
}
