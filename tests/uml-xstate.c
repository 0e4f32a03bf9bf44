/* Lets user-mode-linux run on processors whose register state is larger than it knows (AMX: 11008 bytes, not 2696).
 *
 * It saves and restores its guests' registers with ptrace(2) and NT_X86_XSTATE; since Linux 5.16 the kernel refuses to
 * restore less than the whole. Preloaded, this adds what is missing: the tile registers in their initial state.
 *   cc -shared -fPIC -o uml-xstate.so uml-xstate.c && LD_PRELOAD=./uml-xstate.so linux.uml ...
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

enum { STANDARD = 2696, XSTATE_BV = 512 };

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(enum __ptrace_request, ...);
	static size_t whole; /* what this machine's kernel wants, once it has told */
	static char state[1 << 16] __attribute__((aligned(64)));
	va_list rest;
	va_start(rest, request);
	int pid = va_arg(rest, int);
	void *addr = va_arg(rest, void *);
	void *data = va_arg(rest, void *);
	va_end(rest);
	if (!next)
		next = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");

	struct iovec *given = data;
	if ((request != PTRACE_GETREGSET && request != PTRACE_SETREGSET) || (uintptr_t)addr != NT_X86_XSTATE ||
	    given->iov_len > STANDARD)
		return next(request, pid, addr, data);

	struct iovec full = { .iov_base = state, .iov_len = sizeof state };
	if (request == PTRACE_GETREGSET) {
		long result = next(request, pid, addr, &full);
		if (result != 0)
			return result;
		whole = full.iov_len;
		if (given->iov_len > whole)
			given->iov_len = whole;
		memcpy(given->iov_base, state, given->iov_len);
		return 0;
	}
	if (whole <= given->iov_len)
		return next(request, pid, addr, data);
	memset(state, 0, whole);
	memcpy(state, given->iov_base, given->iov_len);
	/* XSTATE_BV: components 10 and up are in their initial state (Intel SDM 1, 13.4.2). */
	uint64_t components;
	memcpy(&components, state + XSTATE_BV, sizeof components);
	components &= 0x3ff;
	memcpy(state + XSTATE_BV, &components, sizeof components);
	full.iov_len = whole;
	return next(request, pid, addr, &full);
}
